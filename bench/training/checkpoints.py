"""Checkpoints as data: safetensors weights, optimiser state read with ``weights_only``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from bench.config import canonical_json, config_hash

__all__ = ["Checkpoint"]


class Checkpoint:
    """The folder of one training run, named by the hash of what decides its weights.

    While training it holds ``step-<n>/`` with raw weights, averaged weights, optimiser state and
    history; once done, ``weights.safetensors`` (averaged), ``history.json`` and
    ``identity.json``. A folder appears under its final name by one rename, so a kill leaves
    either the older state or the newer one.

    Args:
        root: where checkpoints of all runs live.
        identity: plain data; equal identities are one training.
    """

    def __init__(self, root: Path, identity: dict[str, Any]):
        self.identity = identity
        self.hash = config_hash(identity)
        self.folder = Path(root) / self.hash
        self.lock = Path(root) / f"{self.hash}.lock"

    @property
    def done(self) -> bool:
        return (self.folder / "weights.safetensors").is_file()

    def history(self) -> dict[str, Any]:
        """Return the history of a finished training."""
        return json.loads((self.folder / "history.json").read_text())

    def load_into(self, module: nn.Module) -> None:
        """Load the finished (averaged) weights into ``module``."""
        module.load_state_dict(load_file(self.folder / "weights.safetensors"))

    def save_step(
        self,
        step: int,
        module: nn.Module,
        average: nn.Module,
        optimizer: torch.optim.Optimizer,
        history: dict[str, Any],
    ) -> None:
        """Write the state after ``step`` steps and drop the older one."""
        parts = self.folder / f"step-{step}.tmp"
        shutil.rmtree(parts, ignore_errors=True)
        parts.mkdir(parents=True)
        _save(module, parts / "module.safetensors")
        _save(average, parts / "average.safetensors")
        torch.save(optimizer.state_dict(), parts / "optimizer.pt")
        (parts / "history.json").write_text(json.dumps(history))
        older = self._steps()
        parts.rename(self.folder / f"step-{step}")
        for folder in older:
            shutil.rmtree(folder)

    def load_step(
        self, module: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[int, dict[str, Any]]:
        """Restore the newest state; return (steps done, history), (0, {}) when there is none."""
        states = self._steps()
        if not states:
            return 0, {}
        newest = max(states, key=_step_of)
        module.load_state_dict(load_file(newest / "module.safetensors"))
        average.load_state_dict(load_file(newest / "average.safetensors"))
        optimizer.load_state_dict(torch.load(newest / "optimizer.pt", weights_only=True))
        return _step_of(newest), json.loads((newest / "history.json").read_text())

    def finish(self, average: nn.Module, history: dict[str, Any]) -> None:
        """Keep the averaged weights and the history; drop what only a resume needs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "identity.json").write_text(canonical_json(self.identity))
        (self.folder / "history.json").write_text(json.dumps(history))
        partial = self.folder / "weights.tmp"
        _save(average, partial)
        partial.rename(self.folder / "weights.safetensors")
        for folder in self._steps():
            shutil.rmtree(folder)

    def _steps(self) -> list[Path]:
        return [p for p in self.folder.glob("step-*") if p.suffix != ".tmp"]


def _step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _save(module: nn.Module, path: Path) -> None:
    state = {name: value.detach().contiguous() for name, value in module.state_dict().items()}
    save_file(state, path)
