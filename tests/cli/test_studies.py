"""What a user adds is one file - a protocol, a method, a backbone -, and lines never mix."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from backbones.registry import BACKBONES
from bench.config import ExitCode, MethodTraining, UsageError
from bench.evaluate import STUDY, Flags
from bench.fusion import FUSION_METHODS
from bench.recipes import load_trained
from bench.records import RunFolder, load_rows, to_frame
from bench.records.grouping import split_lines
from bench.train import STUDY as TRAIN
from bench.train import Flags as TrainFlags
from tests.cli import toy

ROOT = Path(__file__).parents[2]


def flags(data, kind=Flags, **changes):
    common = {"dataset": str(data), "sensor": "QB", "preset": "smoke", "override": toy.TINY}
    return kind(**{**common, "backbone": ("fno",), "quiet": True, **changes})


PROTOCOL = '''
"""Rank of the time-aware LoRA."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

sys.path.insert(0, {root!r})

from bench.config import CommonFlags
from bench.records import View
from bench.running import Desk, Study


@dataclass(frozen=True)
class Flags(CommonFlags):
    """Train NODiff at several ranks."""

    rank: tuple[int, ...] = (2, 4)
    """Ranks of the increments."""


def cells(flags, desk: Desk):
    from bench.cells.experiments import experiment_cells

    yield from experiment_cells(
        [
            replace(base, adapters=replace(base.adapters, rank=rank))
            for base in desk.experiments()
            for rank in flags.rank
        ],
        desk,
    )


VIEW = View("ranks", "Rank of the LoRA", ("accuracy", "differences", "curves", "cost"),
            axis="adapters.rank", reference={{"adapters.rank": 4}},
            baselines={{"pseudo_sr": "U"}})
STUDY = Study("ranks", 1, "Rank of the LoRA", Flags, cells, VIEW)

if __name__ == "__main__":
    STUDY.main()
'''


def test_a_protocol_is_one_file(data, home, tmp_path):
    script = tmp_path / "ranks.py"
    script.write_text(PROTOCOL.format(root=str(ROOT)))
    call = [sys.executable, str(script), "--dataset", str(data), "--sensor", "QB", "--preset",
            "smoke", "--quiet", "--jobs", "2", "--override", *toy.TINY]  # fmt: skip
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == ExitCode.OK, done.stderr
    folder = home / "runs" / "ranks" / "toy-smoke"
    assert done.stdout.splitlines()[-1] == str(folder / "report.html")
    assert re.search(r"\| nodiff \| 2 \|.*\n\| nodiff \| 4 \|", done.stdout)
    assert "Differences to rank = 4" in done.stdout
    assert json.loads((folder / "view-ranks.json").read_text())["axis"] == "adapters.rank"
    page = tmp_path / "again"
    again = [sys.executable, str(ROOT / "bench" / "report.py"), str(folder), "--out", str(page)]
    done = subprocess.run(again, capture_output=True, text=True, timeout=120)
    assert done.returncode == ExitCode.OK and "Differences to rank = 4" in done.stdout


@dataclass(frozen=True)
class DeepOptions:
    width: int = 8
    """Channels."""


class _Net(nn.Module):
    def __init__(self, bands: int, width: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(bands + 1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, bands, 1)
        )

    def forward(self, ms, pan, lms):
        assert ms.shape[-1] * 4 == pan.shape[-1]
        return lms + self.body(torch.cat([lms, pan], dim=1))


class Deep:
    Config = DeepOptions
    version = 1
    training = MethodTraining(iterations=1000, learning_rate=1e-3)

    def __init__(self, bands: int, config: DeepOptions):
        self.name, self.network = "deep_toy", _Net(bands, config.width)

    def fuse(self, ms, pan, sensor, lms=None):
        return self.network(ms, pan, lms)


def test_a_deep_method_is_one_class_and_one_line(data, home, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(FUSION_METHODS, "_targets", dict(FUSION_METHODS._targets))
    FUSION_METHODS.register("deep_toy", Deep)
    out = tmp_path / "out"
    call = flags(data, backbone=(), method=("deep_toy", "exp"), seed=(0, 1), out=out)
    assert STUDY.run(call) == ExitCode.OK
    rows = RunFolder(out).latest()
    assert {row.status for row in rows} == {"ok"}
    metrics = {(row.method, row.metric, row.seed) for row in rows}
    for metric in ("PSNR", "HQNR", "params", "flops_forward", "train_seconds", "train_flops"):
        assert {("deep_toy", metric, 0), ("deep_toy", metric, 1)} <= metrics, metric
    assert ("exp", "PSNR", None) in metrics
    assert len(list((home / "runs" / "checkpoints").glob("*/weights.safetensors"))) == 2
    assert "| deep_toy |" in capsys.readouterr().out and (out / "report.html").is_file()
    before = (out / "rows.jsonl").read_bytes()
    assert STUDY.run(call) == ExitCode.OK
    assert (out / "rows.jsonl").read_bytes() == before


def test_four_experiments_in_one_folder_are_four_lines(data, tmp_path, capsys):
    out = tmp_path / "out"
    variants = ((), ("adapters.guidance=false",), ("backbone.layers=3",), ("sampler.tile=none",))
    for more in (*variants, ("sampler.batch=3",)):  # the last differs in nothing that matters
        assert STUDY.run(flags(data, out=out, override=(*toy.TINY, *more))) == ExitCode.OK
    frame = to_frame(load_rows(out))
    frame = frame[(frame["metric"] == "PSNR") & (frame["method"] == "nodiff")]
    lines = split_lines(frame)
    assert {c.rpartition(".")[2] for c in lines.varying} == {"guidance", "layers", "tile"}
    groups = lines.frame.groupby([lines.frame[c].map(repr) for c in lines.by]).size()
    assert sorted(groups) == [1, 1, 1, 1] or sorted(groups) == [1, 1, 1, 2]
    printed = capsys.readouterr().out
    table = printed[printed.rindex("**Accuracy on toy**") :].split("\n\n")[1]
    assert table.count("| nodiff |") == 1  # each command shows what it asked for


MODULE = """
from __future__ import annotations
from dataclasses import dataclass
from backbones import register_backbone
from backbones.fno import FNO, FNOConfig

@dataclass(frozen=True)
class Config(FNOConfig):
    width: int = 4
    layers: int = 1
    modes: int = 4

@register_backbone("edited")
class Edited(FNO):
    Config = Config
    scales = {"tiny": {}}
"""


def test_a_users_file_is_part_of_what_a_training_is_called(data, home, tmp_path, monkeypatch):
    path = tmp_path / "edited.py"

    def train(text: str) -> Path:
        monkeypatch.setattr(BACKBONES, "_targets", dict(BACKBONES._targets))
        BACKBONES._targets.pop("edited", None)
        path.write_text(text)
        before = set((home / "runs" / "checkpoints").glob("*/weights.safetensors"))
        call = flags(data, TrainFlags, backbone=("edited",), backbone_module=(str(path),),
                     scheme="one_stage", override=toy.TINY[:2])  # fmt: skip
        assert TRAIN.run(call) == ExitCode.OK
        new = set((home / "runs" / "checkpoints").glob("*/weights.safetensors")) - before
        return new.pop().parent if new else None

    first = train(MODULE)
    about = json.loads((first / "config.json").read_text())
    assert about["module"]["path"] == str(path) and len(about["module"]["digest"]) == 12
    assert train(MODULE) is None  # found again
    second = train(MODULE.replace("width: int = 4", "width: int = 4  # edited"))
    assert second is not None and second != first
    assert load_trained(second).recipe.config.backbone == "edited"
    with pytest.raises(UsageError, match="has changed since backbone 'edited' was trained"):
        load_trained(first)


def test_retrain_drops_the_weights_and_force_does_not(data, home, tmp_path):
    def weights() -> dict[str, int]:
        files = (home / "runs" / "checkpoints").glob("*/weights.safetensors")
        return {path.parent.name: path.stat().st_mtime_ns for path in files}

    call = {"scheme": "one_stage", "out": tmp_path / "out"}
    assert STUDY.run(flags(data, **call)) == ExitCode.OK
    first = weights()
    assert STUDY.run(flags(data, **call, force=True)) == ExitCode.OK and weights() == first
    assert STUDY.run(flags(data, **call, retrain=True)) == ExitCode.OK
    assert weights().keys() == first.keys() and weights() != first


def test_stored_networks_of_older_and_newer_versions(data, home):
    assert TRAIN.run(flags(data, TrainFlags, scheme="one_stage")) == ExitCode.OK
    (weights,) = (home / "runs" / "checkpoints").glob("*/weights.safetensors")
    path = weights.parent / "config.json"
    today = json.loads(path.read_text())
    first = {k: v for k, v in today.items() if k not in ("schema_version", "recipe", "module")}
    first["experiment"] = {k: v for k, v in today["experiment"].items() if k != "scale"}
    path.write_text(json.dumps(first))
    old = load_trained(weights.parent).network.state_dict()
    path.write_text(json.dumps(today))
    new = load_trained(weights.parent).network.state_dict()
    assert all(torch.equal(old[name], new[name]) for name in new)
    path.write_text(json.dumps({**today, "schema_version": 99}))
    with pytest.raises(UsageError, match=r"of schema 99, newer than .*: update"):
        load_trained(weights.parent)
    path.write_text(json.dumps({**today, "experiment": {**today["experiment"], "colour": 1}}))
    with pytest.raises(UsageError, match=r"no field 'colour'.*update") as info:
        load_trained(weights.parent)
    assert "\n" not in str(info.value)
