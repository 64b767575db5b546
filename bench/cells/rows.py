"""From a metric's specification and what was measured to a row; the one place that does it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from bench.measure import is_out_of_memory
from bench.records import METRIC_SPECS, Row
from bench.records.statistics import LEVEL, area_interval, bootstrap_interval
from bench.running import Context

__all__ = ["Failure", "artefact", "attempt", "failure", "measured", "missing"]

_log = logging.getLogger(__name__)


class Failure(NamedTuple):
    """Why there is no measurement, in a row's words."""

    status: str
    reason: str


def measured(
    context: Context,
    metric: str,
    value: float | None = None,
    samples: Sequence[float] | None = None,
    areas: Sequence[str] | None = None,
    **fields: Any,
) -> Row:
    """Return the row of a measurement; without ``value``, of the middle of its samples.

    The middle is the mean over images, with standard error and interval, or the median of timings.
    Samples that are not finite are kept and not counted, unless nothing else is there.

    Args:
        context: of the cell.
        metric: its name.
        value: the measurement, in the metric's unit.
        samples: per image, or per timing.
        areas: that the images lie in; None: each is one of its own.
        **fields: further row fields; those of the context hold where none are given.
    """
    spec = METRIC_SPECS[metric]
    spread: dict[str, Any] = {}
    if samples is not None:
        samples = list(samples)
        finite = [x for x in samples if math.isfinite(x)]
        spread = {"samples": samples, "n": len(finite)}
        if value is None:
            cost = {**context.fields, **fields}.get("kind") == "cost"
            value = float((np.median if cost else np.mean)(finite or samples))
            if len(finite) > 1:
                spread |= _spread(samples, areas, interval=not cost)
    return context.row(
        metric=metric,
        value=value,
        unit=spec.unit,
        direction=spec.direction,
        **{**spread, **fields},
    )


def _spread(
    samples: Sequence[float], areas: Sequence[str] | None, interval: bool
) -> dict[str, Any]:
    """Return standard error and interval of a mean; areas, if several, are its unit."""
    finite = [x for x in samples if math.isfinite(x)]
    places = zip(areas or (), samples, strict=False)
    count = len({area for area, x in places if math.isfinite(x)})
    if count > 1:
        error, low, high = area_interval(samples, areas, LEVEL)
        method = f"t over {count} areas, of the mean over images"
    else:
        error = float(np.std(finite, ddof=1) / math.sqrt(len(finite)))
        if not interval:
            return {"stderr": error}
        low, high = bootstrap_interval(finite, LEVEL)
        method = "BCa bootstrap of the mean over images"
    return {
        "stderr": error, "ci_low": low, "ci_high": high, "ci_level": LEVEL, "ci_method": method,
    }  # fmt: skip


def missing(context: Context, metric: str, why: Failure, **fields: Any) -> Row:
    """Return the row of a metric that has no value."""
    return measured(context, metric, status=why.status, reason=why.reason, **fields)


def artefact(
    context: Context, name: str, metric: str, arrays: dict[str, Any], **fields: Any
) -> Row:
    """Write arrays into the run folder, and return the row that names the file.

    Args:
        context: of the cell.
        name: of the file, within the cell.
        metric: what the row is about.
        arrays: by name.
        **fields: further row fields.
    """
    path = context.artefact_path(name)
    partial = path.with_name(f".{path.stem}.partial.npz")  # savez wants this ending
    np.savez_compressed(partial, **arrays)
    partial.replace(path)
    place = path.relative_to(context.folder).as_posix()
    return context.row(**{"kind": "artefact", "metric": metric, "artefact": place, **fields})


def failure(error: Exception) -> Failure:
    """Return what stopped a measurement."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if is_out_of_memory(error):
        return Failure("oom", reason)
    return Failure("error", f"{type(error).__name__}: {reason}")


def attempt(
    context: Context, metrics: Iterable[str], measure: Callable[[], list[Row]], **fields: Any
) -> list[Row]:
    """Return the rows of a measurement; where it fails, rows that say so: the others go on."""
    try:
        return measure()
    except Exception as error:
        why = failure(error)
        _log.debug("%s", why.reason, exc_info=True)
        return [missing(context, metric, why, **fields) for metric in metrics]
