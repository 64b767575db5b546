"""A report from whatever rows there are: the tables and figures that apply, as files and as a page.

A protocol that wants more than this calls the table and figure functions itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.config.presets import DEPARTURES
from bench.records import Row, export_csv, export_samples_csv, machine_class, to_frame
from bench.reporting.figures import (
    EFFICIENCY_METRICS,
    bar_panels,
    feature_maps,
    metrics_vs_setting,
    save_figure,
    scaling,
    training_curves,
)
from bench.reporting.html import Section, render_html
from bench.reporting.paper import load_paper_words
from bench.reporting.summary import (
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
    metric_table,
    setting_table,
)

__all__ = [
    "NOT_ISO_PARAMETER",
    "SAMPLE_NOTE",
    "build_sections",
    "feature_arrays",
    "pareto_points",
    "write_report",
]

NOT_ISO_PARAMETER = "Not iso-parameter: spectral weights grow with the square of the kept modes."
SAMPLE_NOTE = "Shipped Sentinel-2 sample: PAN is simulated."
_IDENTITY = ("method", "backbone")
_HASHES = ("config.training",)
"""Settings that are digests of others and never make a line of a table."""


def write_report(
    rows: Sequence[Row], runs: Mapping[str, Mapping[str, Any]], out: Path, *, title: str
) -> tuple[list[Section], list[Path]]:
    """Write rows.csv, samples.csv, every table and figure, and report.html.

    Args:
        rows: of one or several result folders.
        runs: their provenance, as of :func:`bench.records.load_runs`.
        out: folder to write into; made when it is not there.
        title: of the page.

    Returns:
        The sections, and the files written.
    """
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / "rows.csv", out / "samples.csv"]
    export_csv(rows, paths[0])
    export_samples_csv(rows, paths[1])
    sections = build_sections(to_frame(rows), runs)
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
        sections += _cost_sections(protocol, of_protocol[of_protocol["kind"] == "cost"], runs)
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
        if path.is_file():
            with np.load(path) as arrays:
                yield row, dict(arrays)


def _cost_sections(
    protocol: str, cost: pd.DataFrame, runs: Mapping[str, Mapping[str, Any]]
) -> Iterator[Section]:
    """Yield a section per class of machine: costs of different machines never share a table."""
    machines = cost["run_id"].map(
        {run_id: machine_class(record["machine"]) for run_id, record in runs.items()}
    )
    cost = cost.assign(machine=machines.fillna("unknown machine"))
    for index, (machine, rows) in enumerate(cost.groupby("machine", sort=False)):
        name = f"{protocol}-cost" + (f"-{index + 1}" if index else "")
        section = Section(f"Cost: {protocol} on {machine}")
        settings = varying_settings(rows, exclude=_HASHES)
        by = [*_IDENTITY, *settings]
        for condition in ("size", "batch", "precision", "split"):
            if rows.groupby([*by, "metric"], dropna=False)[condition].nunique().gt(1).any():
                by.append(condition)
        section.tables.append(
            metric_table(
                rows, by, name=name, title=f"Cost on {machine}", rank_within=by[len(_IDENTITY) :]
            )
        )
        if rows["backbone"].nunique() > 1 and not settings:
            section.figures |= _efficiency_figures(name, rows, machine)
        yield section


def _efficiency_figures(name: str, rows: pd.DataFrame, machine: str) -> dict[str, Any]:
    figures = {}
    rows = rows[rows["backbone"].notna() & rows["metric"].isin(EFFICIENCY_METRICS)]
    rows = rows[rows["batch"].fillna(-1) == rows["batch"].fillna(-1).min()]
    if rows.empty:
        return figures
    conditions = f"{machine}; batch {_label(rows['batch'])}, {_label(rows['precision'])}"
    sizes = rows["size"].dropna().unique()
    size = min(sizes) if len(sizes) else None
    one_size = rows[rows["size"] == size] if size is not None else rows
    note = f"{conditions}; {size} x {size} pixels." if size is not None else f"{conditions}."
    figures[name] = bar_panels(one_size, title="Cost per backbone", note=note)
    if len(sizes) > 1:
        figures[f"{name}-scaling"] = scaling(
            rows, title="Growth of cost with image size", note=f"{conditions}."
        )
    return figures


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
