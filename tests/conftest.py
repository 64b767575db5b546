"""Fixtures of the whole test suite."""

from __future__ import annotations

import shutil

import pytest


@pytest.fixture(scope="session")
def compiler() -> None:
    """Skip what torch.compile cannot do on this machine."""
    if not any(map(shutil.which, ("g++", "clang++"))):
        pytest.skip("torch.compile needs a C++ compiler")
