"""Statistics, tables and figures from rows whose answers are known."""

from __future__ import annotations

import itertools
import math
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from matplotlib.backends.backend_agg import FigureCanvasAgg

from bench.config import UsageError
from bench.records import Row, RunFolder, View, generic_view, load_runs, to_frame
from bench.records.statistics import (
    area_interval,
    bootstrap_interval,
    ratio_of_medians,
    summarise,
)
from bench.reporting.blocks import BLOCKS
from bench.reporting.blocks.quality import pareto_points
from bench.reporting.build import build_sections, frame_of, write_report
from bench.reporting.comparison import compare_rows, comparison_table, select_rows
from bench.reporting.figures import (
    bar_panels,
    colours,
    draw_all,
    drawing,
    feature_maps,
    growth_exponent,
    metrics_along_axis,
    pareto_front,
    pareto_scatter,
    roofline,
    scaling,
    training_curves,
)
from bench.reporting.paper import load_paper_table, load_paper_words
from bench.reporting.shown import show
from bench.reporting.summary import metric_header, summarise_rows
from bench.reporting.tables import metric_table, with_paper_numbers
from bench.reporting.text import format_number

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(0, 1.5, 8)
MODES = "config.backbone.modes"
VIEW = View(
    "ablation_modes",
    "Modes",
    axis="backbone.modes",
    baselines={"exp": "EXP (interpolation)", "pseudo_sr": "U, predictor alone"},
    reference={"backbone.modes": 12},
    notes=("Not iso-parameter.",),
    words="modes",
    outline=True,
)
XEON = {"cpu": "Xeon", "cores": 2, "gpu": None, "os": "Linux"}


def accuracy(method, modes, samples, *, seed=0, metric="PSNR", run_id="r", **fields):
    config = {"evaluation": {"convention": "pancollection"}}
    config |= {"data": {"fingerprint": "f", "notes": ["PAN is simulated"]}}
    if modes is not None:
        config |= {"backbone": {"modes": modes}, "training": f"digest-{modes}-{seed}"}
    common = {"protocol": "ablation_modes", "kind": "accuracy", "dataset": "sample-4"}
    common |= {"split": "reduced", "size": 256, "unit": "dB" if metric == "PSNR" else "deg"}
    common |= {"direction": "higher" if metric == "PSNR" else "lower", "n": len(samples)}
    return Row(
        **common
        | {
            "run_id": run_id,
            "cell_id": f"{method}-{modes}-{seed}",
            "method": method,
            "backbone": None if modes is None else "fno",
            "config": config,
            "metric": metric,
            "samples": list(samples),
            "value": float(np.mean(samples)),
            "seed": None if modes is None else seed,
        }
        | fields
    )


def cost(backbone, metric, value, *, size=64, unit="ms", samples=None, run_id="r", **fields):
    return Row(
        **{
            "run_id": run_id,
            "cell_id": f"{backbone}-{size}",
            "protocol": "efficiency",
            "kind": "cost",
            "method": "nodiff",
            "backbone": backbone,
            "size": size,
            "batch": 1,
            "precision": "float32",
            "metric": metric,
            "value": value,
            "unit": unit,
            "direction": "lower",
            "samples": samples,
        }
        | fields
    )


def ablation(seeds=(0,), **fields):
    rows = [accuracy("exp", None, 29 + IMAGES, **fields)]
    for seed in seeds:
        for modes, gain, ripple in ((8, 4.0, 0.1), (12, 5.0, 0.0), (16, 5.001, 0.1)):
            psnr = 29 + IMAGES + gain + 0.1 * seed + ripple * (-1.0) ** np.arange(8)
            rows.append(accuracy("nodiff", modes, psnr, seed=seed, **fields))
            sam = 6 - 0.1 * psnr
            rows.append(accuracy("nodiff", modes, sam, seed=seed, metric="SAM", **fields))
            rows.append(accuracy("pseudo_sr", modes, psnr - 1, seed=seed, **fields))
            what = rows[-2].cell_id
            rows.append(cost("fno", "params", modes**2 / 100, unit="M", cell_id=what))
            rows[-1] = replace(
                rows[-1],
                run_id=rows[-2].run_id,
                protocol="ablation_modes",
                config=rows[-2].config,
                dataset="sample-4",
                seed=seed,
            )
    return rows


def table_of(rows, suffix="", view=VIEW):
    """Return the table of this name that a report of the rows has."""
    sections = build_sections(rows, {}, {view.study: view})
    named = {table.name: table for section in sections for table in section.tables}
    return named[f"{view.study}-sample-4{suffix}"]


def lines_of(rows):
    return show(frame_of(rows, {}), generic_view("efficiency")).frame


def efficiency(**fields):
    rows = []
    for backbone, scale, power in (("fno", 1.0, 1.0), ("attention_unet", 8.0, 2.0)):
        for size in (64, 128, 256):
            time = 10 * scale * (size / 64) ** (2 * power)
            jitter = time * np.linspace(0.95, 1.05, 11)
            common = {"size": size, **fields}
            rows.append(cost(backbone, "latency_train_step", time, samples=jitter, **common))
            rows.append(cost(backbone, "flops_forward", time / 5, unit="GFLOP", **common))
    lost = {"size": 512, "status": "oom", "reason": "8 GiB", **fields}
    return [*rows, cost("attention_unet", "latency_train_step", None, **lost)]


# Statistics


def test_summary_counts_what_it_leaves_out():
    summary = summarise([1.0, 2.0, 3.0, 4.0, None, math.nan, math.inf])
    assert (summary.n, summary.excluded, summary.mean) == (4, 3, 2.5)
    assert summary.std == pytest.approx(1.2909944487358056)  # N - 1, from R's sd(1:4)
    assert math.isnan(summarise([1.0]).std) and math.isnan(summarise([]).mean)


def test_area_intervals_are_those_of_statsmodels_and_cover_where_images_mislead():
    """Every image its own area is the t interval; else the cluster-robust one, as outside."""
    values = np.random.default_rng(0).normal(40, 2, 9)
    error, low, high = area_interval(values, list("abcdefghi"))
    expected = scipy.stats.t.interval(0.95, 8, values.mean(), scipy.stats.sem(values))
    assert (low, high) == pytest.approx(expected, rel=1e-12)
    assert error == pytest.approx(scipy.stats.sem(values), rel=1e-12)
    # statsmodels 0.15, OLS on a constant, cov_type "cluster", use_correction=False, gives the
    # first factor; the other is for few clusters.
    of, areas = [40.0, 41.5, 39.0, 44.0, 43.0, 38.0, 41.0, 47.3], list("aaabbccd")
    error, *_ = area_interval(of, areas)
    assert error == pytest.approx(1.1547540999061217 * math.sqrt(4 / 3), rel=1e-9)
    rng, hits, images = np.random.default_rng(1), {"areas": 0, "images": 0}, 400
    for _ in range(images):
        means = rng.normal(0, 1, 5).repeat([4, 1, 1, 1, 1])
        draw = means + rng.normal(0, 0.3, 8)
        _, low, high = area_interval(draw, list("aaaabcde"))
        hits["areas"] += low <= 0 <= high
        low, high = scipy.stats.t.interval(0.95, 7, draw.mean(), scipy.stats.sem(draw))
        hits["images"] += low <= 0 <= high

    assert hits["areas"] / images > 0.88 > hits["images"] / images
    assert all(map(math.isnan, area_interval([1.0, 2.0], ["a", "a"])))


def test_bootstrap_interval_agrees_with_the_t_interval_where_that_holds():
    values = np.random.default_rng(3).normal(5, 2, 400)
    half_width = 1.966 * values.std(ddof=1) / 20  # t quantile, 399 degrees of freedom
    low, high = bootstrap_interval(values)
    assert low == pytest.approx(values.mean() - half_width, abs=0.02)
    assert high == pytest.approx(values.mean() + half_width, abs=0.02)
    assert bootstrap_interval(values) == (low, high)
    assert bootstrap_interval([2.0, 2.0, 2.0]) == (2.0, 2.0)
    assert all(map(math.isnan, bootstrap_interval([1.0])))


def test_ratio_of_medians():
    rng = np.random.default_rng(0)
    slow, fast = 18 * rng.lognormal(0, 0.05, 51), 10 * rng.lognormal(0, 0.05, 51)
    result = ratio_of_medians(fast, slow)
    assert result.ci_low < 1.8 < result.ci_high and result.differs
    assert ratio_of_medians(fast, fast).differs is False
    assert ratio_of_medians(fast[:3], slow[:3]).differs is None


def test_pareto_front():
    cost_, quality = [1, 2, 3, 4, 2, np.nan], [1, 3, 2, 4, 3, 9]
    assert pareto_front(cost_, quality).tolist() == [True, True, False, True, True, False]
    lower = pareto_front([1, 2, 3], [3, 1, 2], higher_is_better=False)
    assert lower.tolist() == [True, True, False]


# The paper


def test_the_papers_tables_are_whole_and_named_as_in_the_field():
    tables = [load_paper_table(number) for number in (1, 2, 3)]
    assert [len(table) for table in tables] == [12 * 7, 12 * 2 * 4, 4 * 4]
    methods = set(tables[0]["method"])
    assert {"BDSD-PC", "LRTCFPan", "NODiff"} <= methods and "BDS-PC" not in methods
    ours = tables[0].query("method == 'NODiff' and metric == 'PSNR'").iloc[0]
    assert (ours["mean"], ours["std"]) == (39.314, 2.898)
    assert tables[2]["std"].isna().all()
    with pytest.raises(ValueError, match="not 4"):
        load_paper_table(4)


def test_figures_without_numbers_give_words():
    words = load_paper_words("modes")
    assert set(words) == {8, 12, 16, 32} and words[12] == "best on every metric"
    assert not any(re.search(r"\d\.\d", text) for text in words.values())


# Summaries and tables


def test_spread_is_over_seeds_once_there_are_several():
    one = summarise_rows(to_frame(ablation((0,))), ["method", MODES])
    assert set(one.loc[one["kind"] == "accuracy", "spread"]) == {"images"}
    assert set(one.loc[one["kind"] == "accuracy", "n"]) == {8}
    frame = to_frame(ablation((0, 1, 2)))
    several = summarise_rows(frame, ["method", MODES])
    line = several.query(f"method == 'nodiff' and metric == 'PSNR' and `{MODES}` == 12").iloc[0]
    values = [
        row.value for row in ablation((0, 1, 2)) if (row.method, row.metric) == ("nodiff", "PSNR")
    ]
    assert line["spread"] == "seeds" and line["n"] == 3
    assert line["center"] == pytest.approx(np.mean(values[1::3]))
    assert line["std"] == pytest.approx(np.std(values[1::3], ddof=1))


def test_setting_table_marks_ranks_and_keeps_the_papers_words_apart():
    table = table_of(ablation())
    cells = table.cells
    assert cells["method"].tolist() == ["nodiff"] * 3 + ["pseudo_sr"] * 3 + ["exp"]
    assert cells["modes"].tolist() == ["8", "12", "16"] * 2 + ["–"]
    psnr = table.marks["PSNR (dB) ↑"].tolist()
    assert sorted(psnr) == [""] * 5 + ["best", "second"] and psnr[0] == ""
    assert table.marks["Parameters (M) ↓"].tolist()[:2] == ["best", "second"]
    assert cells["paper (in words)"][1] == "best on every metric"
    assert (table.marks["paper (in words)"] == "").all()
    assert "paper" not in " ".join(table.values.columns)
    assert any("over images, n = 8" in note for note in table.notes)
    assert any("RTX 4090" in note for note in table.notes)


def test_table_files_say_the_same(tmp_path):
    table = replace(table_of(ablation()), title="A & B_1")
    paths = {path.suffix: path for path in table.write(tmp_path)}
    best = table.cells["PSNR (dB) ↑"][table.marks["PSNR (dB) ↑"] == "best"].item()
    number = best.split(" ± ")[0]
    latex = paths[".tex"].read_text()
    assert rf"\textbf{{{number} $\pm$" in latex and r"\toprule" in latex
    assert r"A \& B\_1" in latex and r"pseudo\_sr" in latex and "±" not in latex
    assert f"**{best}**" in paths[".md"].read_text()
    assert best in paths[".html"].read_text()
    exported = pd.read_csv(paths[".csv"])
    line = exported.query("method == 'nodiff' and metric == 'PSNR'")["center"].max()
    assert f"{line:.3f}" == number


def test_failures_and_gaps_are_shown_and_timings_get_quartiles():
    frame = to_frame(efficiency())
    table = metric_table(
        frame, ["backbone", "size"], name="c", title="Cost", rank_within=["size"]
    ).cells.set_index(["backbone", "size"])
    step = table["Training iteration (ms) ↓"]
    assert step["attention_unet", "512"] == "oom"
    assert table["FLOPs, forward (GFLOP) ↓"]["attention_unet", "512"] == "–"
    assert step["fno", "64"] == "10 [9.75, 10.25]"


def test_lines_under_different_conditions_are_not_ranked_against_each_other():
    frame = to_frame(efficiency())
    table = metric_table(frame, ["backbone", "size"], name="c", title="Cost", rank_within=["size"])
    marks = table.marks["FLOPs, forward (GFLOP) ↓"]
    assert marks[table.cells["backbone"] == "fno"].eq("best").sum() == 3


def test_paper_numbers_stand_in_their_own_columns():
    frame = to_frame([accuracy("bdsd_pc", None, 30 + IMAGES), *ablation()[:2]])
    table = metric_table(frame, ["method"], name="a", title="A", metrics=["PSNR"])
    beside = with_paper_numbers(table, load_paper_table(1), "WV3")
    column = beside.cells.set_index("method")["PSNR (paper, WV3)"]
    assert column["bdsd_pc"] == "32.969 ± 2.784" and column["exp"] == "–"
    assert beside.cells[table.cells.columns].equals(table.cells)
    other = with_paper_numbers(table, load_paper_table(1), "sample-4")
    assert other.cells is table.cells and "sample-4 is not comparable" in other.notes[-1]


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (39.3141, "accuracy", "39.314"),
        (math.inf, "accuracy", "inf"),
        (1234.5, "cost", "1234"),
        (0.012345, "cost", "0.01235"),
        (13.0, "cost", "13"),
        (0.0, "cost", "0"),
    ],
)
def test_format_number(value, kind, text):
    assert format_number(value, kind) == text


def test_one_metric_has_one_unit():
    rows = [cost("fno", "x", 1.0, unit="ms"), cost("fno", "x", 1.0, unit="s", size=128)]
    with pytest.raises(UsageError, match="several units: ms, s"):
        metric_header("x", to_frame(rows))


# Figures


def drawn_figures():
    shown = show(frame_of(ablation((0, 1)), {}), VIEW)
    costs = lines_of(efficiency())
    points = pd.DataFrame({"line": ["fno", "x"], "params": [1.0, 5.0], "PSNR": [30.0, 31.0]})
    points["who"] = points["line"]
    roof = pd.DataFrame({"label": ["fno", "x"], "intensity": [1.0, 30.0], "gflops": [8.0, 70.0]})
    return {
        "setting": metrics_along_axis(shown, VIEW, note="Not iso-parameter."),
        "features": feature_maps(
            {"modes = 8": RNG.normal(size=(3, 32, 32))}, kept={"modes = 8": 8}
        ),
        "bars": bar_panels(costs[costs["size"] == 64]),
        "scaling": scaling(costs),
        "pareto": pareto_scatter(points, cost="params", quality="PSNR"),
        "roofline": roofline(roof, peak_gflops=86, bandwidth_gbs=10),
        "training": training_curves({"stage1": {"a": np.array([[0, 1.0], [10, 0.5]])}}),
    }


def test_equal_figures_give_equal_bytes_however_many_processes_draw(monkeypatch):
    kept = pickle.dumps(list(drawn_figures().items()))
    pictures = []
    for processes in (1, 2):
        monkeypatch.setattr(drawing, "_processes", lambda figures, count=processes: count)
        pictures.append(draw_all(pickle.loads(kept)))
    assert pictures[0] == pictures[1]
    for picture in pictures[0]:
        assert list(picture.files) == ["png", "pdf"]
        assert all(len(data) > 1000 for data in (*picture.files.values(), picture.embedded.data))


def test_setting_figure_shows_what_the_rows_hold():
    figure = metrics_along_axis(
        show(frame_of(ablation((0, 1)), {}), VIEW), VIEW, note="Not iso-parameter."
    )
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes}
    assert list(panels) == ["PSNR (dB) ↑", "SAM (deg) ↓", "Parameters (M) ↓"]
    psnr = panels["PSNR (dB) ↑"]
    assert [label.get_text() for label in psnr.get_xticklabels()] == ["8", "12", "16"]
    [curve] = [c for c in psnr.containers if c.get_label() == "nodiff, fno"]
    values = to_frame(ablation((0, 1))).query("method == 'nodiff' and metric == 'PSNR'")
    assert curve.lines[0].get_ydata() == pytest.approx(
        values.groupby(MODES)["value"].mean().to_numpy()
    )
    assert "over seeds (n = 2)" in figure.legends[0].get_title().get_text()
    [exp] = [line for line in psnr.lines if line.get_label().startswith("EXP")]
    assert exp.get_linestyle() == "--"
    bars = [bar.get_height() for bar in panels["Parameters (M) ↓"].patches]
    assert bars == [0.64, 1.44, 2.56]


def test_spectrum_puts_a_wave_at_its_frequency():
    column = np.arange(32)
    wave = np.cos(2 * np.pi * 5 * column / 32) * np.ones((32, 1))
    figure = feature_maps({"modes = 8": wave})
    image = figure.axes[1].images[0]
    spectrum = np.asarray(image.get_array())
    left, right, bottom, top = image.get_extent()
    row, place = np.unravel_index(spectrum.argmax(), spectrum.shape)
    assert abs(left + 0.5 + place) == 5
    assert top + 0.5 + row == 0
    assert (right - left, bottom - top) == (32, 32)


def test_bars_tell_who_has_no_stage_two_from_who_was_not_measured():
    two, one = ({"config": {"scheme": scheme}} for scheme in ("two_stage", "one_stage"))
    entrants = {"fno": two, "galerkin": two, "unet": one, None: {"method": "fusionnet"}}
    rows = [cost(name, "latency_train_step", 10.0, **of) for name, of in entrants.items()]
    rows.append(cost("fno", "latency_adapt_step", 5.0, **two))
    rows.append(cost("unet", "mem_peak_train", None, status="oom", reason="8 GiB", **one))
    _, stage_two, memory = bar_panels(lines_of(rows)).axes[:3]
    names = [label.get_text() for label in stage_two.get_yticklabels()]
    assert names == ["nodiff, fno", "nodiff, galerkin", "nodiff, unet", "fusionnet"]

    def said(axes):
        return [text.get_text().strip() for text in axes.texts]

    assert stage_two.get_title(loc="left").startswith("Stage II iteration")
    assert said(stage_two) == ["5", "not measured", "none", "none"]
    assert said(memory) == ["not measured", "not measured", "OOM", "not measured"]


def test_growth_exponent_of_known_laws():
    sizes = np.array([64, 128, 256, 512])
    assert growth_exponent(sizes, 3 * sizes**2.0) == pytest.approx(1.0)
    assert growth_exponent(sizes, 0.1 * sizes**4.0) == pytest.approx(2.0)
    assert math.isnan(growth_exponent([64], [1.0]))


def test_scaling_figure_shows_exponents_and_failures():
    axes = scaling(lines_of(efficiency()), metrics=["latency_train_step"]).axes[0]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["fno: pixels$^{1.00}$", "attention_unet: pixels$^{2.00}$"]
    crosses = [list(line.get_xdata()) for line in axes.lines if line.get_marker() == "x"]
    assert [512] in crosses


def choices(cost, psnr, labels=None):
    names = labels or [f"choice {index}" for index in range(len(cost))]
    return pd.DataFrame({"line": names, "who": names, "train_seconds": cost, "PSNR": psnr})


def names_drawn(figure):
    """Return the boxes of the names beside points, in pixels of the axes, by name."""
    axes = figure.axes[0]
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    boxes = {text.get_text(): text.get_window_extent(renderer) for text in axes.texts}
    return axes.bbox, boxes


@pytest.mark.parametrize(
    ("cost_", "psnr"),
    [
        ([55.1, 57.8, 66.4, 105.7], [47.44, 47.56, 47.38, 47.38]),
        ([1.0, 1000.0], [30.0, 40.0]),  # corners
        ([1000.0, 1.0], [30.0, 40.0]),
        ([5.0], [40.0]),
        ([10.0, 10.2, 10.4, 10.1], [40.0, 40.01, 40.0, 40.02]),  # a heap
    ],
)
def test_names_of_points_stay_inside_the_axes_and_apart(cost_, psnr):
    labels = [f"attention_unet modes {index}" for index in range(len(cost_))]
    points = choices(cost_, psnr, labels)
    axes, boxes = names_drawn(pareto_scatter(points, cost="train_seconds", quality="PSNR"))
    assert list(boxes) == labels
    for box in boxes.values():
        assert axes.x0 - 1 <= box.x0 and box.x1 <= axes.x1 + 1
        assert axes.y0 - 1 <= box.y0 and box.y1 <= axes.y1 + 1
    drawn = list(boxes.values())
    assert not any(one.overlaps(b) for i, one in enumerate(drawn) for b in drawn[:i])


def test_names_in_a_roofline_stay_inside_and_apart():
    points = pd.DataFrame({"intensity": [5.0, 5.2, 90.0], "gflops": [36.0, 34.0, 36.0]})
    points["label"] = ["convnext", "fno", "attention_unet"]
    figure = roofline(points, peak_gflops=100, bandwidth_gbs=25)
    axes, boxes = names_drawn(figure)
    assert {"convnext (36%)", "fno (34%)", "attention_unet (36%)"} < set(boxes)
    assert all(axes.x0 - 1 <= box.x0 and box.x1 <= axes.x1 + 1 for box in boxes.values())
    assert not boxes["convnext (36%)"].overlaps(boxes["fno (34%)"])


@pytest.mark.parametrize(
    ("psnr", "filled"), [([31.0, 30.0], [True, False]), ([30.0, 31.0], [True, True])]
)
def test_the_pareto_front_is_seen_even_if_it_is_one_point(psnr, filled):
    figure = pareto_scatter(choices([1.0, 9.0], psnr), cost="train_seconds", quality="PSNR")
    axes = figure.axes[0]
    markers = [c.lines[0] for c in axes.containers]
    assert [line.get_markerfacecolor() != "white" for line in markers] == filled
    [front] = [line for line in axes.lines if line.get_linestyle() == "--"]
    x, y = front.get_data()
    assert (min(x), max(x)) == (1.0, axes.get_xlim()[1])
    assert (min(y), max(y)) == (axes.get_ylim()[0], max(psnr))
    named = [text.get_text() for text in axes.get_legend().get_texts()]
    assert named == ["Pareto front", *(["dominated"] if not all(filled) else [])]


@pytest.mark.parametrize("span", [(0.062, 0.147), (0.03, 0.07), (47.0, 53.0), (1.0, 9e6), (4, 45)])
def test_logarithmic_axes_have_at_least_three_labels(span):
    history = np.array([[0, span[1]], [10, span[0]]])
    figure = training_curves({"stage2": {"a": history}})
    FigureCanvasAgg(figure).draw()
    axes = figure.axes[0]
    low, high = axes.get_ylim()
    shown = [
        label.get_text()
        for label, tick in zip(axes.get_yticklabels(), axes.get_yticks(), strict=True)
        if low <= tick <= high and label.get_text()
    ]
    assert 3 <= len(shown) <= 10
    assert len(set(shown)) == len(shown)


def test_a_name_keeps_its_colour_and_stays_apart_from_the_others():
    own = ("fno", "attention_unet", "conv_unet", "convnext", "galerkin")
    together = colours(own)
    assert all(colours([name])[name] == colour for name, colour in together.items())
    assert colours(["zeta", *own]).items() >= {("galerkin", together["galerkin"])}
    many = [np.array(matplotlib.colors.to_rgb(c)) for c in colours(map(str, range(20))).values()]
    assert min(np.abs(a - b).max() for a, b in itertools.combinations(many, 2)) > 0.05


def test_drawing_nothing_is_an_error():
    empty = to_frame([])
    for draw in (bar_panels, scaling):
        with pytest.raises(UsageError, match="no cost rows"):
            draw(empty)
    with pytest.raises(UsageError, match="no feature maps"):
        feature_maps({})


# Reports


def test_pareto_points_join_quality_and_cost():
    frame = to_frame(ablation((0, 1)))
    points = pareto_points(frame, "params", "PSNR", ["method", MODES])
    assert points["params"].tolist() == [0.64, 1.44, 2.56]
    means = frame.query("method == 'nodiff' and metric == 'PSNR'").groupby(MODES)["value"]
    assert points["PSNR"].tolist() == pytest.approx(means.mean().tolist())
    assert points["PSNR_std"].tolist() == pytest.approx(means.std().tolist())


def trained(backbone, psnr, seconds, digest, *, run_id="r", seed=0, **options):
    """Rows of a trained denoiser: its accuracy, and what training cost."""
    config = {"preset": "laptop", "training": digest, "backbone": options or {"width": 1}}
    same = {"run_id": run_id, "cell_id": digest, "config": config, "seed": seed, "protocol": "p"}
    images = psnr + IMAGES - IMAGES.mean()
    costs = (("train_seconds", seconds, "s"), ("train_flops", seconds / 20, "TFLOP"))
    return [
        replace(accuracy("nodiff", None, images, backbone=backbone), **same),
        *(cost(backbone, *of, unit=unit, **same, dataset="sample-4") for *of, unit in costs),
    ]


def quality_sections(rows, runs):
    return list(BLOCKS["quality"](frame_of(rows, runs), runs, generic_view("p")))


def points_drawn(section, figure="quality-train_seconds"):
    """Return cost and quality by name."""
    axes = section.figures[figure].axes[0]
    return {text.get_text(): tuple(map(float, text.xy)) for text in axes.texts}


def test_one_configuration_of_two_folders_is_one_point():
    ablation_ = [
        row
        for modes, psnr, seconds in ((8, 47.5, 58.0), (12, 47.4, 55.0))
        for row in trained("fno", psnr, seconds, f"m{modes}", modes=modes)
    ]
    backbones = trained(
        "fno", 47.4, 54.0, "m12", run_id="s", modes=12
    )  # timed when trained once more
    backbones += trained("convnext", 47.0, 200.0, "c", run_id="s")
    runs = {run_id: {"machine": XEON} for run_id in "rs"}
    for rows, seconds in ((ablation_ + backbones, 54.0), (backbones + ablation_, 55.0)):
        [section] = quality_sections(rows, runs)
        drawn = points_drawn(section)
        assert drawn.keys() == {"fno, modes = 8", "fno, modes = 12", "convnext"}
        assert drawn["fno, modes = 12"] == pytest.approx((seconds, 47.4))
        assert len(section.tables[0].cells) == 3
    [alone] = quality_sections(backbones, runs)
    assert points_drawn(alone).keys() == {"fno", "convnext"}


def test_what_no_shown_setting_tells_apart_is_not_averaged():
    # Other options that no row shows: the later one counts, as it does for repeats.
    rows = trained("fno", 40.0, 10.0, "old") + trained("fno", 46.0, 50.0, "new")
    rows += trained("convnext", 45.0, 90.0, "c")
    [section] = quality_sections(rows, {"r": {"machine": XEON}})
    assert points_drawn(section)["fno"] == pytest.approx((50.0, 46.0))
    seeds = rows[3:] + trained("fno", 47.0, 60.0, "again", seed=1)
    [section] = quality_sections(seeds, {"r": {"machine": XEON}})
    assert points_drawn(section)["fno"] == pytest.approx((55.0, 46.5))


def test_a_repeat_on_another_machine_replaces_nothing():
    both = [("fno", 46.0, 50.0), ("convnext", 45.0, 90.0)]
    here = [row for name, psnr, s in both for row in trained(name, psnr, s, name)]
    there = [row for name, psnr, s in both for row in trained(name, psnr, s / 9, name, run_id="s")]
    runs = {"r": {"machine": XEON}, "s": {"machine": XEON | {"cpu": "EPYC"}}}
    sections = quality_sections(here + there, runs)
    assert [section.title[-7:] for section in sections] == ["Xeon x2", "EPYC x2"]
    assert points_drawn(sections[0])["fno"][0] == pytest.approx(50.0)
    assert points_drawn(sections[1], "quality-train_seconds-2")["fno"][0] == pytest.approx(50 / 9)


@pytest.fixture
def result_folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    command = ["protocols/ablation_modes.py", "--preset", "smoke"]
    run_id = folder.begin(command, {}, XEON, {"torch": "2.13.0"}, {"hash": "c" * 40, "dirty": True})
    rows = ablation(run_id=run_id) + efficiency(run_id=run_id)
    steps = np.arange(5.0)
    for modes in (8, 12, 16):
        base = next(
            r for r in rows if r.method == "nodiff" and r.config["backbone"]["modes"] == modes
        )
        np.savez(folder.path / f"f{modes}.npz", first=np.zeros((2, 8, 8)), last=np.eye(8) * modes)
        np.savez(folder.path / f"h{modes}.npz", loss=np.stack([steps, np.exp(-steps)], 1))
        blank = {"value": None, "samples": None, "split": None, "n": None}
        rows.append(
            replace(base, kind="artefact", metric="features", artefact=f"f{modes}.npz", **blank)
        )
        rows.append(
            replace(base, kind="training", metric="loss_stage1", artefact=f"h{modes}.npz", **blank)
        )
    folder.append(rows)
    folder.end(run_id, "ok")
    return folder


def test_report_writes_what_applies_and_is_one_page(result_folder, tmp_path):
    rows, runs = result_folder.rows(), load_runs(result_folder.path)
    _, paths, _ = write_report(
        rows, runs, {VIEW.study: VIEW}, tmp_path / "report", title="Results <1>"
    )
    names = {str(path.relative_to(tmp_path / "report")) for path in paths}
    for stem in ("", "-features", "-training"):
        assert f"figures/ablation_modes-sample-4{stem}.pdf" in names
    assert {"rows.csv", "samples.csv", "report.html", "tables/efficiency-cost.tex"} <= names
    assert {"figures/efficiency-cost-scaling.png", "tables/failures.md"} <= names
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Xeon x2" in page and "c" * 12 + "+" in page and "PAN is simulated" in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", re.sub(r"src='data:image/[^']*'", "", page))
    kinds = re.findall(r"src='data:(image/[a-z+]+)[;,]", page)
    assert kinds.count("image/svg+xml") == 5 and kinds.count("image/webp") == 4


def test_costs_of_two_machines_never_share_a_table():
    runs = {"r": {"machine": XEON}, "s": {"machine": XEON | {"gpu": {"name": "A", "count": 1}}}}
    rows = efficiency() + [replace(row, run_id="s", cell_id="s") for row in efficiency()]
    sections = build_sections(rows, runs, {})
    titles = [section.title for section in sections]
    assert titles[:2] == ["Cost: efficiency on Xeon x2", "Cost: efficiency on A x1"]


def test_features_are_the_last_blocks_of_all_lines_and_every_block_of_each(result_folder):
    frame = frame_of(result_folder.rows(), {})
    [section] = BLOCKS["features"](frame, load_runs(result_folder.path), VIEW)
    figures = list(section.figures.values())

    def shown(figure, count):
        maps = {a.get_title(loc="left"): a.images[0].get_array() for a in figure.axes[:count]}
        return {name: np.asarray(feature).max() for name, feature in maps.items()}

    assert len(figures) == 4
    assert shown(figures[0], 3) == {"modes = 8": 8, "modes = 12": 12, "modes = 16": 16}
    for figure, modes in zip(figures[1:], (8, 12, 16), strict=True):
        assert f"modes = {modes}" in figure.get_suptitle()
        assert list(shown(figure, 2).items()) == [("first", 0), ("last", modes)]


def test_many_guided_blocks_are_all_drawn(result_folder):
    arrays = {f"block{i}": np.eye(8) * i for i in range(11)}
    np.savez(result_folder.path / "f8.npz", **arrays)
    frame = frame_of(result_folder.rows(), {})
    [section] = BLOCKS["features"](frame, load_runs(result_folder.path), VIEW)
    stems = ["ablation_modes-sample-4-features-1", "ablation_modes-sample-4-features-1-from-9"]
    panels = [a for stem in stems for a in section.figures[stem].axes if len(a.images) == 1]
    drawn = {a.get_title(loc="left") for a in panels} - {""}
    assert drawn == set(arrays)
    titles = [section.figures[stem].get_suptitle() for stem in stems]
    assert "1 to 8 of 11" in titles[0] and "9 to 11 of 11" in titles[1]


# Comparing


def test_the_same_rows_do_not_differ():
    comparisons, left_out = compare_rows(ablation(), ablation(), {})
    assert not left_out
    # Of what was not trained, a difference of nothing over eight areas; of one seed, no verdict.
    assert {str(c.verdict) for c in comparisons} == {
        "one seed: no verdict",
        "no difference larger than 0 dB",
    }
    assert all(c.a == c.b for c in comparisons)


def test_two_variants_are_paired_image_by_image():
    rows = ablation((0, 1))
    a = select_rows(rows, ["method=nodiff", "modes=12"])
    b = select_rows(rows, ["method=nodiff", "modes=8"])
    comparisons, _ = compare_rows(a, b, {})
    assert [c.metric for c in comparisons] == ["PSNR", "SAM"]
    assert [str(c.verdict) for c in comparisons] == ["worse", "worse"]  # B than A
    psnr = comparisons[0].result
    assert psnr.difference == pytest.approx(-1.0) and psnr.seeds_a == psnr.seeds_b == 2
    table = comparison_table(comparisons, name="c", title="C")
    assert table.cells["verdict"].tolist() == ["worse"] * 2


def test_costs_compare_by_ratio_and_counts_are_exact():
    runs = {"r": {"machine": XEON}}
    a = select_rows(efficiency(), ["backbone=fno", "size=64"])
    b = select_rows(efficiency(), ["backbone=attention_unet", "size=64"])
    comparisons, _ = compare_rows(a, b, runs, kind="cost")
    assert {c.metric: c.result.ratio for c in comparisons} == pytest.approx(
        {"flops_forward": 8.0, "latency_train_step": 8.0}
    )
    assert {str(c.verdict) for c in comparisons} == {"worse"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protocol_version": 2}, "protocol versions"),
        (
            {"config": {"evaluation": {"convention": "dlpan"}}},
            "convention, pancollection and dlpan",
        ),
        ({"config": {"data": {"fingerprint": "g"}}}, "fingerprint, f and g"),
        ({"unit": "none"}, "units, dB and none"),
        ({"samples": [1.0, 2.0]}, "images that cannot be paired: 8 and 2"),
        ({"dataset": "WV3"}, "no accuracy measurement in common"),
    ],
)
def test_what_is_not_comparable_is_refused(change, message):
    a = accuracy("exp", None, 29 + IMAGES)
    with pytest.raises(UsageError, match=message):
        compare_rows([a], [replace(a, **change)], {})


def test_cost_across_machines_is_refused():
    other = [replace(row, run_id="s") for row in efficiency()]
    runs = {"r": {"machine": XEON}, "s": {"machine": XEON | {"cpu": "EPYC"}}}
    with pytest.raises(UsageError, match="EPYC x2 and Xeon x2"):
        compare_rows(efficiency(), other, runs, kind="cost")
    with pytest.raises(UsageError, match=r"no run-s\.json"):
        compare_rows(efficiency(), other, {"r": runs["r"]}, kind="cost")


def test_conditions_answer_misspellings():
    with pytest.raises(UsageError, match="did you mean 'backbone'"):
        select_rows(ablation(), ["backbon=fno"])
    with pytest.raises(UsageError, match=r"found: 12, 16, 8, None"):
        select_rows(ablation(), ["modes=13"])
    with pytest.raises(UsageError, match="expected field=value"):
        select_rows(ablation(), ["modes"])


def test_none_of_it_imports_torch():
    modules = "bench.records bench.config bench.report bench.compare bench.reporting.build"
    modules += " bench.reporting.comparison"
    code = f"import sys, importlib\nfor m in {modules.split()}: importlib.import_module(m)\n"
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
