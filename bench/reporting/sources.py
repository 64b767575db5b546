"""Where numbers come from: runs as facts to read, and what is doubtful about them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.records import commit_words, machine_class
from bench.reporting.sentences import all_of
from bench.reporting.text import missing, shown_value

__all__ = ["UNKNOWN_MACHINE", "Run", "doubts", "machine_of", "run_of", "shared_settings"]

log = logging.getLogger(__name__)

UNKNOWN_MACHINE = "unknown machine"
_SHOWN_VERSIONS = ("python", "torch", "numpy", "nodiff-bench")
_UNSHARED = ("config.training", "config.timing.load", "config.data.notes", "config.data.full_sets")
"""Columns that say something of single rows, or that stand elsewhere."""
_LONGEST = 160


@dataclass(frozen=True)
class Run:
    """A run as a page tells of it; what a broken record does not say is empty.

    Attributes:
        run_id: its name.
        status: how it ended.
        machine: its class.
        commit: in words.
        when: from and to.
        facts: these and the command by name, to be listed.
        records: parts of the record as JSON, by name.
    """

    run_id: str
    status: str = ""
    machine: str = ""
    commit: str = ""
    when: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    records: tuple[tuple[str, str], ...] = ()


def run_of(record: Mapping[str, Any]) -> Run:
    """Return a run from the record of ``run-<run_id>.json``."""
    run_id = str(record.get("run_id", ""))
    try:
        versions, status = record["versions"], str(record["status"])
        machine, commit = machine_of(record), commit_words(record["commit"])
        when = " to ".join(str(record[k]) for k in ("started_at", "ended_at") if record.get(k))
        facts = {
            "Command": " ".join(record["command"]),
            "Ran": when,
            "Commit": commit,
            "Machine": machine,
            "System": str(record["machine"].get("os", "")),
            "Versions": ", ".join(f"{n} {versions[n]}" for n in _SHOWN_VERSIONS if n in versions),
        }
        parts = {"Machine, in full": "machine", "Versions, in full": "versions", "Flags": "config"}
        records = ((name, _json(record[key])) for name, key in parts.items() if record.get(key))
        return Run(run_id, status, machine, commit, when, tuple(facts.items()), tuple(records))
    except Exception as error:  # anybody's file
        log.warning("run %s: not a whole record: %r", run_id, error)
        return Run(run_id, str(record.get("status", "")), machine_of(record))


def _json(part: Any) -> str:
    return json.dumps(part, indent=1, ensure_ascii=False, default=str)


def machine_of(record: Mapping[str, Any]) -> str:
    """Return the class of machine of a run, whatever its record holds."""
    try:
        return machine_class(record["machine"])
    except Exception:  # anybody's file; what it says stands in the provenance
        return UNKNOWN_MACHINE


def doubts(frame: pd.DataFrame, runs: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield what a reader should know before trusting the rows: how runs ended, and on what."""
    known = {run_id: run_of(record) for run_id, record in runs.items()}
    for run in known.values():
        if run.status not in ("ok", ""):
            yield f"Run {run.run_id} ended as {run.status!r}."
        if run.commit.endswith("+"):
            yield f"Run {run.run_id}: the tree had changes of its own beside commit {run.commit}."
    without = frame["run_id"].dropna()[lambda of: ~of.isin(list(known))]
    if len(without):
        yield f"{len(without)} rows are of runs without a record: {all_of(without.unique())}."
    for what in ("commit", "machine"):
        names = dict.fromkeys(getattr(run, what) for run in known.values())
        if len(names := [name for name in names if name]) > 1:
            yield f"Runs are of several {what}s: {all_of(names)}."
    failed = int((frame["status"] != "ok").sum())
    if failed:
        yield f"{failed} of {len(frame)} rows have no result; reasons stand under what failed."


def shared_settings(frame: pd.DataFrame) -> dict[str, str]:
    """Return the settings of one value in all rows of a study that have them, by dotted name."""
    found = {}
    for column in sorted(c for c in frame if c.startswith("config.") and c not in _UNSHARED):
        values = [value for value in frame[column] if not missing(value)]
        if values and len({repr(value) for value in values}) == 1:
            text = shown_value(values[0])
            if len(text) <= _LONGEST:
                found[column.removeprefix("config.")] = text
    return found
