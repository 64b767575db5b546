"""Arguments of another library's class, as a field of a frozen, hashable config."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

from backbones.names import nearest

__all__ = ["Settings", "library_arguments"]


class Settings(dict):
    """Plain data by name, never changed once it is made."""

    def __hash__(self) -> int:
        return hash(json.dumps(self, sort_keys=True))


def library_arguments(
    build: Callable[..., Any],
    ours: Mapping[str, Any],
    settings: Mapping[str, Any],
    reserved: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Return the arguments of a library's class: those of our config, the user's over them.

    Args:
        build: the class; what its signature names can be set.
        ours: arguments made of our own fields.
        settings: the user's.
        reserved: names that are ours alone.

    Raises:
        ValueError: an argument that it has not, or a reserved one.
    """
    known = [n for n in inspect.signature(build).parameters if n not in {"self", *reserved}]
    for name in settings:
        if name in reserved:
            raise ValueError(f"settings: {name!r} follows from the data and cannot be set")
        if name not in known:
            raise ValueError(f"settings: {build.__name__} has no {name!r}{nearest(name, known)}")
    return {**ours, **settings}
