"""The report verb, as a user runs it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.records import Row, RunFolder, View, write_view

ROOT = Path(__file__).parents[2]
CALLS = {
    "script": ([sys.executable, str(ROOT / "bench" / "report.py")], "/"),
    "module": ([sys.executable, "-m", "bench.report"], str(ROOT)),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = RunFolder(tmp_path_factory.mktemp("results") / "mine")
    run_id = folder.begin(["bench/evaluate.py"], {}, {"cpu": "Xeon", "cores": 2}, {}, None)
    folder.append(
        Row(
            run_id=run_id,
            cell_id=method,
            protocol="evaluate",
            kind="accuracy",
            method=method,
            dataset="WV3",
            split="reduced",
            metric="PSNR",
            value=value,
            unit="dB",
            direction="higher",
            n=3,
            samples=[value - 1, value, value + 1],
        )
        for method, value in (("exp", 25.0), ("bt_h", 30.0))
    )
    folder.end(run_id, "ok")
    return folder.path


def run(call, *arguments):
    command, folder = CALLS[call]
    return subprocess.run(
        [*command, *map(str, arguments)], cwd=folder, capture_output=True, text=True
    )


@pytest.mark.parametrize("call", CALLS)
def test_tables_on_standard_output_and_files_in_the_folder(call, results, tmp_path):
    done = run(call, results, "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    assert "| bt_h | – | **30.000 ± 1.000** |" in done.stdout
    assert done.stdout.splitlines()[-1] == str(tmp_path / "report" / "report.html")
    assert (tmp_path / "report" / "tables" / "evaluate-WV3.tex").is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals there")
@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_on_a_terminal_tables_fit_and_the_answer_is_last(width, results, tmp_path):
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    command, folder = CALLS["module"]
    with subprocess.Popen(
        [*command, str(results), "--out", "r"], cwd=tmp_path, stdin=theirs, stdout=theirs,
        stderr=subprocess.PIPE, env={**kept, "TERM": "xterm-256color", "PYTHONPATH": folder},
    ) as process:  # fmt: skip
        os.close(theirs)
        text = b""
        while part := _read(ours):
            text += part
    os.close(ours)
    assert process.returncode == 0
    assert b"\x1b[1m30.000 \xc2\xb1 1.000" in text
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text.decode()).splitlines()
    assert max(map(len, lines)) <= width and not any("|" in line for line in lines)
    page = lines.index("r/report.html")
    answer = " ".join(" ".join(lines[page + 1 :]).split())
    assert answer == "WV3 – Means of PSNR, best first: bt_h at 30.000 dB and exp at 25.000 dB."


def _read(end: int) -> bytes:
    try:
        return os.read(end, 1 << 16)
    except OSError:  # Linux says so that the other end is closed
        return b""


def test_what_reads_a_pipe_finds_markdown_the_answer_and_then_the_path(results, tmp_path):
    done = run("module", results, "--out", tmp_path)
    *_, answer, empty, path = done.stdout.splitlines()
    assert answer == "WV3 – Means of PSNR, best first: bt_h at 30.000 dB and exp at 25.000 dB."
    assert (empty, path) == ("", str(tmp_path / "report.html"))


def test_json_lists_the_files(results, tmp_path):
    done = run("module", results, "--out", tmp_path, "--json")
    paths = [Path(path) for path in json.loads(done.stdout)]
    assert all(path.is_file() for path in paths) and tmp_path / "rows.csv" in paths


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["/no/such/folder"], 3, "expected a folder that holds a rows.jsonl"),
        ([], 2, "no result folder named"),
        (["--outt", "x"], 2, "--out"),
    ],
)
def test_bad_usage_is_one_line_and_a_code(arguments, code, message):
    done = run("module", *arguments)
    assert done.returncode == code
    assert message in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("call", CALLS)
def test_help_needs_nothing_heavy(call):
    done = run(call, "--help")
    assert done.returncode == 0 and "Result folders" in done.stdout


def test_a_folder_is_shown_as_its_view_says_and_intervals_are_rebuilt(tmp_path):
    folder = RunFolder(tmp_path / "mine")
    run_id = folder.begin(["mine.py"], {}, {"cpu": "Xeon", "cores": 2}, {}, None)
    common = {"run_id": run_id, "protocol": "mine", "kind": "accuracy", "method": "m"}
    common |= {"dataset": "WV3", "split": "reduced", "metric": "PSNR", "unit": "dB", "n": 3}
    common |= {"ci_low": 29.0, "ci_high": 31.0, "ci_level": 0.95, "ci_method": "BCa"}
    for knob in (1, 2):
        row = Row(**common, cell_id=f"{knob}", value=30.0, samples=[29.0, 30.0, 31.0])
        folder.append([row], {"knob": {"turn": knob}})
    view = View("mine", "My study", axis="knob.turn", notes=("Mine.",), reference={"knob.turn": 1})
    write_view(view, folder.path)
    done = run("module", folder.path, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "**turn on WV3**" in done.stdout and "Mine." in done.stdout
    assert "**Differences to turn = 1 on WV3**" in done.stdout
    assert "| m | 2 | [29.000, 31.000] |" in done.stdout
    assert (tmp_path / "out" / "figures" / "mine-WV3.png").is_file()
    assert "<h1>My study</h1>" in (tmp_path / "out" / "report.html").read_text()
    (folder.path / "view-mine.json").write_text('{"study": "mine", "title": 3}')
    generic = run("module", folder.path, "--out", tmp_path / "out")
    assert generic.returncode == 0 and "**Accuracy on WV3**" in generic.stdout
    assert "shown in a generic way" in generic.stderr and "Traceback" not in generic.stderr


def test_a_view_that_names_an_unknown_block_is_bad_usage(results, tmp_path):
    view = View("evaluate", "E", blocks=("acuracy",))
    write_view(view, results)
    try:
        done = run("module", results, "--out", tmp_path)
    finally:
        (results / "view-evaluate.json").unlink()
    assert done.returncode == 2 and "did you mean 'accuracy'" in done.stderr
