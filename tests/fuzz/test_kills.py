"""A short part of the torture: one trial of every fault on the small grid."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "kills.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of another process are Linux's")
def test_after_any_end_the_same_command_comes_to_the_same():
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--trials", "6", "--seed", "1"],
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    results = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert len(results) == 6, done.stderr
    assert [result for result in results if result["outcome"] != "the same"] == []
