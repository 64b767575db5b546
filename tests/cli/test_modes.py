"""Sweeps of learning rates, and of ratio and patch, as users run them."""

from __future__ import annotations

import pytest

from backbones import UnknownNameError
from bench.config import ExitCode, UsageError, experiment_preset
from bench.config.tuned import own_rates, read_rates
from bench.records import RunFolder
from protocols import modes_explained, tune

SMALL = ("sampler.tile=32", "patch=32", "evaluation.convention=none")


def flags(data, of, **changes):
    common = {"dataset": str(data), "sensor": "QB", "preset": "smoke", "override": SMALL}
    return of.Flags(**{**common, "quiet": True, **changes})


def test_a_sweep_leaves_rates_that_presets_of_its_scale_take(data, home, capsys):
    given = flags(data, tune, backbone=("fno", "conv_unet"), rates=(1e-3, 1e30))
    assert tune.STUDY.run(given) == ExitCode.SOME_FAILED  # 1e30 diverges
    said = capsys.readouterr()
    assert "failed" in said.out and str(own_rates()) in said.err
    assert read_rates(own_rates()) == {"tiny": {"fno": 1e-3, "conv_unet": 1e-3}}
    rows = RunFolder(home / "runs" / "tune" / "toy-smoke").latest()
    losses = [row for row in rows if row.metric == "validation_loss"]
    assert {(row.backbone, row.seed) for row in losses} == {("fno", 1000), ("conv_unet", 1000)}
    assert {row.config["stage1"]["steps"] for row in losses} == {3}
    good = [row for row in rows if row.status == "ok"]  # test images play no part
    assert {row.kind for row in good} == {"training", "cost"}


def test_rates_of_a_backbone_with_options_are_shown_and_not_kept(data, capsys):
    given = flags(data, tune, backbone=("fno",), rates=(1e-3,),
                  override=(*SMALL, "backbone.modes=4"))  # fmt: skip
    assert tune.STUDY.run(given) == ExitCode.OK
    assert "not kept" in capsys.readouterr().err
    assert not own_rates().exists()


def test_the_pass_band_decides_what_is_tried(data, home, capsys):
    given = flags(data, modes_explained, beside=(), patch=(32, 16),
                  override=(*SMALL, "backbone.width=8", "stage1.batch=2"))  # fmt: skip
    assert modes_explained.STUDY.run(given) == ExitCode.OK
    assert "pass band" in capsys.readouterr().out
    rows = RunFolder(home / "runs" / "modes_explained" / "toy-smoke").latest()
    tried = {(r.config["patch"], r.config["backbone"]["modes"]) for r in rows}
    assert tried == {(32, 2), (32, 4), (32, 6), (32, 8), (32, 16), (16, 1), (16, 2), (16, 3),
                     (16, 4), (16, 8)}  # fmt: skip
    # Equal pixels a step; tiles as large as patches; equal steps and rates.
    assert {(r.config["patch"], r.config["stage1"]["batch"]) for r in rows} == {(32, 2), (16, 8)}
    assert {r.config["sampler"]["tile"] - r.config["patch"] for r in rows} == {0}
    assert len({r.config["stage1"]["learning_rate"] for r in rows}) == 1


def test_what_cannot_be_is_refused(data, home):
    with pytest.raises(UsageError, match=r"--patch 128: a step would hold more pixels"):
        modes_explained.STUDY.run(flags(data, modes_explained, patch=(128,), beside=()))
    with pytest.raises(UnknownNameError, match="did you mean 'fno'"):
        tune.STUDY.run(flags(data, tune, backbone=("fnoo",)))
    assert experiment_preset("smoke").stage1.learning_rate == 4e-3
    assert not home.exists()
