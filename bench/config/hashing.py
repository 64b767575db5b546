"""Identity of configurations, and seeds derived from named parts."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

__all__ = ["as_plain", "canonical_json", "config_hash", "derive_seed", "historic_values"]


def as_plain(value: Any, *, identity: bool = False) -> Any:
    """Reduce dataclasses, mappings and sequences to what JSON holds; 1.0 becomes 1.

    Args:
        value: what to reduce.
        identity: leave out fields that were added later (metadata ``historic``) and hold the
            value that everything before them had, so that they are no new configuration.

    Raises:
        TypeError: a value that has no canonical form.
    """
    if dataclasses.is_dataclass(value):
        added = historic_values(value) if identity else {}
        value = {
            f.name: item
            for f in dataclasses.fields(value)
            if (item := getattr(value, f.name)) != added.get(f.name, _NOT_ADDED)
        }
    if isinstance(value, Mapping):
        return {str(key): as_plain(item, identity=identity) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_plain(item, identity=identity) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)  # 1.0 and 1 are one configuration, also after a trip through CSV
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"cannot hash {value!r} of type {type(value).__name__}")


_NOT_ADDED = object()


def historic_values(config: Any) -> dict[str, Any]:
    """Return what fields added to a dataclass later were before, by name.

    Such a field is declared ``field(default=..., metadata={"historic": value})``.
    """
    fields = dataclasses.fields(config)
    return {f.name: f.metadata["historic"] for f in fields if "historic" in f.metadata}


def canonical_json(value: Any) -> str:
    """Return JSON that is equal for equal configurations: keys sorted, 1.0 written as 1."""
    plain = as_plain(value, identity=True)
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)


def config_hash(value: Any, length: int = 12) -> str:
    """Return the first ``length`` hex digits of the SHA-256 of :func:`canonical_json`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def derive_seed(base: int, *parts: Any) -> int:
    """Return a 63-bit seed that depends on the base seed and on each named part.

    A component named nowhere cannot change it: sampling noise derived from (dataset, image)
    is the same for every backbone, so results can be compared image by image.
    """
    digest = hashlib.sha256(canonical_json([base, *parts]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
