"""Verdicts over training runs: known numbers, other people's code, and what must always hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bench.records.verdicts import Runs, corrected, holm, judge, rounded_up, run_spread

RNG = np.random.default_rng(11)
AREA = 2.0 * RNG.normal(size=8)


def entrant(count, gain=0.0, *, first=0, areas=8, seed=0, own=0.15, interaction=0.06):
    rng = np.random.default_rng([seed, count, first])
    values = 47 + gain + AREA[:areas] + own * rng.normal(size=(count, 1))
    values = values + interaction * rng.normal(size=areas) + 0.04 * rng.normal(size=(count, areas))
    return Runs(values, tuple(range(first, first + count)))


def means(runs):
    return runs.values.mean(axis=1)


# Against scipy, and by hand


def test_on_few_areas_it_is_the_paired_t_test_over_seeds():
    a, b = entrant(5, areas=3), entrant(5, 0.3, areas=3, seed=1)
    verdict, known = judge(a, b), stats.ttest_rel(means(b), means(a))
    assert verdict.p == pytest.approx(known.pvalue)
    interval = known.confidence_interval(0.95)
    assert (verdict.low, verdict.high) == pytest.approx((interval.low, interval.high))
    assert verdict.by_seed == pytest.approx(tuple(means(b) - means(a)))
    assert (verdict.paired, verdict.new_areas, verdict.areas) == (True, False, 3)


def test_with_other_seeds_it_is_welchs():
    a, b = entrant(5, areas=3), entrant(3, 0.3, first=5, areas=3)
    verdict = judge(a, b)
    known = stats.ttest_ind(means(b), means(a), equal_var=False)
    assert verdict.p == pytest.approx(known.pvalue) and not verdict.paired
    assert (verdict.seeds_a, verdict.seeds_b) == (5, 3)


def test_only_the_shared_seeds_of_a_longer_series_are_paired():
    a, b = entrant(5, areas=3), entrant(3, 0.3, first=1, areas=3)
    shared = Runs(a.values[1:4], (1, 2, 3))
    assert judge(a, b).p == judge(shared, b).p and judge(a, b).seeds_a == 3
    backwards = Runs(b.values[::-1], b.seeds[::-1])
    assert judge(a, backwards).p == pytest.approx(judge(a, b).p)


def test_crossed_areas_by_hand():
    # The two-way analysis of variance of differences of two runs on four areas, written out.
    d = np.array([[0.0, 2.0, 4.5, 5.5], [2.0, 4.0, 5.5, 8.5]])
    mean, runs, areas = d.mean(), d.mean(axis=1), d.mean(axis=0)
    left = d - runs[:, None] - areas + mean
    squares = 4 * ((runs - mean) ** 2).sum(), 2 * ((areas - mean) ** 2).sum(), (left**2).sum()
    s, a, e = squares[0] / 1, squares[1] / 3, squares[2] / 3
    assert e < min(s, a)
    variance = (s + a - e) / 8
    df = (s + a - e) ** 2 / (s**2 / 1 + a**2 / 3 + e**2 / 3)
    crossed = stats.t.ppf(0.975, df) * np.sqrt(variance)
    fixed = stats.t.ppf(0.95, 1) * np.sqrt(s / 8)  # one-sided: a guard
    verdict = judge(Runs(np.zeros((2, 4)), (0, 1)), Runs(d, (0, 1)))
    assert verdict.high - verdict.difference == pytest.approx(max(crossed, fixed))
    p = [2 * stats.t.sf(mean / np.sqrt(variance), df), stats.t.sf(mean / np.sqrt(s / 8), 1)]
    assert verdict.p == pytest.approx(max(p)) and verdict.new_areas


def test_what_only_some_areas_show_is_not_claimed_of_new_ones():
    odd = np.array([2.0, 0.0, 0.1, -0.1])
    a = Runs(47 + 0.01 * RNG.normal(size=(5, 4)), tuple(range(5)))
    b = Runs(a.values + odd + 0.01 * RNG.normal(size=(5, 4)), a.seeds)
    assert judge(a, b, direction="higher").word is None
    here = judge(a, b, ["x", "x", "y", "y"], direction="higher")
    assert here.word == "better" and not here.new_areas and here.areas == 2


def test_images_are_averaged_within_areas():
    a, b = entrant(5), entrant(5, 0.3, seed=1)
    labels = ["n", "n", "s", "s", "e", "e", "w", "w"]
    halves = [Runs(r.values.reshape(5, 4, 2).mean(axis=2), r.seeds) for r in (a, b)]
    assert judge(a, b, labels).p == pytest.approx(judge(*halves).p)


def test_the_smallest_difference_is_found_by_80_percent_of_such_studies():
    verdict = judge(entrant(5, areas=1), entrant(5, areas=1, seed=1))
    error = (verdict.high - verdict.low) / 2 / stats.t.ppf(0.975, 4)
    power = stats.nct.sf(stats.t.ppf(0.975, 4), 4, verdict.smallest / error)
    assert power == pytest.approx(0.8, abs=1e-4)


# Words


def test_words():
    a, b = entrant(5), entrant(5, 1.0, seed=1)
    assert str(judge(a, b, unit="dB", direction="higher")) == "better"
    assert str(judge(a, b, unit="dB", direction="lower")) == "worse"
    assert str(judge(b, a, unit="dB", direction="higher")) == "worse"
    assert str(judge(a, b)) == "differs"
    tie = judge(a, entrant(5, seed=2), unit="dB", direction="higher")
    assert str(tie) == f"no difference larger than {rounded_up(tie.bound)} dB"
    same = judge(a, a, unit="dB")
    assert same.p == 1 and str(same) == "no difference larger than 0 dB"


def test_one_seed_gives_numbers_and_no_verdict():
    a, b = entrant(1), entrant(1, 0.4, seed=1)
    alone = judge(a, b, unit="dB", direction="higher")
    assert str(alone) == "one seed: no verdict" and alone.word is None
    assert alone.difference == pytest.approx(b.values.mean() - a.values.mean())
    assert np.isnan([alone.low, alone.p, alone.smallest]).all()
    others = [(entrant(5, seed=2), None), (entrant(3, seed=3), None), (a, None)]
    variance, df = spread = run_spread(others)
    squares = sum(((means(r) - means(r).mean()) ** 2).sum() for r, _ in others[:2])
    assert df == 6 and variance == pytest.approx(squares / 6)
    known = judge(a, b, spread=spread)
    assert known.smallest > 0.3 and np.isnan(known.p) and known.undecided
    assert str(judge(entrant(5), b)) == "one seed: no verdict"
    assert run_spread([(a, None)]) is None


def test_methods_without_training_have_no_spread_over_seeds():
    exp, other = Runs(41 + AREA[None], None), Runs(41.5 + AREA[None] + 0.1 * AREA**2, None)
    verdict = judge(exp, other, direction="higher")
    known = stats.ttest_rel(other.values[0], exp.values[0])
    assert verdict.p == pytest.approx(known.pvalue) and verdict.seeds_a == 0
    few = judge(Runs(exp.values[:, :3], None), Runs(other.values[:, :3], None))
    assert str(few) == "no training, few areas: no verdict"
    trained = judge(exp, entrant(5), direction="higher")
    assert trained.word == "better" and not trained.paired
    one_sample = stats.ttest_1samp(means(entrant(5)), exp.values.mean())
    assert trained.p >= one_sample.pvalue / 2 * (1 - 1e-9)
    assert str(judge(exp, entrant(1))) == "one seed: no verdict"


def test_images_without_a_number_are_left_out_and_counted():
    a, b = entrant(5), entrant(5, 0.3, seed=1)
    holes = b.values.copy()
    holes[0, 2], holes[3, 5] = np.inf, np.nan
    verdict = judge(a, Runs(holes, b.seeds))
    kept = [0, 1, 3, 4, 6, 7]
    whole = judge(Runs(a.values[:, kept], a.seeds), Runs(b.values[:, kept], b.seeds))
    assert verdict.excluded == 2 and verdict.p == whole.p
    assert judge(a, Runs(np.full((5, 8), np.nan), a.seeds)).areas == 0


def test_what_is_not_on_the_same_images_is_refused():
    with pytest.raises(ValueError, match="8 and 4"):
        judge(entrant(5), entrant(5, areas=4))
    with pytest.raises(ValueError, match="8 and 8 and 2"):
        judge(entrant(5), entrant(5), ["n", "s"])


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.27, "0.27"), (0.271, "0.28"), (0.3, "0.3"), (12.31, "13"), (123, "130"), (4e-4, "0.0004"),
     (0.0, "0"), (float("nan"), "nan")],
)  # fmt: skip
def test_bounds_are_rounded_up(value, text):
    assert rounded_up(value) == text


# Holm


def test_holm_against_published_numbers():
    # The adjusted values are those of statsmodels 0.15's multipletests(p, method="holm").
    p = [0.01, 0.02, 0.03, 0.04, 0.05]
    assert holm(p) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    # The usual example of textbooks: the first and the fourth are rejected, the others are not.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert holm([]).size == 0


def test_no_verdict_is_no_comparison():
    assert holm([0.02, np.nan, 0.03]) == pytest.approx([0.04, np.nan, 0.04], nan_ok=True)
    verdicts = [judge(entrant(5), entrant(5, 0.4, seed=1)), judge(entrant(1), entrant(1, seed=1))]
    assert corrected(verdicts)[0].p_holm == verdicts[0].p


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_between_the_p_value_and_bonferroni_and_keeps_the_order(p):
    adjusted = holm(p)
    assert (adjusted >= p).all() and (adjusted <= np.minimum(1, len(p) * np.array(p)) + 1e-12).all()
    order = np.argsort(p, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()


# What always holds

studies = st.tuples(
    st.integers(2, 6), st.integers(1, 8), st.booleans(), st.integers(0, 2**20), st.floats(-1, 1)
)


def sides(study):
    count, areas, paired, seed, gain = study
    first = 0 if paired else 100
    return entrant(count, areas=areas, seed=seed), entrant(
        count, gain, first=first, areas=areas, seed=seed + 1
    )


@settings(max_examples=60, deadline=None)
@given(studies)
def test_the_interval_and_p_agree_and_swapping_sides_mirrors(study):
    a, b = sides(study)
    one, other = judge(a, b, direction="higher"), judge(b, a, direction="higher")
    assert one.difference == pytest.approx(-other.difference, abs=1e-9)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-9)
    assert one.p == pytest.approx(other.p, rel=1e-6)
    assert (one.p < 0.05) == (not one.low <= 0 <= one.high)
    opposite = {"better": "worse", "worse": "better", None: None}
    assert other.word == opposite[one.word]
    assert one.bound >= abs(one.difference) and one.smallest > 0


@settings(max_examples=60, deadline=None)
@given(studies, st.floats(-50, 50), st.floats(0.01, 100))
def test_an_offset_changes_nothing_and_a_factor_scales(study, offset, factor):
    a, b = sides(study)
    one = judge(a, b)
    other = judge(*(Runs(factor * side.values + offset, side.seeds) for side in (a, b)))
    assert other.p == pytest.approx(one.p, rel=1e-5, abs=1e-9)
    for name in ("difference", "low", "high", "smallest"):
        known = factor * getattr(one, name)
        assert getattr(other, name) == pytest.approx(known, rel=1e-5, abs=1e-7 * factor + 1e-8)


@settings(max_examples=30, deadline=None)
@given(studies, st.randoms(use_true_random=False))
def test_the_order_of_seeds_and_images_does_not_matter(study, random):
    a, b = sides(study)
    runs, images = list(range(len(a.values))), list(range(a.values.shape[1]))
    random.shuffle(runs)
    random.shuffle(images)
    moved = [Runs(s.values[runs][:, images], tuple(s.seeds[k] for k in runs)) for s in (a, b)]
    assert judge(*moved).p == pytest.approx(judge(a, b).p, rel=1e-6)
