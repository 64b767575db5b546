"""Sentences of rows whose answers are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.records import Row, View, load_rows, load_runs, load_views
from bench.reporting.answers import answers, findings
from bench.reporting.build import frame_of

PUBLISHED = Path(__file__).parents[2] / "results" / "published"
AREAS = np.array([38.0, 40.0, 41.0, 43.0, 45.0])
VIEW = View(
    "study",
    "Study",
    axis="backbone.modes",
    baselines={"exp": "EXP (interpolation)"},
    reference={"backbone.modes": 12},
)
RUNS = {
    "r": {"machine": {"cpu": "Xeon", "cores": 2}},
    "other": {"machine": {"cpu": "EPYC", "cores": 2}},
}


def measured(modes, gain, seed, metric="PSNR", run_id="r", **fields):
    rng = np.random.default_rng([modes, seed or 0])
    noise = rng.normal(0, 0.01) + rng.normal(0, 0.01, AREAS.size)
    samples = (AREAS + gain + noise).tolist()
    config = {"data": {"fingerprint": "f"}, "backbone": {"modes": modes}, "training": f"{modes}"}
    common = {
        "run_id": run_id, "protocol": "study", "cell_id": f"{modes}-{seed}", "kind": "accuracy",
        "method": "diffusion", "backbone": "fno", "dataset": "sample-4", "split": "reduced",
        "metric": metric, "unit": "dB", "direction": "higher", "seed": seed, "n": len(samples),
        "value": float(np.mean(samples)), "samples": samples, "config": config,
    }  # fmt: skip
    return Row(**common | fields)


def cost_of(row, metric, value, unit, **fields):
    kept = {"run_id": row.run_id, "protocol": "study", "cell_id": row.cell_id, "seed": row.seed}
    kept |= {"method": row.method, "backbone": row.backbone, "dataset": row.dataset}
    return Row(
        **kept | {"kind": "cost", "metric": metric, "value": value, "unit": unit}
        | {"direction": "lower", "config": row.config} | fields
    )  # fmt: skip


def study(gains, seeds, **fields):
    return [measured(m, gain, seed, **fields) for m, gain in gains.items() for seed in seeds]


def said(rows, view=VIEW, runs=RUNS):
    return answers(frame_of(rows, runs), runs, view)


def test_who_leads_by_how_much_and_what_it_costs():
    rows = study({8: -0.5, 12: 0.0, 32: 1.0}, range(3))
    for row in list(rows):
        modes = row.config["backbone"]["modes"]
        rows.append(cost_of(row, "params", modes**2 / 100, "M"))
        rows.append(cost_of(row, "latency_image", modes / 12, "s", split="reduced"))
        rows.append(cost_of(row, "latency_image", 99.0, "s", split="full"))
    sentences = said(rows)
    first = sentences[0]
    assert first.startswith("sample-4 – PSNR against modes = 12, the reference: ")
    assert "32 modes lead 12 modes by 1 dB [" in first and "12 modes lead 8 modes by" in first
    assert first.endswith("3 seeds.")
    [price] = [sentence for sentence in sentences if sentence.startswith("Price of")]
    assert price.startswith("Price of 32 modes, 12 modes being 1: 7.1 times the parameters")
    assert "(10.24 against 1.44 M)" in price and "2.7 times the time to fuse an image" in price
    assert "not interleaved" in price and "99" not in price
    assert any(s.startswith("Cannot be told: differences below 0.") for s in sentences)


def test_the_reference_leads_and_has_no_price():
    sentences = said(study({12: 1.0, 32: 0.0}, range(3)))
    assert "12 modes lead by 1 dB" in sentences[0].replace(" 32 modes", "")
    assert not any("Price" in sentence for sentence in sentences)


def test_one_seed_is_no_verdict_and_nothing_is_said_to_lead():
    sentences = said(study({12: 0.0, 32: 1.0}, [0]))
    assert sentences[0].endswith("the reference: one seed: no verdict.")
    assert not any("lead" in sentence or "better" in sentence for sentence in sentences)
    assert "Means of PSNR, best first: modes = 32 at 42." in sentences[1]
    assert sentences[-1].startswith("Cannot be told: whether the order of these means")


def test_a_tie_says_how_large_a_difference_may_be():
    rows = [
        measured(modes, gain, seed)
        for modes, gains in ((12, (0.0, 0.3, -0.2)), (32, (0.2, -0.1, 0.1)))
        for seed, gain in enumerate(gains)
    ]
    sentences = said(rows)
    assert "no difference larger than" in sentences[0]
    assert any("Cannot be told: differences below" in sentence for sentence in sentences)


def test_other_indices_of_the_leader():
    rows = study({12: 0.0, 32: 1.0}, range(3))
    rows += study({12: 0.0, 32: -1.0}, range(3), metric="SAM", unit="deg", direction="lower")
    rows += study({12: 0.0, 32: 1.0}, range(3), metric="ERGAS", unit="1", direction="lower")
    [beside] = [s for s in said(rows) if s.startswith("By the other indices")]
    assert beside == (
        "By the other indices, 32 modes against 12 modes: better in SAM; worse in ERGAS."
    )


def test_times_of_two_machines_are_not_compared():
    rows = study({12: 0.0}, range(3)) + study({32: 1.0}, range(3), run_id="other")
    rows += [cost_of(row, "train_seconds", 10.0, "s", kind="training") for row in rows[:6]]
    rows += [cost_of(row, "flops_forward", 2.0, "GFLOP") for row in rows[:6]]
    [price] = [s for s in said(rows) if s.startswith("Price of")]
    assert (
        "the same FLOPs of a forward pass (2 against 2 GFLOP)" in price
        and "training time" not in price
    )


def test_few_areas_say_nothing_of_others():
    rows = study({12: 0.0, 32: 1.0}, range(3))
    rows = [
        Row(**{**vars(row), "samples": row.samples[:3], "n": 3, "value": np.mean(row.samples[:3])})
        for row in rows
    ]
    assert "Fewer than 4 test areas: nothing is said of other areas." in said(rows)


def test_without_a_reference_means_are_ranked_and_nothing_else():
    rows = study({12: 0.0, 32: 1.0}, range(3))
    view = View("study", "Study", axis="backbone.modes")
    sentences = said(rows, view)
    assert sentences[0].startswith("sample-4 – Means of PSNR, best first: modes = 32 at")
    assert sentences[1] == (
        "Cannot be told: who differs from whom; the study names no reference."
    )  # fmt: skip
    absent = View("study", "Study", axis="backbone.modes", reference={"backbone.modes": 99})
    assert said(rows, absent)[-1] == (
        "Cannot be told: who differs from whom; nothing here can be paired with the reference,"
        " modes = 99."
    )


def test_who_costs_least_and_whose_quartiles_overlap():
    blank = measured(1, 0, None)
    rows = []
    for backbone, time in (("fno", 10.0), ("convnext", 10.2), ("unet", 40.0)):
        for size in (64, 128):
            samples = (time * size / 64 * np.linspace(0.95, 1.05, 11)).tolist()
            rows.append(
                cost_of(
                    blank, "latency_train_step", time * size / 64, "ms", samples=samples,
                    backbone=backbone, cell_id=f"{backbone}{size}", size=size, batch=8,
                    seed=None, dataset=None, config={},
                )
            )  # fmt: skip
    sentences = said(rows, View("study", "Cost"))
    assert sentences[0] == "Cost on Xeon x2 – Least cost: fno in 1 of 1 measures."
    assert sentences[1] == (
        "Training iteration (side 64, batch 8): least for fno, 10 ms; 1.02 times that for convnext,"
        " whose quartiles overlap with the first: no order can be told; 4 times for unet, the most."
    )


def test_what_failed_is_counted():
    rows = study({12: 0.0, 32: 1.0}, range(3))
    rows.append(measured(16, 0, 0, value=None, samples=None, status="oom", reason="8 GiB"))
    assert said(rows)[-1] == "Without a result – 1 oom, of 7 rows."


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ablation_modes", "32 modes lead 12 modes by 0.24 dB [0.11, 0.37]"),
        ("ablation_modes_laptop", "one seed: no verdict"),
        ("speed", "Beside neuraloperator, over 8 cases"),
        ("tune", "Lowest validation loss at learning rate"),
        ("efficiency", "Least cost: fno"),
    ],
)
def test_published_rows_answer(name, words):
    folder = PUBLISHED / name
    rows, runs = load_rows(folder), load_runs(folder, broken=True)
    [view] = load_views(folder).values()
    frame = frame_of(rows, runs)
    sentences = answers(frame, runs, view)
    assert any(words in sentence for sentence in sentences)
    assert all(sentence.endswith(".") and "nan" not in sentence for sentence in sentences)
    assert len(sentences) == sum(len(f.sentences) for f in findings(frame, runs, view))


def test_no_rows_answer_nothing():
    assert said([]) == []
