"""The house style, saving, captions, colours: what every figure shares."""

from __future__ import annotations

import functools
import hashlib
import logging
import math
import textwrap
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from bench.reporting.text import format_number

__all__ = [
    "HOUSE_STYLE",
    "captions",
    "colours",
    "label_logarithmic",
    "panels_of",
    "render_figure",
    "styled",
    "wrapped",
]

logging.getLogger("fontTools").setLevel(logging.WARNING)  # it reports every glyph of a PDF

HOUSE_STYLE = matplotlib.rc_params_from_file(
    Path(__file__).parents[1] / "house.mplstyle", use_default_template=False
)
_EMPTY_METADATA = {
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    "svg": {"Date": None, "Creator": None},
}
_APART = 0.12
"""Distance in Oklab, lightness halved, below which two colours of one figure look alike."""
_DRAW = 936
"""First draw of a colour: with this one the networks that come with the house are far apart."""

Draw = Callable[..., Figure]


def styled(draw: Draw) -> Draw:
    """Draw in the house style, whatever the user's own settings are."""

    @functools.wraps(draw)
    def inside(*args: Any, **options: Any) -> Figure:
        with matplotlib.rc_context(HOUSE_STYLE):
            return draw(*args, **options)

    return inside


def render_figure(figure: Figure, suffix: str) -> bytes:
    """Return the figure as png, pdf or svg; equal figures give equal bytes."""
    buffer = BytesIO()
    with matplotlib.rc_context(HOUSE_STYLE | {"figure.constrained_layout.use": False}):
        if layout := figure.get_layout_engine():
            layout.execute(figure)  # once; every format shares the layout
            figure.set_layout_engine(None)
        figure.savefig(buffer, format=suffix, metadata=_EMPTY_METADATA[suffix])
    return buffer.getvalue()


def colours(names: Iterable[str]) -> dict[str, str]:
    """Return a colour for each name of a figure: drawn from the name, so the same in every figure.

    Only a name whose colour is nearly that of another one takes the next that its hash gives.
    """
    taken: dict[str, tuple[float, float, float]] = {}
    for name in sorted(set(names)):
        best, distance = None, -1.0
        for attempt in range(_DRAW, _DRAW + 32):
            digest = hashlib.sha256(f"{name}/{attempt}".encode("utf-8", "replace")).digest()
            hue = 2 * math.pi * int.from_bytes(digest[:4], "big") / 2**32
            lightness, chroma = ((0.5, 0.14), (0.62, 0.15), (0.74, 0.13))[digest[4] % 3]
            colour = (lightness / 2, chroma * math.cos(hue), chroma * math.sin(hue))
            nearest = min((math.dist(colour, other) for other in taken.values()), default=1.0)
            if nearest > distance:
                best, distance = colour, nearest
            if nearest >= _APART:
                break
        taken[name] = best
    return {name: _hex(2 * colour[0], *colour[1:]) for name, colour in taken.items()}


def _hex(lightness: float, a: float, b: float) -> str:
    """Return Oklab (Ottosson 2020) as sRGB, cut to its range."""
    long, middle, short = (
        (lightness + p * a + q * b) ** 3
        for p, q in (
            (0.3963377774, 0.2158037573),
            (-0.1055613458, -0.0638541728),
            (-0.0894841775, -1.2914855480),
        )
    )
    linear = (
        4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short,
    )
    curved = (
        1.055 * max(v, 0.0) ** (1 / 2.4) - 0.055 if v > 0.0031308 else 12.92 * v for v in linear
    )
    return "#" + "".join(f"{round(255 * min(max(v, 0.0), 1.0)):02x}" for v in curved)


def panels_of(figure: Figure, count: int) -> list[Axes]:
    """Return ``count`` panels, two a row."""
    columns = min(2, count)
    panels = figure.subplots(-(-count // columns), columns, squeeze=False).ravel()
    for axes in panels[count:]:
        axes.set_axis_off()
    return list(panels[:count])


def label_logarithmic(axis: Axis) -> None:
    """Label a logarithmic axis with plain numbers, as few as tell the scale: three or more."""
    low, high = axis.get_view_interval()
    locators = [LogLocator(subs=subs) for subs in ((1,), (1, 2, 5), (1, 2, 3, 5, 7))]
    for locator in [*locators, MaxNLocator(4)]:  # of less than a factor of two evenly spaced ones
        axis.set_major_locator(locator)
        if sum(low <= tick <= high for tick in axis.get_majorticklocs()) >= 3:
            break
    axis.set_major_formatter(FuncFormatter(_tick))
    axis.set_minor_formatter(NullFormatter())


def _tick(value: float, position: int | None = None) -> str:
    return format_number(value)  # a function with a name: a figure can be copied by pickle


def captions(figure: Figure, title: str | None, note: str | None) -> None:
    """Write the title above and the note below all panels, both from the left edge."""
    if title:
        figure.suptitle(wrapped(figure, title, 11), x=0.01, ha="left", fontsize=11)
    if note:
        figure.supxlabel(wrapped(figure, note, 8), fontsize=8, x=0.01, ha="left")


def wrapped(figure: Figure, text: str, size: int = 8) -> str:
    """Break print of ``size`` points where the figure ends."""
    return textwrap.fill(text, width=int(128 / size * figure.get_figwidth()))
