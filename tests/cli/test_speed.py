"""The speed protocol: every comparison once, at its smallest."""

from __future__ import annotations

import sys

import pytest

from bench.config import ExitCode
from bench.records import RunFolder
from bench.running import Desk
from protocols.speed import STUDY, Flags, comparisons


def test_every_comparison_has_rows_of_all_its_competitors(tmp_path, capsys):
    pytest.importorskip("neuralop")
    flags = Flags(preset="smoke", rounds=2, out=tmp_path, quiet=True)
    assert STUDY.run(flags) == ExitCode.OK
    rows = RunFolder(tmp_path).latest()
    timed = {row.method for row in rows if row.metric == "latency_call" and len(row.samples) == 2}
    expected = {name for one in comparisons(flags, Desk(flags, "speed")) for name in one.build}
    assert timed == expected
    assert all(row.value > 0 for row in rows)
    printed = capsys.readouterr().out
    assert "Spectral convolution, forward and backward" in printed
    assert "Sampled image" in printed

    count = len(rows)
    assert STUDY.run(flags) == ExitCode.OK  # nothing left to do
    assert len(RunFolder(tmp_path).latest()) == count


def test_without_the_peer_the_rest_is_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "neuralop.layers.spectral_convolution", None)
    assert STUDY.run(Flags(preset="smoke", rounds=1, out=tmp_path, quiet=True)) == ExitCode.OK
    rows = RunFolder(tmp_path).latest()
    skipped = [row for row in rows if row.status == "skip"]
    assert {row.method for row in skipped} == {"neuraloperator"}
    assert "pip install neuraloperator" in skipped[0].reason
    assert {row.method for row in rows if row.metric == "latency_call"} > {"ours", "dft"}
