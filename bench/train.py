"""Verb: train denoisers - stage I and II, joint, in one stage - and deep methods.

    python bench/train.py --backbone fno --dataset sample
    python bench/train.py --backbone 'conv*' --scheme one_stage --preset paper --dataset data/mine
    python bench/train.py --method fusionnet --dataset sample

It ends by saying where the weights are. Those of equal settings are shared by all commands and
never trained twice. Beside ``weights.safetensors`` lie ``config.json``, with all that building the
network takes, and ``history.json``, the losses. In Python:

    from bench.recipes import load_trained
    method = load_trained("results/runs/checkpoints/<hash>").method()
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench.config import CommonFlags
from bench.config.experiment import Scheme
from bench.running import Desk, Study

if TYPE_CHECKING:
    from bench.recipes import Recipe
    from bench.running import Cell


@dataclass(frozen=True)
class Flags(CommonFlags):
    """Train denoisers and deep methods; the same command continues where it stopped."""

    backbone: tuple[str, ...] = ()
    """Backbones by name or glob, e.g. fno attention_unet '*conv*'; fno where nothing is named."""
    method: tuple[str, ...] = ()
    """Deep methods by name or glob, e.g. fusionnet 'adwm*', each by its authors' recipe."""
    scheme: Scheme | None = None
    """two_stage: NODiff; joint: its stage II network from scratch; one_stage: the bare backbone
    on [upsampled MS, PAN]. The preset's own (two_stage) by default."""


def cells(flags: Flags, desk: Desk) -> Iterator[Cell]:
    from bench.cells.experiments import training_cells

    yield from training_cells(_recipes(flags, desk), desk)


def _recipes(flags: Flags, desk: Desk) -> list[Recipe]:
    from bench.cells.experiments import denoisers, trained_methods
    from bench.fusion import FUSION_METHODS

    changes = {"scheme": flags.scheme} if flags.scheme else {}
    methods = FUSION_METHODS.match(flags.method)
    return [
        *denoisers(desk.or_default().experiments(**changes), desk),
        *trained_methods(methods, desk),
    ]


def answer(flags: Flags, desk: Desk, cells: Sequence[Cell]) -> None:
    """Print where the weights are."""
    from bench.recipes import checkpoints

    trained = []
    for recipe in _recipes(flags, desk):
        stages = checkpoints(recipe, desk.dataset.fingerprint, desk.checkpoints)
        if not all(point.done for point in stages.values()):
            continue
        weights = list(stages.values())[-1].folder / "weights.safetensors"
        named = ("method", "backbone", "seed")
        trained.append(
            {
                **{name: recipe.fields[name] for name in named if name in recipe.fields},
                "scheme": recipe.settings.get("scheme"),
                "dataset": desk.dataset.name,
                "weights": str(weights),
                "hash": weights.parent.name,
                "stages": {name: _summary(point.history()) for name, point in stages.items()},
            }
        )
    if flags.json:
        print(json.dumps(trained, indent=1))
        return
    for one in trained:
        print(_words(one))


def _summary(history: Mapping[str, Any]) -> dict[str, float]:
    """Reduce a history to where it began and where it ended; a training of no steps to its time."""
    summary = {"seconds": history["seconds"]}
    if history["loss"]:
        summary["steps"], summary["loss_end"] = history["loss"][-1]
        summary["loss_start"] = history["loss"][0][1]
    if history["validation"]:
        summary["validation_end"] = history["validation"][-1][1]
    return summary


def _words(trained: Mapping[str, Any]) -> str:
    what = [trained[name] for name in ("backbone", "scheme") if trained.get(name)]
    lines = [
        "{what} seed {seed} on {dataset}: {weights}".format(
            what=" ".join(what or [trained["method"]]), **trained
        )
    ]
    for stage, summary in trained["stages"].items():
        numbers = (f"{key} {value:.4g}" for key, value in summary.items())
        lines.append(f"  {stage}: {', '.join(numbers)}")
    return "\n".join(lines)


STUDY = Study("train", 1, "Trainings", Flags, cells, answer=answer)

if __name__ == "__main__":
    STUDY.main()
