"""Data-parallel training: what the processes that ``torchrun`` starts do together.

Rank 0 is the command: it claims cells, measures, saves and writes. The others train with it, each
on its part of every batch; gradients are averaged by DistributedDataParallel, so that all of them
walk the path that one process would walk with the whole batch.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed, nn

from bench.config import UsageError
from bench.training.batches import Batch

__all__ = [
    "ALONE",
    "Ranks",
    "group",
    "joined",
    "mean",
    "parallel_loss",
    "ranks",
    "share",
    "share_states",
]

_PATIENCE = timedelta(days=7)
"""How long the others wait while rank 0 measures."""


class Ranks(NamedTuple):
    """Which process of how many this is."""

    rank: int
    count: int

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def part(self, batch: Batch) -> Batch:
        """Return this process's part of a batch.

        Raises:
            UsageError: it cannot be parted evenly.
        """
        size = len(batch.gt)
        if size % self.count:
            raise UsageError(
                f"batch = {size}: {self.count} processes need a multiple of {self.count}"
            )
        return batch.part(self.rank, self.count)


ALONE = Ranks(0, 1)


def ranks() -> Ranks:
    """Return the place of this process among those that :func:`group` joined; else alone."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return ALONE
    return Ranks(distributed.get_rank(), distributed.get_world_size())


@contextmanager
def group(device: str) -> Iterator[Ranks]:
    """Join the processes that ``torchrun`` started together, for the block; alone without it.

    Args:
        device: of the flags; on ``auto`` and ``cuda`` every process gets a GPU of its own.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield ALONE
        return
    gpu = device.startswith(("auto", "cuda")) and torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo", timeout=_PATIENCE)
    try:
        yield ranks()
    finally:
        distributed.destroy_process_group()


@contextmanager
def joined(alike: tuple[type[BaseException], ...]) -> Iterator[None]:
    """End this process on what it alone met inside the block: the others would wait for it.

    ``torchrun`` then ends them, too.

    Args:
        alike: exceptions that all processes meet at the same point.
    """
    try:
        yield
    except alike:
        raise
    except Exception as error:
        if ranks() == ALONE:
            raise
        raise SystemExit(f"error: rank {ranks().rank}: {type(error).__name__}: {error}") from error


def share(value: Any) -> Any:
    """Return rank 0's ``value`` in every process."""
    if ranks() == ALONE:
        return value
    values = [value]
    distributed.broadcast_object_list(values, src=0)
    return values[0]


def share_states(told: Any, *parts: nn.Module | torch.optim.Optimizer) -> Any:
    """Give what rank 0 has to every process: states of modules and optimisers, and ``told``."""
    here = ranks()
    if here == ALONE:
        return told
    packed = io.BytesIO()
    if here.leads:
        torch.save([told, *(part.state_dict() for part in parts)], packed)
    content = share(packed.getvalue())
    if not here.leads:
        told, *states = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        for part, state in zip(parts, states, strict=True):
            part.load_state_dict(state)
    return told


def parallel_loss(
    module: nn.Module, objective: Callable[[nn.Module, Batch, torch.Generator], Tensor]
) -> Callable[[nn.Module, Batch, torch.Generator], Tensor]:
    """Return an objective of this process's part whose gradients are those of all parts' mean.

    Its value is this part's own; see :func:`mean` for that of the whole batch.
    """
    here = ranks()
    loss = nn.parallel.DistributedDataParallel(
        _Loss(module, objective), find_unused_parameters=True
    )

    def of_part(_: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        return loss(here.part(batch), generator)

    return of_part


class _Loss(nn.Module):
    """A loss as a module, so that whatever of the network an objective calls is averaged."""

    def __init__(
        self,
        network: nn.Module,
        objective: Callable[[nn.Module, Batch, torch.Generator], Tensor],
    ):
        super().__init__()
        self.network = network
        self._objective = objective

    def forward(self, batch: Batch, generator: torch.Generator) -> Tensor:
        return self._objective(self.network, batch, generator)


def mean(value: float, device: torch.device) -> float:
    """Return the mean of a number over the processes."""
    here = ranks()
    if here == ALONE:
        return value
    total = torch.tensor(value, dtype=torch.float64, device=device)
    distributed.all_reduce(total)
    return total.item() / here.count
