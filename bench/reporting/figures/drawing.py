"""All figures of a report as bytes, drawn by several processes: most of a report's time is this."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from joblib import Parallel, delayed
from matplotlib.figure import Figure

from bench.reporting.figures.embedded import Embedded, embed, photographic
from bench.reporting.figures.style import render_figure

__all__ = ["FORMATS", "Picture", "draw_all"]

FORMATS = ("png", "pdf")
"""Of the files of a figure."""
_PHOTOGRAPHS = 600_000
"""Bytes of all photographs of a page together; the files beside it have them in full."""
_WORTH = 4
"""Figures that take longer to draw than a process to start."""
_MOST = 8
"""Processes at most: each holds a library for drawing, about 150 MB."""


class Picture(NamedTuple):
    """A figure, drawn.

    Attributes:
        files: its bytes by format.
        embedded: as a page shows it.
    """

    files: dict[str, bytes]
    embedded: Embedded


def draw_all(
    figures: Sequence[tuple[str, Figure]], formats: Sequence[str] = FORMATS
) -> list[Picture]:
    """Draw the figures of one page; equal figures give equal bytes, in however many processes.

    Args:
        figures: each with the name that is said where it has no title.
        formats: of the files beside the page: png, pdf, svg.
    """
    share = _PHOTOGRAPHS / max(1, sum(photographic(figure) for _, figure in figures))
    draw = Parallel(n_jobs=_processes(len(figures)))
    return draw(
        delayed(_draw)(figure, name, round(share * photographic(figure)), formats)
        for name, figure in figures
    )


def _processes(figures: int) -> int:
    return max(1, min(os.cpu_count() or 1, figures // _WORTH, _MOST))


def _draw(figure: Figure, name: str, most: int, formats: Sequence[str]) -> Picture:
    files = {kind: render_figure(figure, kind) for kind in formats}
    return Picture(files, embed(figure, name, most))
