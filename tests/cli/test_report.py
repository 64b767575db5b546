"""The report verb, as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.records import Row, RunFolder

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
