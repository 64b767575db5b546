"""Images: fused ones beside their error maps (figure 4), features beside their spectra (7, 9)."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bench.config.errors import UsageError
from bench.reporting.figures.style import captions, styled

__all__ = ["feature_maps", "fused_images"]


@styled
def fused_images(
    pictures: Mapping[str, Mapping[str, np.ndarray]],
    *,
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """Draw fused images in natural colours over their mean absolute errors.

    All images share one stretch, all error maps one scale. The first column is the reference over
    the PAN every method was given.

    Args:
        pictures: by label of a method: ``fused`` and ``reference`` (C, H, W), ``pan`` (1, H, W),
            all of the same image in unit scale, and ``rgb``, the bands shown as red, green, blue.
        title: above all panels.
        note: below all panels.
    """
    if not pictures:
        raise UsageError("no fused images to draw")
    first = next(iter(pictures.values()))
    reference = _float(first["reference"])
    bands = np.asarray(first["rgb"], dtype=int)
    low, high = np.percentile(reference[bands], [0.5, 99.5], axis=(1, 2))

    def natural(image: np.ndarray) -> np.ndarray:
        shown = (_float(image)[bands] - low[:, None, None]) / (high - low)[:, None, None]
        return np.clip(shown, 0, 1).transpose(1, 2, 0)

    errors = {
        label: np.abs(_float(arrays["fused"]) - reference).mean(axis=0)
        for label, arrays in pictures.items()
    }
    most = max(np.percentile(error, 99.5) for error in errors.values())

    columns = len(pictures) + 1
    figure = Figure(figsize=(1.75 * columns + 0.7, 4.1))
    panels = figure.subplots(2, columns, squeeze=False)
    panels[0, 0].imshow(natural(reference))
    panels[0, 0].set_title("reference")
    panels[1, 0].imshow(_float(first["pan"])[0], cmap="gray")
    panels[1, 0].set_title("PAN")
    for column, (label, arrays) in enumerate(pictures.items(), 1):
        panels[0, column].imshow(natural(arrays["fused"]))
        panels[0, column].set_title(fill(label, 24))
        shown = panels[1, column].imshow(errors[label], cmap="inferno", vmin=0, vmax=most)
    for panel in panels.flat:
        panel.set_axis_off()
    bar = figure.colorbar(shown, ax=panels.ravel().tolist(), shrink=0.42, anchor=(0, 0), pad=0.02)
    bar.set_label("mean absolute error")
    bar.outline.set_visible(False)
    captions(figure, title, note)
    return figure


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
