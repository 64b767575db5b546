"""What ``run-<run_id>.json`` says of the machine, in the words that decide comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["commit_words", "machine_class"]


def machine_class(machine: Mapping[str, Any]) -> str:
    """Return the class within which cost rows may be compared, e.g. ``Intel Xeon x2``.

    Args:
        machine: has ``gpu`` (None, or a mapping with name and count), ``cpu`` and ``cores``.
    """
    if gpu := machine.get("gpu"):
        return f"{gpu['name']} x{gpu['count']}"
    return f"{machine.get('cpu', 'unknown CPU')} x{machine.get('cores', '?')}"


def commit_words(commit: Mapping[str, Any] | str | None) -> str:
    """Return the short commit hash, with a plus when the tree had changes of its own."""
    if commit is None:
        return "no commit recorded"
    if isinstance(commit, str):
        return commit[:12]
    return commit["hash"][:12] + ("+" if commit.get("dirty") else "")
