"""Options and fixtures of the whole test suite."""

from __future__ import annotations

import shutil

import pytest
import torch

from backbones import list_backbones, load_backbone_module
from backbones.registry import BACKBONES


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("nodiff-bench")
    group.addoption(
        "--backbone-module",
        action="append",
        default=[],
        metavar="FILE",
        help="run the contract tests over the backbones this file registers, too (repeatable)",
    )
    group.addoption("--device", default="cpu", help="device of the contract tests (default: cpu)")


def pytest_configure(config: pytest.Config) -> None:
    for path in config.getoption("--backbone-module"):
        try:
            load_backbone_module(path)
        except (FileNotFoundError, ValueError) as error:
            raise pytest.UsageError(str(error)) from error


def installed_backbones() -> list:
    """Registered backbones as parameters; those whose extra is not installed are skipped."""
    return [
        pytest.param(name, marks=pytest.mark.skip(reason=why) if why else ())
        for name in list_backbones()
        for why in [BACKBONES.missing(name)]
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backbone_name" in metafunc.fixturenames:
        metafunc.parametrize("backbone_name", installed_backbones())


@pytest.fixture(scope="session")
def compiler() -> None:
    """Skip what torch.compile cannot do on this machine."""
    if not any(map(shutil.which, ("g++", "clang++"))):
        pytest.skip("torch.compile needs a C++ compiler")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    device = torch.device(request.config.getoption("--device"))
    if device.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return device
