"""What arrays show: fused images, features with their spectra, training losses."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.records import View
from bench.reporting.against import reference_lines
from bench.reporting.blocks.accuracy import panels
from bench.reporting.figures import (
    feature_maps,
    full_images,
    fused_images,
    training_curves,
)
from bench.reporting.html import Section
from bench.reporting.shown import Shown, axis_column, notes_of, show

__all__ = ["artefacts", "features", "pictures", "training"]

log = logging.getLogger(__name__)

Runs = Mapping[str, Mapping[str, Any]]
_PANELS, _LINES = 8, 12
"""More than these are not drawn beside each other; a note says so."""


def pictures(frame: pd.DataFrame, runs: Runs, view: View) -> Iterator[Section]:
    """Yield the first test image of each data set as the lines fused it, at both resolutions."""
    kinds = {
        "reduced": (fused_images, {"fused": 3, "reference": 3, "pan": 3, "rgb": 1}),
        "full": (full_images, {"fused": 3, "lms": 3, "pan": 3, "rgb": 1, "hqnr": 2}),
    }
    for name, _, words, rows in panels(frame, view):
        notes = notes_of(rows[rows["kind"] == "accuracy"], view)
        for split, (draw, needs) in kinds.items():
            images = rows[(rows["metric"] == "fused") & (rows["split"] == split)]
            shown = show(images, view)
            names, left_out = shown.first(_PANELS, reference_lines(shown.frame, view))
            drawn = dict(_first_of_each(shown, names, runs, needs))
            same = [key for key, axes in needs.items() if axes == 3 and key != "pan"]
            shapes = {arrays[key].shape for arrays in drawn.values() for key in same}
            if len(shapes) > 1:
                log.warning("%s: fused images of different sizes are not drawn together", name)
            elif drawn:
                title = f"First test image ({split} resolution) of {words}"
                figure = draw(drawn, title=title, note=" ".join([*notes, *left_out]))
                stem = f"{name}-images" + ("-full" if split == "full" else "")
                yield Section(name, figures={stem: figure})


def features(frame: pd.DataFrame, runs: Runs, view: View) -> Iterator[Section]:
    """Yield what enters guided blocks, and its spectrum: the last of each line, all of a line."""
    for name, _, words, rows in panels(frame, view):
        shown = show(rows[rows["metric"] == "features"], view)
        names, left_out = shown.first(_PANELS, reference_lines(shown.frame, view))
        found = {
            line: {block: array for block, array in arrays.items() if array.ndim in (2, 3)}
            for line, arrays in _first_of_each(shown, names, runs, {})
        }
        found = {line: arrays for line, arrays in found.items() if arrays}
        axis = axis_column(shown.frame, view) if view.outline else None
        kept = shown.lines[axis].to_dict() if axis else {}
        if not found:
            continue
        note = " ".join(left_out)
        last = {line: arrays[list(arrays)[-1]] for line, arrays in found.items()}
        title = f"Input of the last guided block, {words}"
        figures = {f"{name}-features": feature_maps(last, kept=kept, title=title, note=note)}
        for number, (line, arrays) in enumerate(found.items(), 1):
            blocks = list(arrays) if len(arrays) > 1 else []
            modes = dict.fromkeys(blocks, kept.get(line))
            for first in range(0, len(blocks), _PANELS):
                some = {block: arrays[block] for block in blocks[first : first + _PANELS]}
                which = f"{first + 1} to {first + len(some)} of {len(blocks)}"
                title = f"Input of guided blocks {which}: {line}, {words}"
                stem = f"{name}-features-{number}" + (f"-from-{first + 1}" if first else "")
                figures[stem] = feature_maps(some, kept=modes, title=title)
        yield Section(name, figures=figures)


def training(frame: pd.DataFrame, runs: Runs, view: View) -> Iterator[Section]:
    """Yield the losses of each training, a panel per stage."""
    for name, _, words, rows in panels(frame, view):
        losses = rows[(rows["kind"] == "training") & rows["metric"].str.startswith("loss_")]
        shown = show(losses[losses["artefact"].notna()], view)
        names, left_out = shown.first(_LINES)
        stages: dict[str, dict[str, np.ndarray]] = {}
        for metric in shown.frame["metric"].unique():
            of_stage = Shown(shown.frame[shown.frame["metric"] == metric], shown.by, shown.note)
            for line, arrays in _first_of_each(of_stage, names, runs, {"loss": 2}):
                if len(arrays["loss"]):
                    stages.setdefault(metric.removeprefix("loss_"), {})[line] = arrays["loss"]
        if stages:
            figure = training_curves(
                stages, title=f"Training, {words}", note=" ".join([*shown.note, *left_out])
            )
            yield Section(name, figures={f"{name}-training": figure})


def _first_of_each(
    shown: Shown, names: Sequence[str], runs: Runs, needs: Mapping[str, int]
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield lines with their arrays: of the first seed, of several rows the last."""
    rows = shown.frame[shown.frame["line"].isin(names) & shown.frame["artefact"].notna()]
    order = {line: place for place, line in enumerate(names)}
    rows = rows.assign(place=rows["line"].map(order)).sort_values(["place", "seed"], kind="stable")
    rows = rows.drop_duplicates(["line", "seed"], keep="last").drop_duplicates("line")
    for row, arrays in artefacts(rows, runs, needs):
        yield row["line"], arrays


def artefacts(
    rows: pd.DataFrame, runs: Runs, needs: Mapping[str, int]
) -> Iterator[tuple[pd.Series, dict[str, np.ndarray]]]:
    """Yield rows with the arrays they name; what cannot be read is logged and left out.

    Args:
        rows: published folders may come without the arrays.
        runs: know the folder of each row.
        needs: number of dimensions by name of the arrays that must be there.
    """
    missing: dict[Path, list[str]] = {}
    for _, row in rows.iterrows():
        if row["run_id"] not in runs:
            continue
        folder = Path(runs[row["run_id"]]["folder"])
        path = folder / str(row["artefact"])
        if not path.resolve().is_relative_to(folder.resolve()):
            log.warning("%s lies outside its result folder: left out", path)
        elif not path.is_file():
            missing.setdefault(folder, []).append(path.name)
        else:
            try:
                with np.load(path) as file:
                    arrays = dict(file)
                if lacking := [name for name in needs if name not in arrays]:
                    raise ValueError(f"it has no array {', '.join(lacking)}")
                for name, dimensions in needs.items():
                    if arrays[name].ndim != dimensions:
                        raise ValueError(f"{name} has shape {arrays[name].shape}")
                if not arrays:
                    raise ValueError("no arrays")
            except Exception as error:  # whatever a broken file makes a reader throw
                log.warning("%s cannot be shown: %s", path, error)
            else:
                yield row, arrays
    for folder, names in missing.items():
        more = f" and {len(names) - 1} more are" if names[1:] else " is"
        log.info("%s: %s%s not there: what would be shown is left out", folder, names[0], more)
