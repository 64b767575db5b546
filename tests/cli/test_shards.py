"""A grid in shards, merged, is the grid."""

from __future__ import annotations

import pytest

from bench import merge, report
from bench.config import ExitCode, UsageError
from bench.evaluate import STUDY, Flags
from bench.records import RunFolder

METHODS = ("exp", "gsa", "bt_h", "mtf_glp_fs", "bdsd_pc")


def run(data, out, shard=None) -> ExitCode:
    return STUDY.run(Flags(dataset=str(data), sensor="QB", preset="smoke", method=METHODS,
                           convention="none", out=out, quiet=True, shard=shard))  # fmt: skip


def numbers(out) -> dict:
    return {(row.method, row.metric, row.split): row.samples for row in RunFolder(out).rows()
            if row.kind == "accuracy"}  # fmt: skip


def test_shards_merged_are_the_whole_grid(data, tmp_path, capsys):
    assert run(data, tmp_path / "whole") == ExitCode.OK
    for shard in ("1/2", "2/2"):
        assert run(data, tmp_path / "grid", shard) == ExitCode.OK
    parts = [tmp_path / "grid" / f"shard-{i}-of-2" for i in (1, 2)]
    cells = [{row.cell_id for row in RunFolder(part).rows()} for part in parts]
    assert sorted(map(len, cells)) == [2, 3] and not cells[0] & cells[1]
    capsys.readouterr()
    assert merge.main(merge.Flags(tmp_path / "grid", tuple(parts))) == ExitCode.OK
    assert ": 2 folders, 5 cells" in capsys.readouterr().out
    assert numbers(tmp_path / "grid") == numbers(tmp_path / "whole")
    assert report.main(report.Flags((tmp_path / "grid",), tmp_path / "report")) == ExitCode.OK
    shown = capsys.readouterr().out
    assert all(method in shown for method in METHODS)
    # The same command without a shard finds all of it done.
    rows = (tmp_path / "grid" / "rows.jsonl").read_bytes()
    assert run(data, tmp_path / "grid") == ExitCode.OK
    assert (tmp_path / "grid" / "rows.jsonl").read_bytes() == rows


def test_a_shard_without_cells_is_fine_and_one_that_is_none_is_not(data, tmp_path):
    assert run(data, tmp_path / "grid", "9/9") == ExitCode.OK
    assert not (tmp_path / "grid").exists()
    with pytest.raises(UsageError, match=r"--shard 3/2: expected i/n with .*, e\.g\. 2/2"):
        run(data, tmp_path / "grid", "3/2")
    with pytest.raises(UsageError, match="no run folder"):
        merge.main(merge.Flags(tmp_path / "grid", ()))
