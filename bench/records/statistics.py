"""Spread, intervals, paired differences. Values that are not numbers are counted, not hidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = [
    "MINIMUM_PAIRS",
    "PairedDifference",
    "RatioOfMedians",
    "Summary",
    "bootstrap_interval",
    "paired_difference",
    "ratio_of_medians",
    "summarise",
]

Values = Sequence[float | None] | np.ndarray

RESAMPLES = 9999
LEVEL = 0.95
MINIMUM_PAIRS = 6
"""Fewest pairs for a verdict: below six no two-sided Wilcoxon test can reach p < 0.05."""


@dataclass(frozen=True)
class Summary:
    """Mean and spread of a sample."""

    n: int
    """Finite values."""
    excluded: int
    """Values left out: missing, nan or infinite."""
    mean: float
    """Mean of the finite values; nan when there is none."""
    std: float
    """Standard deviation with N - 1; nan for fewer than two values."""


def _array(values: Values) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def summarise(values: Values) -> Summary:
    """Return mean and standard deviation (N - 1) of the finite values, and how many were not."""
    array = _array(values)
    finite = array[np.isfinite(array)]
    return Summary(
        n=finite.size,
        excluded=array.size - finite.size,
        mean=float(finite.mean()) if finite.size else np.nan,
        std=float(finite.std(ddof=1)) if finite.size > 1 else np.nan,
    )


def bootstrap_interval(values: Values, level: float = LEVEL) -> tuple[float, float]:
    """Return the BCa bootstrap interval (Efron 1987) of the mean of the finite values.

    Deterministic: 9999 resamples from a fixed seed. Fewer than two values give (nan, nan).
    """
    from scipy.stats import bootstrap

    array = _array(values)
    array = array[np.isfinite(array)]
    if array.size < 2:
        return (np.nan, np.nan)
    if np.ptp(array) == 0:  # no spread to resample; BCa is undefined
        return (float(array[0]), float(array[0]))
    interval = bootstrap(
        (array,), np.mean, confidence_level=level, n_resamples=RESAMPLES, rng=0
    ).confidence_interval
    return (float(interval.low), float(interval.high))


@dataclass(frozen=True)
class PairedDifference:
    """B - A over the same images."""

    n: int
    """Pairs used."""
    excluded: int
    """Pairs left out because a side or the difference is not finite."""
    mean_a: float
    mean_b: float
    difference: float
    """Mean of B - A."""
    ci_low: float
    ci_high: float
    """Ends of the 95 % BCa bootstrap interval of the mean difference."""
    p_value: float
    """Two-sided Wilcoxon signed-rank test; nan without pairs."""

    @property
    def real(self) -> bool | None:
        """Whether the interval leaves out zero; None below :data:`MINIMUM_PAIRS` pairs."""
        if self.n < MINIMUM_PAIRS:
            return None
        return not self.ci_low <= 0 <= self.ci_high


def paired_difference(a: Values, b: Values) -> PairedDifference:
    """Compare two samples whose i-th values belong to the same image.

    Raises:
        ValueError: samples of different length.
    """
    from scipy.stats import wilcoxon

    a, b = _array(a), _array(b)
    if a.size != b.size:
        raise ValueError(f"paired samples differ in length: {a.size} and {b.size}")
    usable = np.isfinite(a) & np.isfinite(b)
    a, b = a[usable], b[usable]
    difference = b - a
    low, high = bootstrap_interval(difference)
    if not difference.size:
        p_value = np.nan
    elif not difference.any():
        p_value = 1.0  # the test is undefined without a non-zero difference
    else:
        p_value = float(wilcoxon(difference).pvalue)
    return PairedDifference(
        n=a.size,
        excluded=usable.size - a.size,
        mean_a=summarise(a).mean,
        mean_b=summarise(b).mean,
        difference=summarise(difference).mean,
        ci_low=low,
        ci_high=high,
        p_value=p_value,
    )


@dataclass(frozen=True)
class RatioOfMedians:
    """B / A of two independent sets of timings."""

    n_a: int
    n_b: int
    median_a: float
    median_b: float
    ratio: float
    ci_low: float
    ci_high: float
    """Ends of the 95 % percentile bootstrap interval of the ratio."""

    @property
    def real(self) -> bool | None:
        """Whether the interval leaves out one; None below :data:`MINIMUM_PAIRS` values."""
        if min(self.n_a, self.n_b) < MINIMUM_PAIRS:
            return None
        return not self.ci_low <= 1 <= self.ci_high


def ratio_of_medians(a: Values, b: Values) -> RatioOfMedians:
    """Compare two sets of timings that were not taken in turns: ratio of medians, B / A."""
    from scipy.stats import bootstrap

    a, b = _array(a), _array(b)
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    low = high = np.nan
    if min(a.size, b.size) >= 2:
        low, high = bootstrap(
            (a, b),
            lambda x, y, axis: np.median(y, axis=axis) / np.median(x, axis=axis),
            confidence_level=LEVEL,
            n_resamples=RESAMPLES,
            method="percentile",
            vectorized=True,
            rng=0,
        ).confidence_interval
    median_a = float(np.median(a)) if a.size else np.nan
    median_b = float(np.median(b)) if b.size else np.nan
    return RatioOfMedians(
        n_a=a.size,
        n_b=b.size,
        median_a=median_a,
        median_b=median_b,
        ratio=median_b / median_a,
        ci_low=float(low),
        ci_high=float(high),
    )
