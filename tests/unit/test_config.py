"""Presets, overrides, identities and the shared command line."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from backbones import UnknownNameError, list_backbones
from backbones.registry import BACKBONES
from bench.config import (
    DEPARTURES,
    PRESETS,
    ExitCode,
    MissingError,
    SamplerConfig,
    UsageError,
    apply_overrides,
    as_plain,
    canonical_json,
    config_hash,
    derive_seed,
    experiment_preset,
    preset_seeds,
    run_command,
)
from bench.recipes import DiffusionRecipe

ROOT = Path(__file__).parents[2]
SMOKE = experiment_preset("smoke")


@pytest.fixture(autouse=True)
def process_left_as_it_is(monkeypatch):
    """A command tunes its process for good; other tests of this one measure memory."""
    monkeypatch.setattr("bench.config.cli.keep_freed_memory", lambda: True)
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")


def identity(*overrides: str, stage: str = "stage2", **fields) -> str:
    config = replace(apply_overrides(SMOKE, overrides), **fields)
    return config_hash(stage_identity(config, stage))


def stage_identity(config, stage: str, data: str = "data"):
    stages = DiffusionRecipe(config, bands=4).stages(data)
    return stages[0 if stage == "stage1" else -1].identity


# Canonical form


def test_canonical_form_is_plain_sorted_json():
    value = {"b": (1.0, 2.5, None), "a": SamplerConfig(tile=8, overlap=2), "c": -0.0}
    text = canonical_json(value)
    assert text == (
        '{"a":{"batch":16,"clip":true,"eta":0,"kind":"ddim","overlap":2,"spacing":"trailing",'
        '"steps":25,"tile":8},"b":[1,2.5,null],"c":0}'
    )
    assert config_hash(value) == config_hash(json.loads(text))


def test_a_float_that_is_whole_is_the_integer():
    assert config_hash({"x": 1}) == config_hash({"x": 1.0}) != config_hash({"x": 1.5})
    assert as_plain(True) is True


@pytest.mark.parametrize("value", [{1, 2}, object(), Path("x")])
def test_a_value_without_canonical_form_is_refused(value):
    with pytest.raises(TypeError, match="cannot hash"):
        canonical_json({"x": value})


def test_seeds_depend_on_every_part_and_on_nothing_else():
    parts = [(0,), (1,), (0, "a"), (0, "b"), (0, "a", 1), (0, "a1"), (0, ["a", 1])]
    seeds = {derive_seed(*part) for part in parts}
    assert len(seeds) == len(parts)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(0, "a", 1) == derive_seed(0, "a", 1.0)
    # printf '[0,"order",3]' | sha256sum: its first eight bytes, halved. Published rows can be
    # repeated only while this stands.
    assert derive_seed(0, "order", 3) == 6782676000726402274


# Identity: what decides the weights, and nothing else


def test_what_changes_training_changes_the_identity():
    changes = [
        "steps=12", "prior_share=0.25", "stage1.ema_decay=0.5", "diffusion.target=eps",
        "diffusion.timesteps=100", "adapters.rank=3", "adapters.guidance=false", "patch=32",
        "backbone.modes=4", "scheme=joint", "scheme=one_stage",
    ]  # fmt: skip
    hashes = [identity(), *(identity(change) for change in changes), identity(seed=1)]
    assert len(set(hashes)) == len(hashes)
    assert config_hash(stage_identity(SMOKE, "stage2", "other")) != identity()


def test_what_only_changes_sampling_leaves_the_weights_alone():
    same = ["sampler.steps=7", "sampler.kind=ddpm", "sampler.tile=none", "sampler.batch=1",
            "evaluation.images=1", "evaluation.convention=dlpan"]  # fmt: skip
    for stage in ("stage1", "stage2"):
        assert {identity(change, stage=stage) for change in same} == {identity(stage=stage)}
    assert identity(dataset="elsewhere/sample-4") == identity()


def test_stage_one_is_shared_by_all_that_agree_on_it():
    same = ["adapters.rank=3", "adapters.low_rank=false", "stage2.ema_decay=0.5",
            "sampler.steps=7"]  # fmt: skip
    assert {identity(change, stage="stage1") for change in same} == {identity(stage="stage1")}
    assert identity("scheme=one_stage", stage="stage1") != identity(stage="stage1")


def test_joint_training_depends_neither_on_stage_two_s_rates_nor_on_the_shares():
    joint = replace(SMOKE, scheme="joint")
    for change in ("stage2.learning_rate=0.1", "prior_share=0.1"):
        other = apply_overrides(joint, [change])
        assert stage_identity(joint, "stage2") == stage_identity(other, "stage2")
    longer = apply_overrides(joint, ["steps=9"])
    assert stage_identity(joint, "stage2") != stage_identity(longer, "stage2")


# Overrides


def test_overrides_reach_every_level():
    config = apply_overrides(
        SMOKE,
        [
            "steps=200", "stage2.learning_rate=1", "diffusion.target=v", "sampler.tile=none",
            "backbone.modes=16", "backbone.multipliers=(1,2)", "adapters.guidance=False",
            "patch = 32", "evaluation.convention=dlpan", "stage1.batch=300",
        ],
    )  # fmt: skip
    assert (config.steps, config.patch, config.diffusion.target) == (200, 32, "v")
    assert config.stage1.batch == 300
    assert config.stage2.learning_rate == 1.0
    assert isinstance(config.stage2.learning_rate, float)
    assert config.sampler.tile is None
    assert config.adapters.guidance is False
    assert apply_overrides(SMOKE, ["evaluation.convention=none"]).evaluation.convention == "none"
    assert config.backbone_options == {**SMOKE.backbone_options, "modes": 16, "multipliers": (1, 2)}
    assert SMOKE.backbone_options == experiment_preset("smoke").backbone_options


@pytest.mark.parametrize("order", [1, -1])
def test_ranges_are_checked_once_all_overrides_are_in_place(order):
    config = apply_overrides(SMOKE, ["sampler.tile=16", "sampler.overlap=8"][::order])
    assert (config.sampler.tile, config.sampler.overlap) == (16, 8)
    config = apply_overrides(SMOKE, ["sampler.steps=900", "diffusion.timesteps=1000"][::order])
    assert config.sampler.steps == 900


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stage1.batch", "'stage1.batch' is not of the form key=value"),
        ("=3", "'=3' is not of the form key=value"),
        ("stage1.batc=3", "'stage1.batc' .*mean 'batch'.*known here: batch, learning_rate"),
        ("stage1.steps=3", "'stage1.steps' .*known here: batch"),
        ("stge1.batch=3", "'stge1.batch' .*mean 'stage1'"),
        ("stage1=3", "'stage1' is a group.*batch"),
        ("patch.x=3", "'patch' in 'patch.x' has no fields"),
        ("steps=many", "steps = 'many': expected int"),
        ("stage1.batch=1.5", "stage1.batch = 1.5: expected int"),
        ("steps=true", "steps = True: expected int"),
        ("steps=-1", "steps = -1: expected at least 0"),
        ("prior_share=1.5", "prior_share = 1.5: expected 0 to 1"),
        ("sampler.tile=big", "sampler.tile = 'big': expected int or NoneType"),
        ("stage1.learning_rate=1e999", "stage1.learning_rate = inf: expected float"),
        ("adapters.guidance=1", "adapters.guidance = 1: expected bool"),
        ("diffusion.target=x", "diffusion.target = 'x'.*mean 'x0'.*one of: eps, x0, v"),
        ("evaluation.convention=dlpn", "'dlpn'.*mean 'dlpan'.*known: "),
        ("diffusion.timesteps=1", "DiffusionConfig.timesteps = 1: expected at least 2"),
        ("sampler.overlap=64", r"SamplerConfig.overlap = 64: expected 0 to tile - 1 \(tile = 64\)"),
        ("sampler.tile=0", "SamplerConfig.tile = 0: expected at least 1"),
        ("sampler.steps=501", "steps = 501: expected at most diffusion.timesteps = 500"),
        ("sampler.eta=1.5", "SamplerConfig.eta = 1.5: expected 0 to 1"),
        ("stage1.warmup=1", "StageConfig.warmup = 1.0: expected 0 or more and less than 1"),
        ("stage1.step_every=0", "step_every = 0: expected at least 1"),
        ("evaluation.images=0", "images = 0: expected at least 1"),
        ("patch=0", "patch = 0: expected at least 1"),
        ("seed=3", "'seed=3': use --seed"),
        ("backbone=fno", "'backbone=fno': use --backbone"),
        ("dataset=x", "use --dataset"),
        ("backbone_options={}", "use backbone.<option>=value"),
    ],
)
def test_a_bad_override_is_one_line_that_says_what_was_expected(override, message):
    with pytest.raises((UsageError, UnknownNameError), match=message) as info:
        apply_overrides(SMOKE, [override])
    assert "\n" not in str(info.value)


# Presets


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_builds_every_backbone_it_sizes(preset):
    assert preset in DEPARTURES and preset_seeds(preset)
    for name in list_backbones():
        config = experiment_preset(preset, name)
        cls = BACKBONES.get(name)
        assert set(config.backbone_options) <= {f.name for f in dataclasses.fields(cls.Config)}
        cls(bands=4, cond_channels=4, config=cls.Config(**config.backbone_options))


def test_the_paper_preset_is_the_papers():
    """NODiff, sections 3 and 4: noise prediction, unscaled residual, 8 layers, 12 modes."""
    config = experiment_preset("paper")
    fno = BACKBONES.get("fno").Config(**config.backbone_options)
    assert (fno.layers, fno.modes) == (8, 12)
    assert (config.diffusion.target, config.diffusion.residual_scale) == ("eps", 1.0)
    assert config.adapters.predictor_loss == 0
    assert config.scheme == "two_stage"


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(UnknownNameError, match="preset 'laptp' - did you mean 'laptop'"):
        experiment_preset("laptp")


# Command line


@dataclasses.dataclass(frozen=True)
class Flags:
    """A verb."""

    value: tuple[int, ...] = ()
    quiet: bool = False


@pytest.fixture(autouse=True)
def log_handlers(monkeypatch):
    """A command sets the log up for its process: put things back."""
    monkeypatch.setattr(logging.root, "handlers", [*logging.root.handlers])
    monkeypatch.setattr(logging.root, "level", logging.root.level)


def _wrapped(cause: Exception) -> UsageError:
    """Return what a check makes of an error of a network that it builds."""
    error = UsageError(f"backbone: {cause}")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("outcome", "code", "message"),
    [
        (0, ExitCode.OK, ""),
        (1, ExitCode.SOME_FAILED, ""),
        (UsageError("bad x"), ExitCode.USAGE, "error: bad x"),
        (MissingError("no y"), ExitCode.MISSING, "error: no y"),
        (UnknownNameError("z", "a", ["b"]), ExitCode.USAGE, "error: unknown z 'a'"),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED, "the same command continues"),
        (_wrapped(MemoryError("no room")), ExitCode.SOME_FAILED, "error: backbone: no room"),
    ],
)
def test_exit_codes(outcome, code, message, monkeypatch, capsys):
    def main(flags: Flags) -> int:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr(sys, "argv", ["verb"])
    with pytest.raises(SystemExit) as info:
        run_command(Flags, main, prog="verb")
    assert info.value.code == code
    captured = capsys.readouterr()
    assert message in captured.err and captured.out == ""


def test_an_unforeseen_error_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["verb"])
    with pytest.raises(ZeroDivisionError):
        run_command(Flags, lambda flags: 1 // 0, prog="verb")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--value", "1", "--value", "2"], "--value is given twice"),
        (["--value=1", "--value", "2"], "--value is given twice"),
        (["--value", "one"], "'one'"),
        (["--valu", "1"], "--value"),
    ],
)
def test_bad_usage_ends_with_two_and_names_the_flag(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["verb", *arguments])
    with pytest.raises(SystemExit) as info:
        run_command(Flags, lambda flags: 0, prog="verb")
    assert info.value.code == ExitCode.USAGE
    assert message in capsys.readouterr().err


def test_configuration_needs_no_torch():
    code = "import sys, bench.config; print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(("given", "found"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_threads_of_a_command_do_not_spin_for_long(given, found):
    code = "from bench.config.cli import prepare_process; prepare_process(); import torch"
    left = {key: value for key, value in os.environ.items() if key != "GOMP_SPINCOUNT"}
    environment = {**left, **given, "OMP_DISPLAY_ENV": "verbose"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, cwd=ROOT, check=True, env=environment,
    )  # fmt: skip
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("torch has another OpenMP than GNU's here")
    assert f"GOMP_SPINCOUNT = '{found}'" in done.stderr
