"""The stage II denoiser: a backbone, and everything that adapts it to [PAN, LRMS]."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from backbones.contract import LowRank
from bench.adapters.guidance import GuidanceAdapter
from bench.adapters.low_rank import TimeAwareLowRank
from bench.adapters.predictor import AuxiliaryPredictor
from bench.config import AdapterConfig

__all__ = ["AdaptedDenoiser", "Condition"]


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


class AdaptedDenoiser(nn.Module):
    """NODiff's stage II network, around any registered backbone.

    Args:
        backbone: built with ``cond_channels == bands``; stage I has trained it conditioned on H.
        config: which parts to add, and their sizes.
        gain: see :class:`AuxiliaryPredictor`.
        freeze: keep the backbone as stage I left it (two-stage), or train it too (joint).
    """

    def __init__(
        self, backbone: nn.Module, config: AdapterConfig, *, gain: float = 1.0, freeze: bool = True
    ):
        super().__init__()
        self.backbone = backbone
        self.frozen = freeze
        if freeze:
            backbone.requires_grad_(False)
        self.predictor = AuxiliaryPredictor(
            backbone.bands,
            config.predictor_width,
            config.predictor_blocks,
            config.predictor_input,
            gain,
        )
        self.guidance = (
            nn.ModuleDict(
                {
                    block.name: GuidanceAdapter(
                        config.predictor_width, block.channels, block.factor, config.guidance_form
                    )
                    for block in backbone.guided
                }
            )
            if config.guidance
            else None
        )
        self.low_rank = (
            TimeAwareLowRank(backbone.adaptable, config.rank, config.alpha)
            if config.low_rank
            else None
        )

    def train(self, mode: bool = True) -> AdaptedDenoiser:
        super().train(mode)
        if self.frozen:
            self.backbone.eval()  # dropout or running statistics must not move either
        return self

    def condition(self, image: Tensor, detail: Tensor) -> Condition:
        """Compute every step-independent part once.

        Args:
            image: U, (B, s, H, W).
            detail: V, (B, C, H, W).
        """
        stem = self.backbone.condition(image) if hasattr(self.backbone, "condition") else None
        details = {}
        if self.guidance is not None:
            for block in self.backbone.guided:
                details[block.name] = self.guidance[block.name].detail_part(detail)
        return Condition(image, stem, details)

    def forward(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """Return the raw output of the adapted backbone.

        Args:
            x: (B, s, H, W), noisy residual.
            time: (B,) in (0, 1].
            condition: from :meth:`condition`.
        """
        increments = {}
        if self.low_rank is not None:
            increments = self.low_rank.increments(self.low_rank.gates(time))
        adapt = _Adaptation(self.guidance, condition.details, increments)
        if condition.stem is None:
            return self.backbone(x, time, condition.image, adapt)
        return self.backbone(x, time, condition.image, adapt, cond_part=condition.stem)
