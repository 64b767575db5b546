"""A report from whatever rows there are: the tables and figures that apply, as files and as a page.

A protocol that wants more than this calls the table and figure functions itself.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.config.metric_specs import METRIC_SPECS
from bench.config.presets import DEPARTURES
from bench.records import Row, export_csv, export_samples_csv, machine_class, to_frame
from bench.reporting.figures import (
    EFFICIENCY_METRICS,
    bar_panels,
    feature_maps,
    metrics_vs_setting,
    pareto_scatter,
    roofline,
    save_figure,
    scaling,
    training_curves,
)
from bench.reporting.html import Section, render_html
from bench.reporting.images import fused_images
from bench.reporting.paper import load_paper_words
from bench.reporting.speed import BASELINE, speed_tables
from bench.reporting.summary import (
    metric_header,
    metrics_in,
    plain,
    short_name,
    summarise_rows,
    varying_settings,
)
from bench.reporting.tables import (
    HEADLINE,
    Table,
    difference_table,
    format_number,
    metric_table,
    setting_table,
)

__all__ = [
    "NOT_ISO_PARAMETER",
    "SAMPLE_NOTE",
    "build_sections",
    "feature_arrays",
    "pareto_points",
    "quality_sections",
    "write_report",
]

log = logging.getLogger(__name__)

NOT_ISO_PARAMETER = "Not iso-parameter: spectral weights grow with the square of the kept modes."
SAMPLE_NOTE = "Shipped Sentinel-2 sample: PAN is simulated."
_IDENTITY = ("method", "backbone")
_HASHES = ("config.training",)
"""Settings that are digests of others and never make a line of a table."""
_CONDITIONS = "config.timing."
"""Settings of a row that say under which conditions it was timed."""
_MODULES = "modules"
_MODULE_DEPTH = 2
_COST_DETAILS = {
    "-flops": (
        "FLOPs",
        ["flops_executed", "flops_step", "flops_train_step", "flops_adapt_step", "traffic_forward"],
    ),
    "-memory": (
        "Memory",
        [name for name in METRIC_SPECS if name.startswith("mem_") and "peak" not in name]
        + ["mem_peak_adapt", "fit_batch", "fit_size"],
    ),
    "-time": ("Time and energy", ["latency_step", "latency_adapt_step", "energy_train_step"]),
}
"""Metrics that have a table of their own beside the headline one, by its name's suffix."""
_STOCK = ("flops_stock", "flops_fvcore", "flops_fvcore_handlers")
_SCALING = (
    "flops_forward",
    "latency_forward",
    "mem_peak_forward",
    "mem_peak_train",
    "latency_train_step",
    "latency_image",
    "traffic_forward",
)
"""What may be drawn against the image size, the first four of those that were measured so."""
_TRAINING_COST = ("train_seconds", "train_flops")


def write_report(
    rows: Sequence[Row],
    runs: Mapping[str, Mapping[str, Any]],
    out: Path,
    *,
    title: str,
    more: Iterable[Section] = (),
) -> tuple[list[Section], list[Path]]:
    """Write rows.csv, samples.csv, every table and figure, and report.html.

    Args:
        rows: of one or several result folders.
        runs: their provenance, as of :func:`bench.records.load_runs`.
        out: folder to write into; made when it is not there.
        title: of the page.
        more: sections that other rows were made into, after those of ``rows``.

    Returns:
        The sections, and the files written.
    """
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / "rows.csv", out / "samples.csv"]
    export_csv(rows, paths[0])
    export_samples_csv(rows, paths[1])
    sections = [*build_sections(to_frame(rows), runs), *more]
    for section in sections:
        for table in section.tables:
            paths += table.write(out / "tables")
        for name, figure in section.figures.items():
            paths += save_figure(figure, out / "figures" / name)
    page = out / "report.html"
    page.write_text(render_html(title, sections, runs.values()), encoding="utf-8")
    return sections, [*paths, page]


def build_sections(frame: pd.DataFrame, runs: Mapping[str, Mapping[str, Any]]) -> list[Section]:
    """Return the tables and figures that apply to the rows, protocol by protocol."""
    sections = []
    for protocol, of_protocol in frame.groupby("protocol", sort=False):
        accuracy = of_protocol[of_protocol["kind"] == "accuracy"]
        for dataset, measured in accuracy.dropna(subset=["metric"]).groupby("dataset", sort=False):
            rows = of_protocol[of_protocol["dataset"] == dataset]
            sections.append(_accuracy_section(f"{protocol}-{dataset}", rows, measured, runs))
        cost = (of_protocol["kind"] == "cost") | (of_protocol["metric"] == _MODULES)
        sections += _cost_sections(protocol, of_protocol[cost], runs)
    failures = _failures(frame)
    if failures is not None:
        sections.append(Section("What failed", [failures]))
    return [section for section in sections if section.tables or section.figures]


def _accuracy_section(
    name: str,
    rows: pd.DataFrame,
    accuracy: pd.DataFrame,
    runs: Mapping[str, Mapping[str, Any]],
) -> Section:
    section = Section(name)
    dataset = str(rows["dataset"].iloc[0])
    notes = [SAMPLE_NOTE] if dataset.startswith("sample") else []
    if "config.preset" in accuracy:
        presets = accuracy["config.preset"].dropna().unique()
        notes += [f"Preset {name}: {DEPARTURES[name]}." for name in presets if name in DEPARTURES]
    settings = varying_settings(accuracy, exclude=_HASHES)
    if len(settings) != 1:
        by = [*_IDENTITY, *settings]
        title = f"Accuracy on {dataset}"
        section.tables.append(
            metric_table(rows, by, name=name, title=title, metrics=HEADLINE, notes=notes)
        )
        return section
    column = settings[0]
    setting = short_name(column)
    title = f"{setting} on {dataset}"
    if setting == "modes":
        notes.append(NOT_ISO_PARAMETER)
    words = load_paper_words(setting)
    section.tables.append(
        setting_table(rows, column, name=name, title=title, words=words, notes=notes)
    )
    reference = _best_value(accuracy, column)
    if reference is not None:
        differences = difference_table(
            accuracy,
            column,
            reference,
            name=f"{name}-differences",
            title=f"{setting}: differences to {reference} on {dataset}",
        )
        if not differences.cells.empty:
            section.tables.append(differences)
    section.figures[name] = metrics_vs_setting(rows, column, title=title, note=" ".join(notes))
    if pictures := _pictures(rows, column, runs):
        section.figures[f"{name}-images"] = fused_images(
            pictures, title=f"First test image of {dataset}", note=" ".join(notes)
        )
    artefacts = rows[rows["artefact"].notna() & rows[column].notna()]
    if features := feature_arrays(artefacts, column, runs):
        section.figures[f"{name}-features"] = feature_maps(
            features,
            setting=setting,
            outline=setting == "modes",
            title=f"Input of the last guided block, {dataset}",
        )
    if curves := _histories(artefacts, column, runs):
        section.figures[f"{name}-training"] = training_curves(curves, title=f"Training, {dataset}")
    return section


def _best_value(accuracy: pd.DataFrame, column: str) -> Any:
    """Return the setting's value that is best by the first headline metric the rows have."""
    rows = accuracy[accuracy[column].notna() & (accuracy["method"] == "nodiff")]
    present = [metric for metric in HEADLINE if metric in metrics_in(rows)]
    if not present:
        return None
    summary = summarise_rows(rows[rows["metric"] == present[0]], [column])
    centers = summary.set_index(column)["center"]
    lower = summary["direction"].iloc[0] == "lower"
    return plain(centers.idxmin() if lower else centers.idxmax())


def feature_arrays(
    rows: pd.DataFrame, column: str, runs: Mapping[str, Mapping[str, Any]]
) -> dict[Any, np.ndarray]:
    """Return the last guided block's feature (C, H, W) by value of a setting, first seed each."""
    rows = rows[rows["metric"] == "features"].sort_values([column, "seed"], kind="stable")
    features = {}
    for row, arrays in _artefacts(rows.drop_duplicates(column), runs):
        features[plain(row[column])] = list(arrays.values())[-1]
    return features


def _pictures(
    rows: pd.DataFrame, column: str, runs: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, np.ndarray]]:
    """Return the kept reduced-resolution image by method and setting, first seed each."""
    rows = rows[(rows["metric"] == "fused") & (rows["split"] == "reduced")]
    rows = rows.sort_values([column, "seed"], kind="stable", na_position="first")
    pictures = {}
    for row, arrays in _artefacts(rows.drop_duplicates(["method", column]), runs):
        value = plain(row[column])
        label = (
            row["method"] if value != value or value is None else f"{short_name(column)} = {value}"
        )
        pictures[label] = arrays
    return pictures


def _histories(
    rows: pd.DataFrame, column: str, runs: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, np.ndarray]]:
    """Return training losses by stage and value of the setting, first seed each."""
    rows = rows[(rows["kind"] == "training") & rows["metric"].str.startswith("loss_")]
    rows = rows.sort_values([column, "seed"], kind="stable")
    curves: dict[str, dict[str, np.ndarray]] = {}
    for row, arrays in _artefacts(rows.drop_duplicates(["metric", column]), runs):
        stage = row["metric"].removeprefix("loss_")
        label = f"{short_name(column)} = {plain(row[column])}"
        if len(arrays["loss"]):
            curves.setdefault(stage, {})[label] = arrays["loss"]
    return curves


def _artefacts(
    rows: pd.DataFrame, runs: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[pd.Series, dict[str, np.ndarray]]]:
    """Yield rows with the arrays they name; published folders may come without the arrays."""
    for _, row in rows.iterrows():
        if row["run_id"] not in runs:
            continue
        path = Path(runs[row["run_id"]]["folder"]) / row["artefact"]
        if not path.is_file():
            log.info("%s is not there: what it would show is left out", path)
            continue
        with np.load(path) as arrays:
            yield row, dict(arrays)


def _cost_sections(
    protocol: str, cost: pd.DataFrame, runs: Mapping[str, Mapping[str, Any]]
) -> Iterator[Section]:
    """Yield a section per class of machine: costs of different machines never share a table."""
    cost = cost.assign(machine=_machines(cost, runs))
    for index, (machine, rows) in enumerate(cost.groupby("machine", sort=False)):
        name = f"{protocol}-cost" + (f"-{index + 1}" if index else "")
        section = Section(f"Cost: {protocol} on {machine}")
        modules = rows[rows["metric"] == _MODULES]
        ceilings = rows[rows["method"] == "machine"]
        rows = rows[(rows["kind"] == "cost") & (rows["method"] != "machine")]
        if BASELINE in rows:
            in_turns = rows[BASELINE].notna()
            section.tables += speed_tables(rows[in_turns], ceilings, f"{name}-speed")
            rows = rows[~in_turns]
        settings = _settings_of_each(rows)
        by = [*_IDENTITY, *settings]
        for condition in ("size", "batch", "precision", "split"):
            if rows.groupby([*by, "metric"], dropna=False)[condition].nunique().gt(1).any():
                by.append(condition)
        for suffix, (title, metrics) in _cost_tables(metrics_in(rows)).items():
            part = rows[rows["metric"].isin(metrics)]
            if not part.empty:
                section.tables.append(
                    metric_table(
                        part, by, name=name + suffix, title=f"{title} on {machine}",
                        rank_within=by[len(_IDENTITY) :], notes=_timing_notes(part),
                    )
                )  # fmt: skip
        if stock := _stock_table(f"{name}-stock", rows, [*by[1:]]):
            section.tables.append(stock)
        section.tables += _module_tables(f"{name}-modules", modules, runs)
        if rows["backbone"].nunique() > 1 and not settings:
            section.figures |= _efficiency_figures(name, rows, machine)
            if not ceilings.empty:
                section.figures |= _roofline_figure(name, rows, ceilings, machine)
        yield section


def _machines(rows: pd.DataFrame, runs: Mapping[str, Mapping[str, Any]]) -> pd.Series:
    """Return the class of machine of every row."""
    classes = {run_id: machine_class(record["machine"]) for run_id, record in runs.items()}
    return rows["run_id"].map(classes).astype(object).fillna("unknown machine")


def _settings_of_each(rows: pd.DataFrame) -> list[str]:
    """Return the settings that vary within a backbone: across them, every option does."""
    found = {
        column: None
        for _, of_one in rows.groupby("backbone", dropna=False)
        for column in varying_settings(of_one, exclude=_HASHES)
        if not column.startswith(_CONDITIONS)
    }
    return list(found)


def _cost_tables(present: Sequence[str]) -> dict[str, tuple[str, list[str]]]:
    """Return title and metrics of each table by the suffix of its name."""
    detailed = {metric for _, metrics in _COST_DETAILS.values() for metric in metrics}
    stock = set(_STOCK) if "flops_executed" in present else set()
    headline = [metric for metric in present if metric not in detailed | stock]
    return {"": ("Cost", headline), **_COST_DETAILS}


def _timing_notes(rows: pd.DataFrame) -> list[str]:
    """Say under which load times were taken."""
    columns = [f"{_CONDITIONS}{name}" for name in ("threads", "rounds", "clock", "load")]
    if not set(columns) <= set(rows) or rows[columns[0]].isna().all():
        return []
    timed = rows[rows[columns[0]].notna()]
    threads, rounds, clock = (
        ", ".join(str(plain(value)) for value in timed[column].unique()) for column in columns[:3]
    )
    loads = [value for load in timed[columns[3]].dropna() for value in load]
    load = f"; load average {min(loads):.1f} to {max(loads):.1f}" if loads else ""
    return [f"Times: {clock} clock, {threads} threads, {rounds} interleaved rounds{load}."]


def _stock_table(name: str, rows: pd.DataFrame, by: Sequence[str]) -> Table | None:
    """Return what other counters say of the forward pass, and how far off they are."""
    present = [metric for metric in _STOCK if metric in metrics_in(rows)]
    if not present or "flops_executed" not in metrics_in(rows):
        return None
    metrics = ["flops_forward", "flops_executed", *present]
    values = summarise_rows(rows[rows["metric"].isin(metrics)], by)
    cells = []
    for key, group in values.groupby(list(by), dropna=False, sort=False):
        centers = group.set_index("metric")["center"]
        ours = centers["flops_executed"]
        cell = {short_name(c): str(plain(v)) for c, v in zip(by, key, strict=True)}
        for metric in metrics:
            number = centers.get(metric, np.nan)
            text = format_number(number) if np.isfinite(number) else "–"
            if metric in present and np.isfinite(number):
                text += f" ({number / ours - 1:+.1%})"
            cell[metric_header(metric, rows[rows["metric"] == metric])] = text
        cells.append(cell)
    cells = pd.DataFrame(cells)
    marks = pd.DataFrame("", index=cells.index, columns=cells.columns)
    note = "In brackets: how far off the FLOPs that are executed."
    return Table(name, "What other FLOP counters say", cells, marks, values, (note,))


def _module_tables(
    name: str, rows: pd.DataFrame, runs: Mapping[str, Mapping[str, Any]]
) -> Iterator[Table]:
    """Yield FLOPs by module of each backbone: two levels to read, every module as CSV."""
    for row, arrays in _artefacts(rows, runs):
        values = pd.DataFrame({key: arrays[key] for key in ("module", "canonical", "executed")})
        shown = values[values["module"].str.count(r"\.") <= _MODULE_DEPTH].reset_index(drop=True)
        cells = pd.DataFrame({"module": shown["module"]})
        for reading in ("canonical", "executed"):
            numbers = shown[reading] / 1e6
            cells[f"{reading} (MFLOP)"] = [format_number(number) for number in numbers]
        shares = shown["canonical"] / max(values["canonical"].max(), 1)
        cells["share"] = [f"{share:.1%}" for share in shares]
        marks = pd.DataFrame("", index=cells.index, columns=cells.columns)
        what = f"{row['backbone']}-{row['size']}-{row['batch']}"
        title = f"FLOPs by module: {row['backbone']}, {row['size']} pixels, batch {row['batch']}"
        note = "A module's number includes its children."
        yield Table(f"{name}-{what}", title, cells, marks, values, (note,))


def _efficiency_figures(name: str, rows: pd.DataFrame, machine: str) -> dict[str, Any]:
    figures = {}
    rows = rows[rows["backbone"].notna()]
    bars = _smallest(rows[rows["metric"].isin(EFFICIENCY_METRICS)])
    if not bars.empty:
        note = f"{_condition_words(bars)} {machine}."
        figures[name] = bar_panels(bars, title="Cost per backbone", note=note)
    growing = rows[rows["metric"].isin(_SCALING)]
    several = growing[growing["status"] == "ok"]
    several = several.groupby(["metric", "batch"], dropna=False)["size"].nunique()
    if several.gt(1).any():
        batch = several.groupby(level="batch", dropna=False).sum().idxmax()
        growing = growing[growing["batch"] == batch] if batch == batch else growing
        panels = [metric for metric in _SCALING if several.get((metric, batch), 0) > 1]
        figures[f"{name}-scaling"] = scaling(
            growing, metrics=panels[:4], title="Growth of cost with image size",
            note=f"{machine}; batch {_label(growing['batch'])}, {_label(growing['precision'])}.",
        )  # fmt: skip
    return figures


def _smallest(rows: pd.DataFrame) -> pd.DataFrame:
    """Return each metric's rows at its smallest size, and there at its smallest batch."""
    for condition in ("size", "batch"):
        smallest = rows.groupby("metric")[condition].transform("min")
        rows = rows[(rows[condition] == smallest) | smallest.isna()]
    return rows


def _condition_words(rows: pd.DataFrame) -> str:
    """Return size and batch of each panel in words, once where they agree."""
    seen: dict[str, list[str]] = {}
    for metric in [metric for metric in EFFICIENCY_METRICS if metric in metrics_in(rows)]:
        of_metric = rows[rows["metric"] == metric]
        side = f"{_label(of_metric['size'])} pixels"
        if of_metric["size"].isna().all():  # accuracy runs time the images they fuse
            side = "the test images"
        words = f"{side}, batch {_label(of_metric['batch'])}"
        seen.setdefault(words, []).append(METRIC_SPECS[metric].label)
    if len(seen) == 1:
        return f"{next(iter(seen))}, {_label(rows['precision'])}."
    return " ".join(f"{' and '.join(labels)}: {words}." for words, labels in seen.items())


def _roofline_figure(
    name: str, rows: pd.DataFrame, ceilings: pd.DataFrame, machine: str
) -> dict[str, Any]:
    """Return achieved FLOP/s of the forward pass against FLOPs per byte, a point per backbone.

    FLOPs are those executed; bytes are every operator's inputs and outputs once.
    """
    needed = ["flops_executed", "traffic_forward", "latency_forward"]
    measured = rows[rows["metric"].isin(needed)]
    values = summarise_rows(measured, ["backbone", "size", "batch"])
    table = values.pivot(
        index=["backbone", "size", "batch"], columns="metric", values="center"
    ).reindex(columns=needed)
    table = table.dropna().reset_index()
    peaks = ceilings[ceilings["status"] == "ok"].groupby("metric")["value"].max()
    if table.empty or not {"peak_gflops", "peak_bandwidth"} <= set(peaks.index):
        return {}
    table = table[table["batch"] == table["batch"].min()]
    largest = table.groupby("size")["backbone"].nunique()
    size = max(largest[largest == largest.max()].index)
    table = table[table["size"] == size]
    points = pd.DataFrame(
        {
            "label": table["backbone"],
            "intensity": 1e3 * table["flops_executed"] / table["traffic_forward"],
            "gflops": 1e3 * table["flops_executed"] / table["latency_forward"],
        }
    )
    note = (
        f"Forward pass, {size} pixels, batch {table['batch'].iloc[0]}. Bytes: each operator's"
        f" inputs and outputs once, nothing kept in caches between operators. {machine}."
    )
    figure = roofline(
        points, peak_gflops=peaks["peak_gflops"], bandwidth_gbs=peaks["peak_bandwidth"],
        title="Roofline of the forward pass", note=note,
    )  # fmt: skip
    return {f"{name}-roofline": figure}


def quality_sections(
    rows: Iterable[Row], runs: Mapping[str, Mapping[str, Any]], quality: str = "PSNR"
) -> list[Section]:
    """Return quality against what training cost, a section per data set and class of machine.

    A configuration that several folders hold is one point; of what differs in a setting that rows
    do not show (a seed apart) the last counts.

    Args:
        rows: of accuracy runs.
        runs: their provenance.
        quality: an accuracy metric of the reduced-resolution set.
    """
    frames = []
    for machine, of_machine in _by_machine(_with_settings_of_training(rows), runs).items():
        frame = to_frame(of_machine)
        frame = frame[frame["method"].isin(["nodiff", "diffusion"]) & frame["backbone"].notna()]
        frame = frame[frame["metric"].isin([quality, *_TRAINING_COST])]
        measured = frame.loc[frame["metric"] == quality, "cell_id"]
        frame = frame[frame["cell_id"].isin(measured)]
        frames += [(dataset, machine, g) for dataset, g in frame.groupby("dataset", sort=False)]
    sections: list[Section] = []
    for dataset, machine, group in frames:
        settings = _settings_of_each(group)
        by = ["backbone", *settings]
        last = group.groupby([*by, "seed"], dropna=False)["cell_id"].transform("last")
        group = group[group["cell_id"] == last]
        group = group.drop_duplicates(["cell_id", "metric"], keep="last")  # of several protocols
        number = len(sections) + 1
        suffix = f"-{number}" if sections else ""
        section = Section(f"Quality against cost on {dataset}, {machine}")
        presets = group["config.preset"].dropna().unique() if "config.preset" in group else []
        notes = [SAMPLE_NOTE] if str(dataset).startswith("sample") else []
        notes += [f"Preset: {', '.join(presets)}."] if len(presets) else []
        notes.append("Training times: one run each, not interleaved.")
        for cost in _TRAINING_COST:
            if not {cost, quality} <= set(group.loc[group["status"] == "ok", "metric"]):
                continue
            points = pareto_points(group, cost, quality, by)
            if group["seed"].nunique() < 2:  # images differ far more than methods do on each
                points = points.drop(columns=f"{quality}_std")
            points["label"] = [_point_label(point, settings) for _, point in points.iterrows()]
            if len(points) > 1:
                section.figures[f"quality-{cost}{suffix}"] = pareto_scatter(
                    points, cost=cost, quality=quality, labels="label",
                    title=f"Quality against cost, {dataset}", note=" ".join([*notes, machine]),
                )  # fmt: skip
        if section.figures:
            table = metric_table(
                group, by, name=f"quality-{number}", title=section.title, notes=notes
            )
            section.tables.append(table)
            sections.append(section)
    return sections


def _with_settings_of_training(rows: Iterable[Row]) -> list[Row]:
    """Give rows of one training the settings that any of them has.

    A grid writes down what it varies: the default number of modes is a setting in an ablation and
    none in a comparison of backbones.
    """
    rows = list(rows)
    known: dict[str, dict[str, Any]] = {}
    for row in rows:
        known.setdefault(row.config.get("training", ""), {}).update(row.config)
    return [
        replace(row, config={**known[row.config["training"]], **row.config})
        if "training" in row.config
        else row
        for row in rows
    ]


def _by_machine(rows: Iterable[Row], runs: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Row]]:
    """Sort rows by class of machine, so that a repeat elsewhere does not replace them."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        known = row.run_id in runs
        machine = machine_class(runs[row.run_id]["machine"]) if known else "unknown machine"
        groups.setdefault(machine, []).append(row)
    return groups


def _point_label(point: pd.Series, settings: Sequence[str]) -> str:
    words = [f"{short_name(c)} {plain(point[c])}" for c in settings if pd.notna(point[c])]
    return " ".join([point["backbone"], *words])


def _label(column: pd.Series) -> str:
    value = next(iter(column.dropna()), None)
    return "not recorded" if value is None else str(value)


def pareto_points(frame: pd.DataFrame, cost: str, quality: str, by: Sequence[str]) -> pd.DataFrame:
    """Return what :func:`pareto_scatter` draws: a line per group, with its quality's spread."""
    summary = summarise_rows(frame[frame["metric"].isin([cost, quality])], by)
    table = summary.pivot(index=list(by), columns="metric", values=["center", "std"])
    points = table["center"].reset_index()
    points[f"{quality}_std"] = table["std"][quality].to_numpy(float)
    return points.dropna(subset=[cost, quality])


def _failures(frame: pd.DataFrame) -> Table | None:
    failed = frame[frame["status"] != "ok"]
    if failed.empty:
        return None
    columns = ["protocol", "method", "backbone", "dataset", "size", "batch", "seed", "metric"]
    cells = failed[[*columns, "status", "reason"]].reset_index(drop=True)
    cells = cells.astype(object).where(cells.notna(), "–").astype(str)
    marks = pd.DataFrame("", index=cells.index, columns=cells.columns)
    return Table("failures", "Cells and measurements without a result", cells, marks, failed)
