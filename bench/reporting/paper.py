"""What the paper printed (``results/paper``); it stands beside our numbers, never in them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from bench.config.errors import MissingError

__all__ = ["PAPER_HARDWARE", "load_paper_table", "load_paper_words"]

PAPER_HARDWARE = "NVIDIA GeForce RTX 4090"

_NAMES = {"D_lambda": "D_lambda_K"}
"""Ours for what the paper's tables call otherwise: with HQNR goes Khan's index."""
_FOLDER = Path(__file__).parents[2] / "results" / "paper"


def _read(name: str) -> pd.DataFrame:
    path = _FOLDER / name
    if not path.is_file():
        raise MissingError(f"no results/paper/{name}: run from a clone of the repository")
    return pd.read_csv(path)


def load_paper_table(number: int) -> pd.DataFrame:
    """Return table 1, 2 or 3 of the paper, one number a line.

    Columns: dataset, split, method (the field's name), published_name, metric (our name), mean, std
    (over the test images; nan where none is printed).
    """
    if number not in (1, 2, 3):
        raise ValueError(f"the paper has tables 1, 2 and 3, not {number!r}")
    return _read(f"table{number}.csv").replace({"metric": _NAMES})


def load_paper_words(setting: str) -> dict[int | str, str]:
    """Return what the paper's text says of each value of a setting: ``modes`` or ``layers``.

    Figures 6 and 8 exist only as pictures, so there are no numbers.
    """
    words = _read("figures.csv")
    words = words[words["setting"] == setting]
    values = (int(value) if value.isdigit() else value for value in words["value"])
    return dict(zip(values, words["words"], strict=True))
