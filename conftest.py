"""Gives pytest the flags of the contract suite in a clone that is not installed, too."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.import_plugin("bench.contract.plugin")  # nothing, where it is registered
