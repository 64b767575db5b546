"""How the rows of a study are shown: plain data, written beside them.

A run folder holds ``view-<study>.json`` for every study that wrote to it, so that its report can be
built again by who knows no study. Rows without a view get a generic one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.config.errors import BenchError, UsageError
from bench.config.hashing import as_plain
from bench.config.plain import from_plain
from bench.records.schema import SCHEMA_VERSION
from bench.records.store import encoded, replace_file

__all__ = ["SCHEME_WORDS", "View", "generic_view", "load_views", "write_view"]

log = logging.getLogger(__name__)

ALL_BLOCKS = (
    "peaks", "accuracy", "contributions", "differences", "spectrum", "paired", "curves",
    "intervals", "pictures", "features", "training", "tuning", "speed", "cost", "scaling",
    "roofline", "quality",
)  # fmt: skip


@dataclass(frozen=True)
class View:
    """What tables and figures the rows of a study become.

    Attributes:
        study: name of the study; its rows have it as their protocol.
        title: of the report.
        blocks: parts of the report, in order, as of ``bench.reporting.blocks``.
        axis: field of the configuration that the study varies, e.g. ``backbone.modes``; None where
            it varies none in particular.
        entrants: fields, or settings, that name who is compared; the method always does.
        baselines: words by method, for methods that are shown beside the entrants and not among
            them, e.g. ``{"exp": "EXP (interpolation)"}``.
        reference: field -> value of the line that the others are compared with, named before any
            row is there. Empty: nothing is compared.
        notes: printed below tables and figures.
        words: setting whose words in the paper stand beside ours, e.g. ``modes``.
        metrics: of accuracy, the columns of its tables; empty: the usual ones.
        costs: metrics of training and cost that accuracy tables show in further columns.
        paper: number of the paper's table that stands beside ours.
        outline: draw a frame around the modes that the axis' value keeps, in spectra.
        schemes: ways to train that are shown apart, in this order, and words for each.
        beside: other result folders that blocks may read, relative to the run folder.
    """

    study: str
    title: str
    blocks: tuple[str, ...] = ALL_BLOCKS
    axis: str | None = None
    entrants: tuple[str, ...] = ("method", "backbone")
    baselines: Mapping[str, str] = field(default_factory=dict)
    reference: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    words: str | None = None
    metrics: tuple[str, ...] = ()
    costs: tuple[str, ...] = ()
    paper: int | None = None
    outline: bool = False
    schemes: Mapping[str, str] = field(default_factory=dict)
    beside: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in (
            "blocks",
            "entrants",
            "notes",
            "metrics",
            "costs",
            "beside",
            "baselines",
            "schemes",
        ):
            items = getattr(self, name)
            texts = [*items, *items.values()] if isinstance(items, Mapping) else items
            if not all(isinstance(text, str) for text in texts):
                raise UsageError(f"view.{name} = {items!r}: expected text alone")
        if self.paper not in (None, 1, 2, 3):
            raise UsageError(f"view.paper = {self.paper!r}: the paper has tables 1, 2 and 3")


SCHEME_WORDS = {
    "one_stage": "which denoiser? (bare)",
    "two_stage": "what does NODiff make of it? (two stages)",
    "joint": "both stages at once (joint)",
    "precondition": "an operator before the diffusion (precondition)",
    "refine": "an operator, refined by diffusion (refine)",
}
"""The rulers, by what they answer."""


def generic_view(study: str) -> View:
    """Return how rows are shown that no view speaks of."""
    return View(study, study)


def write_view(view: View, folder: Path) -> Path:
    """Write ``view-<study>.json`` into a run folder, whole or not at all."""
    text = json.dumps({"schema_version": SCHEMA_VERSION, **as_plain(view)}, indent=1)
    path = folder / f"view-{view.study}.json"
    replace_file(path, encoded(f"{text}\n"))
    return path


def load_views(*folders: Path) -> dict[str, View]:
    """Return the views of run folders by study; one that cannot be read is named and left out."""
    views = {}
    for folder in folders:
        for path in sorted(Path(folder).glob("view-*.json")):
            try:
                view = _read(path)
            except BenchError as error:
                log.warning("%s; its rows are shown in a generic way", error)
            else:
                views[view.study] = view
    return views


def _read(path: Path) -> View:
    try:
        record = json.loads(path.read_text("utf-8"))
        version = record.pop("schema_version", 1)
        if version > SCHEMA_VERSION:
            raise UsageError(f"of schema {version}, newer than {SCHEMA_VERSION}: update")
        return from_plain(View, record, "view")
    except Exception as error:  # whatever a parser throws: the file may be anybody's
        raise UsageError(f"{path}: not a view: {error}") from error
