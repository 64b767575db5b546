"""The call contract between a denoiser backbone and whoever trains or samples with it.

A backbone is an ``nn.Module`` with the signature::

    forward(x, time, cond, adapt=None) -> out

``x``
    (B, C, H, W) float; the noisy residual, C = number of spectral bands.
``time``
    (B,) float in (0, 1]; equals (t + 1) / T with t the *training* timestep 0..T-1, whatever
    a sampler skips. Sinusoidal embeddings take 1000 * time.
``cond``
    (B, K, H, W) float in about [0, 1]; the image the denoiser is conditioned on. K is fixed at
    build time (``cond_channels``): the HRMS image in stage I, the pseudo-SR image in stage II,
    the pair [upsampled MS, PAN] in one-stage training.
``adapt``
    ``None``, or an object following :class:`Adapt`; it owns every parameter stage II adds.
``out``
    (B, C, H, W); the raw network output. Whether it means noise, clean residual or velocity is
    the business of ``bench.diffusion``.

The network is handed sizes that are multiples of ``size_multiple`` and at least ``min_size``;
padding and cropping happen outside. This module imports torch for type checking only, so that
listing backbones stays instant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Adapt", "AdaptableOp", "Backbone", "GuidedBlock", "LowRank"]


@dataclass(frozen=True)
class GuidedBlock:
    """A block whose input the guidance adapter may change (NODiff, AAAI 2026, eq. 11).

    Attributes:
        name: what the backbone passes to ``adapt.guide``.
        channels: channels of the block's input feature.
        factor: downsampling of that feature against the image (1 = full size); the detail
            feature V is average-pooled by it.
    """

    name: str
    channels: int
    factor: int = 1


@dataclass(frozen=True)
class AdaptableOp:
    """A linear operator that accepts a time-gated low-rank increment (NODiff, eq. 12-14).

    Attributes:
        name: what the backbone passes to ``adapt.low_rank``.
        kind: ``spectral`` (weights per kept mode), ``conv`` or ``linear``.
        in_channels: C_in of the operator (of one group for grouped convolutions).
        out_channels: C_out of the operator.
        modes: number of kept complex modes; ``spectral`` only.
        kernel_size: side of the square kernel; ``conv`` only.
    """

    name: str
    kind: Literal["spectral", "conv", "linear"]
    in_channels: int
    out_channels: int
    modes: int = 0
    kernel_size: int = 1


class LowRank(NamedTuple):
    """Factors of one increment, already gated in time and scaled by alpha.

    Attributes:
        down: A. ``spectral`` and ``linear``: (r, C_in). ``conv``: (r, C_in, k, k), applied with
            the operator's own stride, padding and dilation.
        up: B. ``spectral``: real (modes, r, 2 * C_out), the last axis being [real | imaginary],
            modes in the order of the operator's own weight. ``conv`` and ``linear``: (C_out, r).
        gate: alpha * g_t, (B, r).
    """

    down: Tensor
    up: Tensor
    gate: Tensor


class Adapt(Protocol):
    """What stage II hands to a backbone."""

    def guide(self, name: str, feature: Tensor) -> Tensor:
        """Return the input of block ``name``: (B, C, h, w) -> same shape."""
        ...

    def low_rank(self, name: str) -> LowRank | None:
        """Return the increment of operator ``name``, or None for no change."""
        ...


class Backbone(Protocol):
    """Attributes every backbone declares; the contract tests hold them against the module.

    Attributes:
        bands: C, spectral bands in and out.
        cond_channels: K, channels of ``cond``.
        config: the frozen dataclass it was built from.
        guided: blocks in the order ``forward`` visits them; () leaves stage II without guidance.
        adaptable: explicit list of adaptable operators, never the time embedding; () leaves
            stage II without low-rank increments.
        size_multiple: H and W must be multiples of this.
        min_size: smallest H and W.
        family: ``operator``, ``unet``, ``conv`` or ``transformer``.
        citation: where the design comes from.
        version: raised whenever the same config gives other numbers.
        dead: optional; parameters, by name or glob, that have no gradient and are meant to be
            there all the same, as where a published parameter count has them.
        scales: optional; config fields by name of a scale (``tiny``, ``small``, ``base``), which
            presets name. A network without scales always runs at its defaults.

    Where the first layer is linear in ``cond`` a backbone may offer ``condition(cond) -> part``
    and ``stem(x, part) -> feature`` so that a sampler computes the conditional part once;
    ``forward`` accepts that part through the keyword ``cond_part`` in place of ``cond``. Where the
    network sees the time through an embedding alone, it may offer ``embed(time) -> (B, E)`` in the
    same way: ``forward`` accepts the embedding through the keyword ``embedding`` in place of
    ``time``.

    An operator that is truncated by the index of its modes covers lower frequencies on a larger
    image than it learnt on. It may offer ``for_extent(scale, side) -> network``: its weights for
    images ``scale`` times ``side`` pixels large, ``side`` that of its training patches, every mode
    at the frequency it had. What it does on an image that repeats every ``side`` pixels stays.
    """

    bands: int
    cond_channels: int
    config: object
    guided: tuple[GuidedBlock, ...]
    adaptable: tuple[AdaptableOp, ...]
    size_multiple: int
    min_size: int
    family: str
    citation: str
    version: int

    def __call__(
        self, x: Tensor, time: Tensor, cond: Tensor, adapt: Adapt | None = None
    ) -> Tensor: ...
