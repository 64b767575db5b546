"""One training run at several extents, as users run it."""

from __future__ import annotations

import pytest

from bench.config import ExitCode, UsageError
from bench.records import RunFolder
from protocols import resolution_transfer

SMALL = ("patch=32", "sampler.tile=32", "evaluation.convention=none")


def flags(data, **changes):
    common = {"dataset": str(data), "sensor": "QB", "preset": "smoke", "quiet": True}
    common["override"] = SMALL
    return resolution_transfer.Flags(**{**common, **changes})


def rows_of(home):
    return RunFolder(home / "runs" / "resolution_transfer" / "toy-smoke").latest()


def test_one_training_serves_every_extent_and_variant(data, home, capsys):
    few = ("backbone.width=8", "backbone.modes=4")
    given = flags(data, extent=(32, 64, 128), override=(*SMALL, *few))
    assert resolution_transfer.STUDY.run(given) == ExitCode.OK
    said = capsys.readouterr().out
    assert "fno at 64 pixels, PSNR against whole at 32 on the same images of 64: whole" in said
    assert "The highest mean is that of" in said
    assert len([p for p in (home / "runs" / "checkpoints").iterdir() if p.is_dir()]) == 1
    rows = rows_of(home)
    got = {
        (r.config["extent"], r.config["variant"]): r
        for r in rows if r.metric == "PSNR" and r.status == "ok" and r.method != "exp"
    }  # fmt: skip
    assert set(got) == {(e, v) for e in (32, 64) for v in ("whole", "scaled", "tiled")}
    # At the extent of training all three are one thing; beyond it none is another.
    assert len({r.value for (extent, _), r in got.items() if extent == 32}) == 1
    assert len({r.value for (extent, _), r in got.items() if extent == 64}) == 3
    assert {r.config["ground"] for r in got.values()} == {64} == {r.size for r in got.values()}
    lost = [r for r in rows if r.status == "skip"]
    assert len(lost) == 3 and {r.reason for r in lost} == {
        "toy has no test image of 128 x 128 pixels"
    }
    flops = {
        (r.config["extent"], r.config["variant"]): r.value
        for r in rows if r.metric == "flops_image"
    }  # fmt: skip
    assert flops[64, "scaled"] > flops[64, "whole"] and flops[64, "tiled"] > flops[64, "whole"]


def test_a_backbone_without_modes_skips_scaled_in_a_word(data, home):
    given = flags(data, backbone=("conv_unet",), extent=(64,), variant=("whole", "scaled"))
    assert resolution_transfer.STUDY.run(given) == ExitCode.OK
    by = {r.config.get("variant"): r for r in rows_of(home) if r.metric == "PSNR"}
    assert by["whole"].status == "ok"
    assert (by["scaled"].status, by["scaled"].reason) == (
        "skip", "it offers no for_extent: no modes that could be scaled",
    )  # fmt: skip


def test_an_extent_that_is_no_multiple_of_the_patch_is_refused(data):
    with pytest.raises(UsageError, match=r"--extent 48: expected a multiple of the patch, 32"):
        resolution_transfer.STUDY.run(flags(data, extent=(48,)))
