"""How often verdicts err: 5,000 simulated studies each, with the spreads of committed rows."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from bench.records import load_rows, to_frame
from bench.records.verdicts import Runs, corrected, judge

PUBLISHED = Path(__file__).parents[2] / "results" / "published" / "ablation_modes"
STUDIES = 5000


class Spreads(NamedTuple):
    """Standard deviations in dB, of what is random about a PSNR."""

    run: float
    """Of a training run, all areas alike."""
    rest: float
    """Of a run in one area."""
    interaction: float
    """Of an entrant in one area, all runs alike."""


@pytest.fixture(scope="module")
def spreads():
    """Components of variance of the committed ablation: mode counts x seeds x areas, bare."""
    frame = to_frame(load_rows(PUBLISHED))
    rows = frame[(frame["method"] == "diffusion") & (frame["metric"] == "PSNR")]
    rows = rows[(rows["kind"] == "accuracy") & (rows["status"] == "ok")]
    rows = rows[rows["dataset"] == "sample-4"].sort_values(["config.backbone.modes", "seed"])
    modes, seeds = rows["config.backbone.modes"].nunique(), rows["seed"].nunique()
    labels = np.array(rows["config.data.areas.reduced"].iloc[0])
    samples = np.array(rows["samples"].tolist()).reshape(modes, seeds, len(labels))
    areas = list(dict.fromkeys(labels))
    table = np.stack([samples[..., labels == area].mean(axis=-1) for area in areas], axis=-1)
    runs, cells = table.mean(axis=2), table.mean(axis=1)
    left = table - cells[:, None] - (runs - runs.mean(axis=1, keepdims=True))[..., None]
    rest = (left**2).sum() / (modes * (seeds - 1) * (len(areas) - 1))
    run = runs.var(axis=1, ddof=1).mean() - rest / len(areas)
    left = cells - cells.mean(axis=0) - cells.mean(axis=1, keepdims=True) + cells.mean()
    both = (left**2).sum() / ((modes - 1) * (len(areas) - 1)) - rest / seeds
    found = Spreads(*np.sqrt(np.maximum([run, rest, both], 0)))
    print(found)
    assert seeds >= 5 and len(areas) >= 4
    assert 0.02 < found.run < 0.5 and 0.02 < found.rest < 0.5
    return found


def study(number, name, count, areas, spreads, gain=0.0, first=0):
    """Return the runs of one entrant: each name has random numbers of its own in every study."""
    rng = np.random.default_rng([number, *name.encode()])
    values = 47 + gain + spreads.interaction * rng.normal(size=areas) + np.zeros((count, 1))
    values += spreads.run * rng.normal(size=(count, 1))
    values += spreads.rest * rng.normal(size=(count, areas))
    return Runs(values, tuple(range(first, first + count)))


def rate(count, areas, spreads, *, gain=0.0, paired=True):
    """Return the share of studies of two entrants that end in a difference."""
    hard = 2.5 * np.random.default_rng(areas).normal(size=areas)  # common to all entrants
    found = 0
    for number in range(STUDIES):
        a = study(number, "a", count, areas, spreads)
        first = 0 if paired else count
        b = study(number, "b", count, areas, spreads, gain, first)
        verdict = judge(Runs(a.values + hard, a.seeds), Runs(b.values + hard, b.seeds))
        assert verdict.paired == paired
        found += verdict.word is not None
    return found / STUDIES


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, 5, 10])
@pytest.mark.parametrize("areas", [1, 5, 8])
@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("interacting", [True, False])
def test_3_to_7_percent_of_ties_are_called_a_difference(spreads, count, areas, paired, interacting):
    if interacting and areas < 4:
        pytest.skip("on fixed areas an interaction is a difference")
    spreads = spreads if interacting else spreads._replace(interaction=0)
    found = rate(count, areas, spreads, paired=paired)
    print(f"{count} seeds, {areas} areas, {paired=}, {interacting=}: {found:.1%}")
    assert 0.03 <= found <= 0.07


@pytest.mark.slow
@pytest.mark.parametrize("areas", [1, 5, 8])
@pytest.mark.parametrize("paired", [True, False])
def test_half_a_decibel_is_found_in_nine_of_ten_studies_of_five_seeds(spreads, areas, paired):
    spreads = spreads if areas > 1 else spreads._replace(interaction=0)
    found = rate(5, areas, spreads, gain=0.5, paired=paired)
    print(f"5 seeds, {areas} areas, {paired=}: {found:.1%}")
    assert found >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, 5, 10])
@pytest.mark.parametrize("areas", [5, 8])
def test_studies_of_five_equal_entrants_seldom_name_any_difference(spreads, count, areas):
    wrong, uncorrected = 0, 0
    for number in range(STUDIES):
        runs = [study(number, name, count, areas, spreads) for name in "abcde"]
        verdicts = [judge(runs[0], other) for other in runs[1:]]
        uncorrected += any(verdict.word for verdict in verdicts)
        wrong += any(verdict.word for verdict in corrected(verdicts))
    wrong, uncorrected = wrong / STUDIES, uncorrected / STUDIES
    print(f"{count} seeds, {areas} areas: {wrong:.1%}, without correction {uncorrected:.1%}")
    assert wrong <= 0.07
    assert uncorrected > 0.12


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, 5, 10])
def test_a_bootstrap_of_few_seeds_would_call_more_ties_a_difference(count):
    rng = np.random.default_rng(count)
    means = rng.normal(size=(2000, count))
    resampled = means[:, rng.integers(0, count, (2000, count))].mean(axis=2)
    low, high = np.quantile(resampled, [0.025, 0.975], axis=1)
    found = np.mean((low > 0) | (high < 0))
    print(f"{count} seeds: {found:.1%}")
    assert found > 0.07
