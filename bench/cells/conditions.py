"""Under which conditions a cost is measured, and what of the machine it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from bench.measure import machine
from bench.records import machine_class

__all__ = ["At", "machine_identity"]


@dataclass(frozen=True)
class At:
    """Conditions that a cost is measured under.

    Attributes:
        size: H = W, PAN pixels.
        batch: images at once.
        device: that the networks run on.
        threads: torch threads while timing, and in fresh processes.
        rounds: of a joint timing; each times every competitor once, in random order.
        timeout: seconds for one joint timing, and for one fresh process.
    """

    size: int
    batch: int
    device: torch.device
    threads: int = 1
    rounds: int = 11
    timeout: float = 600.0

    @property
    def fields(self) -> dict[str, int]:
        """Row fields."""
        return {"size": self.size, "batch": self.batch}

    @property
    def words(self) -> str:
        return f"at {self.size} pixels, batch {self.batch}"

    def machine(self) -> dict[str, Any]:
        """Return what of the machine a measurement belongs to."""
        return machine_identity(self.device, self.threads)


def machine_identity(device: torch.device, threads: int) -> dict[str, Any]:
    """Return what of the machine a measurement belongs to."""
    return {
        "machine": machine_class(machine()),
        "device": device.type,
        "threads": threads,
        "torch": ".".join(torch.__version__.split(".")[:2]),
    }
