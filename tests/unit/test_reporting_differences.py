"""Difference tables, the paired figure, comparisons: what they say of rows with known answers."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from bench.config import UsageError
from bench.records import Row, View, to_frame
from bench.records.grouping import split_lines
from bench.reporting.blocks.accuracy import accuracy
from bench.reporting.blocks.differences import differences, paired
from bench.reporting.blocks.peaks import peaks
from bench.reporting.comparison import compare_rows, comparison_table
from bench.reporting.figures import render_figure
from bench.reporting.tables import format_verdict

HARD = 2.0 * np.random.default_rng(5).normal(size=8)
VIEW = View(
    "modes",
    "Modes",
    ("differences", "paired"),
    axis="backbone.modes",
    baselines={"exp": "EXP (interpolation)"},
    reference={"backbone.modes": 12},
)
GAINS = {8: -0.6, 12: 0.0, 16: 0.0, 32: -1.0}


def row(method, modes, seed, samples, *, metric="PSNR", areas=None, **fields):
    config = {"data": {"fingerprint": "d", **({"areas": {"reduced": areas}} if areas else {})}}
    if modes is not None:
        config["backbone"] = {"modes": modes}
    common = {"run_id": "r", "protocol": "modes", "kind": "accuracy", "dataset": "sample-4"}
    common |= {"split": "reduced", "size": 256, "unit": "dB" if metric == "PSNR" else "deg"}
    common |= {"direction": "higher" if metric == "PSNR" else "lower", "n": len(samples)}
    return Row(
        **common
        | {
            "cell_id": f"{method}-{modes}-{seed}",
            "method": method,
            "backbone": None if modes is None else "fno",
            "config": config,
            "metric": metric,
            "samples": list(samples),
            "value": float(np.mean(samples)),
            "seed": seed,
        }
        | fields
    )


def study(seeds=range(5), gains=GAINS, **fields):
    rows = [row("exp", None, None, 41 + HARD, **fields)]
    for modes, gain in gains.items():
        for seed in seeds:
            rng = np.random.default_rng([modes, seed])
            psnr = 47 + HARD + gain + 0.08 * rng.normal() + 0.03 * rng.normal(size=8)
            rows.append(row("nodiff", modes, seed, psnr, **fields))
            rows.append(row("nodiff", modes, seed, 6 - psnr / 10, metric="SAM", **fields))
    return rows


def table_of(rows, view=VIEW):
    [section] = differences(to_frame(rows), {}, view)
    return section.tables[0]


def title_of(rows, view=VIEW):
    [section] = paired(to_frame(rows), {}, view)
    [figure] = section.figures.values()
    return " ".join(figure.get_suptitle().split())


# Table


def test_the_table_gives_difference_interval_verdict_and_what_could_be_seen():
    table = table_of(study())
    cells, values = table.cells.set_index("modes"), table.values
    psnr = cells["PSNR (dB) ↑"]
    assert "] worse (seen from 0." in psnr["8"] and "] worse (" in psnr["32"]
    assert "] no difference > 0." in psnr["16"] and " dB (seen from" in psnr["16"]
    assert cells["SAM (deg) ↓"].str.contains("worse").tolist() == [True, False, True]
    assert set(cells["seeds"]) == {"5"} and set(cells["areas"]) == {"8"}
    assert values["verdict"].str.startswith("no difference larger than").sum() == 2
    known = values.query("metric == 'PSNR'")
    assert (known["p_holm"] >= known["p"]).all() and (known["p_holm"] > known["p"]).any()
    assert list(known["reference"]) == ["modes = 12"] * 3
    assert any("new training runs on new areas" in note for note in table.notes)
    assert "$>$" in table.latex() and "&gt;" in table.html()


def test_one_seed_gives_numbers_and_says_so():
    table = table_of(study([0]))
    assert table.cells["PSNR (dB) ↑"].str.fullmatch(r"[-+][\d.]+, one seed: no verdict").all()
    assert table.values["p"].isna().all() and table.values["difference"].notna().all()
    some = [r for r in study() if not r.seed or r.config["backbone"]["modes"] == 32]
    some = [r for r in some if r.seed != 0 or r.config["backbone"]["modes"] != 32]
    cells = table_of(some).cells["PSNR (dB) ↑"]
    assert cells.str.contains("one seed: no verdict (seen from", regex=False).all()
    assert len(cells) == 3


def test_areas_come_from_the_rows_and_split_no_line():
    labelled = study(areas=["n", "n", "n", "s", "s", "s", "s", "s"])
    table = table_of(labelled)
    assert set(table.cells["areas"]) == {"2"}
    assert any("on these areas alone" in note for note in table.notes)
    mixed = to_frame([*labelled, *study([7, 8])])
    assert not [c for c in split_lines(mixed, ["method", "backbone"]).by if "areas" in c]
    first = [replace(r, samples=r.samples[:3]) for r in labelled]  # the first images of a split
    assert set(table_of(first).cells["areas"]) == {"1"}


def test_without_the_reference_nothing_is_compared():
    table = table_of(study(gains={8: 0.0, 16: 0.0}))
    assert table.cells.empty and "No row has the reference" in table.notes[0]
    assert not list(differences(to_frame(study()), {}, replace(VIEW, reference={})))


def test_runs_with_other_seeds_are_not_paired():
    rows = [r for r in study() if r.method == "exp" or r.config["backbone"]["modes"] == 12]
    rows += [r for r in study(range(5, 8)) if r.method != "exp" and "'modes': 8" in str(r.config)]
    table = table_of(rows)
    assert table.cells["seeds"].tolist() == ["5 and 3"] and not table.values["paired"].any()


# Figure


@pytest.mark.parametrize(
    ("gains", "title"),
    [
        (GAINS, r"12 modes lead 8 modes, 32 modes by at least 0\.\d+ dB \[.*\]; no difference"
         r" larger than 0\.\d+ dB between 12 modes and 16 modes, 5 seeds"),
        ({8: -1.0, 12: 0.0}, r"12 modes lead by (0\.9\d?|1|1\.\d) dB \[.*\], 5 seeds"),
        ({8: 1.0, 12: 0.0}, r"8 modes lead 12 modes by (0\.9\d?|1|1\.\d) dB \[.*\], 5 seeds"),
        ({12: 0.0, 16: 0.0}, r"no difference larger than 0\.\d+ dB, 5 seeds"),
    ],
)  # fmt: skip
def test_the_title_is_the_answer(gains, title):
    assert re.fullmatch(title, found := title_of(study(gains=gains))), found


def test_the_title_of_one_seed_is_no_answer():
    assert title_of(study([0])) == "one seed: no verdict"


def test_several_schemes_are_answered_one_by_one():
    view = replace(VIEW, entrants=("method", "backbone"))
    better = {8: 1.0, 12: 0.0}
    rows = [*study(gains=better), *study(gains={12: 0.0, 16: 0.0})]
    rows[len(rows) // 2 :] = [
        replace(r, method="other", cell_id=f"other-{r.cell_id}")
        for r in rows[len(rows) // 2 :] if r.method != "exp"
    ]  # fmt: skip
    first, second = title_of(rows, view).split("; ")
    assert first.startswith("nodiff: 8 modes lead 12 modes by")
    assert second.startswith("other: no difference larger than")


def test_every_run_is_a_point_and_baselines_do_not_set_the_scale():
    [section] = paired(to_frame(study()), {}, VIEW)
    figure = section.figures["modes-sample-4-paired"]
    [axes] = figure.axes
    points = [line for line in axes.lines if line.get_alpha() == 0.55]
    assert [len(line.get_xdata()) for line in points] == [5, 5, 5]
    assert axes.get_xlim()[0] > -2  # EXP is 6 dB below
    assert "EXP (interpolation) at 4" in " ".join(figure.get_supxlabel().split())
    assert [t.get_text() for t in axes.get_yticklabels()] == [
        "modes = 8", "modes = 16", "modes = 32",
    ]  # fmt: skip
    assert render_figure(figure, "png")


def test_a_figure_needs_a_reference_and_something_to_compare():
    assert not list(paired(to_frame(study()), {}, replace(VIEW, reference={})))
    assert not list(paired(to_frame(study(gains={12: 0.0})), {}, VIEW))


# Comparing two folders


def side(modes, **fields):
    rows = [r for r in study(**fields) if r.method != "exp"]
    return [r for r in rows if r.config["backbone"]["modes"] == modes]


def test_compare_gives_verdicts_on_b():
    comparisons, left_out = compare_rows(side(12), side(8), {})
    assert [(c.metric, c.verdict) for c in comparisons] == [("PSNR", "worse"), ("SAM", "worse")]
    assert not left_out
    result = comparisons[0].result
    assert result.difference == pytest.approx(result.mean_b - result.mean_a)
    table = comparison_table(comparisons, name="c", title="C")
    assert {"B - A", "seen from", "seeds", "areas", "p", "verdict"} <= set(table.cells)
    assert table.cells["seeds"].tolist() == ["5", "5"] and "about B" in table.notes[-1]


def test_the_same_rows_do_not_differ():
    comparisons, left_out = compare_rows(study(), study(), {})
    assert not left_out
    trained = {c.verdict for c in comparisons if c.a.startswith("nodiff")}
    assert trained == {"no difference larger than 0 dB", "no difference larger than 0 deg"}


def test_compare_corrects_for_its_comparisons_metric_by_metric():
    all_b = study(gains=GAINS)
    shifted = [replace(r, samples=[v + 0.001 * k for k, v in enumerate(r.samples)]) for r in all_b]
    comparisons, _ = compare_rows(all_b, shifted, {})
    psnr = [c.result for c in comparisons if c.metric == "PSNR"]
    assert len(psnr) == 5 and all(v.p_holm >= v.p for v in psnr)
    alone, _ = compare_rows(side(12), side(8), {})
    assert alone[0].result.p == alone[0].result.p_holm


def test_one_seed_is_no_verdict_but_other_runs_tell_what_could_be_seen():
    [psnr, _], _ = compare_rows(side(12, seeds=[0]), side(8, seeds=[0]), {})
    assert psnr.verdict == "one seed: no verdict" and np.isnan(psnr.result.smallest)
    [psnr, _], _ = compare_rows(side(12), side(8, seeds=[0]), {})
    assert psnr.verdict == "one seed: no verdict" and psnr.result.smallest > 0
    assert format_verdict(psnr.result).startswith("-0.")


def test_other_numbers_of_images_are_refused():
    fewer = [replace(r, samples=r.samples[:6]) for r in side(8)]
    with pytest.raises(UsageError, match="8 and 6"):
        compare_rows(side(12), fewer, {})
    with pytest.raises(UsageError, match="runs of 6 and 8 images"):
        compare_rows(side(12), [*side(8, seeds=[8]), *fewer], {})


# Schemes apart, and where the best mode count lies


def schemes(words=None, **gains):
    """Rows of two schemes, each with a best mode count of its own."""
    rows = [row("exp", None, None, 41 + HARD)]
    for scheme, best in (("one_stage", 12), ("two_stage", 16)):
        of = study(gains={m: -abs(m - best) / 5 for m in (8, 12, 16)})[1:]
        rows += [
            replace(r, method=scheme, cell_id=f"{scheme}-{r.cell_id}",
                    config={**r.config, "scheme": scheme}) for r in of
        ]  # fmt: skip
    return rows


def test_schemes_are_shown_apart_and_each_with_the_baseline():
    words = {"two_stage": "as NODiff", "one_stage": "bare"}
    view = replace(VIEW, schemes=words)
    sections = list(accuracy(to_frame(schemes()), {}, view))
    assert [s.title for s in sections] == ["modes-sample-4-two_stage", "modes-sample-4-one_stage"]
    assert [s.tables[0].title for s in sections] == [
        "modes on sample-4: as NODiff", "modes on sample-4: bare",
    ]  # fmt: skip
    for section, scheme in zip(sections, words, strict=True):
        assert set(section.tables[0].cells["method"]) == {"exp", scheme}
    titles = [
        " ".join(figure.get_suptitle().split())
        for section in paired(to_frame(schemes()), {}, view)
        for figure in section.figures.values()
    ]
    assert "16 modes lead 12 modes" in titles[0]
    assert "12 modes lead 8 modes and 16 modes" in titles[1] or "12 modes lead" in titles[1]
    # A scheme that the view does not name is not lost.
    only = replace(VIEW, schemes={"one_stage": "bare"})
    names = [s.title for s in accuracy(to_frame(schemes()), {}, only)]
    assert names == ["modes-sample-4-one_stage", "modes-sample-4"]


def peak_rows(dataset, ratio, patch, best, tried):
    rows = []
    for seed in range(3):
        for modes in tried:
            rng = np.random.default_rng([modes, seed, patch])
            psnr = 46 + HARD - abs(np.log2(modes / best)) + 0.02 * rng.normal(size=8)
            one = row("diffusion", modes, seed, psnr, dataset=dataset)
            config = {
                **one.config,
                "patch": patch,
                "data": {"fingerprint": dataset, "ratio": ratio},
            }
            rows.append(replace(one, config=config, cell_id=f"{dataset}{patch}{modes}{seed}"))
    return rows


def test_the_best_mode_count_is_held_against_the_pass_band():
    rows = peak_rows("x4", 4, 64, 12, (4, 8, 12, 16, 32)) + peak_rows("x4", 4, 32, 8, (2, 4, 6, 8))
    rows += peak_rows("x2", 2, 64, 8, (8, 16, 24, 32))
    [section] = peaks(to_frame(rows), {}, replace(VIEW, reference={}))
    table = section.tables[0]
    assert list(table.cells["pass band ends at mode"]) == ["12", "6", "24"]
    assert list(table.cells["best"]) == ["12", "8", "8"]
    assert list(table.values["steps_apart"]) == [0, 1, 2]
    against = table.cells["best against the pass band's (PSNR)"]
    assert against[0] == "the same count" and " better" in against[2]
    assert any("in 2 of 3 settings" in note for note in table.notes)
