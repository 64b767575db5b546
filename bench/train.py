"""Verb: train denoisers, stage I and II, joint, or in one stage; say where the weights are.

    python bench/train.py --backbone fno --dataset sample
    python bench/train.py --backbone 'conv*' --scheme one_stage --preset paper --dataset data/mine

The weights of equal settings are shared by all commands and never trained twice. Beside
``weights.safetensors`` lie ``config.json``, with all that building the network takes, and
``history.json``, the losses. In Python:

    config = json.loads((folder / "config.json").read_text())
    experiment = config["experiment"]
    network = create_backbone(
        experiment["backbone"],
        config["bands"],
        config["cond_channels"],
        **experiment["backbone_options"],
    )
    if experiment["scheme"] != "one_stage":
        adapters = AdapterConfig(**experiment["adapters"])
        gain = experiment["diffusion"]["residual_scale"]
        network = AdaptedDenoiser(network, adapters, gain=gain)
    network.load_state_dict(safetensors.torch.load_file(folder / "weights.safetensors"))
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench.config import CommonFlags, ExitCode, UsageError, run_command
from bench.config.experiment import Scheme

if TYPE_CHECKING:
    from bench.training import Checkpoint

VERSION = 1


@dataclass(frozen=True)
class Flags(CommonFlags):
    """Train denoisers under the one trainer; the same command continues where it stopped."""

    scheme: Scheme | None = None
    """two_stage: NODiff; joint: its stage II network from scratch; one_stage: the bare backbone
    on [upsampled MS, PAN]. The preset's own (two_stage) by default."""


def main(flags: Flags) -> int:
    """Run the verb; see :class:`Flags`."""
    from bench.data import load_dataset
    from bench.running import (
        check_experiment,
        default_folder,
        print_choices,
        requested_experiments,
        run_cells,
        workspace,
    )
    from bench.running.accuracy import training_cell
    from bench.running.experiments import stage_checkpoints

    if flags.list:
        print_choices(flags)
        return ExitCode.OK
    dataset = load_dataset(flags.dataset, sensor=flags.sensor)
    place = workspace(flags)
    configs = list(requested_experiments(flags))
    if flags.scheme is not None:
        configs = [replace(config, scheme=flags.scheme) for config in configs]
    for config in configs:
        check_experiment(config, dataset.sensor.bands)
    if not configs:
        raise UsageError("nothing to train: --backbone needs a value")
    stages = [stage_checkpoints(config, dataset, place) for config in configs]
    code = run_cells(
        [training_cell(config, dataset, place) for config in configs],
        default_folder(flags, "train"),
        protocol="train",
        version=VERSION,
        config={"preset": flags.preset, "experiments": configs},
        # Rows may outlive the weights they tell of.
        force=flags.force or not all(_weights(of_one).is_file() for of_one in stages),
        dry_run=flags.dry_run,
    )
    if flags.dry_run:
        return code
    trained = [
        {
            "backbone": config.backbone,
            "scheme": config.scheme,
            "seed": config.seed,
            "dataset": dataset.name,
            "weights": str(_weights(of_one)),
            "hash": _weights(of_one).parent.name,
            "stages": {stage: _summary(point.history()) for stage, point in of_one.items()},
        }
        for config, of_one in zip(configs, stages, strict=True)
        if all(point.done for point in of_one.values())
    ]
    if flags.json:
        print(json.dumps(trained, indent=1))
        return code
    for one in trained:
        print(_words(one))
    return code


def _weights(stages: Mapping[str, Checkpoint]) -> Path:
    """Return the file of the last stage's weights, which hold all of the network."""
    return list(stages.values())[-1].folder / "weights.safetensors"


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


if __name__ == "__main__":
    run_command(Flags, main, prog="train")
