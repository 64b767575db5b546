"""Backbones that a glob names and whose extra is not installed: a row each says so."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from bench.records import Row
from bench.running.cells import Cell, Context
from bench.running.desk import Desk

__all__ = ["absent_cells"]


def absent_cells(desk: Desk) -> Iterator[Cell]:
    """Yield a cell for each of :attr:`Desk.absent`, which only says why there is nothing."""
    for name, reason in desk.absent.items():
        yield Cell(
            title=f"{name}, which is not installed",
            identity={"absent": name},
            fields={"kind": "cost", "method": "diffusion", "backbone": name},
            execute=partial(_skip, reason),
        )


def _skip(reason: str, context: Context) -> list[Row]:
    return [context.row(status="skip", reason=reason)]
