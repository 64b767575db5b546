"""Pytest's flag ``--backbone-module``: the contract suite over a user's backbones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from backbones import list_backbones, load_backbone_module
from backbones.registry import BACKBONES

if TYPE_CHECKING:
    import torch
    from _pytest.mark import ParameterSet

_SUITE = Path(__file__).with_name("suite.py")
_names: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("nodiff-bench")
    group.addoption(
        "--backbone-module",
        action="append",
        default=[],
        metavar="FILE",
        help="run the contract over the backbones of this file or package (repeatable)",
    )
    group.addoption("--device", default="cpu", help="device of the contract tests (default: cpu)")


def pytest_configure(config: pytest.Config) -> None:
    sources = config.getoption("--backbone-module")
    _names.clear()
    for source in sources:
        try:
            _names.extend(load_backbone_module(source))
        except (OSError, ValueError, ImportError) as error:
            raise pytest.UsageError(str(error)) from error
    if sources and config.args_source is not config.ArgsSource.ARGS:
        config.args[:] = [str(_SUITE)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backbone_name" in metafunc.fixturenames:
        metafunc.parametrize(
            "backbone_name", [_parameter(name) for name in _names or list_backbones()]
        )


def _parameter(name: str) -> ParameterSet:
    """A backbone's name; its tests are skipped where the package it needs is not installed."""
    why = BACKBONES.missing(name)
    return pytest.param(name, marks=pytest.mark.skip(reason=why) if why else ())


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """The device of the flags; tests are skipped where it is not there."""
    import torch

    device = torch.device(request.config.getoption("--device"))
    if device.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return device
