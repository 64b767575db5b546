"""Names and numbers as text: file stems, Markdown, LaTeX, figures' digits.

Names come from rows, and rows from anybody: none becomes a path, markup or a formula.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

__all__ = [
    "NOT_MEASURED",
    "escape_latex",
    "escape_markdown",
    "format_number",
    "joined",
    "missing",
    "plain",
    "shown_value",
    "slug",
]

NOT_MEASURED = "–"
_LONGEST = 100
_LATEX = {
    **{character: f"\\{character}" for character in "#$%&_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"±": r"$\pm$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "–": "--", "λ": r"$\lambda$"},
    **{"<": "$<$", ">": "$>$"},
}


def slug(text: str) -> str:
    """Return a file's stem: letters, digits and ``- _ .``; a hash tells changed ones apart."""
    kept = re.sub(r"[^A-Za-z0-9._-]", "-", text)[:_LONGEST]
    kept = re.sub(r"^[.-]", "_", kept)
    return kept if kept == text else f"{kept}-{hashlib.sha256(repr(text).encode()).hexdigest()[:8]}"


def escape_markdown(text: str) -> str:
    """Return text that Markdown shows as it is, in one line; underscores inside words may stay."""
    text = re.sub(r"([\\|*`]|(?<!\w)_|_(?!\w)|(?<=\])\()", r"\\\1", " ".join(text.split()))
    return text.replace("<", "&lt;")


def escape_latex(text: str) -> str:
    """Return text that LaTeX prints as it is."""
    return "".join(_LATEX.get(character, character) for character in text)


def format_number(value: float, kind: str = "cost", decimals: int = 3) -> str:
    """Return ``decimals`` for accuracy (the field prints three), four digits for cost."""
    if not np.isfinite(value):
        return str(value)
    if kind != "cost":
        return f"{value:.{decimals}f}"
    if value == 0:
        return "0"
    decimals = max(0, 3 - int(np.floor(np.log10(abs(value)))))
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def joined(frame: pd.DataFrame, columns: Iterable[str]) -> pd.Series:
    """Return a key for each row: its values in ``columns``, missing ones among them."""

    def key(value: Any) -> str:
        return "" if missing(value) else repr(plain(value))

    values = zip(*(map(key, frame[column]) for column in columns), strict=True)
    keys = ["|".join(row) for row in values] or [""] * len(frame)
    return pd.Series(keys, index=frame.index, dtype=object)


def missing(value: Any) -> bool:
    """Tell whether a cell of a frame has no value; a tuple is one."""
    return value is None or value is pd.NA or value is pd.NaT or value != value


def plain(value: Any) -> Any:
    """Return a group's key as it was set: 12, not the 12.0 of a column that also has nulls."""
    if isinstance(value, np.generic):
        value = value.item()
    return int(value) if isinstance(value, float) and value.is_integer() else value


def shown_value(value: Any) -> str:
    """Return a key as tables print it."""
    return NOT_MEASURED if missing(value) else str(plain(value))
