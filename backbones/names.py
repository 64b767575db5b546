"""Name -> builder tables, for backbones and methods alike: lazy, with the nearest name in errors.

Nothing here imports torch, so listing names is instant; a module is imported when it is built.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any

__all__ = ["MissingExtraError", "Registry", "UnknownNameError", "nearest"]


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return `` - did you mean 'x'?`` for the closest of ``choices``, or an empty string."""
    close = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.4)
    return f" - did you mean {close[0]!r}?" if close else ""


class UnknownNameError(ValueError):
    """A name that is in no table; the message lists the valid ones and the nearest."""

    def __init__(self, what: str, name: str, choices: Iterable[str]):
        choices = sorted(choices)
        super().__init__(
            f"unknown {what} {name!r}{nearest(name, choices)} (known: {', '.join(choices)})"
        )


class MissingExtraError(ImportError):
    """A registered name whose optional packages are not installed."""


class Registry:
    """Named classes, given as such or as ``"package.module:attribute"`` strings.

    A class carries ``Config``, the frozen dataclass of its options, and takes it as ``config``.

    Args:
        what: the word used in messages, e.g. ``"backbone"``.
        entry_point_group: where installed third-party packages announce theirs.
    """

    def __init__(self, what: str, entry_point_group: str | None = None):
        self.what = what
        self._group = entry_point_group
        self._targets: dict[str, Callable[..., Any] | str] = {}
        self._needs: dict[str, Mapping[str, str]] = {}
        self._plugins_read = False

    def register(
        self, name: str, target: Callable[..., Any] | str, needs: Mapping[str, str] | None = None
    ) -> None:
        """Add ``name``; registering another target under a taken name is an error.

        Args:
            name: as on command lines.
            target: a class, or where it is.
            needs: optional packages it imports: import name -> the extra that has it.
        """
        taken = self._targets.get(name)
        if taken is not None and taken != target:
            raise ValueError(f"{self.what} {name!r} is already registered as {taken}")
        self._targets[name] = target
        self._needs[name] = dict(needs or {})

    def names(self) -> list[str]:
        self._read_plugins()
        return sorted(self._targets)

    def list(self, pattern: str = "*") -> list[str]:
        """Names that match a glob; imports nothing."""
        return fnmatch.filter(self.names(), pattern)

    def __contains__(self, name: str) -> bool:
        return name in self.names()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def match(self, patterns: Iterable[str]) -> list[str]:
        """Expand names and globs, keeping their order and dropping repeats.

        Raises:
            UnknownNameError: a pattern matches nothing.
        """
        found: dict[str, None] = {}
        for pattern in patterns:
            hits = self.list(pattern)
            if not hits:
                raise UnknownNameError(self.what, pattern, self.names())
            found.update(dict.fromkeys(hits))
        return list(found)

    def missing(self, name: str) -> str | None:
        """Say in a line which packages ``name`` needs that are not installed; None if it has all.

        Raises:
            UnknownNameError: no such name.
        """
        if name not in self:
            raise UnknownNameError(self.what, name, self.names())
        lacking = {p: e for p, e in self._needs.get(name, {}).items() if find_spec(p) is None}
        if not lacking:
            return None
        extras = ",".join(dict.fromkeys(lacking.values()))
        return (
            f"{self.what} {name!r} needs {', '.join(lacking)}, which is not installed: "
            f"pip install '.[{extras}]'"
        )

    def target(self, name: str) -> str:
        """Return ``package.module:attribute`` of ``name`` without importing it.

        Raises:
            UnknownNameError: no such name.
        """
        if name not in self:
            raise UnknownNameError(self.what, name, self.names())
        target = self._targets[name]
        if isinstance(target, str):
            return target
        return f"{target.__module__}:{target.__qualname__}"

    def get(self, name: str) -> Callable[..., Any]:
        """Return the class of ``name``, importing its module if need be.

        Raises:
            UnknownNameError: no such name.
            MissingExtraError: a package it needs is not installed.
        """
        if missing := self.missing(name):
            raise MissingExtraError(missing)
        target = self._targets[name]
        if isinstance(target, str):
            module, _, attribute = target.partition(":")
            target = getattr(import_module(module), attribute)
        return target

    def create(self, name: str, config: dict[str, Any], **arguments: Any) -> Any:
        """Build ``name`` from the fields of its config and further arguments.

        Raises:
            UnknownNameError: unknown ``name`` or config field.
            ValueError: a config value out of its range.
        """
        cls = self.get(name)
        for key in config:
            if key not in cls.Config.__dataclass_fields__:
                fields = cls.Config.__dataclass_fields__
                raise UnknownNameError(f"option of {self.what} {name!r}", key, fields)
        return cls(config=cls.Config(**config), **arguments)

    def _read_plugins(self) -> None:
        if self._group is None or self._plugins_read:
            return
        self._plugins_read = True
        for point in entry_points(group=self._group):
            self.register(point.name, point.value)
