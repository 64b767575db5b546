"""The scenes protocol: scenes of two sizes, from disk to disk, by interpolation and a denoiser."""

from __future__ import annotations

import pytest

from bench.config import ExitCode
from bench.records import RunFolder
from protocols import scenes
from protocols.scenes import STUDY, Flags


@pytest.mark.slow
def test_scenes_have_rows_a_figure_and_are_not_measured_twice(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(scenes, "LARGEST_SAMPLED", 64)
    out = tmp_path / "out"
    flags = Flags(preset="smoke", size=(64, 128), out=out, quiet=True)
    assert STUDY.run(flags) == ExitCode.OK
    rows = RunFolder(out).latest()
    measured = {(row.method, row.backbone, row.size, row.metric) for row in rows}
    assert measured == {
        (*who, metric)
        for who in (("exp", None, 64), ("exp", None, 128), ("nodiff", "fno", 64))
        for metric in ("mem_peak_scene", "latency_scene")
    }
    assert all(row.status == "ok" and row.value > 0 for row in rows if row.unit == "s")
    assert (out / "figures" / "scenes-cost-scaling.png").exists()
    assert "Peak memory, scene" in capsys.readouterr().out

    assert STUDY.run(flags) == ExitCode.OK
    assert len(RunFolder(out).rows()) == len(rows)


def test_sizes_are_the_presets_or_those_asked_for(tmp_path, capsys):
    for preset, count in (("smoke", 4), ("laptop", 8)):
        flags = Flags(preset=preset, out=tmp_path, dry_run=True, quiet=True)
        assert STUDY.run(flags) == ExitCode.OK
        assert capsys.readouterr().out.count("a scene of") == count
