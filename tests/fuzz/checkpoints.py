"""Broken checkpoints by the thousand, from a seed, and what training makes of each.

Run as ``python tests/fuzz/checkpoints.py --count 2000 --seed 0``: a table of outcomes, and exit
code 1 when one of them is :data:`BAD`.
"""

from __future__ import annotations

import argparse
import collections
import io
import json
import logging
import os
import pickle
import random
import re
import shutil
import struct
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import safetensors.torch
import torch
from torch import nn

from bench.config import BenchError, StageConfig
from bench.training import Batch, Checkpoint, DivergedError, loop, train

BAD = ("wrong in silence", "another exception", "code run", "over 2 GB", "over 10 s")
OUTCOMES = ("right", "made anew", "refused", *BAD)
"""Finished weights as they were; trained again to the same bits; one line; and what must not be."""

_IDENTITY = {"fuzz": "checkpoint"}
_STEPS = 13  # three after the first state that the loop saves


@dataclass(frozen=True)
class Case:
    """One broken file: in a ``finished`` training's folder or in one to ``resume``."""

    number: int
    state: str
    file: str
    kind: str
    seed: int


def cases(count: int, seed: int) -> Iterator[Case]:
    """Yield ``count`` cases; the same for the same ``seed``, whatever ``count`` is."""
    for number in range(count):
        own = random.Random(f"{seed} {number}")
        state = own.choice(list(_FILES))
        file = own.choice(_FILES[state])
        kinds = [k for k, (suits, _) in _KINDS.items() if re.search(suits, f"{state}/{file}")]
        yield Case(number, state, file, own.choice(kinds), own.randrange(2**32))


class Bench:
    """A folder with whole checkpoints to break, and what they must come to."""

    def __init__(self, root: Path):
        self.root = root
        self.marker = root / "code-was-run"
        self.right = _train(root / "finished")
        every, loop._CHECKPOINT_EVERY_S = loop._CHECKPOINT_EVERY_S, 0.0
        with suppress(_StopError):
            _train(root / "resume", stop=_STEPS - 1)
        loop._CHECKPOINT_EVERY_S = every
        self.other = safetensors.torch.save(_network(7, width=5).state_dict())

    def run(self, case: Case) -> tuple[str, str]:
        """Break a copy, do what a command would do; return the outcome and what was said."""
        place = self.root / "case"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.root / case.state, place)
        path = Checkpoint(place, _IDENTITY).folder / case.file
        _KINDS[case.kind][1](self, path, random.Random(case.seed))
        before, began = _peak_bytes(), time.perf_counter()
        outcome, said = self._outcome(place)
        if self.marker.exists():
            self.marker.rmdir()
            return "code run", said
        if _peak_bytes() - before > 2 * 2**30:
            return "over 2 GB", said
        if time.perf_counter() - began > 10:
            return "over 10 s", said
        return outcome, said

    def _outcome(self, place: Path) -> tuple[str, str]:
        network, checkpoint = _network(), Checkpoint(place, _IDENTITY)
        try:
            done = checkpoint.done
            if done:
                checkpoint.load_into(network)
            else:
                _train(place, network)
            checkpoint.history()
        except (BenchError, DivergedError) as error:
            lines = str(error).splitlines()
            return ("refused" if len(lines) == 1 else "another exception"), str(error)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            return "another exception", f"{type(error).__name__}: {error}"
        same = all(torch.equal(v, self.right[k]) for k, v in network.state_dict().items())
        return ("right" if done else "made anew") if same else "wrong in silence", ""


# --- the training -----------------------------------------------------------------------------


class _StopError(Exception):
    """Ends a training where a kill would."""


def _network(seed: int = 0, width: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, width, 3), nn.BatchNorm2d(width), nn.Conv2d(width, 2, 1))


def _train(root: Path, network: nn.Module | None = None, stop: int = -1) -> dict:
    network, checkpoint = network or _network(), Checkpoint(root, _IDENTITY)

    def objective(module: nn.Module, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        return module(batch.gt).square().mean()

    def batches(step: int) -> Batch:
        if step == stop:
            raise _StopError
        image = torch.rand(2, 2, 6, 6, generator=torch.Generator().manual_seed(step))
        return Batch(image, image, image[:, :1])

    config = StageConfig(batch=2, learning_rate=1e-2)
    options = {"steps": _STEPS, "seed": 0, "checkpoint": checkpoint, "device": _CPU}
    train(network, objective, batches, config, **options)
    return {name: value.clone() for name, value in network.state_dict().items()}


_CPU = torch.device("cpu")


# --- ways to break a file ---------------------------------------------------------------------

_FILES = {
    "finished": ("weights.safetensors", "history.json", "identity.json", "digest.json"),
    "resume": tuple(
        f"step-10/{name}"
        for name in (
            "module.safetensors", "average.safetensors", "optimizer.pt", "history.json",
            "digest.json",
        )
    ),
}  # fmt: skip

_KINDS: dict[str, tuple[str, Callable[[Bench, Path, random.Random], object]]] = {}
_ANY, _TENSORS, _JSON, _STATE = "", r"\.safetensors$", r"\.json$", r"/step-10/"


def _kind(suits: str) -> Callable:
    def add(break_: Callable[[Bench, Path, random.Random], object]) -> Callable:
        _KINDS[break_.__name__.strip("_").replace("_", " ")] = (suits, break_)
        return break_

    return add


@_kind(_ANY)
def _bits_flipped(bench: Bench, path: Path, own: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(own.randint(1, 8)):
        content[own.randrange(len(content))] ^= 1 << own.randrange(8)
    path.write_bytes(content)


@_kind(_TENSORS)
def _header_bits_flipped(bench: Bench, path: Path, own: random.Random) -> None:
    content = bytearray(path.read_bytes())
    end = 8 + int.from_bytes(content[:8], "little")
    content[own.randrange(end)] ^= 1 << own.randrange(8)
    path.write_bytes(content)


@_kind(_ANY)
def _cut_short(bench: Bench, path: Path, own: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: own.randrange(path.stat().st_size)])


@_kind(_ANY)
def _grown(bench: Bench, path: Path, own: random.Random) -> None:
    path.write_bytes(path.read_bytes() + own.randbytes(own.randint(1, 4096)))


@_kind(_ANY)
def _grown_without_end(bench: Bench, path: Path, own: random.Random) -> None:
    os.truncate(path, own.choice((3 * 2**30, 2**36)))  # sparse: takes no room


@_kind(_ANY)
def _a_hole_of_zeros(bench: Bench, path: Path, own: random.Random) -> None:
    content = bytearray(path.read_bytes())
    start = own.randrange(len(content))
    stop = min(len(content), start + own.choice((16, 512, 4096)))
    content[start:stop] = bytes(stop - start)
    path.write_bytes(content)


@_kind(_ANY)
def _junk(bench: Bench, path: Path, own: random.Random) -> None:
    path.write_bytes(own.randbytes(own.choice((0, 1, 7, 8, 100, 10_000))))


@_kind(_ANY)
def _gone(bench: Bench, path: Path, own: random.Random) -> None:
    path.unlink()


@_kind(_ANY)
def _a_folder_or_a_link(bench: Bench, path: Path, own: random.Random) -> None:
    path.unlink()
    if own.random() < 0.5:
        path.mkdir()
    else:
        path.symlink_to(own.choice(("nowhere", path.name)))


@_kind(_TENSORS)
def _absurd_header_length(bench: Bench, path: Path, own: random.Random) -> None:
    size = own.choice((0, 1, 2**31, 2**40, 2**63, 2**64 - 1, 99_999_999))
    path.write_bytes(struct.pack("<Q", size) + path.read_bytes()[8:])


@_kind(_TENSORS)
def _absurd_header(bench: Bench, path: Path, own: random.Random) -> None:
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    name = own.choice([name for name in header if name != "__metadata__"])
    entry = header[name]
    change = {
        "shape": ([2**40], [2**62, 2], [-1], [], ["3"], [0], None, [1e9]),
        "dtype": ("F64", "I8", "BOOL", "F8_E4M3", "C64", "X", None),
        "data_offsets": ([0, 2**50], [5, 1], [-4, 4], [0], [0, 0], None),
    }
    key = own.choice(list(change))
    entry[key] = own.choice(change[key])
    text = own.choice((json.dumps(header), "[" * 100_000, "{}", "null", json.dumps({name: entry})))
    packed = text.encode()
    path.write_bytes(struct.pack("<Q", len(packed)) + packed + content[end:])


@_kind(_TENSORS)
def _of_another_network(bench: Bench, path: Path, own: random.Random) -> None:
    path.write_bytes(bench.other)
    _maybe_without_digest(path, own)


@_kind(_TENSORS)
def _of_the_same_network_with_other_values(bench: Bench, path: Path, own: random.Random) -> None:
    path.write_bytes(safetensors.torch.save(_network(own.randrange(1, 2**30)).state_dict()))


@_kind(_TENSORS)
def _all_zeros(bench: Bench, path: Path, own: random.Random) -> None:
    state = safetensors.torch.load(path.read_bytes())
    zeros = {name: torch.zeros_like(value) for name, value in state.items()}
    path.write_bytes(safetensors.torch.save(zeros))


@_kind(_TENSORS)
def _not_finite(bench: Bench, path: Path, own: random.Random) -> None:
    state = safetensors.torch.load(path.read_bytes())
    name = own.choice([name for name, value in state.items() if value.is_floating_point()])
    state[name].view(-1)[0] = own.choice((float("nan"), float("inf")))
    path.write_bytes(safetensors.torch.save(state))
    _maybe_without_digest(path, own)


def _maybe_without_digest(path: Path, own: random.Random) -> None:
    """As a version left it that kept no digests."""
    if own.random() < 0.5:
        (path.parent / "digest.json").unlink()


class _Trap:
    def __init__(self, *call: object):
        self._call = call

    def __reduce__(self):
        return self._call[0], tuple(self._call[1:])


@_kind(_ANY)
def _a_pickle_with_code(bench: Bench, path: Path, own: random.Random) -> None:
    trap = own.choice((
        _Trap(os.mkdir, str(bench.marker)),
        _Trap(eval, f"__import__('os').mkdir({str(bench.marker)!r})"),
        _Trap(bytearray, 3 * 2**30),
        _Trap(torch.zeros, 2**30),
    ))  # fmt: skip
    if own.random() < 0.5:
        path.write_bytes(pickle.dumps({"state": trap, "param_groups": []}, protocol=2))
    else:
        packed = io.BytesIO()
        torch.save({"state": {0: {"step": trap}}, "param_groups": []}, packed)
        path.write_bytes(packed.getvalue())
    _maybe_without_digest(path, own)


@_kind(r"optimizer\.pt$")
def _a_bomb(bench: Bench, path: Path, own: random.Random) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("archive/data/0", bytes(50 * 2**20))
        archive.writestr("archive/version", "3\n")
    _maybe_without_digest(path, own)


@_kind(r"optimizer\.pt$")
def _moments_of_another_shape(bench: Bench, path: Path, own: random.Random) -> None:
    state = torch.load(path, weights_only=True)
    values = own.choice(list(state["state"].values()))
    values["exp_avg"] = own.choice((
        torch.zeros(()).double().expand(2**20, 2**20), torch.zeros(3), torch.full((1,), torch.nan),
    ))  # fmt: skip
    torch.save(state, path)
    _maybe_without_digest(path, own)


@_kind(_JSON)
def _other_json(bench: Bench, path: Path, own: random.Random) -> None:
    path.write_text(own.choice((
        "{}", "[]", "null", "1", '"x"', "[" * 100_000, "9" * 5000, '{"loss": 3}', '{"loss": [[1]]}',
        '{"loss": [["a", "b"]], "seconds": "x"}', '{"seconds": null}', '{"more": 1}', "\ufeff{}",
    )), "utf-8")  # fmt: skip


@_kind(_STATE)
def _under_another_number(bench: Bench, path: Path, own: random.Random) -> None:
    path.parent.rename(
        path.parent.with_name(own.choice(("step-2", "step-99999", "step-" + "9" * 30)))
    )


@_kind(_STATE)
def _beside_strange_names(bench: Bench, path: Path, own: random.Random) -> None:
    folder = path.parent.parent
    for name in ("step-", "step-x", "step--1", "step-1.tmp", "weights.safetensors.tmp"):
        (folder / name).mkdir()
    (folder / "step-2").write_text("a file")
    (folder / "step-10.tmp").write_text("a file")


# --- running ------------------------------------------------------------------------------------


def _peak_bytes() -> int:
    """Return the largest address space this process has had; 0 where the system does not say."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return 1024 * int(re.search(r"VmPeak:\s+(\d+)", status)[1])


def table(count: int, seed: int) -> tuple[dict[str, collections.Counter], list[str]]:
    """Run ``count`` cases; return outcomes by kind, and a line for each bad one."""
    found: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    bad = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        for case in cases(count, seed):
            outcome, said = bench.run(case)
            found[case.kind][outcome] += 1
            if outcome in BAD:
                bad.append(f"{outcome}: {case}: {said[:200]}")
    return found, bad


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    logging.getLogger("bench.training").setLevel(logging.ERROR)
    found, bad = table(flags.count, flags.seed)
    print(f"{'kind':45}", *(f"{name:>18}" for name in OUTCOMES))
    for kind, counts in sorted(found.items()):
        print(f"{kind:45}", *(f"{counts[name]:18}" for name in OUTCOMES))
    total = sum(found.values(), collections.Counter())
    print(f"{'all':45}", *(f"{total[name]:18}" for name in OUTCOMES))
    print(*bad, sep="\n")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
