"""Spread, intervals over images, ratios of timings. Values that are no numbers are counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = [
    "MINIMUM_TIMINGS",
    "RatioOfMedians",
    "Summary",
    "area_interval",
    "bootstrap_interval",
    "ratio_of_medians",
    "summarise",
]

Values = Sequence[float | None] | np.ndarray

RESAMPLES = 9999
LEVEL = 0.95
MINIMUM_TIMINGS = 6
"""Fewest timings of a side for a verdict: fewer have no interval of 95 % for their median."""


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


def area_interval(
    values: Values, areas: Sequence[str], level: float = LEVEL
) -> tuple[float, float, float]:
    """Return standard error and interval of the mean over images that lie in areas.

    Images of one area are alike: the spread is that between areas (Liang & Zeger 1986, with the
    factor A / (A - 1) of few clusters), the interval a t with A - 1 degrees of freedom. Values that
    are not finite are left out. Fewer than two areas give nan.

    Returns:
        (standard error, low, high).
    """
    from scipy.stats import t

    array = _array(values)
    kept = np.isfinite(array)
    array, labels = array[kept], np.asarray(areas)[kept]
    names, codes = np.unique(labels, return_inverse=True)
    if names.size < 2:
        return (np.nan, np.nan, np.nan)
    mean = float(array.mean())
    sums = np.bincount(codes, weights=array - mean) / array.size
    error = float(np.sqrt(names.size / (names.size - 1) * np.sum(sums**2)))
    reach = float(t.ppf((1 + level) / 2, names.size - 1)) * error
    return (error, mean - reach, mean + reach)


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
    def differs(self) -> bool | None:
        """Whether the interval leaves out one; None below :data:`MINIMUM_TIMINGS` values."""
        if min(self.n_a, self.n_b) < MINIMUM_TIMINGS:
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
