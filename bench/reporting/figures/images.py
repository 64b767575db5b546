"""Images: fused ones over maps of error or HQNR (figures 4, 5), features over spectra (7, 9)."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bench.config.errors import UsageError
from bench.reporting.figures.style import captions, styled

__all__ = ["feature_maps", "full_images", "fused_images"]


_ZOOM = 5
"""Side of an image over that of the box that is enlarged in it."""


@styled
def fused_images(
    pictures: Mapping[str, Mapping[str, np.ndarray]],
    *,
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """Draw fused images in natural colours over their mean absolute errors (figure 4).

    All images share one stretch, all error maps one scale. The first column is the reference over
    the PAN every method was given. A box, where PAN changes most, is enlarged in each image.

    Args:
        pictures: by label of a method: ``fused`` and ``reference`` (C, H, W), ``pan`` (1, H, W),
            all of the same image in unit scale, and ``rgb``, the bands shown as red, green, blue.
        title: above all panels.
        note: below all panels.
    """
    reference = _float(_first(pictures)["reference"])
    errors = {
        label: np.abs(_float(arrays["fused"]) - reference).mean(axis=0)
        for label, arrays in pictures.items()
    }
    limits = 0.0, max(np.percentile(error, 99.5) for error in errors.values())
    figure = _over_maps(pictures, "reference", errors, limits, "mean absolute error")
    captions(figure, title, note)
    return figure


@styled
def full_images(
    pictures: Mapping[str, Mapping[str, np.ndarray]],
    *,
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """Draw images fused at full resolution over their HQNR maps (figure 5).

    As :func:`fused_images`, the interpolated MS in the place of a reference, which there is none.

    Args:
        pictures: by label of a method: ``fused`` and ``lms`` (C, H, W), ``pan`` (1, H, W), all of
            the same image in unit scale, ``rgb``, and ``hqnr`` (h, w), that of each block.
        title: above all panels.
        note: below all panels.
    """
    _first(pictures)
    maps = {label: _float(arrays["hqnr"]) for label, arrays in pictures.items()}
    known = [values[np.isfinite(values)] for values in maps.values()]
    low = min(np.percentile(values, 1) if values.size else 0.0 for values in known)
    figure = _over_maps(pictures, "lms", maps, (low, 1.0), "HQNR of 32 x 32 pixels", "viridis")
    captions(figure, title, note)
    return figure


def _first(pictures: Mapping[str, Mapping[str, np.ndarray]]) -> Mapping[str, np.ndarray]:
    if not pictures:
        raise UsageError("no fused images to draw")
    return next(iter(pictures.values()))


def _over_maps(
    pictures: Mapping[str, Mapping[str, np.ndarray]],
    beside: str,
    maps: Mapping[str, np.ndarray],
    limits: tuple[float, float],
    label: str,
    colours: str = "inferno",
) -> Figure:
    """Draw images in natural colours over maps of one scale; ``beside`` over PAN comes first."""
    first = _first(pictures)
    bands = np.asarray(first["rgb"], dtype=int)
    shown_first = _float(first[beside])
    low, high = np.percentile(shown_first[bands], [0.5, 99.5], axis=(1, 2))
    pan = _float(first["pan"])[0]
    box = _busiest(pan)

    def natural(image: np.ndarray) -> np.ndarray:
        shown = (_float(image)[bands] - low[:, None, None]) / (high - low)[:, None, None]
        return np.clip(shown, 0, 1).transpose(1, 2, 0)

    columns = len(pictures) + 1
    figure = Figure(figsize=(1.75 * columns + 0.7, 4.1))
    panels = figure.subplots(2, columns, squeeze=False)
    _zoomed(panels[0, 0], natural(shown_first), box)
    panels[0, 0].set_title("interpolated MS" if beside == "lms" else beside)
    panels[1, 0].imshow(pan, cmap="gray")
    panels[1, 0].set_title("PAN")
    for column, (name, arrays) in enumerate(pictures.items(), 1):
        _zoomed(panels[0, column], natural(arrays["fused"]), box)
        panels[0, column].set_title(fill(name, 24))
        shown = panels[1, column].imshow(maps[name], cmap=colours, vmin=limits[0], vmax=limits[1])
    for panel in panels.flat:
        panel.set_axis_off()
    bar = figure.colorbar(shown, ax=panels.ravel().tolist(), shrink=0.42, anchor=(0, 0), pad=0.02)
    bar.set_label(label)
    bar.outline.set_visible(False)
    return figure


def _busiest(pan: np.ndarray) -> tuple[slice, slice]:
    """Return the box whose mean gradient is largest, of a fifth of the shorter side."""
    side = max(8, min(pan.shape) // _ZOOM)
    rows, columns = np.gradient(pan)
    sums = np.pad(np.hypot(rows, columns), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    of_box = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    top, left = np.unravel_index(of_box.argmax(), of_box.shape)
    return slice(top, top + side), slice(left, left + side)


def _zoomed(panel: Any, image: np.ndarray, box: tuple[slice, slice]) -> None:
    """Show an image, a box in it, and the box enlarged in the corner farthest from it."""
    panel.imshow(image)
    rows, columns = box
    height, width = image.shape[:2]
    frame = {"edgecolor": "#ff3b30", "linewidth": 0.9}
    side = rows.stop - rows.start
    corner = (columns.start - 0.5, rows.start - 0.5)
    panel.add_patch(Rectangle(corner, side, side, fill=False, **frame))
    x = 0.0 if columns.start + side / 2 > width / 2 else 0.52
    y = 0.52 if rows.start + side / 2 > height / 2 else 0.0
    inset = panel.inset_axes((x, y, 0.48, 0.48))
    inset.imshow(image[box])
    inset.set_xticks([])
    inset.set_yticks([])
    for spine in inset.spines.values():
        spine.set(visible=True, **frame)


def _float(array: Any) -> np.ndarray:
    return np.asarray(array, dtype=float)


@styled
def feature_maps(
    features: Mapping[str, np.ndarray],
    *,
    kept: Mapping[str, Any] | None = None,
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """Draw a feature map and its amplitude spectrum for each line (figures 7 and 9).

    Args:
        features: by line an array (H, W) or (C, H, W). Of several channels the map is the mean, and
            the spectrum the mean of the channels' amplitudes.
        kept: by line the modes m that its spectral layers keep: a dashed frame is drawn around rows
            -m..m-1, columns 0..m-1 and their mirror.
        title: above all panels.
        note: below all panels.
    """
    if not features:
        raise UsageError("no feature maps to draw")
    arrays = {key: np.asarray(value, dtype=float) for key, value in features.items()}
    arrays = {key: value[None] if value.ndim == 2 else value for key, value in arrays.items()}
    spectra = {key: _log_amplitude(value) for key, value in arrays.items()}
    low = min(spectrum.min() for spectrum in spectra.values())
    high = max(spectrum.max() for spectrum in spectra.values())

    figure = Figure(figsize=(1.9 * len(arrays) + 0.8, 4.4))
    panels = figure.subplots(2, len(arrays), squeeze=False)
    for (top, bottom), (key, array) in zip(panels.T, arrays.items(), strict=True):
        feature = array.mean(axis=0)
        limits = np.percentile(feature, [1, 99])
        top.imshow(feature, cmap="gray", vmin=limits[0], vmax=limits[1])
        top.set_title(fill(key, 24))
        height, width = spectra[key].shape
        left, up = -(width // 2) - 0.5, -(height // 2) - 0.5
        extent = (left, left + width, up + height, up)
        image = bottom.imshow(spectra[key], cmap="magma", vmin=low, vmax=high, extent=extent)
        modes = (kept or {}).get(key)
        if isinstance(modes, (int, float)) and modes == modes:
            edge = modes - 0.5
            x = [-edge, edge, edge, -edge, -edge]
            y = [-edge - 1, -edge - 1, edge, edge, -edge - 1]
            bottom.plot(x, y, color="white", linestyle="--", linewidth=0.9)
            bottom.set_xlim(extent[:2])
            bottom.set_ylim(extent[2:])
        top.set_axis_off()
        bottom.set_xticks([-(width // 4), 0, width // 4])
        bottom.set_yticks([-(height // 4), 0, height // 4])
        bottom.grid(False)
        bottom.set_xlabel("cycles per tile")
        if bottom is not panels[1, 0]:
            bottom.set_yticklabels([])
    panels[1, 0].set_ylabel("cycles per tile")
    bar = figure.colorbar(image, ax=panels[1].tolist(), shrink=0.9, pad=0.02)
    bar.set_label("log10(1 + amplitude)")
    bar.outline.set_visible(False)
    captions(figure, title, note)
    return figure


def _log_amplitude(array: np.ndarray) -> np.ndarray:
    """Return log10(1 + mean over channels of |FFT|), zero frequency in the middle: (C, H, W)."""
    amplitude = np.abs(np.fft.fft2(array)).mean(axis=0)
    return np.log10(1 + np.fft.fftshift(amplitude))
