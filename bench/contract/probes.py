"""What the checks look at: a network, inputs for it, an adapter that remembers what it is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from backbones.contract import AdaptableOp, LowRank
from backbones.registry import BACKBONES

__all__ = ["BATCH", "RANK", "Inputs", "Recorder", "Subject", "increment", "merged"]

BATCH, RANK = 3, 2
_CPU = torch.device("cpu")
Inputs = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Subject:
    """A registered backbone in the size it is checked in.

    Attributes:
        name: as registered.
        options: fields of its config.
        bands: C.
        cond_channels: K.
        device: where it runs.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    bands: int = 4
    cond_channels: int = 5
    device: torch.device = _CPU

    @classmethod
    def smallest(cls, name: str, device: torch.device = _CPU) -> Subject:
        """Return a backbone at its own ``tiny`` scale, at its defaults where it has none."""
        scales = getattr(BACKBONES.get(name), "scales", None) or {}
        return cls(name, scales.get("tiny", {}), device=device)

    @property
    def cls(self) -> Any:
        return BACKBONES.get(self.name)

    def untouched(self, seed: int = 0, **changes: int) -> nn.Module:
        """Build it as it would be trained, in evaluation mode."""
        channels = {"bands": self.bands, "cond_channels": self.cond_channels, **changes}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = self.cls(config=self.cls.Config(**self.options), **channels)
        return net.to(self.device).eval()

    def build(self, seed: int = 0, **changes: int) -> nn.Module:
        """Build it with noise in the parameters that start at zero: they hide things."""
        net = self.untouched(seed, **changes)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for parameter in net.parameters():
                if not parameter.any():
                    parameter.normal_(std=0.1)
        return net

    @cached_property
    def net(self) -> nn.Module:
        """One such network for checks that leave it as it is."""
        return self.build()

    def size(self, extra: tuple[int, int] = (1, 0)) -> tuple[int, int]:
        """Return H and W: the smallest side it takes, and so many steps of its grid more."""
        multiple = self.net.size_multiple
        side = -(-max(self.net.min_size, 2) // multiple) * multiple
        return side + extra[0] * multiple, side + extra[1] * multiple

    def inputs(self, net: nn.Module | None = None, extra: tuple[int, int] = (1, 0)) -> Inputs:
        """Return x, time and cond for a network of this backbone."""
        net = self.net if net is None else net
        generator = torch.Generator().manual_seed(1)
        height, width = self.size(extra)
        x = torch.randn(BATCH, net.bands, height, width, generator=generator)
        cond = torch.rand(BATCH, net.cond_channels, height, width, generator=generator)
        time = torch.tensor([0.02, 0.5, 1.0])
        return x.to(self.device), time.to(self.device), cond.to(self.device)


class Recorder:
    """An adapter that changes nothing unless told so, and remembers what it is asked.

    Args:
        guides: by block, what it makes of the block's input.
        low_ranks: by operator, its increment.
    """

    def __init__(
        self,
        guides: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
        low_ranks: Mapping[str, LowRank] | None = None,
    ):
        self.guides = guides or {}
        self.low_ranks = low_ranks or {}
        self.guided: list[tuple[str, tuple[int, ...]]] = []
        self.adapted: list[str] = []

    def guide(self, name: str, feature: Tensor) -> Tensor:
        self.guided.append((name, tuple(feature.shape)))
        return self.guides[name](feature) if name in self.guides else feature

    def low_rank(self, name: str) -> LowRank | None:
        self.adapted.append(name)
        return self.low_ranks.get(name)


def increment(op: AdaptableOp, device: torch.device) -> LowRank:
    """Return an increment of the declared shape, of the size of a usual weight."""
    kernel = (op.kernel_size,) * 2 if op.kind == "conv" else ()
    up = (op.modes, RANK, 2 * op.out_channels) if op.kind == "spectral" else (op.out_channels, RANK)
    generator = torch.Generator().manual_seed(2)
    factors = (torch.randn(s, generator=generator) for s in ((RANK, op.in_channels, *kernel), up))
    return LowRank(*(f.to(device) for f in factors), torch.ones(BATCH, RANK, device=device))


def merged(op: AdaptableOp, low_rank: LowRank) -> Tensor:
    """Return what an increment with every gate at one adds to the operator's own weight.

    Returns:
        ``spectral``: (modes, C_in, 2 C_out); ``conv``: (C_out, C_in, k, k); ``linear``:
        (C_out, C_in).
    """
    down, up, _ = low_rank
    if op.kind == "spectral":
        return torch.einsum("ri,mro->mio", down, up)
    return torch.tensordot(up, down, dims=1)
