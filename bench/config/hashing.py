"""Identity of configurations, and seeds derived from named parts."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

__all__ = ["as_plain", "canonical_json", "config_hash", "derive_seed"]


def as_plain(value: Any) -> Any:
    """Reduce dataclasses, mappings and sequences to what JSON holds; 1.0 becomes 1.

    Raises:
        TypeError: a value that has no canonical form.
    """
    if dataclasses.is_dataclass(value):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)  # 1.0 and 1 are one configuration, also after a trip through CSV
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"cannot hash {value!r} of type {type(value).__name__}")


def canonical_json(value: Any) -> str:
    """Return JSON that is equal for equal configurations: keys sorted, 1.0 written as 1."""
    return json.dumps(as_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


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
