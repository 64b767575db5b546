"""The result row: one measurement, with what was measured, on what, how often and by whom.

The fields' documentation lives beside the fields; :func:`data_dictionary` turns it into the table
of ``results/README.md``.

Numbers in JSON: ``null`` means *not measured or not applicable*, never 0. A value that was measured
and is not finite is written as the string ``"inf"``, ``"-inf"`` or ``"nan"`` (JSON has no other
way), so the infinite PSNR of a perfect image and an undefined index both survive the round trip.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from backbones.names import nearest

__all__ = [
    "DIRECTIONS",
    "KINDS",
    "SCHEMA_VERSION",
    "SPLITS",
    "STATUSES",
    "Row",
    "data_dictionary",
    "decode_row",
    "encode_row",
]

SCHEMA_VERSION = 2
KINDS = ("accuracy", "contribution", "cost", "training", "artefact")
SPLITS = ("reduced", "full")
DIRECTIONS = ("higher", "lower")
STATUSES = ("ok", "oom", "diverged", "error", "skip", "timeout", "interrupted")

_NON_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


def _about(group: str, text: str) -> dict[str, str]:
    return {"group": group, "doc": text}


def _doc(group: str, text: str, **options: Any) -> Any:
    return field(metadata=_about(group, text), **options)


def _optional(group: str, text: str) -> Any:
    return _doc(group, text, default=None)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement; see the field table in ``results/README.md``.

    Raises:
        ValueError: a word outside its list, or a status other than ok without a reason.
    """

    schema_version: int = _doc("identity", "version of this table", default=SCHEMA_VERSION)
    run_id: str = _doc("identity", "the run that made it; `run-<run_id>.json` has the provenance")
    cell_id: str = _doc("identity", "hash of the settings that can change the result")
    protocol: str = _doc("identity", "protocol or verb that laid out the cell")
    protocol_version: int = _doc("identity", "raised when a protocol's numbers change", default=1)
    kind: str = _doc("identity", "accuracy, contribution (of a part), cost, training or artefact")

    method: str = _doc(
        "what", "nodiff, or the name of another fusion method, or of the part that contributes"
    )
    backbone: str | None = _optional("what", "denoiser network; null for methods without one")
    backbone_version: int | None = _optional("what", "raised when the network's numbers change")
    config: dict[str, Any] = field(
        default_factory=dict,
        metadata=_about("what", "the row's own settings; those of its cell are in `cells.jsonl`"),
    )

    dataset: str | None = _optional("on what", "data set by name")
    sensor: str | None = _optional("on what", "sensor whose MTF gains and bit depth were used")
    split: str | None = _optional("on what", "reduced or full resolution")
    size: int | None = _optional("on what", "image height and width in PAN pixels")
    batch: int | None = _optional("on what", "images in one batch")
    precision: str | None = _optional("on what", "number format of the network, e.g. float32")

    metric: str | None = _optional("value", "what was measured; null when the whole cell failed")
    value: float | None = _optional(
        "value", "the measurement: mean over images, median over timings"
    )
    unit: str | None = _optional("value", "unit of value, stderr, interval and samples")
    direction: str | None = _optional("value", "higher or lower is better; null: neither")

    n: int | None = _optional("spread", "number of finite samples behind value")
    stderr: float | None = _optional("spread", "standard error of value")
    ci_low: float | None = _optional("spread", "lower end of the confidence interval of value")
    ci_high: float | None = _optional("spread", "upper end of the confidence interval of value")
    ci_level: float | None = _optional("spread", "confidence level, e.g. 0.95")
    ci_method: str | None = _optional("spread", "how the interval was made")
    samples: list[float | None] | None = field(
        default=None,
        metadata=_about("spread", "value per image, in the data's order, or raw timings"),
    )

    seed: int | None = _optional("repeat", "base seed, from which all others are derived")
    status: str = _doc(
        "status", "ok, oom, diverged, error, skip, timeout or interrupted", default="ok"
    )
    reason: str | None = _optional("status", "why, for every status but ok")
    artefact: str | None = _optional("status", "path of an .npz file relative to the run folder")
    started_at: str | None = _optional("time", "start of the cell, UTC, ISO 8601")
    wall_s: float | None = _optional("time", "wall-clock seconds spent on the cell")

    def __post_init__(self) -> None:
        _check_word("kind", self.kind, KINDS)
        _check_word("status", self.status, STATUSES)
        if self.split is not None:
            _check_word("split", self.split, SPLITS)
        if self.direction is not None:
            _check_word("direction", self.direction, DIRECTIONS)
        if self.status != "ok" and not self.reason:
            raise ValueError(f"a row with status {self.status!r} needs a reason")
        if hasattr(self.samples, "tolist"):
            object.__setattr__(self, "samples", self.samples.tolist())

    @property
    def key(self) -> tuple[Any, ...]:
        """What the row measures; a later row with the same key replaces this one."""
        return (
            self.cell_id,
            self.method,
            self.backbone,
            self.metric,
            self.split,
            self.size,
            self.batch,
            self.precision,
            repr(self.config.get("runtime")),  # one step in several, timed in one cell
        )


def _check_word(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(
            f"{name} {value!r} is not one of {', '.join(choices)}{nearest(str(value), choices)}"
        )


_FLOAT_FIELDS = ("value", "stderr", "ci_low", "ci_high", "ci_level", "wall_s")


def _plain(value: Any) -> Any:
    """Reduce to what JSON can hold: numpy scalars and arrays to Python, non-finite to words."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return value


def encode_row(row: Row) -> str:
    """Return the row as one line of JSON, without the line end."""
    record = {f.name: _plain(getattr(row, f.name)) for f in fields(row)}
    return json.dumps(record, allow_nan=False, ensure_ascii=False)


def decode_row(record: Mapping[str, Any]) -> Row:
    """Return the row that :func:`encode_row` wrote, from its line of JSON, parsed.

    Raises:
        ValueError: an unknown field, a value that no row can have, or a row of a newer schema.
    """
    version = record.get("schema_version", 0)
    if version > SCHEMA_VERSION:
        raise ValueError(
            f"row of schema {version}; this version of nodiff-bench reads up to {SCHEMA_VERSION}: "
            "update it"
        )
    unknown = record.keys() - {f.name for f in fields(Row)}
    if unknown:
        raise ValueError(f"unknown row fields: {', '.join(sorted(unknown))}")
    record = {**record, "schema_version": SCHEMA_VERSION}
    for name in _FLOAT_FIELDS:
        if record.get(name) is not None:
            record[name] = _number(record[name])
    if isinstance(record.get("samples"), list):
        record["samples"] = [None if item is None else _number(item) for item in record["samples"]]
    for f in fields(Row):
        _check_type(f.name, f.type, record.get(f.name, f.default))
    return Row(**record)


_TYPES = {"int": int, "float": (int, float), "str": str, "dict": Mapping, "list": list}


def _check_type(name: str, annotation: str, value: Any) -> None:
    kind = _TYPES[annotation.partition("[")[0].partition(" ")[0]]
    if (value is None and "None" in annotation) or value is MISSING:
        return
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{name} = {value!r}: expected {annotation}")


def _number(value: Any) -> float:
    value = _NON_FINITE.get(value, value) if isinstance(value, str) else value
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ValueError(f"{value!r} is not a number")
    return value


def data_dictionary() -> str:
    """Return the table of fields in Markdown: field, type, meaning."""
    lines = ["| group | field | type | meaning |", "|---|---|---|---|"]
    group = None
    for f in fields(Row):
        shown = f.metadata["group"] if f.metadata["group"] != group else ""
        group = f.metadata["group"]
        kind = f.type.replace(" | None", " or null").replace("|", "\\|")
        lines.append(f"| {shown} | `{f.name}` | {kind} | {f.metadata['doc']} |")
    return "\n".join(lines)
