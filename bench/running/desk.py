"""From the flags of a command to what its cells work with; the same for every study."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backbones import load_backbone_module
from backbones.registry import BACKBONES
from bench.config import (
    ExperimentConfig,
    MissingError,
    RunFlags,
    Shard,
    UsageError,
    apply_overrides,
    experiment_preset,
    preset_seeds,
    results_home,
    with_operator,
)
from bench.config.progress import Progress
from bench.records import check_locks
from bench.running.loggers import open_loggers

if TYPE_CHECKING:
    import torch

    from bench.data import Dataset

__all__ = ["Desk", "load_backbone_modules", "resolve_device"]


@dataclass(frozen=True)
class Desk:
    """Where and on what the cells of a command run; nothing here changes a result.

    Attributes:
        flags: of the command.
        study: its name.
    """

    flags: RunFlags
    study: str

    @cached_property
    def folder(self) -> Path:
        """``--out``, or the folder the same flags always lead to; of a shard, one inside it."""
        return self.whole if self.shard is None else self.whole / self.shard.name

    @cached_property
    def shard(self) -> Shard | None:
        """The part of the grid that the flags ask for; None: all of it."""
        return None if self.flags.shard is None else Shard.parse(self.flags.shard)

    @cached_property
    def whole(self) -> Path:
        """The folder of the whole grid, which shards lie in."""
        if self.flags.out is not None:
            return self.flags.out
        name = getattr(self.flags, "dataset", None)
        parts = [] if name is None else [Path(name).name or "dataset"]
        return results_home() / "runs" / self.study / "-".join([*parts, self.flags.preset])

    @cached_property
    def checkpoints(self) -> Path:
        """Trained weights, shared by all commands; a shard's own where locks do not work."""
        root = results_home() / "runs" / "checkpoints"
        return root / self.shard.name if self.alone else root

    @cached_property
    def alone(self) -> bool:
        """Whether this is a shard beside which others cannot train in one folder."""
        if self.shard is None:
            return False
        try:
            check_locks(results_home() / "runs" / "checkpoints")
        except UsageError:
            return True
        return False

    @cached_property
    def device(self) -> torch.device:
        """Where networks run."""
        return resolve_device(self.flags.device)

    @cached_property
    def progress(self) -> Progress:
        """Where progress is shown."""
        return Progress(quiet=self.flags.quiet)

    def report(self, training: str, step: int, values: Mapping[str, float]) -> None:
        """Hand a point of a training's curves to the loggers of the flags."""
        open_loggers(self.flags.log, self.folder).curve(training, step, values)

    @cached_property
    def dataset(self) -> Dataset:
        """The data set of the flags, opened when it is first asked for."""
        from bench.data import load_dataset

        return load_dataset(self.flags.dataset, sensor=self.flags.sensor)

    def or_default(self) -> Desk:
        """Return this desk; where its flags name neither backbone nor method, one of fno's."""
        if self.flags.backbone or self.flags.method:
            return self
        return Desk(replace(self.flags, backbone=("fno",)), self.study)

    def experiments(self, **changes: Any) -> list[ExperimentConfig]:
        """Return one experiment for every backbone and seed of the flags, overrides applied.

        Args:
            **changes: fields that the command sets in a way of its own.
        """
        configs = [self._experiment(backbone, changes) for backbone in self.backbones]
        return [
            replace(config, seed=seed)
            for config in configs
            for seed in self.flags.seed or preset_seeds(self.flags.preset, config.scheme)
        ]

    def _experiment(self, backbone: str, changes: Mapping[str, Any]) -> ExperimentConfig:
        preset = self.flags.preset

        def changed(config: ExperimentConfig) -> ExperimentConfig:
            return replace(apply_overrides(config, self.flags.override), **changes)

        base = replace(experiment_preset(preset, backbone), dataset=self.flags.dataset)
        config = changed(base)
        if not config.uses_operator:
            return config
        BACKBONES.match([config.operator])  # refuses what is none
        return changed(with_operator(base, preset, config.operator))

    @cached_property
    def backbones(self) -> list[str]:
        """Names of the backbones that the flags ask for, those of a user's file registered.

        What only a glob names is left out where it is not installed: see :attr:`absent`.
        """
        load_backbone_modules(self.flags.backbone_module)
        return [name for name in BACKBONES.match(self.flags.backbone) if name not in self.absent]

    @cached_property
    def absent(self) -> dict[str, str]:
        """Why a backbone that a glob of the flags names cannot be built here, by its name."""
        globs = [one for one in getattr(self.flags, "backbone", ()) if one not in BACKBONES]
        matching = {name for one in globs for name in BACKBONES.list(one)}
        whys = {name: BACKBONES.missing(name) for name in sorted(matching)}
        return {n: why for n, why in whys.items() if why and n not in self.flags.backbone}


def resolve_device(name: str) -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda`` or ``cuda:1`` into a device that is there.

    Raises:
        MissingError: a device this machine does not have.
        UsageError: not a device.
    """
    import torch

    from bench.measure import measured_device

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return measured_device(name)


def load_backbone_modules(sources: Iterable[str]) -> None:
    """Register the backbones of a user's files and packages.

    Raises:
        MissingError: no such file or package.
        UsageError: one that cannot be imported, registers no backbone, or takes a name that is
            taken.
    """
    for source in sources:
        try:
            load_backbone_module(source)
        except FileNotFoundError as error:
            raise MissingError(str(error)) from error
        except ValueError as error:
            raise UsageError(str(error)) from error
        except Exception as error:  # whatever a user's file does on import
            reason = (str(error).strip() or "no message").splitlines()[0]
            raise UsageError(f"{source}: {type(error).__name__}: {reason}") from error
