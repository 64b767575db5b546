"""Verdicts over training runs: do two entrants differ, by how much, what could have been seen.

What is claimed. A run is trained with a seed and measured on every test area, so that seeds and
areas are crossed. From :data:`MINIMUM_AREAS` areas on, the claim is about new seeds on new areas of
the kind: both are drawn at random. With fewer it is about new seeds on these very areas. A method
that is not trained has no spread over seeds; two of them are told apart over areas alone.

How. Images are averaged within their area; an area counts as much as another. The two are paired
by seed where all seeds of one are among the other's (equal seeds share data order and noise), else
their runs are independent (Welch, Biometrika 34, 1947). A difference has to hold twice, so that the
larger p and the wider interval count:

- on these areas: a t test over the runs' means, of variance S. On few areas it is all there is, and
  two-sided; beside the next it is a guard, and one-sided: the sign is what the next one found.
- on new ones: the mean difference has the variance V = S + A - E, A from the spread of the areas'
  means, E, which is in both, from what is left of the table of runs x areas; where S or A is not
  above E, that factor adds nothing. t has Satterthwaite's degrees of freedom (Biometrics Bulletin
  2(6), 1946). This is the quasi-F of crossed random factors (Clark, J. Verbal Learning 12, 1973).
  Alone it names a difference in up to 10 % of studies of five equal entrants at 3 seeds.

How well. ``tests/unit/test_verdicts_rates.py``: with the variances of committed rows, and 0.15 dB
between the runs of one entrant, 3-7 % of ties are called a difference at 3, 5 and 10 seeds, with
and without interaction of entrant and area, and five seeds see 0.5 dB in 96 % of studies (83 % at
0.2 dB between runs, 65 % at 0.25). A percentile bootstrap of the seeds' means calls 24, 15 and 9 %
of ties a difference.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

__all__ = [
    "ALPHA",
    "MINIMUM_AREAS",
    "POWER",
    "Runs",
    "Variance",
    "Verdict",
    "corrected",
    "holm",
    "judge",
    "rounded_up",
    "run_spread",
]

ALPHA = 0.05
POWER = 0.8
MINIMUM_AREAS = 4
"""Fewest areas that stand for others: a spread has to be estimated from them."""
ONE_SEED = "one seed: no verdict"
FEW_AREAS = "no training, few areas: no verdict"

Variance = tuple[float, float]
"""Variance of a mean difference, and its degrees of freedom."""


@dataclass(frozen=True, eq=False)
class Runs:
    """What the runs of an entrant measured.

    Attributes:
        values: (runs, images), one metric.
        seeds: of the runs, each another one; None for a method that is not trained: one row.
    """

    values: np.ndarray
    seeds: tuple[Hashable, ...] | None

    @property
    def runs(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Verdict:
    """B against A in one metric. What cannot be known is nan."""

    mean_a: float
    mean_b: float
    difference: float
    """Mean of B - A, in the metric's unit."""
    low: float
    high: float
    """Ends of the 95 % interval of the difference, of this comparison alone."""
    p: float
    """Two-sided."""
    p_holm: float
    """The same after :func:`corrected`; decides."""
    smallest: float
    """Smallest difference that 80 % of such studies find at 5 %, two-sided, one comparison: at this
    variance and these degrees of freedom, by the noncentral t."""
    seeds_a: int
    seeds_b: int
    """Runs used; 0 without training."""
    areas: int
    excluded: int
    """Images left out because a value of theirs is not finite."""
    paired: bool
    """By seed."""
    new_areas: bool
    """Whether the claim is about other areas, too."""
    by_seed: tuple[float, ...]
    """B - A of each seed; where unpaired, B's runs less A's mean."""
    unit: str | None
    direction: str | None
    """Whether higher or lower is better; None: neither."""

    @property
    def word(self) -> str | None:
        """``better``, ``worse`` (B) or ``differs``; None where no difference is shown."""
        if not self.p_holm < ALPHA:
            return None
        if self.direction is None:
            return "differs"
        return "better" if (self.difference > 0) == (self.direction == "higher") else "worse"

    @property
    def bound(self) -> float:
        """How large the difference may be: the end of the interval that is farther from zero."""
        return max(abs(self.low), abs(self.high))

    @property
    def undecided(self) -> str | None:
        """Why there is no verdict; None where there is one."""
        if self.p == self.p:
            return None
        return ONE_SEED if self.seeds_a or self.seeds_b else FEW_AREAS

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit not in (None, "", "1") else ""
        tie = f"no difference larger than {rounded_up(self.bound)}{unit}"
        return self.undecided or self.word or tie


def rounded_up(value: float, digits: int = 2) -> str:
    """Return a bound as text: never below it, ``digits`` figures."""
    if not np.isfinite(value) or value <= 0:
        return "0" if value == 0 else str(value)
    decimals = digits - 1 - int(np.floor(np.log10(value)))
    up = np.ceil(round(value * 10.0**decimals, 6)) / 10.0**decimals
    text = f"{up:.{max(decimals, 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def holm(p: Sequence[float]) -> np.ndarray:
    """Return p values adjusted for their number (Holm, Scand. J. Statistics 6(2), 1979).

    nan is no comparison: it stays, and does not count.
    """
    p = np.asarray(p, dtype=float)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    adjusted = np.full(p.shape, np.nan)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(order.size, 0, -1)).clip(max=1)
    return adjusted


def corrected(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Return the verdicts of one metric and table, corrected for their number."""
    adjusted = holm([verdict.p for verdict in verdicts])
    return [replace(v, p_holm=float(p)) for v, p in zip(verdicts, adjusted, strict=True)]


def run_spread(entrants: Iterable[tuple[Runs, Sequence[Hashable] | None]]) -> Variance | None:
    """Return the variance of one run's mean, pooled over entrants that have several runs.

    Args:
        entrants: runs of one metric with the areas of their images, as for :func:`judge`.
    """
    total, df = 0.0, 0
    for runs, areas in entrants:
        kept = np.isfinite(runs.values).all(axis=0)
        if runs.seeds is not None and runs.runs > 1 and kept.any():
            means = _by_area(runs.values, areas, kept).mean(axis=1)
            total += float(((means - means.mean()) ** 2).sum())
            df += runs.runs - 1
    return (total / df, df) if df else None


def judge(
    a: Runs,
    b: Runs,
    areas: Sequence[Hashable] | None = None,
    *,
    unit: str | None = None,
    direction: str | None = None,
    spread: Variance | None = None,
) -> Verdict:
    """Return the verdict on B against A, not yet corrected for the number of comparisons.

    Args:
        a: runs of the reference.
        b: runs of the other, on the same images.
        areas: test area of each image; None: every image is one of its own.
        unit: of the values.
        direction: whether higher or lower is better.
        spread: of one run's mean, as of :func:`run_spread`. Where one side has a single run it
            tells the smallest difference that could have been seen; it decides nothing.

    Raises:
        ValueError: sides of different numbers of images, or areas for another number.
    """
    images = a.values.shape[1]
    if images != b.values.shape[1] or (areas is not None and len(areas) != images):
        numbers = [images, b.values.shape[1], *([] if areas is None else [len(areas)])]
        raise ValueError(f"images that cannot be paired: {' and '.join(map(str, numbers))}")
    a, b, paired = _matched(a, b)
    kept = np.isfinite(a.values).all(axis=0) & np.isfinite(b.values).all(axis=0)
    of_a, of_b = (_by_area(side.values, areas, kept) for side in (a, b))
    count = of_a.shape[1]
    difference = float(of_b.mean() - of_a.mean()) if count else np.nan
    trained = [side.runs for side in (a, b) if side.seeds is not None]
    crossed = count >= MINIMUM_AREAS
    across = of_b.mean(axis=0) - of_a.mean(axis=0)
    decides = min(trained, default=2) > 1 and (crossed or bool(trained)) and count > 0
    over: list[Variance] = []
    if decides:
        sides = [of_b - of_a] if paired else [of_a, of_b]
        over = _variances([side for side in sides if len(side) > 1], across, crossed)
    elif spread is not None and trained and count:
        of_runs = (spread[0] * sum(1 / n for n in trained), spread[1])
        over = [of_runs]
        if crossed:
            over.append(_sum([of_runs, (_over_areas(across), count - 1)]))
    half = p = smallest = np.nan
    if over:
        *guards, last = over
        tests = [*(_t_test(difference, *v, tails=1) for v in guards), _t_test(difference, *last)]
        half, p, smallest = map(max, zip(*tests, strict=True))
    if not decides:
        half = p = np.nan
    return Verdict(
        mean_a=float(of_a.mean()) if count else np.nan,
        mean_b=float(of_b.mean()) if count else np.nan,
        difference=difference,
        low=difference - half,
        high=difference + half,
        p=p,
        p_holm=p,
        smallest=smallest,
        seeds_a=0 if a.seeds is None else a.runs,
        seeds_b=0 if b.seeds is None else b.runs,
        areas=count,
        excluded=int(images - kept.sum()),
        paired=paired,
        new_areas=crossed,
        by_seed=_by_seed(of_a, of_b, paired) if count else (),
        unit=unit,
        direction=direction,
    )


def _matched(a: Runs, b: Runs) -> tuple[Runs, Runs, bool]:
    """Return both sides in the order of the seeds they share, where they are paired."""
    if a.seeds is None or b.seeds is None:
        return a, b, False
    shared = [seed for seed in a.seeds if seed in b.seeds]
    if len(shared) < min(a.runs, b.runs):
        return a, b, False
    places = ([side.seeds.index(seed) for seed in shared] for side in (a, b))
    a, b = (Runs(side.values[at], tuple(shared)) for side, at in zip((a, b), places, strict=True))
    return a, b, True


def _by_area(values: np.ndarray, areas: Sequence[Hashable] | None, kept: np.ndarray) -> np.ndarray:
    """Average images (runs, images) within areas: (runs, areas), over the images kept."""
    if areas is None:
        return values[:, kept]
    number = {label: k for k, label in enumerate(dict.fromkeys(areas))}
    codes = np.array([number[label] for label in areas])[kept]
    of_area = [values[:, kept][:, codes == k].mean(axis=1) for k in np.unique(codes)]
    return np.column_stack(of_area) if of_area else values[:, :0]


def _by_seed(a: np.ndarray, b: np.ndarray, paired: bool) -> tuple[float, ...]:
    reference = a.mean(axis=1) if paired else a.mean()
    return tuple(float(value) for value in b.mean(axis=1) - reference)


def _over_areas(across: np.ndarray) -> float:
    return float(across.var(ddof=1)) / across.size


def _variances(sides: Sequence[np.ndarray], across: np.ndarray, crossed: bool) -> list[Variance]:
    """Return the variances of the mean difference: on these areas, and on new ones.

    Args:
        sides: tables (runs, areas) whose runs are independent: one of differences where paired,
            else one a trained side.
        across: (areas,), mean difference of each.
        crossed: whether areas are random, too.
    """
    seeds = _sum([(side.mean(axis=1).var(ddof=1) / len(side), len(side) - 1) for side in sides])
    fixed = [seeds] if sides else []
    if not crossed:
        return fixed
    areas = (_over_areas(across), across.size - 1)
    rest = _sum([_left_over(side) for side in sides])
    if rest[0] >= min(seeds[0], areas[0]):  # a component of variance of none, or less
        return [*fixed, max(seeds, areas)]
    total = seeds[0] + areas[0] - rest[0]
    df = total**2 / sum(v**2 / df for v, df in (seeds, areas, rest) if v)
    return [*fixed, (total, df)]


def _left_over(side: np.ndarray) -> Variance:
    """Return what neither runs nor areas explain of a table (runs, areas), for its mean."""
    left = side - side.mean(axis=0) - side.mean(axis=1, keepdims=True) + side.mean()
    df = (side.shape[0] - 1) * (side.shape[1] - 1)
    return float((left**2).sum()) / df / side.size, df


def _sum(variances: Sequence[Variance]) -> Variance:
    """Add variances of independent means; degrees of freedom by Welch and Satterthwaite."""
    total = sum(v for v, _ in variances)
    if total == 0:
        return 0.0, max((df for _, df in variances), default=1)
    return float(total), total**2 / sum(v**2 / df for v, df in variances)


def _t_test(
    difference: float, variance: float, df: float, *, tails: int = 2
) -> tuple[float, float, float]:
    """Return half the interval, p, and the smallest difference that could be seen."""
    from scipy.special import nctdtrinc, stdtr, stdtrit

    error = np.sqrt(variance)
    if error == 0:
        return 0.0, float(difference == 0), 0.0
    critical = stdtrit(df, 1 - ALPHA / tails)
    p = tails * stdtr(df, -abs(difference) / error)
    return float(critical * error), float(p), float(nctdtrinc(df, 1 - POWER, critical) * error)
