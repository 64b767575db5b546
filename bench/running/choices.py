"""What the flags of a command can name: the answer to ``--list``. No torch."""

from __future__ import annotations

import json

from backbones import list_backbones
from bench.config import DATASETS, DEPARTURES, CommonFlags
from bench.fusion import list_methods
from bench.running.desk import load_backbone_modules

__all__ = ["print_choices"]


def print_choices(flags: CommonFlags) -> None:
    """Print the backbones, methods, data sets and presets there are."""
    load_backbone_modules(flags.backbone_module)
    choices = {
        "backbones": list_backbones(),
        "methods": list_methods(),
        "datasets": list(DATASETS),
        "presets": DEPARTURES,
    }
    if flags.json:
        print(json.dumps(choices, indent=1))
        return
    for what, names in choices.items():
        print(what)
        for name in names:
            print(f"  {name}" + (f": {names[name]}" if isinstance(names, dict) else ""))
