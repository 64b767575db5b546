"""The contract as tests: one for every check and backbone.

    pytest --backbone-module my_net.py
    pytest tests/contract

A user's backbones run alone; without the flag, every registered one does. Each runs at its scale
``tiny``, at its defaults where it has none.
"""

from __future__ import annotations

import pytest
import torch

from bench.contract.checks import ADVICE, CHECKS, Check, ContractError
from bench.contract.probes import Subject

__all__ = ["test_advice", "test_contract"]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(backbone_name: str, check: Check, device: torch.device) -> None:
    check(Subject.smallest(backbone_name, device))


@pytest.mark.parametrize("check", ADVICE, ids=lambda check: check.__name__)
def test_advice(backbone_name: str, check: Check, device: torch.device) -> None:
    try:
        check(Subject.smallest(backbone_name, device))
    except ContractError as error:
        pytest.xfail(f"advice: {error}")
