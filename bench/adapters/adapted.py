"""The stage II denoiser: a backbone, and everything that adapts it to [PAN, LRMS]."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

from torch import Tensor, nn

from backbones.contract import Adapt, LowRank
from bench.adapters.guidance import GuidanceAdapter
from bench.adapters.inputs import INPUTS, Inputs
from bench.adapters.low_rank import TimeAwareLowRank
from bench.adapters.predictor import AuxiliaryPredictor
from bench.config import AdapterConfig

__all__ = ["AdaptedDenoiser", "Condition", "TimePart"]


@dataclass(frozen=True)
class Condition:
    """All a denoising step needs that depends neither on the noise nor on the step.

    Attributes:
        image: U, (B, s, H, W), the pseudo-SR image in place of H.
        stem: the conditional half of the backbone's first layer, or None if it has no such half.
        details: V through its half of every guidance adapter, by block name.
    """

    image: Tensor
    stem: Tensor | None
    details: dict[str, Tensor]


@dataclass(frozen=True)
class TimePart:
    """All a denoising step needs that depends on its time alone.

    Attributes:
        embedding: what the backbone sees of the time, (B, E); None if it does not say.
        gates: of the low-rank increments, (B, operators, r); None without them.
    """

    embedding: Tensor | None
    gates: Tensor | None = None

    def expand(self, batch: int) -> TimePart:
        """Return the part of one time, B = 1, for every image of a batch."""
        parts = self.embedding, self.gates
        return TimePart(*(x if x is None else x.expand(batch, *x.shape[1:]) for x in parts))


class _Adaptation:
    """The ``adapt`` object of one forward pass (``backbones.contract.Adapt``)."""

    def __init__(
        self,
        guidance: nn.ModuleDict | None,
        details: dict[str, Tensor],
        increments: dict[str, LowRank],
    ):
        self._guidance, self._details, self._increments = guidance, details, increments

    def guide(self, name: str, feature: Tensor) -> Tensor:
        if self._guidance is None:
            return feature
        return self._guidance[name](self._details[name], feature)

    def low_rank(self, name: str) -> LowRank | None:
        return self._increments.get(name)


class SampledDenoiser(nn.Module):
    """A bare backbone, called the way a sampler calls: what can be computed once, apart.

    Args:
        backbone: any registered one; what it offers of ``condition`` and ``embed`` is used.
        inputs: what it is conditioned on.
    """

    def __init__(self, backbone: nn.Module, inputs: Inputs = INPUTS["images"]):
        super().__init__()
        self.backbone, self.inputs = backbone, inputs
        # Its forward says so: networks of other origin call other things ``embed``.
        self._tabulates = "embedding" in inspect.signature(backbone.forward).parameters

    @property
    def reach(self) -> int:
        """Pixels beyond which :meth:`conditions` sees nothing."""
        return self.inputs.reach

    @property
    def size_multiple(self) -> int:
        """What the sides of images it takes are multiples of."""
        return self.backbone.size_multiple

    @property
    def min_size(self) -> int:
        """The smallest side of images it takes."""
        return self.backbone.min_size

    @classmethod
    def of(cls, network: nn.Module) -> SampledDenoiser:
        """Return a trained network as a sampler calls it: a bare backbone is wrapped."""
        return network if isinstance(network, SampledDenoiser) else SampledDenoiser(network)

    def conditions(self, pan: Tensor, lms: Tensor) -> tuple[Tensor, ...]:
        """Return what :meth:`condition` takes, from the images to fuse.

        Args:
            pan: (B, 1, H, W), unit scale.
            lms: (B, s, H, W), the up-sampled MS.
        """
        return (self.inputs.build(lms, pan),)

    def condition(self, image: Tensor) -> Condition:
        """Compute every step-independent part once: ``image`` (B, K, H, W), the conditioning."""
        stem = self.backbone.condition(image) if hasattr(self.backbone, "condition") else None
        return Condition(image, stem, {})

    def base(self, lms: Tensor, condition: Condition) -> Tensor:
        """Return the image whose residual it denoises, (B, s, H, W): the up-sampled MS."""
        return lms

    def time_part(self, time: Tensor) -> TimePart:
        """Compute every part that depends on the time alone: ``time`` (B,) in (0, 1]."""
        return TimePart(self.backbone.embed(time) if self._tabulates else None)

    def forward(
        self, x: Tensor, time: Tensor, condition: Condition, time_part: TimePart | None = None
    ) -> Tensor:
        """Return the raw output of the backbone, adapted where there are adapters.

        Args:
            x: (B, s, H, W), noisy residual.
            time: (B,) in (0, 1].
            condition: from :meth:`condition`.
            time_part: from :meth:`time_part`, where a sampler has tabulated it.
        """
        time_part = time_part or self.time_part(time)
        parts = {
            "adapt": self._adapt(condition, time_part),
            "cond_part": condition.stem,
            "embedding": time_part.embedding,
        }
        # A backbone's forward accepts what it offers, and no more.
        parts = {name: part for name, part in parts.items() if part is not None}
        return self.backbone(x, time, condition.image, **parts)

    def _adapt(self, condition: Condition, time_part: TimePart) -> Adapt | None:
        return None


class AdaptedDenoiser(SampledDenoiser):
    """NODiff's stage II network, around any registered backbone.

    Args:
        backbone: built with ``cond_channels == bands``; stage I has trained it conditioned on H.
        config: which parts to add, and their sizes.
        gain: see :class:`AuxiliaryPredictor`.
        freeze: keep the backbone as stage I left it (two-stage), or train it too (joint).
        initialising: a part's name -> context in which its initial weights are drawn; so that they
            do not depend on the size of what is built before. None: as torch's generator stands.
    """

    def __init__(
        self,
        backbone: nn.Module,
        config: AdapterConfig,
        *,
        gain: float = 1.0,
        freeze: bool = True,
        initialising: Callable[..., AbstractContextManager] | None = None,
    ):
        super().__init__(backbone)
        self.frozen = freeze
        if freeze:
            backbone.requires_grad_(False)
        initialising = initialising or (lambda *_: nullcontext())
        with initialising("predictor"):
            self.predictor = AuxiliaryPredictor(
                backbone.bands,
                config.predictor_width,
                config.predictor_blocks,
                config.predictor_input,
                gain,
            )
        self.guidance = self.low_rank = None
        if config.guidance and backbone.guided:
            self.guidance = nn.ModuleDict()
            for block in backbone.guided:
                with initialising("guidance", block.name):
                    self.guidance[block.name] = GuidanceAdapter(
                        config.predictor_width, block.channels, block.factor, config.guidance_form
                    )
        if config.low_rank and backbone.adaptable:
            with initialising("low_rank"):
                self.low_rank = TimeAwareLowRank(
                    backbone.adaptable, config.rank, config.alpha, time_aware=config.time_aware
                )

    def train(self, mode: bool = True) -> AdaptedDenoiser:
        super().train(mode)
        if self.frozen:
            self.backbone.eval()  # dropout or running statistics must not move either
        return self

    @property
    def reach(self) -> int:
        return self.predictor.reach

    def conditions(self, pan: Tensor, lms: Tensor) -> tuple[Tensor, ...]:
        """Return U (B, s, H, W) and V (B, C, H, W)."""
        detail, image = self.predictor(pan, lms)
        return image, detail

    def condition(self, image: Tensor, detail: Tensor) -> Condition:
        """Compute every step-independent part once.

        Args:
            image: U, (B, s, H, W).
            detail: V, (B, C, H, W).
        """
        details = {}
        if self.guidance is not None:
            for block in self.backbone.guided:
                details[block.name] = self.guidance[block.name].detail_part(detail)
        return replace(super().condition(image), details=details)

    def time_part(self, time: Tensor) -> TimePart:
        gates = None if self.low_rank is None else self.low_rank.gates(time)
        return replace(super().time_part(time), gates=gates)

    def _adapt(self, condition: Condition, time_part: TimePart) -> Adapt:
        increments = {}
        if time_part.gates is not None:
            increments = self.low_rank.increments(time_part.gates)
        return _Adaptation(self.guidance, condition.details, increments)
