"""Fused images beside their error maps (figure 4 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bench.config.errors import UsageError
from bench.reporting.figures import captions, styled

__all__ = ["fused_images"]


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
        panels[0, column].set_title(label)
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
