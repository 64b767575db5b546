"""my_net against the contract: pytest test_my_net.py"""

from pathlib import Path

import pytest

from backbones import load_backbone_module
from bench.contract.checks import ADVICE, CHECKS
from bench.contract.probes import Subject

load_backbone_module(Path(__file__).with_name("my_net.py"))


@pytest.mark.parametrize("check", [*CHECKS, *ADVICE], ids=lambda check: check.__name__)
def test_contract(check):
    check(Subject.smallest("my_net"))
