"""A study's rows as lines with names: what every table, figure and difference is made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.config.presets import DEPARTURES
from bench.records import View
from bench.records.grouping import split_lines
from bench.records.lines import GROUND, OWN_DEFAULTS, WITHOUT_EFFECT
from bench.reporting.text import missing, plain, shown_value

__all__ = [
    "Shown",
    "assumptions_of",
    "axis_column",
    "full_size",
    "headers",
    "name_lines",
    "notes_of",
    "of_accuracy",
    "show",
    "words_of",
]

_GROUND = tuple(f"config.{name}" for name in GROUND)


@dataclass(frozen=True)
class Shown:
    """Rows that know their lines.

    Attributes:
        frame: the rows; column ``line`` has the line's name, ``who`` that of its entrant alone.
        by: columns that tell every line from every other.
        note: what else differs between lines, or nothing.
    """

    frame: pd.DataFrame
    by: tuple[str, ...]
    note: tuple[str, ...]

    @property
    def ground(self) -> list[str]:
        """Columns of ``by`` in which lines differ that were not measured on the same ground."""
        return [column for column in self.by if column in _GROUND]

    @property
    def lines(self) -> pd.DataFrame:
        """One row a line, in the order shown: ``line``, ``who`` and the columns of ``by``."""
        return self.frame.drop_duplicates("line")[["line", "who", *self.by]].set_index(
            "line", drop=False
        )

    def first(self, count: int, always: Sequence[str] = ()) -> tuple[list[str], list[str]]:
        """Return the names of the first lines, and a note where there are more.

        Args:
            count: how many at most.
            always: names that are among them.
        """
        names = list(self.lines.index)
        if len(names) <= count:
            return names, []
        kept = [name for name in names if name in always][:count]
        others = [name for name in names if name not in kept][: count - len(kept)]
        chosen = [name for name in names if name in {*kept, *others}]
        which = "The first" if chosen == names[:count] else "The reference and the first others,"
        return chosen, [f"{which} {count} of {len(names)} lines are shown."]


def axis_column(frame: pd.DataFrame, view: View) -> str | None:
    """Return the column of the view's axis; None where no row has a value of it."""
    column = f"config.{view.axis}"
    return column if column in frame and frame[column].notna().any() else None


def of_accuracy(frame: pd.DataFrame, view: View) -> pd.DataFrame:
    """Return rows without settings that have no effect on accuracy, for costs shown beside it."""
    exempt = {f"config.{name}" for name in WITHOUT_EFFECT if name != view.axis}
    # Not drop, after which every column is a block of its own.
    return frame[[column for column in frame if column not in exempt]]


def show(frame: pd.DataFrame, view: View, apart: Sequence[str] = ()) -> Shown:
    """Split rows into lines, name each by what differs, and sort them along the view's axis.

    Args:
        frame: rows of one study.
        view: how they are shown.
        apart: further columns that make entrants, e.g. ``["dataset"]``.
    """
    axis = axis_column(frame, view)
    # Methods are never pooled, whoever is compared.
    named = dict.fromkeys(("method", *view.entrants, *apart))
    entrants = [c for name in named for c in (name, f"config.{name}") if c in frame]
    lines = split_lines(frame, entrants, [*([axis] if axis else []), *_GROUND])
    # Lines on different ground are not ranked against each other, so that it is always named.
    by = (*lines.by, *(column for column in lines.along if column in _GROUND))
    if axis and axis not in by:
        by = (*by, axis)
    frame = lines.frame
    key = [frame[column].map(repr) for column in by]
    number = frame.groupby(key, sort=False).ngroup() if key else pd.Series(0, index=frame.index)
    groups = frame[list(by)].set_axis(number).loc[~number.duplicated().to_numpy()]
    names = name_lines(groups, view)
    frame = frame.assign(line=number.map(names["line"]), who=number.map(names["who"]))
    if axis:
        frame = frame.iloc[_order(frame, by, axis)]
    notes = [*filter(None, [lines.note()]), *full_size(frame)]
    return Shown(frame.reset_index(drop=True), by, tuple(notes))


def full_size(frame: pd.DataFrame) -> list[str]:
    """Say which networks run at full size beside shrunk ones; nothing where there are none."""
    if "config.scale" not in frame or "backbone" not in frame:
        return []
    own = frame["config.scale"] == OWN_DEFAULTS
    others = frame.loc[~own, "config.scale"].dropna().unique()
    names = frame.loc[own, "backbone"].dropna().unique()
    if not (len(names) and len(others)):
        return []
    return [
        f"{', '.join(names)}: declares no scales, so that it runs at its full size beside networks"
        f" at scale {', '.join(map(str, others))}."
    ]


def _order(frame: pd.DataFrame, by: Sequence[str], axis: str) -> list[int]:
    """Return places of rows: those with the axis first, entrants as they came, the axis sorted."""
    rest = [column for column in by if column != axis]
    came = [pd.factorize(frame[column].map(repr))[0] for column in rest]
    keys = []
    for place, value in enumerate(frame[axis]):
        number = isinstance(value, (int, float)) and not missing(value)
        along = (not number, value if number else 0, str(value))
        keys.append((missing(value), *(codes[place] for codes in came), along))
    return sorted(range(len(frame)), key=keys.__getitem__)


def name_lines(groups: pd.DataFrame, view: View) -> pd.DataFrame:
    """Return the names ``line`` and ``who`` of lines: words for baselines, then what differs.

    Args:
        groups: one row a line, the columns that tell it apart.
        view: has the baselines' words.
    """
    methods = groups["method"] if "method" in groups else pd.Series(None, index=groups.index)
    kinds = methods.where(methods.isin(list(view.baselines)), None).map(repr)
    head = headers(groups.columns)
    found: dict[Any, tuple[str, str]] = {}
    taken: dict[str, int] = {}
    for index, line in groups.iterrows():
        beside = groups[kinds == kinds[index]]
        varying = [c for c in groups if beside[c].map(repr).nunique() > 1 and not missing(line[c])]
        words = view.baselines.get(methods[index])
        who = [str(line[c]) for c in varying if not _is_setting(c)]
        own = [f"{head[c]} = {shown_value(line[c])}" for c in varying if _is_setting(c)]
        everybody = [str(line[c]) for c in groups if not _is_setting(c) and not missing(line[c])]
        name = ", ".join([words, *who, *own] if words else [*who, *own] or everybody)
        taken[name] = taken.get(name, 0) + 1
        name += f" ({taken[name]})" if taken[name] > 1 else ""
        found[index] = (name, ", ".join(who or everybody[-1:]))
    names = pd.DataFrame(found.values(), columns=["line", "who"], dtype=object)
    return names.set_axis(groups.index)


def _is_setting(column: str) -> bool:
    return column.startswith("config.") or column.endswith("_version")


def headers(columns: Sequence[str]) -> dict[str, str]:
    """Return the heading of each column: as few last parts of its name as tell it apart."""
    names = {column: column.removeprefix("config.").split(".") for column in columns}
    found = {}
    for column, parts in names.items():
        others = [other for name, other in names.items() if name != column]
        length = next(
            (n for n in range(1, len(parts)) if parts[-n:] not in [o[-n:] for o in others]),
            len(parts),
        )
        found[column] = ".".join(parts[-length:])
    return found


def words_of(conditions: Mapping[str, Any]) -> str:
    """Return field = value in words, by the last part of the field's name."""
    named = headers(list(conditions))
    return ", ".join(f"{named[name]} = {plain(value)}" for name, value in conditions.items())


def notes_of(rows: pd.DataFrame, view: View, *extra: str) -> list[str]:
    """Return what must stand below the rows: how data and presets depart, then the view's notes."""
    notes = {}
    if "config.data.notes" in rows:
        said = rows[["dataset", "config.data.notes"]].dropna()
        notes = {f"{name}: {note}.": None for name, of in said.to_numpy() for note in of}
    presets = rows["config.preset"].dropna().unique() if "config.preset" in rows else []
    known = [f"Preset {name}: {DEPARTURES[name]}." for name in presets if name in DEPARTURES]
    return [*notes, *_full_sets(rows), *known, *view.notes, *extra]


def _full_sets(rows: pd.DataFrame) -> Iterator[str]:
    """Say on which of the published sets of one name rows at full resolution rest.

    What EXP scores over all of their images tells; rows name the sets and their scores.
    """
    column = "config.data.full_sets"
    if column not in rows:
        return
    rows = rows[(rows["split"] == "full") & (rows["status"] == "ok") & rows[column].notna()]
    for dataset, of in rows.groupby("dataset"):
        sets = [dict(one) for one in of[column].iloc[0]]  # frames hold pairs
        images, sensor = sets[0]["images"], sets[0]["sensor"]
        exp = of[(of["method"] == "exp") & (of["n"] == images)].groupby("metric")["value"].mean()
        scores = {name: exp[name] for name in ("D_lambda_K", "D_s") if name in exp}
        words = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
        fits = [
            one["name"] for one in sets
            if len(scores) == 2
            and all(abs(value - one[name]) <= one["within"] for name, value in scores.items())
        ]  # fmt: skip
        if fits:
            yield f"{dataset}: at full resolution {fits[0]} (EXP: {words})."
        else:
            why = f"EXP scores {words}, as on neither" if scores else "no row has EXP on all of it"
            yield (
                f"{dataset}: which of PanCollection's two sets of {images} {sensor} images at full"
                f" resolution this is cannot be told: {why}."
            )


def assumptions_of(rows: pd.DataFrame) -> list[str]:
    """Return what was assumed of methods whose papers leave it open, a sentence each."""
    if "config.assumed" not in rows:
        return []
    said = rows[["method", "config.assumed"]].dropna().drop_duplicates()
    return [f"{name} is an approximation: {what}." for name, what in said.to_numpy()]
