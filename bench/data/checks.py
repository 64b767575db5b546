"""Whether arrays hold what they should: finite counts of one scale that belong together."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.config import UsageError

__all__ = [
    "ORDERED",
    "ArrayCheck",
    "check_counts",
    "check_order",
    "check_range",
    "check_scales",
    "check_together",
]

log = logging.getLogger(__name__)

_NEGATIVE_SLACK = 0.01  # of the peak: resampling rings below zero, a no-data value is far below
_UNIT_LIMIT = 2.0
_FACTOR = 4.0  # between means: the scenes of one data set differ less, bit depths of 8 and 11 more
_SAME = 4.0  # times nearer than its own partner: not by chance
_BESIDE_MS = ("lms", "gt")

ORDERED = 16
"""Images of an array that are compared one with another."""


class ArrayCheck:
    """Checks one array block by block.

    Args:
        path: the file, for messages.
        key: gt, ms, lms or pan; ``lms`` is an interpolation and may leave 0..peak.
        peak: largest count.

    Attributes:
        least, most: counts that pass.
        outside: values of ``lms`` outside 0..peak, which pass.
    """

    def __init__(self, path: Path, key: str, peak: float):
        self.path, self.key, self.peak = path, key, peak
        ringing = key == "lms"
        self.least = -peak if ringing else -_NEGATIVE_SLACK * peak
        self.most = 2 * peak if ringing else peak
        self.low, self.high, self.outside = np.inf, -np.inf, 0
        self._whole = True
        self._constant: list[int] = []

    def block(self, values: np.ndarray, start: int) -> np.ndarray:
        """Return images ``start`` and on, (n, C, H, W), as float32 counts.

        Raises:
            UsageError: not finite as float32, or not within 0..peak.
        """
        with np.errstate(over="ignore"):
            images = values.astype(np.float32)
        low, high = float(images.min()), float(images.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            bad = start + int(np.argmax(~np.isfinite(images).all(axis=(1, 2, 3))))
            raise self._error(
                f"has NaN or infinite values (as float32), first in image {bad}; expected counts"
            )
        if high > self.most or low < self.least:
            worst = float(values.max() if high > self.most else values.min())
            raise self._error(
                f"has the value {worst:g}; expected counts from 0 to {self.peak:g} (another bit "
                f"depth? the sensor decides it: --sensor)"
            )
        if self.key == "lms":
            self.outside += int(((values < 0) | (values > self.peak)).sum())
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._whole = self._whole and bool((images == np.rint(images)).all())
        flat = images.reshape(len(images), -1)
        same = flat.min(1) == flat.max(1)
        self._constant += [start + int(index) for index in np.flatnonzero(same)]
        return images

    def finish(self, *, made_here: bool) -> None:
        """Check the array as a whole.

        Args:
            made_here: whether ``bench/prepare.py`` wrote it, of scenes it has looked at.

        Raises:
            UsageError: one value everywhere, or fractions far below any count.
        """
        self.settle(made_here=made_here)
        if self.low == self.high:
            log.warning("%s: pan is %g everywhere", self.path, self.low)
        elif self._constant:
            some = ", ".join(map(str, self._constant[:5]))
            log.warning(
                "%s: %s is constant in %d image(s) (%s%s): metrics that need contrast leave them "
                "out", self.path, self.key, len(self._constant), some,
                ", ..." if len(self._constant) > 5 else "",
            )  # fmt: skip

    def settle(self, *, made_here: bool) -> None:
        """Raise as :meth:`finish`, and say nothing of what passes."""
        if self.low == self.high and (self.key != "pan" or not made_here):
            raise self._error(f"is {self.low:g} everywhere; expected images")
        scaled = self.high <= max(_UNIT_LIMIT, self.peak / 500) and self.high < self.peak / 100
        if scaled and not self._whole:
            raise self._error(
                f"ranges from {self.low:g} to {self.high:g}, in fractions; expected counts from 0 "
                f"to {self.peak:g}: multiply unit-scaled images by the peak they were divided by"
            )

    def _error(self, what: str) -> UsageError:
        return UsageError(f"{self.path}: {self.key} {what}")


def check_together(images: dict[str, Tensor], ratio: int, path: Path) -> None:
    """Check that the arrays of a split show the same scenes in the same scale.

    Args:
        images: gt (where there is one), ms, lms, and pan, each (N, C, H, W) in one unit.
        ratio: PAN pixels per MS pixel.
        path: the file, for messages.

    Raises:
        UsageError: means that no scale explains; lms that belongs to other bands or images.
    """
    # Of each image first: a mean in float64 would copy all of them.
    check_scales({key: float(x.mean((1, 2, 3)).double().mean()) for key, x in images.items()}, path)
    first = {key: x[:ORDERED] for key, x in images.items()}
    check_order(
        {key: x if key == "ms" else F.avg_pool2d(x, ratio) for key, x in first.items()}, path
    )


def check_scales(means: Mapping[str, float], path: Path) -> None:
    """Check the means over all images, as :func:`check_together`."""
    for key in filter(means.__contains__, _BESIDE_MS):
        own, other = means[key], means["ms"]
        if max(own, other) > _FACTOR * max(min(own, other), 0):
            raise UsageError(
                f"{path}: {key} has mean {own:.4g} of the peak and ms {other:.4g}; expected both "
                f"in one scale: the same counts"
            )


def check_order(low: Mapping[str, Tensor], path: Path) -> None:
    """Check the first :data:`ORDERED` images, averaged to the grid of ``ms``."""
    for key in filter(low.__contains__, _BESIDE_MS):
        swap = _swapped(low[key], low["ms"])
        if swap:
            text = f"{path}: {key} does not belong to ms: its {swap}; expected the same order"
            if key == "lms":
                raise UsageError(text)
            log.warning("%s", text)


def _swapped(low: Tensor, ms: Tensor) -> str:
    """Say which band or image of ``low`` is nearer to another one of ``ms`` than to its own."""
    pairs = {"band": (low.transpose(0, 1), ms.transpose(0, 1)), "image": (low, ms)}
    for what, sides in pairs.items():
        errors = torch.cdist(*(side.flatten(1) for side in sides), p=1)
        own, (best, where) = errors.diagonal(), errors.min(1)
        wrong = own > _SAME * best
        if bool(wrong.any()):
            first = int(wrong.int().argmax())
            return f"{what} {first} is {what} {int(where[first])} of ms"
    return ""


def check_counts(images: Mapping[str, np.ndarray | None], peak: float) -> None:
    """Check the counts of scenes to prepare or fuse, their no-data pixels filled already.

    Args:
        images: by what messages call them; None is left out.
        peak: largest count.

    Raises:
        UsageError: NaN or infinite values, counts outside 0..peak, images in unit scale.
    """
    for name, image in images.items():
        if image is None:
            continue
        low, high = float(image.min()), float(image.max())
        whole = high > _UNIT_LIMIT or bool((image == np.rint(image)).all())
        check_range(name, low, high, whole, peak)


def check_range(name: str, low: float, high: float, whole: bool, peak: float) -> None:
    """Check what is known of an image's counts, as :func:`check_counts`.

    Args:
        name: what messages call the image.
        low: least count.
        high: largest.
        whole: whether all counts are whole numbers.
        peak: largest count there can be.
    """
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UsageError(f"{name} has NaN or infinite values; expected counts")
    expected = f"{name} ranges from {low:g} to {high:g}; expected counts from 0 to {peak:g}"
    if low < 0 or high > peak:
        raise UsageError(f"{expected}: --bits or --peak says what the largest can be, or --sensor")
    if high <= _UNIT_LIMIT and high < peak / 100 and not whole:
        raise UsageError(f"{expected}, no fractions of 1: for images in unit scale --peak 1")
    if low == high:
        log.warning("%s is %g everywhere", name, low)
