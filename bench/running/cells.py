"""The unit of work: what it is, what identifies it, how its rows come about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.config import config_hash
from bench.records import Row

__all__ = ["Cell", "Context"]


@dataclass(frozen=True)
class Context:
    """What a cell knows of the run it is part of.

    Attributes:
        folder: the run folder; artefacts go into its ``artefacts/``.
        fields: row fields shared by all rows of the cell.
    """

    folder: Path
    fields: Mapping[str, Any]

    def row(self, **fields: Any) -> Row:
        """Return a row of this cell."""
        return Row(**{**self.fields, **fields})

    def artefact_path(self, name: str) -> Path:
        """Return where to write an array file that a row may name."""
        path = self.folder / "artefacts" / f"{self.fields['cell_id']}-{name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


@dataclass(frozen=True)
class Cell:
    """One point of a protocol's grid.

    Attributes:
        title: one line for people.
        identity: every setting that can change a result, and nothing else (no device index, no
            worker count); its hash is the cell's id.
        fields: row fields known before the cell runs (method, backbone, dataset, seed, config).
        execute: does the work and returns the rows.
        estimate: a guess of the seconds it takes, for ``--dry-run``; None where there is none.
    """

    title: str
    identity: Mapping[str, Any]
    fields: Mapping[str, Any]
    execute: Callable[[Context], list[Row]]
    estimate: Callable[[], float] | None = field(default=None, compare=False)

    @property
    def cell_id(self) -> str:
        return config_hash(self.identity)

    def context(self, folder: Path, run_id: str, protocol: str, version: int) -> Context:
        """Return the context of one execution, started now."""
        return Context(
            folder,
            {
                "run_id": run_id,
                "cell_id": self.cell_id,
                "protocol": protocol,
                "protocol_version": version,
                "kind": "accuracy",
                "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
                **self.fields,
            },
        )
