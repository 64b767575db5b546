"""Fixtures of the commands: a small data set, and a home of each test's own to leave results in."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli import toy


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return toy.write(tmp_path_factory.mktemp("toy") / "toy")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """No test writes into the runs folder of whoever runs the tests."""
    monkeypatch.setenv("NODIFF_BENCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
