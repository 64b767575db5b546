"""Denoisers that fuse by reverse diffusion: NODiff's two stages, joint, and the bare denoiser.

``two_stage``: stage I trains the backbone conditioned on the reference, stage II the adapters
around it, frozen. ``joint``: stage II's network from scratch. ``one_stage``: the backbone alone,
conditioned on [upsampled MS, PAN], or on their wavelets too. ``precondition`` and ``refine``: stage
I trains an operator as a super-resolution network, stage II the backbone conditioned on
[upsampled MS, PAN] and its image. All of them train for the same number of steps.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from backbones.layers.spectral import SpectralConv2d
from backbones.names import MissingExtraError
from backbones.registry import BACKBONES, module_of
from bench.adapters import (
    INPUTS,
    AdaptedDenoiser,
    Inputs,
    OperatorDenoiser,
    SampledDenoiser,
    SuperResolver,
)
from bench.config import (
    BenchError,
    ExperimentConfig,
    StageConfig,
    UsageError,
    as_plain,
    historic_values,
)
from bench.diffusion import Diffusion
from bench.fusion.diffusion import DiffusionFusion
from bench.measure import FlopReport, count_flops, count_parameters
from bench.recipes.base import (
    Fuse,
    Part,
    Stage,
    count_once,
    initialising,
    unlike_before,
    versioned,
)
from bench.recipes.parts import diffusion_parts
from bench.recipes.scales import resolved_options, resolved_scale
from bench.training import AdaptedObjective, FusionObjective, Objective, PlainObjective

if TYPE_CHECKING:
    from bench.data import Dataset

__all__ = ["DiffusionRecipe"]

_CALLED = {"one_stage": "diffusion", "two_stage": "nodiff", "joint": "nodiff"}
"""What rows call a scheme; the others by their own name."""


@dataclass(frozen=True)
class DiffusionRecipe:
    """A denoiser, from one frozen experiment.

    Attributes:
        config: the experiment.
        bands: s, spectral bands.
        labels: what else its rows are called by, e.g. the preset.
        name: of the published method that it is; None: it is called by its scheme.
    """

    config: ExperimentConfig
    bands: int
    labels: Mapping[str, Any] | None = None
    name: str | None = None

    @property
    def bare(self) -> bool:
        """Whether it is the backbone alone, which sees the inputs themselves."""
        return self.config.scheme == "one_stage"

    @property
    def adapted(self) -> bool:
        """Whether predictor and adapters stand around the backbone, as NODiff has them."""
        return self.config.scheme in ("two_stage", "joint")

    @property
    def inputs(self) -> Inputs:
        """What the backbone is conditioned on where it sees the inputs themselves."""
        return INPUTS[self.config.condition]

    @property
    def cond_channels(self) -> int:
        """K: the image's bands, those of what a bare backbone sees of the inputs, or both."""
        seen = 0 if self.adapted else self.inputs.channels(self.bands)
        return seen if self.bare else seen + self.bands

    @cached_property
    def title(self) -> str:
        config = self.config
        options = [f"{key}={value}" for key, value in config.backbone_options.items()]
        before = [f"{config.scheme}: {config.operator} and"] if config.uses_operator else []
        return " ".join([*before, self.name or config.backbone, *options, f"seed {config.seed}"])

    @cached_property
    def options(self) -> Any:
        """The backbone's own config, scale and options resolved."""
        return resolved_options(self.config)

    @cached_property
    def operator_options(self) -> Any:
        """The config of the operator that super-resolves: that of its scale."""
        return resolved_options(self._operator)

    @property
    def _operator(self) -> ExperimentConfig:
        return replace(self.config, backbone=self.config.operator, backbone_options={})

    @property
    def scale(self) -> str:
        """The scale its backbone has, or that it has none."""
        return resolved_scale(self.config)

    @cached_property
    def fields(self) -> dict[str, Any]:
        scheme = self.config.scheme
        return {
            "method": self.name or _CALLED.get(scheme, scheme),
            "backbone": self.config.backbone,
            "backbone_version": BACKBONES.get(self.config.backbone).version,
            "precision": self.config.precision,
            "seed": self.config.seed,
        }

    @property
    def version(self) -> int:
        return self.fields["backbone_version"]

    @property
    def running(self) -> dict[str, Any]:
        """What decides what a network costs to run."""
        config = self.config
        parts = {"backbone": self.options, "scheme": config.scheme, "sampler": config.sampler}
        if self.adapted:
            parts["adapters"] = config.adapters
        if config.uses_operator:
            parts["operator"] = {"name": config.operator, "options": self.operator_options}
            if module := module_of(config.operator):
                parts["operator_module"] = module["digest"]
        parts |= self._conditioned
        if module := module_of(config.backbone):
            parts["module"] = module["digest"]
        return parts

    @property
    def _conditioned(self) -> dict[str, str]:
        """The condition, where it is not that of everything before it was a setting."""
        return unlike_before(self.config, "condition")

    @property
    def _mixed(self) -> dict[str, str]:
        """The precision, likewise."""
        return unlike_before(self.config, "precision")

    @cached_property
    def network_settings(self) -> dict[str, Any]:
        """What decides what a network costs to run, as plain data, and what it is called by."""
        labels = {**(self.labels or {}), "scale": self.scale}
        historic = {"historic": found} if (found := self._historic()) else {}
        return as_plain(self.running) | labels | historic

    @cached_property
    def settings(self) -> dict[str, Any]:
        stages = {stage.name: stage.settings for stage in self.stages("")}
        parts = {
            "diffusion": self.config.diffusion, "patch": self.config.patch, **self._mixed, **stages,
        }  # fmt: skip
        return self.network_settings | as_plain(versioned(parts))

    def _historic(self) -> dict[str, Any]:
        """Return what settings added later were before, by dotted name, for rows without them."""
        groups = {name: getattr(self.config, name) for name in ("diffusion", "adapters", "sampler")}
        groups |= {"backbone": self.options, "stage1": self.config.stage1}
        found = {
            f"{group}.{name}": as_plain(value)
            for group, config in groups.items()
            for name, value in historic_values(config).items()
        }
        later = self._conditioned | self._mixed
        before = {name: historic_values(self.config)[name] for name in later}
        return found | before

    def check(self, sizes: Sequence[int] = ()) -> None:
        config = self.config
        if self._conditioned and not self.bare:
            raise UsageError(
                f"condition = {config.condition!r}: scheme {config.scheme!r} conditions "
                f"the backbone on an image; expected 'images', or scheme 'one_stage'"
            )
        if not config.uses_operator and config.operator != (
            usual := historic_values(config)["operator"]
        ):
            raise UsageError(
                f"operator = {config.operator!r}: scheme {config.scheme!r} super-resolves by none; "
                f"expected {usual!r}, or scheme 'precondition' or 'refine'"
            )
        self._check(config, self.backbone, sizes)
        if config.uses_operator:
            self._check(self._operator, lambda: self.prior().backbone, sizes)

    def _check(
        self, config: ExperimentConfig, build: Callable[[], nn.Module], sizes: Sequence[int]
    ) -> None:
        """Refuse a network that cannot be built, or does not take images of these sizes."""
        try:
            with torch.device("meta"), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of weights without elements; the size is said
                backbone = build()
        except (BenchError, MissingExtraError):
            raise
        except Exception as error:  # a user's own network may raise anything
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UsageError(f"backbone {config.backbone!r}: {reason}") from error
        sides = [("patch", config.patch), ("sampler.tile", config.sampler.tile)]
        for what, side in [*sides, *(("size", size) for size in sizes)]:
            if side is not None and (side < backbone.min_size or side % backbone.size_multiple):
                options = ", ".join(f"{k}={v}" for k, v in config.backbone_options.items())
                raise UsageError(
                    f"{what} = {side}: backbone {config.backbone!r} ({options or self.scale}) "
                    f"needs at least {backbone.min_size} pixels, in multiples of "
                    f"{backbone.size_multiple}"
                )

    # Networks

    def backbone(self) -> nn.Module:
        """Build the bare backbone, untrained."""
        cls = BACKBONES.get(self.config.backbone)
        with initialising(self.config.seed, self.config.backbone):
            return cls(bands=self.bands, cond_channels=self.cond_channels, config=self.options)

    def network(self) -> nn.Module:
        """Build the network that samples, untrained: the last stage's."""
        if self.bare:
            return self.backbone()
        if self.config.uses_operator:
            refines = self.config.scheme == "refine"
            return OperatorDenoiser(self.backbone(), self.prior(), refines=refines)
        return AdaptedDenoiser(
            self.backbone(),
            self.config.adapters,
            gain=self.config.diffusion.residual_scale,
            freeze=self.config.scheme == "two_stage",
            initialising=partial(initialising, self.config.seed),
        )

    def prior(self) -> nn.Module:
        """Build the network of stage I, untrained: an operator that super-resolves, or the bare
        backbone.
        """
        if not self.config.uses_operator:
            return self.backbone()
        name = self.config.operator
        with initialising(self.config.seed, name):
            operator = BACKBONES.get(name)(
                bands=self.bands, cond_channels=self.inputs.channels(self.bands),
                config=self.operator_options,
            )  # fmt: skip
        return SuperResolver(operator, self.config.diffusion.residual_scale)

    def sampled(self, network: nn.Module) -> SampledDenoiser:
        """Return a network as a sampler calls it: a bare backbone and what it is conditioned on."""
        if isinstance(network, SampledDenoiser):
            return network
        return SampledDenoiser(network, self.inputs)

    def plain_objective(self) -> Objective:
        """Return the loss of stage I: of an operator that super-resolves, or the bare backbone."""
        if self.config.uses_operator:
            return FusionObjective("l1")
        diffusion = Diffusion(self.config.diffusion)
        return PlainObjective(diffusion, self.config.condition if self.bare else "reference")

    def adapted_objective(self) -> Objective:
        """Return the loss of stage II."""
        diffusion = Diffusion(self.config.diffusion)
        weight = self.config.adapters.predictor_loss if self.adapted else 0.0
        return AdaptedObjective(diffusion, weight)

    # Stages

    def stages(self, data: str) -> tuple[Stage, ...]:
        config = self.config
        if self.bare:
            return (self._plain_stage("one_stage", config.steps, data),)
        if config.scheme == "joint":
            return (self._adapted_stage(None, config.stage1, config.steps, data),)
        prior_steps, steps = config.stage_steps
        if config.uses_operator:
            prior = self._operator_stage(prior_steps, data)
            return prior, self._adapted_stage(prior.identity, config.stage2, steps, data)
        prior = self._plain_stage("conditioned_on_reference", prior_steps, data)
        return prior, self._adapted_stage(prior.identity, config.stage2, steps, data)

    def identity(self, data: str) -> dict[str, Any]:
        sampler = as_plain(self.config.sampler, identity=True)
        del sampler["batch"]  # without effect
        return {"training": self.stages(data)[-1].identity, "sampler": sampler}

    def _stage(self, name: str, identity: Mapping[str, Any], data: str, **parts: Any) -> Stage:
        config = self.config
        module = module_of(config.backbone)
        own = {
            "backbone_version": self.fields["backbone_version"],
            "data": data,
            "backbone": config.backbone,
            "backbone_options": self.options,
            "diffusion": config.diffusion,
            "patch": config.patch,
            "seed": config.seed,
            **({"module": module["digest"]} if module else {}),
            **self._mixed,
        }
        identity = as_plain(versioned({**own, **identity}), identity=True)
        parts |= {"patch": config.patch, "seed": config.seed, "precision": config.precision}
        return Stage(name, identity, **parts)

    def _plain_stage(self, kind: str, steps: int, data: str) -> Stage:
        stage1 = self.config.stage1
        return self._stage(
            "stage1",
            {"stage": kind, "optimisation": stage1, "steps": steps, **self._conditioned},
            data,
            build=lambda _before: self.backbone(),
            objective=self.plain_objective(),
            optimisation=stage1,
            steps=steps,
            count=partial(self.count_step, "train_step", self.config.patch, stage1.batch),
        )

    def _operator_stage(self, steps: int, data: str) -> Stage:
        """Return stage I of an operator: what comes after it has no say."""
        config = self.config
        module = module_of(config.operator)
        identity = {
            "stage": "super_resolution",
            "backbone": config.operator,
            "backbone_version": BACKBONES.get(config.operator).version,
            "backbone_options": self.operator_options,
            "gain": config.diffusion.residual_scale,
            "optimisation": config.stage1,
            "steps": steps,
            "data": data,
            "patch": config.patch,
            "seed": config.seed,
            **({"module": module["digest"]} if module else {}),
        }
        return Stage(
            "stage1",
            as_plain(versioned(identity), identity=True),
            build=lambda _before: self.prior(),
            objective=self.plain_objective(),
            optimisation=config.stage1,
            steps=steps,
            patch=config.patch,
            seed=config.seed,
            count=partial(self.count_step, "train_step", config.patch, config.stage1.batch),
        )

    def _adapted_stage(
        self, base: Mapping[str, Any] | None, optimisation: StageConfig, steps: int, data: str
    ) -> Stage:
        config = self.config

        def build(before: nn.Module | None) -> nn.Module:
            network = self.network()
            if before is not None:
                frozen = network.backbone if self.adapted else network.operator
                frozen.load_state_dict(before.state_dict())
            return network

        added = {"adapters": config.adapters} if self.adapted else {}
        return self._stage(
            "stage2",
            {"stage": config.scheme, "base": base, **added,
             "optimisation": optimisation, "steps": steps},
            data,
            build=build,
            objective=self.adapted_objective(),
            optimisation=optimisation,
            steps=steps,
            count=partial(self.count_step, "adapt_step", config.patch, optimisation.batch),
        )  # fmt: skip

    # FLOPs

    def meta_network(self, adapted: bool, device: torch.device | str) -> nn.Module:
        """Build on the meta device; spectral layers run as they would on ``device``."""
        return _on_meta(self.network if adapted else self.backbone, device)

    def count_step(
        self, work: str, side: int, batch: int, device: torch.device | str = "cpu"
    ) -> FlopReport:
        """Count the FLOPs of one ``forward``, ``train_step`` (bare, or of the operator that
        super-resolves) or ``adapt_step``.

        Loss, clipping, optimiser and averaging are elementwise: free by the counter's convention.

        Args:
            work: which.
            side: H = W, PAN pixels.
            batch: images at once.
            device: where it would run: spectral layers choose their executed form by it.
        """
        x, pan, cond = (
            torch.empty(batch, channels, side, side, device="meta")
            for channels in (self.bands, 1, self.cond_channels)
        )
        if work == "train_step" and self.config.uses_operator:
            return count_flops(_on_meta(self.prior, device), None, pan, x, backward=True)
        network = self.meta_network(work == "adapt_step", device)
        time = torch.empty(batch, device="meta")
        if work == "adapt_step":
            return count_flops(_adapted_output, network, x, time, pan, x, backward=True)
        return count_flops(network, x, time, cond, backward=work == "train_step")

    # Fusion

    def fusion(
        self, network: nn.Module, device: torch.device | str = "cpu", *, compile: bool = False
    ) -> DiffusionFusion:
        """Return a trained network as a fusion method."""
        config = self.config
        return DiffusionFusion(
            self.sampled(network),
            Diffusion(config.diffusion),
            config.sampler,
            device=device,
            seed=config.seed,
            name=self.fields["method"],
            compile=compile,
        )

    def fuser(self, network: nn.Module, dataset: Dataset, device: torch.device) -> Fuse:
        fusion = self.fusion(network, device)

        def fuse(split: str, number: int, ms: Tensor, pan: Tensor, lms: Tensor) -> Tensor:
            keys = [self.noise_key(dataset, split, number)]
            return fusion.fuse(ms, pan, dataset.sensor, lms, keys=keys)

        return fuse

    @staticmethod
    def noise_key(dataset: Dataset, split: str, number: int) -> tuple[object, ...]:
        """Return what names an image for its sampling noise: the same for every entrant."""
        return dataset.fingerprint, split, number

    def parts(self, network: nn.Module, dataset: Dataset, device: torch.device) -> dict[str, Part]:
        return diffusion_parts(self, network, dataset, device)

    def observed(self, network: nn.Module) -> nn.Module:
        return network if self.bare else network.backbone

    def costs(self, network: nn.Module) -> dict[str, float]:
        with torch.device("meta"):
            own = count_parameters(self.backbone())
        forward = count_once(
            {"forward of": self.stages("")[-1].identity},
            partial(self.count_step, "forward", self.config.patch, 1),
        )
        return {
            "params": own / 1e6,
            "params_added": (count_parameters(network) - own) / 1e6,
            "flops_forward": forward.canonical / 1e9,
        }

    def described(self) -> dict[str, Any]:
        """Return what building its network takes, for ``config.json``."""
        experiment = replace(self.config, backbone_options=vars(self.options))
        return {
            "recipe": "diffusion",
            **({} if self.name is None else {"method": self.name}),
            "experiment": as_plain(experiment),
            "bands": self.bands,
            "cond_channels": self.cond_channels,
            "module": module_of(self.config.backbone),
            **({"operator_module": module_of(self.config.operator)}
               if self.config.uses_operator else {}),
        }  # fmt: skip


def _on_meta(build: Callable[[], nn.Module], device: torch.device | str) -> nn.Module:
    with torch.device("meta"):
        network = build()
    for layer in network.modules():
        if isinstance(layer, SpectralConv2d):
            layer.planned_for = torch.device(device)
    return network


def _adapted_output(
    network: SampledDenoiser, x: Tensor, time: Tensor, pan: Tensor, lms: Tensor
) -> tuple[Tensor, Tensor]:
    """What the loss of stage II looks at."""
    parts = network.conditions(pan, lms)
    return network(x, time, network.condition(*parts)), parts[0]
