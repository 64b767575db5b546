"""Tuned learning rates: chosen from rows, kept in a file, used by presets."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from bench.config import UsageError, experiment_preset, tuned, with_rate
from bench.config.tuned import (
    PACKAGED,
    Budget,
    budget_of,
    own_rates,
    read_rates,
    write_budgets,
    write_rates,
)
from bench.records import Row, View, to_frame
from bench.reporting.blocks.tuning import best_rates, tuning
from protocols.budget import budgets


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("NODIFF_BENCH_HOME", str(tmp_path / "home"))


def trial(backbone: str, rate: float, loss: float | None, seed: int = 1000, **fields) -> Row:
    config = {"stage1": {"learning_rate": rate}}
    status = {} if loss is not None else {"status": "diverged", "reason": "loss nan at step 3"}
    metric = "validation_loss" if loss is not None else None
    return Row(**{
        "run_id": "r", "cell_id": f"{backbone}{rate}{seed}", "protocol": "tune", "kind": "training",
        "method": "diffusion", "backbone": backbone, "dataset": "d", "metric": metric,
        "value": loss, "seed": seed, "config": config, **status, **fields,
    })  # fmt: skip


def test_the_lowest_mean_loss_wins_and_a_rate_that_failed_once_is_out():
    rows = [
        trial("a", 1e-3, 0.5), trial("a", 1e-3, 0.7, 1001),
        trial("a", 2e-3, 0.4), trial("a", 2e-3, None, 1001),
        trial("a", 4e-3, 0.61), trial("a", 4e-3, 0.61, 1001),
        trial("b", 1e-3, 0.3), trial("b", 2e-3, 0.3),
        trial("c", 1e-3, None),
    ]  # fmt: skip
    assert best_rates(to_frame(rows)) == {"a": 1e-3, "b": 1e-3}


def test_trials_of_other_lengths_are_not_pooled():
    def of(steps: int, rate: float, loss: float, name: str = "a") -> Row:
        row = trial(name, rate, loss, cell_id=f"{name}{rate}{steps}")
        return replace(row, config={"stage1": {"learning_rate": rate, "steps": steps}})

    rows = [of(100, 1e-3, 0.5), of(100, 2e-3, 0.4), of(900, 1e-3, 0.2), of(900, 2e-3, 0.6)]
    found = best_rates(to_frame([*rows, of(100, 1e-3, 0.3, "b")]))
    assert found == {"a, 100 steps": 2e-3, "a, 900 steps": 1e-3, "b": 1e-3}


def test_the_table_marks_the_winner_and_names_the_end_of_the_grid():
    rows = [trial("a", 1e-3, 0.5), trial("a", 2e-3, 0.4), trial("a", 4e-3, 0.45)]
    rows += [trial("b", 1e-3, 0.6), trial("b", 2e-3, 0.5), trial("b", 4e-3, 0.3)]
    (section,) = tuning(to_frame(rows), {}, View("tune", "t"))
    (table,) = section.tables
    assert list(table.cells["entrant"]) == ["a", "b"]
    assert [table.marks.loc[0, "0.002"], table.marks.loc[1, "0.004"]] == ["best", "best"]
    assert (table.marks == "best").to_numpy().sum() == 2
    assert "At the end of the grid: b." in table.notes
    assert len(table.values) == 6


def test_a_sweep_of_ones_own_overrules_the_packaged_one_for_that_backbone_alone():
    before = experiment_preset("laptop", "fno")
    assert before.stage1.learning_rate == read_rates(PACKAGED)["small"]["fno"]
    other = experiment_preset("laptop", "conv_unet").stage1.learning_rate
    write_rates(own_rates(), {"small": {"fno": 3e-3}})
    write_rates(own_rates(), {"small": {"mine": 5e-4}, "tiny": {"fno": 1e-2}})
    assert experiment_preset("workstation", "fno").stage1.learning_rate == 3e-3
    assert experiment_preset("laptop", "mine").stage1.learning_rate == 5e-4
    assert experiment_preset("laptop", "conv_unet").stage1.learning_rate == other
    # smoke claims nothing and the paper's rates are the paper's: neither is tuned.
    assert experiment_preset("smoke", "fno").stage1.learning_rate == 4e-3
    assert experiment_preset("paper", "fno").stage1.learning_rate == 1e-4
    assert read_rates(own_rates()) == {"small": {"fno": 3e-3, "mine": 5e-4}, "tiny": {"fno": 1e-2}}


def test_stage_two_keeps_its_ratio():
    paper = with_rate(experiment_preset("paper"), 2e-4)
    assert paper.stage2.learning_rate == pytest.approx(8e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[small", "not a file of learning rates"),
        ('[small]\nfno = "fast"', r"small.fno = 'fast': expected a learning rate"),
        ("[small]\nfno = -1", "small.fno = -1"),
        ("[small]\nfno = nan", "small.fno = nan"),
        ("[small]\nfno = true", "small.fno = True"),
        ("small = 3", "small = 3"),
    ],
)
def test_a_file_of_rates_that_is_none_is_refused_in_one_line(text, message):
    own_rates().parent.mkdir(parents=True)
    own_rates().write_text(text)
    with pytest.raises(UsageError, match=message) as info:
        experiment_preset("laptop", "fno")
    assert "tuned.toml" in str(info.value)


def test_every_shipped_backbone_was_tuned():
    from backbones.registry import BACKBONES

    # Of other libraries there are as many as there are settings: those are swept on demand.
    foreign = {n for n in BACKBONES if n.startswith(("diffusers_", "neuralop_", "timm_"))}
    to_come = {"ddif_unet"}
    swept = set(read_rates(PACKAGED)["small"])
    assert not to_come & swept  # the list names no more than it must
    assert set(BACKBONES.match(("*",))) - foreign - to_come <= swept


def test_a_rate_that_was_not_swept_is_said_once(caplog):
    for _ in range(2):
        config = experiment_preset("laptop", "not_swept")
    assert config.stage1.learning_rate == 4e-3
    (said,) = caplog.messages
    assert "no learning rate of not_swept was swept at scale small: 0.004" in said
    assert "nox -s tune -- --backbone not_swept" in said


def test_a_budget_is_the_largest_batch_that_leaves_a_thousand_steps():
    times = pd.DataFrame(
        [
            ("fast", 8, 100.0), ("fast", 1, 20.0), ("fast", 4, 60.0),
            ("slow", 1, 200.0), ("slow", 2, 299.0), ("slow", 4, 310.0),
            ("slowest", 1, 1200.0), ("slowest", 2, 2000.0),
        ],
        columns=["method", "batch", "value"],
    )  # fmt: skip
    assert budgets(times) == {
        "fast": Budget(8, 3000),
        "slow": Budget(2, 1000),
        "slowest": Budget(1, 250),
    }


def test_budgets_are_kept_by_method_and_read_back(tmp_path, monkeypatch):
    monkeypatch.setattr(tuned, "BUDGETS", tmp_path / "budget.toml")
    assert budget_of("small", "adwm") is None
    write_budgets("small", {"adwm": Budget(1, 1600), "hfin": Budget(2, 30)})
    write_budgets("small", {"hfin": Budget(4, 40)})
    assert (budget_of("small", "adwm"), budget_of("small", "hfin")) == ((1, 1600), (4, 40))
    assert budget_of("base", "adwm") is None


@pytest.mark.parametrize("budget", ["180", "{batch = 0, steps = 9}", "{steps = 9}"])
def test_a_file_of_budgets_that_is_none_is_refused_in_one_line(budget, tmp_path, monkeypatch):
    monkeypatch.setattr(tuned, "BUDGETS", tmp_path / "budget.toml")
    tuned.BUDGETS.write_text(f"[small]\nadwm = {budget}\n")
    with pytest.raises(UsageError, match=r"small\.adwm = .*: expected a batch and number of steps"):
        budget_of("small", "adwm")
