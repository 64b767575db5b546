"""Rows of older schemas, as if they had been written today; newer ones are refused elsewhere.

Schema 1 kept a few settings in each row, by names of its own, and the experiment in ``run.json``.
Together they are the whole configuration, the backbones' defaults of that time apart, which are
kept here. What neither of them says is ``unknown``: it is never taken for a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.records.lines import UNKNOWN

__all__ = ["migrated"]

_RENAMED = {
    "modes": ("backbone", "modes"),
    "nfe": ("sampler", "steps"),
    "tile": ("sampler", "tile"),
    "target": ("diffusion", "target"),
    "convention": ("evaluation", "convention"),
}
_BACKBONES: dict[str, dict[str, Any]] = {
    "fno": {"width": 64, "layers": 8, "modes": 12, "form": "auto"},
    "attention_unet": {
        "width": 64, "multipliers": [1, 2, 2, 4], "blocks": 2, "attention_levels": 2, "heads": 4,
        "groups": 8,
    },
    "conv_unet": {"width": 64, "multipliers": [1, 2, 2, 4], "blocks": 2, "groups": 8},
    "convnext": {"width": 128, "layers": 8, "kernel_size": 7, "drop_path": 0},
}  # fmt: skip
"""What the networks of schema 1 were where nothing else is said."""
_SCALES = {"smoke": "tiny", "laptop": "small", "paper": "base"}
_EXPERIMENT = ("backbone", "scheme", "patch", "diffusion", "adapters", "stage1", "stage2")
_COST = ("backbone", "scheme", "adapters", "sampler")
_DATA = {
    "sample-4": ("dda1218f1098", "PAN is simulated (Sentinel-2 has none)"),
    "sample-8": ("835d098b69cd", "PAN is simulated (Sentinel-2 has none)"),
}
"""Fingerprint and note of the shipped samples of that time."""


def migrated(record: Mapping[str, Any], run: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a row of schema 1 with the configuration that rows have today.

    Args:
        record: the row, parsed.
        run: the ``run.json`` that it names, where that is there.
    """
    old = dict(record.get("config") or {})
    config: dict[str, Any] = {}
    if record.get("backbone") is not None:
        config = _experiment(record, old, (run or {}).get("config", {}))
    elif "convention" in old:
        said = (run or {}).get("config", {})
        evaluation = (said.get("experiment") or said).get("evaluation")
        config = {"evaluation": evaluation or {"images": UNKNOWN, "full_resolution": UNKNOWN}}
    for name, value in old.items():
        if name in _RENAMED:
            group, field = _RENAMED[name]
            config[group] = {**config.get(group, {}), field: value}
        elif name != "backbone_options":
            config[name] = value
    if record.get("dataset") is not None:
        fingerprint, note = _DATA.get(record["dataset"], (UNKNOWN, None))
        config["data"] = {"fingerprint": fingerprint, "notes": [note] if note else []}
        config["metrics_version"] = 1
    if old.get("preset") in _SCALES:
        config["scale"] = _SCALES[old["preset"]]
    return {**record, "config": config}


def _experiment(
    record: Mapping[str, Any], old: Mapping[str, Any], run: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the configuration of an experiment: what its run says, else that it is unknown."""
    name = record["backbone"]
    described = [*run.get("experiments", ()), *filter(None, [run.get("experiment")])]
    found = next((one for one in described if one.get("backbone") == name), None)
    parts = _COST if record.get("protocol") in ("efficiency", "bill") else (*_EXPERIMENT, "sampler")
    if found is None:  # at least never two trainings in one line
        unsaid = {"training_unsaid": old.get("training", UNKNOWN)}
        return unsaid | {part: _unknown(part) for part in parts}
    scheme = old.get("scheme", found["scheme"])
    options = {**_BACKBONES.get(name, {}), **found["backbone_options"]}
    whole = {**found, "scheme": scheme, "backbone": options | old.get("backbone_options", {})}
    if scheme == "joint":
        whole["stage2"] = dict(found["stage2"])
        whole["stage2"]["steps"] += found["stage1"]["steps"]
    left_out = {"joint": ("stage1",), "one_stage": ("stage2", "adapters")}.get(scheme, ())
    config = {part: whole[part] for part in parts if part not in left_out}
    if "evaluation" in found and "convention" in old:
        config["evaluation"] = found["evaluation"]
    return config


def _unknown(part: str) -> Any:
    """Return a part of a configuration of which nothing is known, field by field."""
    from bench.config import experiment as kinds

    owner = {
        "diffusion": kinds.DiffusionConfig,
        "adapters": kinds.AdapterConfig,
        "sampler": kinds.SamplerConfig,
        "stage1": kinds.StageConfig,
        "stage2": kinds.StageConfig,
    }.get(part)
    if owner is None:
        return {"options": UNKNOWN} if part == "backbone" else UNKNOWN
    return dict.fromkeys(owner.__dataclass_fields__, UNKNOWN)
