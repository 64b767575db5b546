"""Checkpoints as data: safetensors weights, optimiser state read with ``weights_only``, digests."""

from __future__ import annotations

import io
import json
import logging
import re
import secrets
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.config import BenchError, canonical_json, config_hash
from bench.records import Lease
from bench.training.files import (
    line,
    not_finite,
    pack,
    read,
    read_weights,
    remove,
    sha256,
    shapes,
    sync,
    write,
)

__all__ = ["Checkpoint", "CheckpointError"]

_log = logging.getLogger(__name__)
_WEIGHTS, _DIGEST = "weights.safetensors", "digest.json"
_MODULES = ("module.safetensors", "average.safetensors")
_OPTIMIZER = "optimizer.pt"


class CheckpointError(BenchError):
    """Finished weights that are whole, but not what this training left; names the file."""


class Checkpoint:
    """The folder of one training run, named by the hash of what decides its weights.

    While training it holds ``step-<n>/`` with raw weights, averaged weights, optimiser state and
    history; once done, ``weights.safetensors`` (averaged), ``history.json``, ``identity.json``
    and ``digest.json``, which says by SHA-256 what the weights were. Files and folders appear
    under their final names by one rename, so a kill leaves either the older state or the newer.

    What a broken disk or a kill tore counts as not there, with a warning: training makes it anew.
    Weights that can be read but are others are nobody's to overwrite unasked: an error.

    Who writes does so within :meth:`held`; before a state or finished weights take their place it
    is looked whether another process has taken the training over while this one stood still.

    Args:
        root: where checkpoints of all runs live.
        identity: plain data; equal identities are one training.
    """

    def __init__(self, root: Path, identity: dict[str, Any]):
        self.identity = identity
        self.hash = config_hash(identity)
        self.folder = Path(root) / self.hash
        self.lock = Path(root) / f"{self.hash}.lease"
        self._lease: Lease | None = None

    @property
    def done(self) -> bool:
        """Whether there are finished weights that can be read; :meth:`load_into` checks whose."""
        path = self.folder / _WEIGHTS
        if not path.is_file():
            return False
        try:
            shapes(path)
        except Exception as error:
            _log.warning("%s is broken and is trained anew: %s", path, line(error))
            return False
        return True

    def history(self) -> dict[str, Any]:
        """Return the history of a finished training; an empty one where its file is broken."""
        path = self.folder / "history.json"
        empty = {"loss": [], "validation": [], "seconds": float("nan")}
        try:
            return empty | _checked_history(json.loads(read(path, 2**26)))
        except Exception as error:
            _log.warning("%s is broken, losses and times are lost: %s", path, line(error))
            return empty

    def load_into(self, module: nn.Module) -> None:
        """Load the finished (averaged) weights into ``module``.

        Raises:
            CheckpointError: they cannot be read, are not those that were saved, are not finite,
                are another network's, or belong to another identity.
        """
        path = self.folder / _WEIGHTS
        try:
            digest = _read_digest(self.folder)
            state, found = read_weights(path, module.state_dict())
            if digest is None:  # finished by a version that kept none
                self._check_identity()
            elif (digest.get("identity"), digest.get(_WEIGHTS)) != (self.hash, found):
                raise ValueError(f"its content is not what {_DIGEST} says was saved")
            module.load_state_dict(state)
        except Exception as error:
            raise CheckpointError(
                f"{path} is not what this training left ({line(error)}); --retrain trains anew"
            ) from error
        if digest is None:
            self._write_digest(found)

    @contextmanager
    def held(self, waiting: str = "") -> Iterator[None]:
        """Keep other processes from training this while the block runs.

        Args:
            waiting: logged where it takes more than a moment until others are done with it.
        """
        lease = Lease(self.lock)
        if not lease.acquire(timeout=1):
            _log.info("%s", waiting)
            lease.acquire()
        self._lease = lease
        try:
            yield
        finally:
            self._lease = None
            lease.release()

    def discard(self) -> None:
        """Drop finished weights and states, so that the next training starts anew.

        Raises:
            CheckpointError: another process is training this.
        """
        lease = None if self._lease is not None else Lease(self.lock)
        if lease is not None and not lease.acquire(timeout=0):
            raise CheckpointError(
                f"{self.folder} is being trained by another process; wait for it or end it"
            )
        try:
            (self.folder / _WEIGHTS).unlink(missing_ok=True)  # first: what is left counts for none
            remove(self.folder)
        finally:
            if lease is not None:
                lease.release()

    def save_step(
        self,
        step: int,
        module: nn.Module,
        average: nn.Module,
        optimizer: torch.optim.Optimizer,
        history: dict[str, Any],
    ) -> None:
        """Write the state after ``step`` steps and drop the older one.

        Raises:
            LostLeaseError: another process has taken this training over.
        """
        self._check_lease()
        self._make_folder()
        final = self.folder / f"step-{step}"
        older = [folder for folder in self._steps() if folder != final]
        # A name of its own: whoever took this training over may be writing the same step.
        parts = self.folder / f"step-{step}.{secrets.token_hex(4)}.tmp"
        packed = io.BytesIO()
        torch.save(optimizer.state_dict(), packed)
        files = {
            **{name: pack(m) for name, m in zip(_MODULES, (module, average), strict=True)},
            _OPTIMIZER: packed.getvalue(),
            "history.json": json.dumps(history).encode(),
        }
        digest = {"step": step, **{name: sha256(content) for name, content in files.items()}}
        try:
            parts.mkdir()
            for name, content in {**files, _DIGEST: json.dumps(digest).encode()}.items():
                write(parts / name, content)
            self._check_lease()
            remove(final)
            parts.rename(final)
        except BaseException as error:
            remove(parts)
            if isinstance(error, OSError):  # who finishes a training removes such folders
                self._check_lease()
            raise
        sync(self.folder)
        for folder in older:
            remove(folder)

    def load_step(
        self, module: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[int, dict[str, Any]]:
        """Restore the newest state that is whole; return (steps done, history), or (0, {})."""
        for folder in sorted(self._steps(), key=_step_of, reverse=True):
            try:
                return _step_of(folder), _restore(folder, module, average, optimizer)
            except Exception as error:
                # The next state that is saved takes its place.
                _log.warning("%s is broken and is left out: %s", folder, line(error))
        return 0, {}

    def finish(self, average: nn.Module, history: dict[str, Any]) -> None:
        """Keep the averaged weights and the history; drop what only a resume needs.

        Raises:
            LostLeaseError: another process has taken this training over.
        """
        self._check_lease()
        self._make_folder()
        content = pack(average)
        write(self.folder / "identity.json", canonical_json(self.identity).encode())
        write(self.folder / "history.json", json.dumps(history).encode())
        self._check_lease()
        self._write_digest(sha256(content))
        write(self.folder / _WEIGHTS, content)
        for left in (*self._steps(), *self.folder.glob("*.tmp")):
            remove(left)

    def _check_lease(self) -> None:
        if self._lease is not None:
            self._lease.check()

    def _make_folder(self) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            remove(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def _write_digest(self, weights: str) -> None:
        digest = {"identity": self.hash, _WEIGHTS: weights}
        try:
            write(self.folder / _DIGEST, json.dumps(digest).encode())
        except OSError as error:  # a folder that is only read
            _log.warning("no digest kept of %s: %s", self.folder / _WEIGHTS, line(error))

    def _check_identity(self) -> None:
        stored = json.loads((self.folder / "identity.json").read_bytes())
        if canonical_json(stored) != canonical_json(self.identity):
            raise ValueError("identity.json is another training's")

    def _steps(self) -> list[Path]:
        return [p for p in self.folder.glob("step-*") if re.fullmatch(r"step-\d+", p.name)]


def _step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


# --- reading: each raises whatever it meets, and one boundary above turns it into a line ------


def _restore(
    folder: Path, module: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Load a state into all three, or raise and leave them as they were."""
    digest = _read_digest(folder)
    states, found = [], {"step": _step_of(folder)}
    for name, network in zip(_MODULES, (module, average), strict=True):
        state, found[name] = read_weights(folder / name, network.state_dict())
        states.append(state)
    # Two moments a weight, and what torch writes around them.
    limit = 4 * sum(value.nbytes for value in states[0].values()) + 2**24
    content = {
        name: read(folder / name, size)
        for name, size in ((_OPTIMIZER, limit), ("history.json", 2**26))
    }
    found |= {name: sha256(data) for name, data in content.items()}
    if digest not in (None, found):
        raise ValueError(f"its content is not what {_DIGEST} says was saved")
    history = _checked_history(json.loads(content["history.json"]))
    optimizer.load_state_dict(_optimizer_state(content[_OPTIMIZER], optimizer))
    module.load_state_dict(states[0])
    average.load_state_dict(states[1])
    return history


def _read_digest(folder: Path) -> dict[str, Any] | None:
    """Return what was said of the content; None where that is not there or not readable."""
    try:
        digest = json.loads(read(folder / _DIGEST, 2**16))
    except (OSError, ValueError, RecursionError):
        return None
    return digest if isinstance(digest, dict) else None


def _checked_history(history: Any) -> dict[str, Any]:
    pairs = [history.get(name, []) for name in ("loss", "validation")]
    recent, scaler = history.get("recent", []), history.get("scaler", {})
    if (
        history.keys() - {"loss", "validation", "seconds", "recent", "scaler"}
        or not all(
            len(pair) == 2 and all(isinstance(x, (int, float)) for x in pair)
            for series in pairs
            for pair in series
        )
        or not (isinstance(recent, list) and all(isinstance(x, float) for x in recent))
        or (scaler and scaler.keys() != torch.amp.GradScaler("cpu").state_dict().keys())
        or not all(isinstance(x, (int, float)) for x in scaler.values())
    ):
        raise ValueError("it is not a history")
    float(history.get("seconds", 0.0))
    return history


def _optimizer_state(content: bytes, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Read a state dictionary without running code or allocating more than the file holds."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        # ``weights_only`` still lets a pickle make as many bytes as it likes.
        if b"bytearray" in content or any(info.compress_type for info in archive.infolist()):
            raise ValueError(f"{_OPTIMIZER} is nothing that was saved here")
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for index, values in state["state"].items():
        for name, value in values.items():
            if value.shape not in (torch.Size(), parameters[index].shape):
                raise ValueError(f"{name} of the optimiser has another shape")
            if not_finite({name: value}):
                raise ValueError(f"{name} of the optimiser is not finite")
    return state
