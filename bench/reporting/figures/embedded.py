"""Figures inside a page: plots as SVG, photographs as WebP, their words as text beside them."""

from __future__ import annotations

import pickle
import re
from dataclasses import dataclass
from io import BytesIO

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from bench.reporting.figures.style import HOUSE_STYLE

__all__ = ["Embedded", "embed", "photographic"]

_DPI = 144
"""Of photographs: 1.5 pixels for each pixel of the page."""
_STEPS = ((1.0, 75), (0.7, 60), (0.5, 45), (0.5, 20))
"""Size and quality of photographs, until one has no more bytes than it may."""
_INSIDE = {"svg.fonttype": "none", "figure.constrained_layout.use": False}
_PAPER = 0.04
"""Inches around what is drawn."""
_METADATA = ("Date", "Creator", "Format", "Type")
_FALLBACK = re.compile(r"'DejaVu Sans'(?=[;\"])")
_DIGITS = re.compile(r"(\d\.\d{2})\d+(?=[ \"LMQCz\n])")
"""Path coordinates in points: the third decimal is below a hundredth of a pixel."""
_HASHED = re.compile(r"(?<=[\"#])[a-z][0-9a-f]{10}(?=[\")])")


@dataclass(frozen=True)
class Embedded:
    """A figure as a page shows it.

    Attributes:
        title: in words.
        notes: what stood below the panels.
        alt: what a reader is told who does not see it.
        kind: media type of ``data``.
        data: the picture, without title and notes.
        width: in pixels of a page (96 an inch).
        height: likewise.
    """

    title: str
    notes: tuple[str, ...]
    alt: str
    kind: str
    data: bytes
    width: int
    height: int


def photographic(figure: Figure) -> int:
    """Return how much a figure's pixels matter: 3 in natural colours, 1 as maps, 0 for a plot."""
    kinds = [image.get_array().ndim for axes in figure.axes for image in axes.images]
    return (3 if 3 in kinds else 1) if kinds else 0


def embed(figure: Figure, name: str, most: int = 200_000) -> Embedded:
    """Return a figure for a page; equal figures give equal bytes, and the figure stays as it is.

    Title and notes become text of the page, which wraps on a narrow screen and is dark in the dark.
    Print inside an SVG stays text: a tenth of the bytes of outlines, in the reader's own font where
    there is no DejaVu Sans.

    Args:
        figure: drawn in the house style.
        name: said where the figure has no title.
        most: bytes of a photograph, as far as a lower quality gets there.
    """
    figure = pickle.loads(pickle.dumps(figure))  # a copy: titles go, and panels take their place
    photograph = photographic(figure) > 0
    title = _line(figure.get_suptitle()) or name
    legends = [legend.get_title() for legend in figure.legends]
    notes = [_line(text) for text in (figure.get_supxlabel(), *(t.get_text() for t in legends))]
    with matplotlib.rc_context(HOUSE_STYLE | _INSIDE):
        if photograph:  # images keep their size whatever room there is: they are cut out below
            _settle(figure)
        for text in (figure._suptitle, figure._supxlabel, *legends):
            if text is not None:
                text.set(text="", visible=False)
        if not photograph:
            figure.set_layout_engine("constrained")
            _settle(figure)
        data, width, height = _webp(figure, most) if photograph else _svg(figure)
    kind = "image/webp" if photograph else "image/svg+xml"
    notes = tuple(note for note in notes if note)
    return Embedded(title, notes, _alt(title, figure), kind, data, width, height)


def _settle(figure: Figure) -> None:
    if layout := figure.get_layout_engine():
        layout.execute(figure)
    figure.set_layout_engine(None)


def _line(text: str) -> str:
    """Return text in one line, as it was before it was broken, in words and at hyphens."""
    return " ".join(re.sub(r"(?<=\w-)\n(?=\w)", "", text).split())


def _alt(title: str, figure: Figure) -> str:
    """Return title, panels and what is drawn in them."""
    panels = [_line(axes.get_title(loc=at)) for axes in figure.axes for at in ("left", "center")]
    labels = [_line(axes.get_xlabel()) for axes in figure.axes]
    drawn = [
        _line(text.get_text())
        for axes in figure.axes
        for text in (axes.get_legend().get_texts() if axes.get_legend() else ())
    ]
    parts = {"Panels": panels, "Horizontal axis": labels, "Drawn": drawn}
    found = {what: list(dict.fromkeys(filter(None, of))) for what, of in parts.items()}
    said = [f"{what}: {', '.join(of)}." for what, of in found.items() if of]
    return " ".join([title if title.endswith(".") else f"{title}.", *said])


def _frame(figure: Figure) -> Bbox:
    """Return what is drawn on, in inches from the lower left, with a little paper around it."""
    return figure.get_tightbbox().padded(_PAPER)


def _svg(figure: Figure) -> tuple[bytes, int, int]:
    buffer, frame = BytesIO(), _frame(figure)
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(_METADATA))
    text = buffer.getvalue().decode()
    text = _FALLBACK.sub("'DejaVu Sans', Verdana, sans-serif", text[text.index("<svg") :])
    text = re.sub(r' d="[^"]*"', lambda path: _DIGITS.sub(r"\1", path[0]), text)
    # matplotlib hashes ids of coordinates, whose last bits move when a figure is drawn again.
    ids = {name: f"i{n}" for n, name in enumerate(dict.fromkeys(_HASHED.findall(text)))}
    text = _HASHED.sub(lambda name: ids[name[0]], text)
    text = text.replace("stroke-linecap: butt}", "stroke-linecap: butt} text{white-space: pre}", 1)
    left, top = 72 * frame.x0, 72 * (figure.get_figheight() - frame.y1)
    width, height = 72 * frame.width, 72 * frame.height
    size = (
        f'width="{width:.2f}pt" height="{height:.2f}pt"'
        f' viewBox="{left:.2f} {top:.2f} {width:.2f} {height:.2f}"'
    )
    text = re.sub(r'width="[^"]*" height="[^"]*" viewBox="[^"]*"', size, text, count=1)
    return text.encode(), round(96 * frame.width), round(96 * frame.height)


def _webp(figure: Figure, most: int) -> tuple[bytes, int, int]:
    from PIL import Image

    frame = _frame(figure)
    figure.set_dpi(_DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    top = figure.get_figheight() - frame.y1
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    edges = (frame.x0, top, frame.x1, top + frame.height)
    image = image.crop(
        [min(max(round(_DPI * x), 0), end) for x, end in zip(edges, 2 * image.size, strict=True)]
    )
    for scale, quality in _STEPS:
        data, size = BytesIO(), [round(scale * pixels) for pixels in image.size]
        image.resize(size, Image.Resampling.LANCZOS).save(data, "webp", quality=quality, method=4)
        if data.tell() <= most:
            break
    width, height = (round(96 * pixels / _DPI) for pixels in image.size)
    return data.getvalue(), width, height
