"""The train verb: schemes, where the weights are, and that they can be loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from backbones.names import MissingExtraError
from backbones.registry import BACKBONES
from bench.config import ExitCode, UsageError
from bench.imaging import get_sensor
from bench.prepare import Flags as PrepareFlags
from bench.prepare import main as prepare
from bench.recipes import load_trained
from bench.records import RunFolder
from bench.train import STUDY, Flags

ROOT = Path(__file__).parents[2]
TINY = ("patch=32", "sampler.tile=32", "backbone.modes=4")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data set of 3 bands."""
    folder = tmp_path_factory.mktemp("train")
    ms = np.random.default_rng(0).integers(0, 2000, (3, 128, 96))
    with h5py.File(folder / "scene.h5", "w") as file:
        file["ms"], file["pan"] = ms, ms[0].repeat(4, 0).repeat(4, 1)
    sizes = {"patch": 32, "stride": 32, "test_size": 32, "margin": 0}
    flags = PrepareFlags(ms=(folder / "scene.h5",), out=folder / "data", bits=11, **sizes)
    assert prepare(flags) == ExitCode.OK
    return folder / "data"


def train(data, capsys, **flags):
    capsys.readouterr()
    common = {"dataset": str(data), "preset": "smoke", "override": TINY, "quiet": True}
    code = STUDY.run(Flags(**{**common, "json": True, **flags}))
    return code, json.loads(capsys.readouterr().out)


def test_from_the_command_line(data, home, tmp_path):
    flags = ["--dataset", str(data), "--preset", "smoke", "--override", *TINY]
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "train.py"), *flags],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    first, *stages = done.stdout.splitlines()
    assert first.startswith("fno two_stage seed 0 on data: ")
    assert Path(first.split(": ")[1]).is_file() and str(home) in first
    assert [line.split(":")[0].strip() for line in stages] == ["stage1", "stage2"]
    rows = RunFolder(home / "runs" / "train" / "data-smoke").rows()
    kinds = {(row.kind, row.metric) for row in rows}
    assert {("training", "train_seconds"), ("training", "loss_stage2")} <= kinds


@pytest.mark.parametrize(
    ("scheme", "stages"),
    [
        ("two_stage", {"stage1": 4, "stage2": 4}),
        ("joint", {"stage2": 8}),
        ("one_stage", {"stage1": 8}),
    ],
)
@pytest.mark.parametrize("backbone", ["fno", "conv_unet"])
def test_weights_load_as_the_documentation_says(data, capsys, scheme, stages, backbone):
    overrides = TINY if backbone == "fno" else TINY[:2]
    flags = {"scheme": scheme, "backbone": (backbone,), "override": overrides}
    code, [trained] = train(data, capsys, **flags)
    assert code == ExitCode.OK
    steps = {stage: summary["steps"] for stage, summary in trained["stages"].items()}
    assert steps == stages
    folder = Path(trained["weights"]).parent
    assert folder.name == trained["hash"]
    stored = load_trained(folder)
    saved = load_file(folder / "weights.safetensors")
    loaded = stored.network.state_dict()
    assert saved.keys() == loaded.keys()
    assert all(torch.equal(saved[key], loaded[key]) for key in saved)
    assert stored.about["peak"] == 2047 and stored.about["bands"] == 3
    assert stored.recipe.config.scheme == scheme
    images = [torch.rand(1, c, n, n) for c, n in ((3, 8), (1, 32), (3, 32))]
    fused = stored.method().fuse(*images[:2], get_sensor("none", 3, bits=11), images[2])
    assert fused.shape == (1, 3, 32, 32) and fused.isfinite().all()


@pytest.mark.parametrize("backbone", ["neuralop_tfno", "timm_unet"])
def test_networks_of_other_libraries_train_in_two_stages(data, capsys, backbone):
    if why := BACKBONES.missing(backbone):
        pytest.skip(why)
    _, [trained] = train(data, capsys, scheme="two_stage", backbone=(backbone,), override=TINY[:2])
    stored = load_trained(Path(trained["weights"]).parent)
    before = BACKBONES.get(backbone)(3, 3, stored.recipe.options).state_dict()
    weights = stored.network.backbone.state_dict()
    assert all(weights[name].dtype == before[name].dtype for name in weights)
    images = [torch.rand(1, c, n, n) for c, n in ((3, 8), (1, 32), (3, 32))]
    fused = stored.method().fuse(*images[:2], get_sensor("none", 3, bits=11), images[2])
    assert fused.shape == (1, 3, 32, 32) and fused.isfinite().all()


def test_what_a_glob_names_and_is_not_installed_is_a_row_that_says_so(
    data, home, capsys, monkeypatch
):
    monkeypatch.setitem(BACKBONES._needs, "conv_unet", {"no_such_package": "someextra"})
    code, [trained] = train(
        data, capsys, scheme="one_stage", backbone=("conv*",), override=TINY[:2]
    )
    assert code == ExitCode.OK and trained["backbone"] == "convnext"
    rows = RunFolder(home / "runs" / "train" / "data-smoke").latest()
    [skipped] = [row for row in rows if row.status == "skip"]
    assert skipped.backbone == "conv_unet" and "pip install '.[someextra]'" in skipped.reason
    with pytest.raises(MissingExtraError, match="'conv_unet' needs no_such_package"):
        train(data, capsys, backbone=("conv_unet",), override=TINY[:2])


def test_equal_settings_train_once_and_lost_weights_again(data, capsys):
    _, [first] = train(data, capsys)
    weights = Path(first["weights"])
    content, stamp = weights.read_bytes(), weights.stat().st_mtime_ns
    _, [again] = train(data, capsys)
    assert again == first and weights.stat().st_mtime_ns == stamp
    _, [other] = train(data, capsys, seed=(1,))
    assert other["hash"] != first["hash"]
    weights.unlink()
    _, [anew] = train(data, capsys)
    assert anew["hash"] == first["hash"] and weights.read_bytes() == content


def test_several_at_once_and_one_that_cannot(data, capsys):
    _, both = train(data, capsys, seed=(0, 1), scheme="one_stage")
    assert [one["seed"] for one in both] == [0, 1]
    with pytest.raises(UsageError, match=r"patch = 32: .* needs at least"):
        train(data, capsys, override=(*TINY, "backbone.modes=24"))


def test_patches_that_are_too_small_are_refused_before_anything_is_done(data, home, capsys):
    with pytest.raises(UsageError, match="the training patches are 32 pixels wide"):
        train(data, capsys, override=("sampler.tile=64",))
    assert not (home / "runs").exists()
