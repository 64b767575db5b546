"""A folder of results: ``rows.jsonl``, and ``run-<run_id>.json`` for each run that wrote to it.

Several processes may share a folder. Every change replaces a file by a complete new one under a
lock, so that a reader, or a run that follows a kill, finds either all rows of a call or none.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bench.config.errors import MissingError, UsageError
from bench.records.schema import Row, decode_row, encode_row

__all__ = ["RunFolder", "latest"]

logger = logging.getLogger(__name__)

OUTCOMES = frozenset({"ok", "oom", "diverged", "skip"})
"""Statuses that stand: a run that continues repeats cells of any other status."""


class RunFolder:
    """Rows and provenance of the runs that share one folder.

    Args:
        path: the folder; made by the first write.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.rows_path = self.path / "rows.jsonl"
        self._locks = self.path / ".locks"

    def begin(
        self,
        command: Sequence[str],
        config: Mapping[str, Any],
        machine: Mapping[str, Any],
        versions: Mapping[str, Any],
        commit: Mapping[str, Any] | str | None,
    ) -> str:
        """Write ``run-<run_id>.json`` with status running, before any work, and return the run id.

        Args:
            command: the command line; its first word is cut to the script's last two parts.
            config: the resolved configuration.
            machine: CPU, GPU, memory, operating system.
            versions: version by package.
            commit: commit hash, and whether the tree had changes.

        The host's name is taken out of ``machine``; the home folder, the user's name in paths and
        URLs out of everything.
        """
        started = datetime.now(UTC)
        run_id = f"{started:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
        script, *arguments = command
        record = {
            "run_id": run_id,
            "status": "running",
            "started_at": started.isoformat(timespec="seconds"),
            "ended_at": None,
            "command": ["/".join(Path(script).parts[-2:]), *arguments],
            "config": config,
            "commit": commit,
            "machine": _without_host(machine),
            "versions": versions,
        }
        self._locks.mkdir(parents=True, exist_ok=True)
        self._write_run(_without_private(record))
        return run_id

    def end(self, run_id: str, status: str) -> None:
        """Write how the run ended: ok, error, interrupted, ..."""
        ended = datetime.now(UTC).isoformat(timespec="seconds")
        self._write_run(self.runs()[run_id] | {"status": status, "ended_at": ended})

    def runs(self) -> dict[str, dict[str, Any]]:
        """Return the provenance of every run in the folder by run id, oldest first."""
        records = [json.loads(p.read_text("utf-8")) for p in sorted(self.path.glob("run-*.json"))]
        return {record["run_id"]: record for record in records}

    def append(self, rows: Iterable[Row]) -> None:
        """Add rows, all or none. The rows of one cell go into one call: that finishes the cell."""
        lines = "".join(encode_row(row) + "\n" for row in rows)
        self._locks.mkdir(parents=True, exist_ok=True)
        with FileLock(self._locks / "rows.lock"):
            present = b""
            if self.rows_path.exists():
                present, torn = _split_torn(self.rows_path.read_bytes())
                if torn:
                    logger.warning("%s: dropped a torn last line", self.rows_path)
            _replace(self.rows_path, present + lines.encode())

    def rows(self) -> list[Row]:
        """Return every row in the order written; a torn last line is left out.

        Raises:
            MissingError: the folder has no ``rows.jsonl``.
            UsageError: a line that is not a row.
        """
        if not self.rows_path.is_file():
            raise MissingError(f"no rows.jsonl in {self.path}")
        complete, _ = _split_torn(self.rows_path.read_bytes())
        rows = []
        for number, line in enumerate(complete.decode().splitlines(), start=1):
            try:
                rows.append(decode_row(line))
            except (ValueError, TypeError) as error:
                raise UsageError(f"{self.rows_path}:{number}: {error}") from error
        return rows

    def latest(self) -> list[Row]:
        """Return the rows that count (see :func:`latest`); none in a folder that is not there."""
        return latest(self.rows()) if self.rows_path.is_file() else []

    def finished(self) -> set[str]:
        """Return the cells that need no repeat: no row of theirs is outside :data:`OUTCOMES`."""
        rows = self.latest()
        cells = {row.cell_id for row in rows}
        return cells - {row.cell_id for row in rows if row.status not in OUTCOMES}

    @contextmanager
    def claim(self, cell_id: str) -> Iterator[bool]:
        """Hold a cell while working on it; yields False when another process holds it.

        The claim ends with the process, however that ends. Look at :meth:`finished` once more after
        claiming: another process may have finished the cell in between.
        """
        self._locks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._locks / f"{cell_id}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def _write_run(self, record: Mapping[str, Any]) -> None:
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        _replace(self.path / f"run-{record['run_id']}.json", text.encode())


def latest(rows: Iterable[Row]) -> list[Row]:
    """Return the rows that count, cell by cell of each protocol: of rows with one key the last.

    A failure without a metric is the whole cell's: it replaces what the cell had before, and
    anything written later for the cell replaces it.
    """
    cells: dict[tuple[str, str], dict[tuple[Any, ...], Row]] = {}
    failed: set[tuple[str, str]] = set()
    for row in rows:
        cell = row.protocol, row.cell_id
        whole_cell = row.metric is None and row.status != "ok"
        if whole_cell or cell in failed:
            cells.pop(cell, None)
            failed.discard(cell)
        if whole_cell:
            failed.add(cell)
        cells.setdefault(cell, {})[row.key] = row
    return [row for cell in cells.values() for row in cell.values()]


def _split_torn(content: bytes) -> tuple[bytes, bytes]:
    """Split into complete lines and what follows the last line end (a write cut short)."""
    end = content.rfind(b"\n") + 1
    return content[:end], content[end:]


def _replace(path: Path, content: bytes) -> None:
    """Put a complete file in place of ``path``: readers see the old one or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _without_private(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _without_private(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_private(item) for item in value]
    if not isinstance(value, (str, Path)):
        return value
    value = re.sub(r"\w+://\S+", "URL", str(value))
    home = os.environ.get("HOME") or os.environ.get("USERPROFILE") or ""
    if len(Path(home).parts) > 1:  # a container's home may be the root folder itself
        value = re.sub(rf"{re.escape(home)}(?![^/\\])", "~", value)
        value = re.sub(rf"(?<=[/\\]){re.escape(Path(home).name)}(?![^/\\])", "USER", value)
    return value


def _without_host(machine: Mapping[str, Any]) -> dict[str, Any]:
    host = platform.node()
    return {
        key: value.replace(host, "HOST") if host and isinstance(value, str) else value
        for key, value in machine.items()
    }
