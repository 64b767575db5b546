"""Verb: train denoisers, stage I and II, joint, or in one stage; say where the weights are.

    python bench/train.py --backbone fno --dataset sample
    python bench/train.py --backbone 'conv*' --scheme one_stage --preset paper --dataset data/mine

The weights of equal settings are shared by all commands and never trained twice. Beside
``weights.safetensors`` lie ``config.json``, with all that building the network takes, and
``history.json``, the losses. In Python:

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

from bench.config import CommonFlags, ExperimentConfig
from bench.config.experiment import Scheme
from bench.running import Desk, Study

if TYPE_CHECKING:
    from bench.running import Cell


@dataclass(frozen=True)
class Flags(CommonFlags):
    """Train denoisers under the one trainer; the same command continues where it stopped."""

    scheme: Scheme | None = None
    """two_stage: NODiff; joint: its stage II network from scratch; one_stage: the bare backbone
    on [upsampled MS, PAN]. The preset's own (two_stage) by default."""


def experiments(flags: Flags, desk: Desk) -> list[ExperimentConfig]:
    return desk.experiments(**({"scheme": flags.scheme} if flags.scheme else {}))


def cells(flags: Flags, desk: Desk) -> Iterator[Cell]:
    from bench.cells.experiments import training_cells

    yield from training_cells(experiments(flags, desk), desk)


def answer(flags: Flags, desk: Desk, cells: Sequence[Cell]) -> None:
    """Print where the weights are."""
    from bench.recipes import DiffusionRecipe, checkpoints

    trained = []
    for config in experiments(flags, desk):
        recipe = DiffusionRecipe(config, desk.dataset.sensor.bands)
        stages = checkpoints(recipe, desk.dataset.fingerprint, desk.checkpoints)
        if not all(point.done for point in stages.values()):
            continue
        weights = list(stages.values())[-1].folder / "weights.safetensors"
        trained.append(
            {
                "backbone": config.backbone,
                "scheme": config.scheme,
                "seed": config.seed,
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
    lines = ["{backbone} {scheme} seed {seed} on {dataset}: {weights}".format(**trained)]
    for stage, summary in trained["stages"].items():
        numbers = (f"{key} {value:.4g}" for key, value in summary.items())
        lines.append(f"  {stage}: {', '.join(numbers)}")
    return "\n".join(lines)


STUDY = Study("train", 1, "Trainings", Flags, cells, answer=answer)

if __name__ == "__main__":
    STUDY.main()
