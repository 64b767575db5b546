"""Where commands write unless told otherwise."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["HOME_VARIABLE", "results_home"]

HOME_VARIABLE = "NODIFF_BENCH_HOME"


def results_home() -> Path:
    """Return the folder that commands write to unless told otherwise.

    It holds ``data`` (the sample's files, built on first use), ``runs`` (result folders, and
    ``runs/checkpoints``, the trained weights that all commands share) and ``reports``:
    ``results`` of the repository, or the folder that the environment variable
    ``NODIFF_BENCH_HOME`` names.
    """
    home = os.environ.get(HOME_VARIABLE)
    return Path(home).expanduser() if home else Path(__file__).resolve().parents[2] / "results"
