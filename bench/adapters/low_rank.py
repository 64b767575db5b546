"""Time-aware low-rank adaptation (NODiff, eq. 12-14)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from backbones.contract import AdaptableOp, LowRank
from backbones.layers.embedding import sinusoidal_embedding

__all__ = ["TimeAwareLowRank"]


class _Factors(nn.Module):
    """A (Kaiming) and B (zero, so that the increment starts at nothing) of one operator."""

    def __init__(self, op: AdaptableOp, rank: int):
        super().__init__()
        kernel = (op.kernel_size, op.kernel_size) if op.kind == "conv" else ()
        down = torch.empty(rank, op.in_channels, *kernel)
        nn.init.kaiming_uniform_(down, a=math.sqrt(5))
        shape = (op.out_channels, rank)
        if op.kind == "spectral":
            shape = (op.modes, rank, 2 * op.out_channels)
        self.down = nn.Parameter(down)
        self.up = nn.Parameter(torch.zeros(shape))


class TimeAwareLowRank(nn.Module):
    """dR = alpha A diag(g_t) B for every adaptable operator, g_t = 1 + tanh(MLP(Embed(t))).

    Equation 13 writes A D_t B with A (r, C_in), D_t (r, r) and B (C_out, r, modes); the only
    consistent reading is dR[i, o, k] = alpha sum_r A[r, i] g_r B[o, r, k]. It is never
    materialised: each sample of a batch has its own t.

    Args:
        ops: the backbone's ``adaptable``.
        rank: r.
        alpha: scale of the increment.
        embedding: channels of the sinusoidal time embedding.
        time_aware: whether there are gates; without, g_t = 1: a plain LoRA.
    """

    def __init__(
        self,
        ops: Sequence[AdaptableOp],
        rank: int,
        alpha: float = 1.0,
        embedding: int = 64,
        *,
        time_aware: bool = True,
    ):
        super().__init__()
        self.alpha = alpha
        self.rank = rank
        self.embedding = embedding
        self.names = tuple(op.name for op in ops)
        self.factors = nn.ModuleList(_Factors(op, rank) for op in ops)
        self.mlp = None
        if time_aware:
            self.mlp = nn.Sequential(
                nn.Linear(embedding, embedding), nn.SiLU(), nn.Linear(embedding, len(ops) * rank)
            )

    def gates(self, time: Tensor) -> Tensor:
        """Return alpha g_t for every operator: ``time`` (B,) in (0, 1] -> (B, operators, r)."""
        if self.mlp is None:
            gates = self.factors[0].up.new_ones(len(time), len(self.names), self.rank)
            return self.alpha * gates
        weight = self.mlp[0].weight
        logits = self.mlp(sinusoidal_embedding(time.to(weight), self.embedding))
        return self.alpha * (1 + torch.tanh(logits.unflatten(-1, (-1, self.rank))))

    def increments(self, gates: Tensor) -> dict[str, LowRank]:
        """Pair every operator's factors with its gate from :meth:`gates`."""
        return {
            name: LowRank(factors.down, factors.up, gates[:, index])
            for index, (name, factors) in enumerate(zip(self.names, self.factors, strict=True))
        }
