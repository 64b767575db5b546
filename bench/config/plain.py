"""The way back: from plain data, as ``config.json`` holds it, to a frozen configuration."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

from backbones.names import nearest
from bench.config.errors import UsageError
from bench.config.experiment import ExperimentConfig
from bench.config.hashing import historic_values

__all__ = ["experiment_from_plain", "from_plain"]


def experiment_from_plain(plain: Mapping[str, Any]) -> ExperimentConfig:
    """Return the experiment that :func:`bench.config.as_plain` reduced to ``plain``.

    A field that ``plain`` lacks was added after it was written: it gets its historic value, or its
    default where it declares none.

    Raises:
        UsageError: an unknown field (one of a newer version, it may be), a value of another type,
            or one out of its range.
    """
    return from_plain(ExperimentConfig, _renamed(plain), "experiment")


def _renamed(plain: Any) -> Any:
    """Return an experiment as it is written now: once each stage had steps of its own."""
    stages = [plain.get(name) for name in ("stage1", "stage2")] if _is_map(plain) else [None]
    if not all(_is_map(stage) and "steps" in stage for stage in stages):
        return plain
    prior, adapters = (stage["steps"] for stage in stages)
    rest = ({k: v for k, v in stage.items() if k != "steps"} for stage in stages)
    total = prior + adapters
    return {
        **plain,
        **dict(zip(("stage1", "stage2"), rest, strict=True)),
        "steps": total,
        "prior_share": prior / total if total else 0.0,
    }


def _is_map(value: Any) -> bool:
    return isinstance(value, Mapping)


def from_plain(cls: type, plain: Any, where: str) -> Any:
    """Build a dataclass, nested ones included, from plain data; ``where`` is how errors call it."""
    if not isinstance(plain, Mapping):
        raise UsageError(f"{where} = {plain!r}: expected the fields of {cls.__name__}")
    hints = typing.get_type_hints(cls)
    for name in plain:
        if name not in hints:
            raise UsageError(
                f"{where} has no field {name!r}{nearest(str(name), hints)}; it may have been "
                f"written by a newer version of nodiff-bench: update"
            )
    values = dict(historic_values(cls))
    for name, value in plain.items():
        values[name] = _value(hints[name], value, f"{where}.{name}")
    for f in dataclasses.fields(cls):
        required = f.default is f.default_factory is dataclasses.MISSING
        if required and f.name not in values:
            raise UsageError(f"{where} lacks {f.name!r}")
    return cls(**values)


def _value(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_plain(hint, value, where)
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        if value not in parts:
            choices = ", ".join(map(str, parts))
            raise UsageError(f"{where} = {value!r}{nearest(str(value), parts)} (one of: {choices})")
        return value
    if isinstance(origin, type) and issubclass(origin, (Mapping, tuple)):
        mapping = issubclass(origin, Mapping)
        if not isinstance(value, Mapping if mapping else (list, tuple)):
            raise UsageError(f"{where} = {value!r}: expected a {'mapping' if mapping else 'list'}")
        return _frozen(value)
    kinds = parts if origin in (typing.Union, types.UnionType) else (hint,)
    for kind in kinds:
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)  # canonical JSON writes 1.0 as 1
        if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
            return value
    names = " or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds)
    raise UsageError(f"{where} = {value!r}: expected {names}")


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _frozen(item) for name, item in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else value
