"""Trained networks on disk: ``config.json`` beside the weights, and the way back from it.

from bench.recipes import load_trained
method = load_trained("results/runs/checkpoints/<hash>").method()
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from backbones import load_backbone_module
from backbones.registry import BACKBONES, module_of
from bench.config import MissingError, UsageError, experiment_from_plain
from bench.fusion import FusionMethod
from bench.recipes.base import Recipe, checkpoints
from bench.recipes.diffusion import DiffusionRecipe
from bench.recipes.fused import DeepRecipe
from bench.records import SCHEMA_VERSION, replace_file
from bench.training import Checkpoint

if TYPE_CHECKING:
    from bench.data import Dataset

__all__ = ["StoredNetwork", "describe", "load_trained"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredNetwork:
    """A trained network, and what it was trained as.

    Attributes:
        recipe: builds, samples, describes it.
        network: averaged weights, on the CPU, in evaluation mode.
        about: the rest of ``config.json``: sensor, peak, ratio, data, bands.
    """

    recipe: DiffusionRecipe | DeepRecipe
    network: nn.Module
    about: Mapping[str, Any]

    def method(self, device: torch.device | str = "cpu", *, compile: bool = False) -> FusionMethod:
        """Return it as a fusion method: ``fuse(ms, pan, sensor, lms)``."""
        return self.recipe.fusion(self.network, device, compile=compile)


def describe(recipe: Recipe, dataset: Dataset, root: Path) -> None:
    """Write ``config.json`` beside the last weights: all that building their network takes."""
    *_, checkpoint = checkpoints(recipe, dataset.fingerprint, root).values()
    sensor = dataset.sensor
    description = {
        "schema_version": SCHEMA_VERSION,
        **recipe.described(),
        "band_names": list(sensor.band_names),
        "sensor": sensor.name,
        "peak": sensor.peak,
        "ratio": dataset.ratio,
        "data": {"name": dataset.name, "fingerprint": dataset.fingerprint},
    }
    text = json.dumps(description, indent=1) + "\n"
    replace_file(checkpoint.folder / "config.json", text.encode())


def load_trained(folder: str | Path) -> StoredNetwork:
    """Load the network whose weights lie in a folder, as ``bench/train.py`` names them.

    Raises:
        MissingError: no weights there, or the file of a user's backbone is gone.
        UsageError: not such a folder, one of a newer version, or a backbone's file that has changed
            since it was trained.
    """
    folder = Path(folder).resolve()
    path = folder / "config.json"
    if not path.is_file():
        raise MissingError(f"{folder}: no config.json; expected the folder of a trained network")
    try:
        about = json.loads(path.read_text("utf-8"))
        version = about.pop("schema_version", 1)  # the first had none, and the same fields
        if version > SCHEMA_VERSION:
            raise UsageError(f"of schema {version}, newer than {SCHEMA_VERSION}: update")
        kind = about.pop("recipe", "diffusion")
        if kind not in ("diffusion", "method"):
            raise UsageError(f"recipe = {kind!r}: expected diffusion or method")
        config = experiment_from_plain(about.pop("experiment"))
        bands, name = int(about["bands"]), about.pop("method", None)
        recipe: DiffusionRecipe | DeepRecipe
        if kind == "method":
            options, ratio = about.pop("options"), int(about["ratio"])
            recipe = DeepRecipe(name, bands, options, config=config, ratio=ratio)
        else:
            _register(config.backbone, about.pop("module", None))
            if config.uses_operator:
                _register(config.operator, about.pop("operator_module", None))
            recipe = DiffusionRecipe(config, bands, name=name)
        identity = json.loads((folder / "identity.json").read_text("utf-8"))
        checkpoint = Checkpoint(folder.parent, identity)
        if checkpoint.hash != folder.name:
            raise UsageError(f"identity.json is that of {checkpoint.hash}, not of {folder.name}")
    except MissingError:
        raise
    except Exception as error:  # whatever a parser throws: the file may be anybody's
        raise UsageError(f"{path}: {error}") from error
    network = recipe.network()
    checkpoint.load_into(network)
    return StoredNetwork(recipe, network.eval(), about)


def _register(backbone: str, module: Mapping[str, str] | None) -> None:
    """Register the user's file that a network comes from, unless it is registered."""
    if module is None:
        return
    if backbone not in BACKBONES:
        try:
            load_backbone_module(module["path"])
        except FileNotFoundError as error:
            raise MissingError(f"backbone {backbone!r}: {error}") from error
    known = module_of(backbone)
    if known is None:
        raise UsageError(
            f"backbone {backbone!r} was trained from {module['path']}; the one of that name here "
            f"is another"
        )
    if known["digest"] != module["digest"]:
        raise UsageError(
            f"{known['path']} has changed since backbone {backbone!r} was trained from it: its "
            f"digest is {known['digest']}, expected {module['digest']}"
        )
