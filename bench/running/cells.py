"""The unit of work and of claiming: what it is, what identifies it, how its rows come about."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.config import config_hash
from bench.records import Row, RunFolder

__all__ = ["Cell", "Context"]


@dataclass(frozen=True)
class Context:
    """What a cell knows of the run it is part of.

    Attributes:
        folder: the run folder; artefacts go into its ``artefacts/``.
        fields: row fields shared by all rows of the cell.
        config: the cell's resolved configuration, which its rows need not repeat.
    """

    folder: Path
    fields: Mapping[str, Any]
    config: Mapping[str, Any] = field(default_factory=dict)

    def row(self, **fields: Any) -> Row:
        """Return a row of this cell."""
        return Row(**{**self.fields, **fields})

    def artefact_path(self, name: str) -> Path:
        """Return where to write an array file that a row may name.

        Every run has files of its own: what an older row names stays whole.
        """
        run = str(self.fields["run_id"]).rpartition("-")[2]
        path = self.folder / "artefacts" / f"{self.fields['cell_id']}-{run}-{name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def rows_of(self, cell_id: str) -> list[Row]:
        """Return the rows that another cell of the folder has by now."""
        return [row for row in RunFolder(self.folder).latest() if row.cell_id == cell_id]


@dataclass(frozen=True)
class Cell:
    """One unit of work.

    Attributes:
        title: one line for people.
        identity: every setting that can change a result, and nothing else (no device index, no
            worker count); its hash is the cell's id.
        fields: row fields known before the cell runs (kind, method, backbone, dataset, seed).
        config: the resolved configuration; kept once, and joined to the rows when they are read.
        execute: does the work and returns the rows.
        estimate: a guess of the seconds that it takes yet, for ``--dry-run`` and ``--time-limit``;
            None where there is none.
        resumes: whether a good part of that is kept when it is stopped; None: nothing is.
        joins: what further processes of a data-parallel run do of it; None: nothing.
        company: ``any`` - other work may go on beside it, in other processes too; ``threads`` -
            likewise, and it only waits for a fresh process; ``none`` - it measures time: nothing
            of ours runs beside it on this machine.
        stands: whether what its rows tell of is still there; None where rows are all there is.
        forget: drop what a repeat would use again (trained weights), for ``--retrain``.
    """

    title: str
    identity: Mapping[str, Any]
    fields: Mapping[str, Any]
    execute: Callable[[Context], Sequence[Row]]
    config: Mapping[str, Any] = field(default_factory=dict)
    estimate: Callable[[], float] | None = field(default=None, compare=False)
    resumes: Callable[[], bool] | None = field(default=None, compare=False)
    joins: Callable[[], object] | None = field(default=None, compare=False)
    company: str = "any"
    stands: Callable[[], bool] | None = field(default=None, compare=False)
    forget: Callable[[], None] | None = field(default=None, compare=False)

    @cached_property
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
            self.config,
        )
