"""Deep methods through every verb: trained, evaluated, fused with, billed, loaded."""

from __future__ import annotations

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from bench.config import (
    ExitCode,
    MissingError,
    UsageError,
    config_hash,
    experiment_preset,
    method_preset,
)
from bench.data import load_dataset, read_fused
from bench.efficiency import STUDY as EFFICIENCY
from bench.efficiency import Flags as CostFlags
from bench.evaluate import STUDY as EVALUATE
from bench.evaluate import Flags as EvaluateFlags
from bench.fuse import Flags as FuseFlags
from bench.fuse import main as fuse
from bench.fusion import create_method
from bench.recipes import (
    DiffusionRecipe,
    load_trained,
    method_experiment,
    method_recipe,
    method_training,
)
from bench.records import RunFolder
from bench.train import STUDY as TRAIN
from bench.train import Flags as TrainFlags
from tests.cli import toy


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy.write(tmp_path_factory.mktemp("toy") / "toy", patch=64)


def flags(kind, data, **changes):
    common = {"dataset": str(data), "sensor": "QB", "preset": "smoke", "quiet": True}
    return kind(**{**common, "override": ("evaluation.convention=none",), **changes})


@pytest.mark.parametrize("name", ["fusionnet", "pandiff", "difpan"])
def test_train_says_where_the_weights_are_and_evaluate_takes_them(data, home, capsys, name):
    assert TRAIN.run(flags(TrainFlags, data, method=(name,), json=True)) == ExitCode.OK
    (trained,) = json.loads(capsys.readouterr().out)
    assert trained["method"] == name and trained["stages"]["stage1"]["steps"] == 8
    stored = load_trained(home / "runs" / "checkpoints" / trained["hash"])
    split = load_dataset(data, sensor="QB").split("reduced")
    sensor = load_dataset(data, sensor="QB").sensor
    fused = stored.method().fuse(split.ms, split.pan, sensor, split.lms)
    assert fused.shape == split.lms.shape and fused.isfinite().all()
    checkpoints = list((home / "runs" / "checkpoints").iterdir())
    assert EVALUATE.run(flags(EvaluateFlags, data, method=(name,))) == ExitCode.OK
    assert list((home / "runs" / "checkpoints").iterdir()) == checkpoints
    found = RunFolder(home / "runs/evaluate/toy-smoke").latest()
    rows = {row.metric: row for row in found if row.kind != "contribution"}
    assert rows["PSNR"].method == name and rows["PSNR"].status == "ok"
    assert rows["train_steps"].value == 8 and rows["params"].value > 0
    assert f"| {name} |" in capsys.readouterr().out


def test_published_weights_take_the_place_of_training(data, home, tmp_path, capsys):
    torch.manual_seed(0)
    network = create_method("fusionnet", bands=4).network
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()  # FusionNet adds to lms: the outcome is EXP
    torch.save(network.state_dict(), tmp_path / "theirs.pth")
    call = flags(EvaluateFlags, data, method=("fusionnet",), weights=tmp_path / "theirs.pth")
    assert EVALUATE.run(call) == ExitCode.OK
    assert EVALUATE.run(flags(EvaluateFlags, data, method=("exp",))) == ExitCode.OK
    rows = RunFolder(home / "runs/evaluate/toy-smoke").latest()
    psnr = {row.method: row for row in rows if row.metric == "PSNR"}
    assert psnr["fusionnet"].value == pytest.approx(psnr["exp"].value, rel=1e-4)
    assert psnr["fusionnet"].seed is None
    assert psnr["fusionnet"].config["published"]["file"] == "theirs.pth"
    assert not list((home / "runs" / "checkpoints").glob("*"))
    for other in ("exp", "pandiff"):
        with pytest.raises(UsageError, match=f"{other} takes none; these methods do: .*fusionnet"):
            EVALUATE.run(
                flags(EvaluateFlags, data, method=(other,), weights=tmp_path / "theirs.pth")
            )
    with pytest.raises(UsageError, match="belong to one --method"):
        EVALUATE.run(
            flags(EvaluateFlags, data, method=("exp", "gsa"), weights=tmp_path / "theirs.pth")
        )
    with pytest.raises(MissingError, match="no weights at"):
        EVALUATE.run(
            flags(EvaluateFlags, data, method=("fusionnet",), weights=tmp_path / "gone.pth")
        )


def test_what_is_only_computed_is_not_trained(data):
    with pytest.raises(UsageError, match="--method gsa: it is computed, not trained"):
        TRAIN.run(flags(TrainFlags, data, method=("gsa",)))
    with pytest.raises(UsageError, match="--method gsa: it has no network"):
        EFFICIENCY.run(flags(CostFlags, data, method=("gsa",)))


def test_a_scene_by_a_trained_method_and_by_published_weights(data, tmp_path):
    grain = np.random.default_rng(1).integers(0, 2000, (4, 24, 32))
    with h5py.File(tmp_path / "scene.h5", "w") as file:
        file["ms"], file["pan"] = grain, grain[0].repeat(4, 0).repeat(4, 1)
    common = {"ms": tmp_path / "scene.h5", "pan": tmp_path / "scene.h5", "preset": "smoke",
              "method": "fusionnet", "sensor": "QB", "quiet": True}  # fmt: skip
    trained = {**common, "dataset": str(data), "override": ("evaluation.convention=none",)}
    with pytest.raises(MissingError, match=r"train it by: python bench/train\.py --method"):
        fuse(FuseFlags(out=tmp_path / "a.h5", **trained))
    assert TRAIN.run(flags(TrainFlags, data, method=("fusionnet",))) == ExitCode.OK
    assert fuse(FuseFlags(out=tmp_path / "a.h5", **trained)) == ExitCode.OK
    torch.manual_seed(3)
    torch.save(create_method("fusionnet", bands=4).network.state_dict(), tmp_path / "w.pth")
    call = FuseFlags(out=tmp_path / "b.h5", weights=tmp_path / "w.pth", **common)
    assert fuse(call) == ExitCode.OK
    one, other = (read_fused(tmp_path / f"{n}.h5", (4, 96, 128)) for n in "ab")
    assert (one != other).any()


def test_the_bill_of_deep_methods_beside_a_denoiser(data, home):
    call = flags(
        CostFlags, data, method=("fusionnet", "pandiff"), backbone=("conv_unet",), rounds=2
    )
    assert EFFICIENCY.run(call) == ExitCode.OK
    rows = RunFolder(home / "runs/efficiency/toy-smoke").latest()
    of = {
        name: {r.metric: r for r in rows if r.method == name} for name in ("fusionnet", "pandiff")
    }
    for name, found in of.items():
        assert {row.status for row in found.values()} == {"ok"}, name
        for metric in ("params", "flops_forward", "flops_train_step", "flops_image",
                       "mem_peak_forward", "mem_peak_train", "latency_forward",
                       "latency_train_step", "latency_image"):  # fmt: skip
            assert found[metric].value > 0, (name, metric)
        assert "flops_adapt_step" not in found
    assert "flops_step" not in of["fusionnet"] and "flops_step" in of["pandiff"]
    # its tiny scale: 4 -> 8, twice 8 -> 8, 8 -> 4 channels, 3 x 3 pixels and a bias
    assert of["fusionnet"]["params"].value * 1e6 == pytest.approx(296 + 2 * 584 + 292)
    assert of["fusionnet"]["flops_image"].value == of["fusionnet"]["flops_forward"].value
    assert {row.backbone for row in rows if row.method == "nodiff"} == {"conv_unet"}


def test_a_preset_scales_the_authors_recipe(monkeypatch):
    training = method_training("adwm")
    paper = method_preset("paper", "adwm", training)
    assert (paper.steps, paper.stage1.batch) == (training.iterations, training.batch)
    assert paper.stage1.learning_rate == training.learning_rate
    assert (paper.stage1.warmup, paper.stage1.ema_decay) == (0, 0)
    laptop, long = (method_preset(name, "adwm", training) for name in ("laptop", "workstation"))
    assert long.steps == 2 * laptop.steps
    for config in (paper, laptop, long):
        share = config.stage1.step_every / config.steps
        assert share == pytest.approx(training.decay_every, rel=0.02)
    assert method_preset("smoke", "adwm", training).steps == 8
    shorter = method_experiment("adwm", "laptop", ("steps=100",))
    assert shorter.stage1.step_every == pytest.approx(100 * training.decay_every, abs=1)


def test_pandiff_departs_from_its_paper_as_the_denoisers_do():
    training = method_training("pandiff")
    paper = method_preset("paper", "pandiff", training)
    assert (paper.diffusion.target, paper.diffusion.loss) == ("eps", "l2")
    assert (paper.sampler.kind, paper.sampler.steps) == ("ddpm", 1000)
    laptop = method_preset("laptop", "pandiff", training)
    assert (laptop.diffusion.target, laptop.diffusion.loss) == ("x0", "l2")
    assert (laptop.diffusion.timesteps, laptop.diffusion.schedule) == (1000, "linear")
    assert laptop.sampler.steps == 10


def test_difpan_is_conditioned_on_wavelets_at_every_preset():
    training = method_training("difpan")
    for preset in ("smoke", "laptop", "paper"):
        config = method_preset(preset, "difpan", training)
        assert (config.condition, config.backbone) == ("wavelets", "ddif_unet")
        assert config.diffusion.target == "x0"
    for bands, published in ((4, 10_250_324), (8, 10_397_208)):
        with torch.device("meta"):
            recipe = method_recipe("difpan", config, bands, 4)
            ready = create_method("difpan", bands=bands)
        for network in (recipe.network(), ready.network):
            assert network.cond_channels == 2 * bands + 4
            assert sum(p.numel() for p in network.parameters()) == published


def test_the_condition_is_part_of_a_training_where_it_is_not_the_images():
    def recipe(condition, scheme="one_stage"):
        config = experiment_preset("smoke", "conv_unet")
        return DiffusionRecipe(replace(config, condition=condition, scheme=scheme), 4)

    plain, wavelets = recipe("images"), recipe("wavelets")
    (one,), (other,) = plain.stages("data"), wavelets.stages("data")
    assert "condition" not in one.identity and "condition" not in plain.settings
    assert {**one.identity, "condition": "wavelets"} == other.identity
    assert wavelets.settings["condition"] == "wavelets"
    assert wavelets.settings["historic"]["condition"] == "images"
    assert plain.network().cond_channels == 5 and wavelets.network().cond_channels == 12
    for scheme in ("two_stage", "joint"):
        with pytest.raises(UsageError, match=f"condition = 'wavelets': scheme '{scheme}'"):
            recipe("wavelets", scheme).check()


def test_a_training_depends_on_loss_and_seed_and_not_on_labels(data):
    config = method_experiment("fusionnet", "smoke")

    def identity(**labels):
        recipe = method_recipe("fusionnet", config, 4, 4, **labels)
        return config_hash(recipe.stages("data")[0].identity)

    assert identity(preset="smoke") == identity(preset="other")
    (stage,) = method_recipe("fusionnet", config, 4, 4).stages("data")
    assert stage.identity["loss"] == "l2" and stage.needs_ms
