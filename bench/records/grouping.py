"""Rows into lines: one for each set of settings that can change a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.records.lines import WITHOUT_EFFECT, decides

__all__ = ["Lines", "split_lines"]

_VERSIONS = ("backbone_version", "protocol_version")


@dataclass(frozen=True)
class Lines:
    """Rows, and the columns that make a line of a table of them.

    Attributes:
        frame: the rows; settings that do not count are empty in it.
        by: columns that tell every line from every other, entrants first.
        along: further columns that differ between lines, always together with some of ``by``.
    """

    frame: pd.DataFrame
    by: tuple[str, ...]
    along: tuple[str, ...]

    @property
    def varying(self) -> tuple[str, ...]:
        """The settings among ``by``."""
        return tuple(c for c in self.by if c.startswith("config.") or c in _VERSIONS)

    def note(self) -> str | None:
        """Say what else differs between lines; None where nothing does."""
        if not self.along:
            return None
        names = [column.removeprefix("config.") for column in self.along]
        more = f" and {len(names) - 12} more" if len(names) > 12 else ""
        return f"Also different between lines: {', '.join(names[:12])}{more}."


def split_lines(
    frame: pd.DataFrame,
    entrants: Sequence[str] = ("method", "backbone"),
    first: Sequence[str] = (),
) -> Lines:
    """Return the lines of rows: one for each set of settings that can change a number.

    A setting that some rows of an entrant have and others cannot have - the threads of a timing,
    beside a count - holds for all of its lines.

    Args:
        frame: rows as of :func:`bench.records.to_frame`.
        entrants: columns that name who is compared.
        first: columns to prefer as labels, e.g. the axis of a study.
    """
    entrants = [column for column in entrants if column in frame]
    exempt = [f"config.{name}" for name in WITHOUT_EFFECT if f"config.{name}" in frame]
    frame = frame.copy()
    frame.loc[frame["kind"] != "cost", exempt] = None
    versions = _VERSIONS if frame["protocol"].nunique() == 1 else _VERSIONS[:1]
    candidates = [
        *(column for column in first if column in frame),
        *versions,
        *(c for c in frame if c.startswith("config.") and decides(c.partition(".")[2], "cost")),
    ]
    candidates = [c for c in dict.fromkeys(candidates) if c not in entrants]
    groups = _codes(frame, entrants)
    varying = [c for c in candidates if _several(frame[c], groups)]
    frame = _repeated(frame, entrants, varying)
    by, along, lines = list(entrants), [], _codes(frame, entrants)
    for column in varying:
        finer = _codes(frame, [*by, column])
        if finer.nunique() > lines.nunique():
            by, lines = [*by, column], finer
        else:
            along.append(column)
    # Between entrants, versions and their own options differ as a matter of course.
    everybody = pd.Series(0, index=frame.index)
    for column in candidates:
        own = column in _VERSIONS or column.startswith("config.backbone.")
        if column not in varying and not own and _several(frame[column], everybody):
            along.append(column)
    return Lines(frame, tuple(by), tuple(along))


def _codes(frame: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    """Number the rows by their values in ``columns``; missing is a value."""
    if not columns:
        return pd.Series(0, index=frame.index)
    return frame.groupby([frame[c].map(repr) for c in columns], sort=False).ngroup()


def _several(column: pd.Series, groups: pd.Series) -> bool:
    """Tell whether a column has several values within a group, missing ones apart."""
    said = column.notna()
    texts = column[said].map(repr)
    # Nearly all settings have one value throughout, which is seen far sooner.
    return texts.nunique() > 1 and bool(texts.groupby(groups[said]).nunique().gt(1).any())


def _repeated(frame: pd.DataFrame, entrants: Sequence[str], varying: Sequence[str]) -> pd.DataFrame:
    """Repeat rows that cannot have some varying settings for the values that others beside have.

    Beside a row are the rows of its entrant that agree with it in the varying settings it has.
    """
    if not varying or not frame[list(varying)].isna().any(axis=None):
        return frame
    keys = frame[list(entrants)].map(repr).agg("|".join, axis=1) if entrants else frame["kind"]
    said = frame[list(varying)].notna()
    values = frame[list(varying)].to_dict("records")
    full: dict[str, list[dict[str, Any]]] = {}
    for key, row, known in zip(keys, values, said.all(axis=1), strict=True):
        if known and row not in full.setdefault(key, []):
            full[key].append(row)
    taken, rows = [], []
    for index, (key, row, known) in enumerate(zip(keys, values, said.to_numpy(), strict=True)):
        has = [column for column, there in zip(varying, known, strict=True) if there]
        beside = [
            other for other in full.get(key, []) if all(other[c] == row[c] for c in has)
        ] if len(has) < len(varying) else []  # fmt: skip
        for filled in beside or [row]:
            taken.append(index)
            rows.append(filled)
    frame = frame.iloc[taken].reset_index(drop=True)
    filled = {c: pd.Series([row[c] for row in rows], dtype=object) for c in varying}
    return frame.assign(**filled).copy()  # one block a type, not one for each of these columns
