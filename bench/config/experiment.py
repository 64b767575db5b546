"""The frozen description of one experiment: everything that may change a result, and no more.

Sources in the field docs: [P] the NODiff paper (AAAI 2026) states it; [D] our default where the
paper is silent, with the published recipe it follows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bench.config.conventions import get_convention
from bench.config.errors import UsageError

__all__ = [
    "AdapterConfig",
    "DenoiserTraining",
    "DiffusionConfig",
    "EvaluationConfig",
    "ExperimentConfig",
    "MethodTraining",
    "Precision",
    "SamplerConfig",
    "Scale",
    "Scheme",
    "StageConfig",
]

Scheme = Literal["two_stage", "joint", "one_stage", "precondition", "refine"]
Precision = Literal["float32", "bfloat16", "float16"]
Scale = Literal["tiny", "small", "base"]


def _require(owner: object, **rules: tuple[bool, str]) -> None:
    """Raise UsageError for the first field whose rule (holds, what was expected) does not hold."""
    for name, (holds, expected) in rules.items():
        if not holds:
            value = getattr(owner, name)
            raise UsageError(f"{type(owner).__name__}.{name} = {value!r}: expected {expected}")


@dataclass(frozen=True)
class DiffusionConfig:
    """Forward process and what the network predicts."""

    timesteps: int = 500
    """T. [D] DDIF (Information Fusion 2024) and SRINO (CVPR 2026) both use 500."""
    schedule: Literal["cosine", "linear"] = "cosine"
    """cosine: Nichol & Dhariwal 2021, s = 0.008 [D: DDIF]. linear: Ho et al. 2020, scaled to T."""
    target: Literal["eps", "x0", "v"] = "eps"
    """Network output: noise [P, eq. 8 and 15], clean residual, or velocity (Salimans & Ho 2022)."""
    residual_scale: float = 1.0
    """X0 = residual_scale * (H - L). The paper has 1; larger values raise the signal-to-noise
    ratio of a residual that is far smaller than unit noise."""
    loss: Literal["l1", "l2"] = field(default="l1", metadata={"historic": "l1"})
    """Norm of the error of what the network predicts: absolute [P], or squared (Ho et al. 2020)."""

    def __post_init__(self) -> None:
        _require(
            self,
            timesteps=(self.timesteps >= 2, "at least 2"),
            residual_scale=(self.residual_scale > 0, "more than 0"),
        )


@dataclass(frozen=True)
class SamplerConfig:
    """Reverse process. It changes results but not training."""

    kind: Literal["ddim", "ddpm"] = "ddim"
    """ddim: Song et al. 2021; ddpm: ancestral sampling, eq. 3 and 7 of the paper."""
    steps: int = 25
    """Network evaluations per image. [D] 25, as SRINO and DDIF."""
    eta: float = 0.0
    """DDIM's stochasticity: 0 deterministic, 1 ancestral. Ignored by ddpm, which is 1."""
    spacing: Literal["trailing", "leading"] = "trailing"
    """trailing starts at T - 1 (Lin et al. 2024); leading starts one stride earlier."""
    tile: int | None = None
    """Side of the tiles an image is sampled in, blended on the final x0; None: whole image.
    An operator truncated by index covers a lower physical frequency on a larger image, so tiles
    of the training size are the fair choice for it."""
    overlap: int = 16
    """Pixels shared by neighbouring tiles."""
    clip: bool = True
    """Clip L + x0 to the valid image range at every step."""
    batch: int = 16
    """Tiles or images sampled at once; no effect on the result beyond rounding."""

    def __post_init__(self) -> None:
        _require(
            self,
            steps=(self.steps >= 1, "at least 1"),
            eta=(0 <= self.eta <= 1, "0 to 1"),
            tile=(self.tile is None or self.tile >= 1, "at least 1, or none for whole images"),
            overlap=(
                self.overlap >= 0 and (self.tile is None or self.overlap < self.tile),
                f"0 to tile - 1 (tile = {self.tile})",
            ),
            batch=(self.batch >= 1, "at least 1"),
        )


@dataclass(frozen=True)
class AdapterConfig:
    """What stage II adds to the frozen denoiser (section "Conditional Detail Guidance")."""

    predictor_input: Literal["sobel", "sobel_magnitude", "raw"] = "sobel"
    """What the auxiliary predictor sees of PAN and LRMS [P: Sobel-filtered]. sobel: the signed
    gradients gx, gy; the magnitude alone loses the sign of the detail [D]."""
    predictor_width: int = 64
    """Channels of the detail feature V [D: the denoiser's width]."""
    predictor_blocks: int = 4
    """Residual blocks of the predictor ("several convolution blocks" [P])."""
    predictor_loss: float = 0.0
    """Weight of an L1 loss of its own on U against H; 0 is the paper's objective (eq. 15)."""
    guidance: bool = True
    """Conditional detail guidance adapter at every guided block (eq. 11)."""
    guidance_form: Literal["light", "conv3x3"] = "light"
    """phi of eq. 11: light = 1x1, GELU, depth-wise 3x3, 1x1; conv3x3 = one 3x3 [D]."""
    low_rank: bool = True
    """Time-aware LoRA on the adaptable operators (eq. 12-14)."""
    rank: int = 8
    """r of eq. 12-13 [D]."""
    time_aware: bool = field(default=True, metadata={"historic": True})
    """Gate the increment by the time, g_t of eq. 12; false: a plain LoRA, g_t = 1."""
    alpha: float = 1.0
    """Scale of the increment, eq. 13 [D]."""

    def __post_init__(self) -> None:
        _require(
            self,
            predictor_width=(self.predictor_width >= 1, "at least 1"),
            predictor_blocks=(self.predictor_blocks >= 0, "at least 0"),
            predictor_loss=(self.predictor_loss >= 0, "at least 0"),
            rank=(self.rank >= 1, "at least 1"),
        )


@dataclass(frozen=True)
class StageConfig:
    """Optimisation of one stage: AdamW and EMA. How long is the experiment's affair."""

    batch: int = 32
    """Patches per step. [D] SRINO."""
    learning_rate: float = 1e-4
    """Peak rate of AdamW (0.9, 0.999). [D] DDIF 1e-4, SRINO 4e-5."""
    schedule: Literal["constant", "cosine", "step"] = "constant"
    """cosine decays to 1 % of the rate; step multiplies it by step_factor every step_every."""
    step_every: int = 10_000
    """Steps between decays of the step schedule. [D] SRINO."""
    step_factor: float = 0.5
    """Factor of one such decay. [D] SRINO."""
    warmup: float = 0.0
    """Share of the steps spent on linear warm-up."""
    weight_decay: float = 1e-4
    """AdamW weight decay. [D] DDIF."""
    clip_norm: float = 1.0
    """Largest norm of the gradient."""
    ema_decay: float = 0.995
    """Exponential moving average of the weights, used for validation and results. [D] DDIF."""

    def __post_init__(self) -> None:
        _require(
            self,
            batch=(self.batch >= 1, "at least 1"),
            learning_rate=(self.learning_rate > 0, "more than 0"),
            step_every=(self.step_every >= 1, "at least 1"),
            step_factor=(0 < self.step_factor <= 1, "more than 0 and at most 1"),
            warmup=(0 <= self.warmup < 1, "0 or more and less than 1"),
            weight_decay=(self.weight_decay >= 0, "at least 0"),
            clip_norm=(self.clip_norm > 0, "more than 0"),
            ema_decay=(0 <= self.ema_decay < 1, "0 or more and less than 1"),
        )


@dataclass(frozen=True)
class MethodTraining:
    """How a deep method was trained by its authors, as its class declares it in ``training``.

    Lengths are shares of the whole, so that one rule scales every method to a preset. Images are
    counts divided by the sensor's peak for all of them, as in the authors' code, and patches those
    of the preset: PanCollection's 64 pixels, where some authors took 128 of data of their own.
    """

    iterations: int
    """Optimiser steps of the authors, on the 9,714 training patches of PanCollection's WV3."""
    loss: Literal["l1", "l2"] = "l1"
    """Norm of the difference to the reference: mean absolute, or mean squared."""
    learning_rate: float = 1e-3
    """Peak rate of Adam (0.9, 0.999)."""
    schedule: Literal["constant", "cosine", "step"] = "constant"
    """As of :class:`StageConfig`."""
    decay_every: float = 1.0
    """Share of the training between decays of the step schedule."""
    decay_factor: float = 0.5
    """Factor of one such decay."""
    weight_decay: float = 0.0
    """Decoupled (AdamW); with 0 it is Adam."""
    clip_norm: float = 1.0
    """Largest norm of the gradient; 1 is a guard of ours where the authors have none."""
    batch: int = 32
    """Patches per step."""

    def __post_init__(self) -> None:
        _require(
            self,
            iterations=(self.iterations >= 1, "at least 1"),
            learning_rate=(self.learning_rate > 0, "more than 0"),
            decay_every=(0 < self.decay_every <= 1, "more than 0 and at most 1"),
            batch=(self.batch >= 1, "at least 1"),
        )


@dataclass(frozen=True, kw_only=True)
class DenoiserTraining(MethodTraining):
    """A method that is one of the backbones, bare, with a diffusion recipe of its own.

    ``loss`` is that of the denoiser.
    """

    backbone: str
    """As registered."""
    diffusion: DiffusionConfig
    """Forward process and target, its loss left out."""
    sampler: SamplerConfig
    """Reverse process."""
    condition: Literal["images", "wavelets"] = "images"
    """As of :class:`ExperimentConfig`."""


@dataclass(frozen=True)
class EvaluationConfig:
    """On what, and by which convention, accuracy is measured."""

    convention: str = "pancollection"
    """Border cut of the reduced-resolution indices: pancollection, dlpan or none."""
    images: int | None = None
    """Number of test images; None means all of them."""
    full_resolution: bool = True
    """Fuse the full-resolution set."""
    reduced_resolution: bool = field(default=True, metadata={"historic": True})
    """Fuse the reduced-resolution set."""

    def __post_init__(self) -> None:
        get_convention(self.convention)
        _require(self, images=(self.images is None or self.images >= 1, "at least 1, or none"))


@dataclass(frozen=True)
class ExperimentConfig:
    """One experiment: data, network, method, optimisation, sampling, evaluation."""

    steps: int
    """Optimiser steps of the whole training, whatever the scheme: entrants train equally long."""
    prior_share: float = 2 / 3
    """Share of the steps that schemes of two stages spend on stage I; stage II has the rest."""
    stage1: StageConfig = StageConfig()
    """Optimisation of stage I, and of the schemes that train from scratch in one go."""
    stage2: StageConfig = StageConfig(learning_rate=4e-5)
    """Optimisation of stage II: the adapters, or the denoiser that takes up an operator's image."""
    dataset: str = "sample-4"
    backbone: str = "fno"
    scale: Scale = "base"
    """Which of its scales the backbone has; each backbone's own file says what they are."""
    backbone_options: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the backbone's own config that differ from its scale's."""
    scheme: Scheme = "two_stage"
    """two_stage: NODiff. joint: its stage II network from scratch (Table 3, "w/o Stage I").
    one_stage: the bare backbone conditioned on [upsampled MS, PAN].
    precondition, refine: stage I trains ``operator`` as a super-resolution network; stage II the
    bare backbone, conditioned on its image S, too. It denoises H - L, or, refining, H - S (the
    other schemes of figure 1, as NeurOp-Diff and DiffFNO)."""
    operator: str = field(default="fno", metadata={"historic": "fno"})
    """Backbone that super-resolves, ``precondition`` and ``refine`` alone; of the same scale, at
    its own defaults."""
    condition: Literal["images", "wavelets"] = field(
        default="images", metadata={"historic": "images"}
    )
    """What the bare backbone is conditioned on, ``one_stage`` alone: images, [upsampled MS, PAN];
    wavelets, [upsampled MS, PAN, their Haar coefficients], as Dif-PAN (``bench.adapters``)."""
    precision: Precision = field(default="float32", metadata={"historic": "float32"})
    """Of training: bfloat16 and float16 compute its forward pass under autocast; weights, their
    average, and everything after training stay float32."""
    patch: int = 64
    """Side of a training patch, reference pixels. [D] PanCollection's patches."""
    diffusion: DiffusionConfig = DiffusionConfig()
    adapters: AdapterConfig = AdapterConfig()
    sampler: SamplerConfig = SamplerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    seed: int = 0

    def __post_init__(self) -> None:
        _require(
            self,
            steps=(self.steps >= 0, "at least 0"),
            prior_share=(0 <= self.prior_share <= 1, "0 to 1"),
            patch=(self.patch >= 1, "at least 1"),
        )
        timesteps = self.diffusion.timesteps
        most = (self.sampler.steps <= timesteps, f"at most diffusion.timesteps = {timesteps}")
        _require(self.sampler, steps=most)

    @property
    def uses_operator(self) -> bool:
        """Whether an operator super-resolves before the diffusion."""
        return self.scheme in ("precondition", "refine")

    @property
    def stage_steps(self) -> tuple[int, int]:
        """Steps of stage I and of stage II where the scheme has both."""
        prior = round(self.prior_share * self.steps)
        return prior, self.steps - prior
