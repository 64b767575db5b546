"""A folder of results: ``rows.jsonl``, ``cells.jsonl``, and ``run-<run_id>.json`` for each run.

A cell's configuration, the whole of it, stands once in ``cells.jsonl`` and is joined to its rows
when they are read.

Several processes may share a folder. Every change replaces a file by a complete new one under a
lease, so that a reader, or a run that follows a kill, finds either all rows of a call or none.

A process that is stopped while it holds the lease loses it, and may wake up in the middle of a
change. Its file is written by then, or it sees that the lease is lost; and whoever took the lease
over has removed the file before looking at what is there. So it cannot undo what others added.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.config.errors import MissingError, UsageError
from bench.config.hashing import as_plain
from bench.config.writing import drop_partials, replacing
from bench.records.leases import Lease, LostLeaseError
from bench.records.lines import complete
from bench.records.migration import migrated
from bench.records.schema import SCHEMA_VERSION, Row, decode_row, encode_row

__all__ = ["OUTCOMES", "RunFolder", "encoded", "latest", "read_lines", "replace_file"]

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
        self.cells_path = self.path / "cells.jsonl"
        self.locks = self.path / ".locks"

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
        self.locks.mkdir(parents=True, exist_ok=True)
        self._write_run(_without_private(record))
        return run_id

    def end(self, run_id: str, status: str) -> None:
        """Write how the run ended: ok, error, interrupted, ..."""
        ended = datetime.now(UTC).isoformat(timespec="seconds")
        self._write_run(self.runs()[run_id] | {"status": status, "ended_at": ended})

    def runs(self, *, broken: bool = True) -> dict[str, dict[str, Any]]:
        """Return the provenance of every run in the folder by run id, oldest first.

        Args:
            broken: leave out records that cannot be read, with a warning each: they cost no more
                than what they say.

        Raises:
            UsageError: a record that cannot be read, unless ``broken``.
        """
        found = {}
        for path in sorted(self.path.glob("run-*.json")):
            try:
                record = json.loads(path.read_text("utf-8"))
                found[record["run_id"]] = dict(record)
            except Exception as error:  # the file may be anybody's
                line = f"{path}: not the record of a run: {type(error).__name__}: {error}"
                if not broken:
                    raise UsageError(line) from error
                logger.warning("%s", line)
        return found

    def append(
        self,
        rows: Iterable[Row],
        config: Mapping[str, Any] | None = None,
        *,
        unless: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Add rows, all or none. The rows of one cell go into one call: that finishes the cell.

        Args:
            rows: of one cell.
            config: the cell's resolved configuration; rows keep only what is their own.
            unless: asked while nobody else can add any; if it says yes, none are added.

        Returns:
            Whether they were added.
        """
        rows = list(rows)

        def add(check: Callable[[], None]) -> bool:
            if unless():
                return False
            if config is not None and rows:
                cell = {"schema_version": SCHEMA_VERSION, "cell_id": rows[0].cell_id}
                cell["config"] = as_plain(config)
                if self.cells().get(rows[0].cell_id) != cell["config"]:
                    self._add(self.cells_path, json.dumps(cell, ensure_ascii=False) + "\n", check)
            self._add(self.rows_path, "".join(encode_row(row) + "\n" for row in rows), check)
            return True

        return self._changing(add)

    def _changing(self, change: Callable[[Callable[[], None]], bool]) -> bool:
        """Make a change of rows or cells under their lease; again where it was lost meanwhile.

        Args:
            change: gets what raises where the lease is lost, to be called once a file is written
                and before it takes its place.
        """
        lease = Lease(self.locks / "rows.lease")
        while True:
            with lease.waited():
                for path in (self.cells_path, self.rows_path):
                    drop_partials(path)
                try:
                    return change(lease.check)
                except LostLeaseError:
                    pass
                except MissingError:  # the file was removed by who took over
                    if lease.held:
                        raise
            logger.warning("%s: stood still while adding rows; once more", self.path)

    def _add(self, path: Path, lines: str, check: Callable[[], None]) -> None:
        present = b""
        if path.exists():
            present, torn = _split_torn(path.read_bytes())
            if torn:
                logger.warning("%s: dropped a torn last line", path)
        replace_file(path, present + encoded(lines), check)

    def cells(self) -> dict[str, dict[str, Any]]:
        """Return the configuration of every cell by id; of several the last.

        Raises:
            UsageError: a line that is not a cell, or one of a newer schema.
        """
        found = {}
        for number, record in _records(self.cells_path):
            try:
                if record["schema_version"] > SCHEMA_VERSION:
                    raise ValueError(f"of schema {record['schema_version']}: update nodiff-bench")
                found[record["cell_id"]] = dict(record["config"])
            except Exception as error:  # the file may be anybody's
                raise UsageError(f"{self.cells_path}:{number}: not a cell: {error}") from error
        return found

    def rows(self) -> list[Row]:
        """Return every row in the order written, with its cell's configuration.

        A torn last line is left out.

        Raises:
            MissingError: the folder has no ``rows.jsonl``.
            UsageError: a line that is not a row, or one of a newer schema.
        """
        if not self.rows_path.is_file():
            raise MissingError(f"no rows.jsonl in {self.path}")
        cells, runs = self.cells(), self.runs()
        rows = []
        for number, record in _records(self.rows_path):
            try:
                cell = cells.get(record["cell_id"])
                if record["schema_version"] < SCHEMA_VERSION:
                    record = migrated(record, runs.get(record["run_id"]))
                elif cell is None:  # lost: at least never taken for another cell's
                    cell = {"unsaid": record["cell_id"]}
                whole = _joined(cell or {}, record["config"])
                rows.append(decode_row({**record, "config": whole}))
            except Exception as error:  # the file may be anybody's
                raise UsageError(f"{self.rows_path}:{number}: not a row: {error}") from error
        return complete(rows)

    def cell_lines(self) -> dict[str, str]:
        """Return the line that keeps the configuration of every cell, by id; of several the last.

        Raises:
            UsageError: as of :meth:`cells`.
        """
        self.cells()  # refuses what is no cell
        records = zip(_records(self.cells_path), read_lines(self.cells_path), strict=True)
        return {record["cell_id"]: line for (_, record), line in records}

    def replace(self, cells: Iterable[str], rows: Iterable[str]) -> None:
        """Put other lines, of cells and of rows, in place of all that the folder has.

        Args:
            cells: as of :meth:`cell_lines`, without line ends.
            rows: likewise, see :func:`bench.records.encode_row`.
        """
        contents = {
            path: encoded("".join(f"{line}\n" for line in lines))
            for path, lines in ((self.cells_path, cells), (self.rows_path, rows))
        }

        def put(check: Callable[[], None]) -> bool:
            for path, content in contents.items():
                replace_file(path, content, check)
            return True

        self._changing(put)

    def latest(self) -> list[Row]:
        """Return the rows that count (see :func:`latest`); none in a folder that is not there."""
        return latest(self.rows()) if self.rows_path.is_file() else []

    def finished(self) -> set[str]:
        """Return the cells that need no repeat: no row of theirs is outside :data:`OUTCOMES`."""
        rows = self.latest()
        cells = {row.cell_id for row in rows}
        return cells - {row.cell_id for row in rows if row.status not in OUTCOMES}

    @contextmanager
    def claim(self, cell_id: str, *, wait: bool = False) -> Iterator[Lease | None]:
        """Hold a cell while working on it; yields None when another process holds it.

        The claim ends with the process, however that ends, and a process that stands still loses
        it. Look at :meth:`finished` once more after claiming: another process may have finished the
        cell in between; and look whether the lease is still held before rows are added.

        Args:
            cell_id: which cell.
            wait: until nobody else holds it.
        """
        lease = Lease(self.locks / f"{cell_id}.lease")
        if not lease.acquire(timeout=-1 if wait else 0):
            yield None
            return
        try:
            yield lease
        finally:
            lease.release()

    def _write_run(self, record: Mapping[str, Any]) -> None:
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        replace_file(self.path / f"run-{record['run_id']}.json", encoded(text))


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


def read_lines(path: Path) -> list[str]:
    """Return the complete lines of a JSON-lines file, as they are."""
    if not path.is_file():
        return []
    return _split_torn(path.read_bytes())[0].decode("utf-8", "surrogateescape").split("\n")[:-1]


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number and the object of every complete line of a JSON-lines file.

    Raises:
        UsageError: a line that is not a JSON object.
    """
    if not path.is_file():
        return
    complete_lines, _ = _split_torn(path.read_bytes())
    # Split at \n alone: text may hold other characters that end a line.
    for number, line in enumerate(complete_lines.split(b"\n")[:-1], start=1):
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError("expected an object")
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{path}:{number}: not a JSON object: {error}") from error
        yield number, record


def _joined(cell: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """Lay a row's own settings over those of its cell, group by group."""
    whole = dict(cell)
    for name, value in row.items():
        inside = whole.get(name)
        both = isinstance(value, Mapping) and isinstance(inside, Mapping)
        whole[name] = _joined(inside, value) if both else value
    return whole


def encoded(text: str) -> bytes:
    """Encode JSON; the name of a file that is no UTF-8 becomes an escape and survives."""
    return text.encode("utf-8", "backslashreplace")


def replace_file(path: Path, content: bytes, check: Callable[[], None] = lambda: None) -> None:
    """Put a complete file in place of ``path``: readers see the old one or the new one.

    Of several writers at once the last one wins.

    Args:
        path: the file.
        content: what it is to hold.
        check: called before it takes its place; what it raises leaves the old one there.
    """
    with replacing(path) as partial:
        partial.write_bytes(content)
        check()


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
