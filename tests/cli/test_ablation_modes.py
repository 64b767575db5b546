"""The mode ablation, as a user runs, interrupts and continues it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backbones import UnknownNameError
from bench.config import ExitCode, MissingError, UsageError
from bench.records import RunFolder
from protocols.ablation_modes import STUDY, Flags
from tests.cli import toy

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "protocols" / "ablation_modes.py"
TINY = tuple(word for word in toy.TINY if "modes" not in word)  # which it varies


def flags(data, **changes) -> Flags:
    common = {"dataset": str(data), "sensor": "QB", "preset": "smoke", "override": TINY}
    one = {"modes": (4, 6), "scheme": ("two_stage",), "quiet": True}
    return Flags(**{**common, **one, **changes})


def command(data, *arguments: object) -> list[str]:
    return [
        sys.executable, str(SCRIPT), "--dataset", str(data), "--sensor", "QB", "--preset", "smoke",
        "--scheme", "two_stage", *map(str, arguments),
    ]  # fmt: skip


def modes_of(row) -> int | None:
    return row.config.get("backbone", {}).get("modes")


def accuracy(folder) -> dict:
    return {
        (row.method, modes_of(row), row.split, row.metric): row.samples
        for row in RunFolder(folder).latest()
        if row.kind == "accuracy"
    }


def test_the_ablation_leaves_rows_tables_and_figures(data, home, capsys):
    assert STUDY.run(flags(data, scheme=("one_stage", "two_stage"))) == ExitCode.OK
    folder = home / "runs" / "ablation_modes" / "toy-smoke"
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == str(folder / "report.html")
    assert out.count("|") > 20
    rows = RunFolder(folder).latest()
    assert {row.status for row in rows} == {"ok"}
    values = accuracy(folder)
    for split, metric in (("reduced", "PSNR"), ("reduced", "Q2n"), ("full", "HQNR")):
        for method, modes in (
            ("exp", None), ("diffusion", 4), ("diffusion", 6), ("nodiff", 4), ("nodiff", 6),
        ):  # fmt: skip
            assert len(values[method, modes, split, metric]) == 2
    for metric in ("params", "flops_forward"):  # the sweep is not iso-parameter
        four, six = (
            next(r.value for r in rows if r.metric == metric and modes_of(r) == modes)
            for modes in (4, 6)
        )
        assert 0 < four < six
    features = [row.artefact for row in rows if row.metric == "features"]
    assert len(features) == 4 and all((folder / path).is_file() for path in features)
    of_schemes = [f"tables/ablation_modes-toy-{s}.md" for s in ("one_stage", "two_stage")]
    parts = "tables/ablation_modes-toy-two_stage-contributions.md"
    for produced in ("rows.csv", "report.html", *of_schemes, parts, "figures/*"):
        assert list(folder.glob(produced)), produced
    # Bare, stage I and II of both settings; and the same command again trains and measures nothing.
    assert len(list((home / "runs" / "checkpoints").glob("*/weights.safetensors"))) == 6
    before = (folder / "rows.jsonl").read_bytes()
    again = flags(data, scheme=("one_stage", "two_stage"), json=True)
    assert STUDY.run(again) == ExitCode.OK
    assert (folder / "rows.jsonl").read_bytes() == before
    printed = json.loads(capsys.readouterr().out)
    assert {row["cell_id"] for row in printed} == {row.cell_id for row in rows}


def test_same_command_same_values(data, tmp_path, monkeypatch, capsys):
    results = []
    for number in range(2):
        monkeypatch.setenv("NODIFF_BENCH_HOME", str(tmp_path / f"home{number}"))  # trained anew
        out = tmp_path / f"out{number}"
        assert STUDY.run(flags(data, modes=(4,), out=out)) == ExitCode.OK
        results.append(accuracy(out))
    assert results[0] == results[1] and results[0]


def test_another_config_in_the_same_folder_is_run_too(data, tmp_path, capsys):
    out = tmp_path / "out"
    assert STUDY.run(flags(data, modes=(4,), out=out)) == ExitCode.OK
    first = {row.cell_id for row in RunFolder(out).latest()}
    changed = flags(data, modes=(4,), out=out, override=(*TINY, "sampler.steps=1"))
    assert STUDY.run(changed) == ExitCode.OK
    rows = RunFolder(out).latest()
    assert len({row.cell_id for row in rows}) == len(first) + 1  # EXP is not run again
    runs = {row.run_id for row in rows if row.method == "exp"}
    assert len(runs) == 1


def test_a_failing_setting_is_a_row_and_the_others_go_on(data, tmp_path, capsys):
    out = tmp_path / "out"
    override = (*TINY, "stage1.learning_rate=1e30", "stage1.clip_norm=1e30", "steps=40")
    assert STUDY.run(flags(data, modes=(4,), out=out, override=override)) == ExitCode.SOME_FAILED
    statuses = {row.method: row.status for row in RunFolder(out).latest()}
    assert statuses == {"exp": "ok", "nodiff": "diverged"}
    assert "diverged" in capsys.readouterr().out


def wait_for_cells(folder: Path, count: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        finished = RunFolder(folder).finished()
        if len(finished) >= count:
            return
        time.sleep(0.02)
    raise AssertionError(process.communicate()[1])


def test_a_killed_and_an_interrupted_run_continue(data, tmp_path):
    out = tmp_path / "out"
    steps = ("steps=560", "prior_share=0.1")  # long enough to be hit in the middle
    call = command(data, "--modes", 4, 6, 8, "--out", out, "--quiet", "--override", *TINY, *steps)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    for cells, ending, code in ((2, signal.SIGKILL, -9), (3, signal.SIGINT, 130)):
        process = subprocess.Popen(call, **pipes)
        wait_for_cells(out, cells, process)
        process.send_signal(ending)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == code, stderr
        assert "Traceback" not in stderr
    assert "the same command continues" in stderr
    kept = {row.cell_id: row.run_id for row in RunFolder(out).latest()}
    done = subprocess.run(call, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = RunFolder(out).latest()
    assert {modes_of(row) for row in rows} == {None, 4, 6, 8}
    assert {row.cell_id: row.run_id for row in rows if row.cell_id in kept} == kept
    assert len(set(kept.values())) == 2
    statuses = [run["status"] for run in RunFolder(out).runs().values()]
    assert sorted(statuses) == ["interrupted", "ok", "running"]


def test_a_dry_run_trains_nothing(data, home, capsys):
    assert STUDY.run(flags(data, dry_run=True)) == ExitCode.OK
    out = capsys.readouterr().out
    assert out.count("to do") == 3
    assert not list(home.rglob("*"))


def test_the_list(capsys):
    assert STUDY.run(Flags(list=True)) == ExitCode.OK
    assert "attention_unet" in capsys.readouterr().out


def test_more_modes_than_half_the_patch_are_refused_in_one_line(data, home):
    done = subprocess.run(command(data, "--modes", 40), capture_output=True, text=True, timeout=60)
    assert done.returncode == ExitCode.USAGE and done.stdout == ""
    assert re.fullmatch(r"error: patch = 64: .*modes=40.* at least 80 pixels.*\n", done.stderr)
    assert not home.exists()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"modes": ()}, UsageError, "--modes"),
        ({"override": (*TINY, "stage1.batch=9")}, UsageError, "batch = 9: .* only 8 patches"),
        ({"override": (*TINY[1:], "patch=4096")}, UsageError, "patch = 4096: .* 32 pixels wide"),
        ({"modes": (0,)}, UsageError, "--modes = 0: expected at least 1"),
        ({"jobs": 0}, UsageError, "--jobs = 0: expected at least 1"),
        ({"modes": (17,)}, UsageError, "patch = 32: .*modes=17.* at least 34 pixels"),
        ({"backbone": ("fnoo",)}, UnknownNameError, "'fnoo' - did you mean 'fno'"),
        ({"backbone": ("conv_unet",), "override": ()}, UsageError, "'conv_unet' 'modes'"),
        ({"override": ("step=3",)}, UsageError, "did you mean 'steps'"),
        ({"device": "cuda:77"}, MissingError, "cuda:77"),
        ({"backbone_module": ("none.py",)}, MissingError, "no backbone module at none.py"),
        ({"dataset": "nowhere"}, MissingError, "'nowhere' does not exist"),
    ],
)
def test_bad_usage_ends_before_anything_is_done(changes, error, message, data, home):
    with pytest.raises(error, match=message):
        STUDY.run(flags(data, **changes))
    assert not home.exists()
