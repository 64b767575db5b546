"""Memory that is freed stays with the process, or leaves it, as it is told."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")

FAULTS = """
import resource
import torch
from bench.config.allocator import keep_freed_memory
if {told}:
    assert keep_freed_memory()
faults = []
for _ in range(8):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(12_000_000) for _ in range(4)]
    del blocks
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(faults[1:]))  # a system short of memory may take pages away in some round
"""
RESIDENT = """
import psutil
import torch
from bench.config.allocator import return_freed_memory
if {told}:
    assert return_freed_memory()
torch.ones(1)
before = psutil.Process().memory_info().rss
for _ in range(3):
    blocks = [torch.ones(5_000_000) for _ in range(2)]
    between = torch.ones(10)  # on a heap, keeps what lies below it from being given back
    del blocks
print(psutil.Process().memory_info().rss - before)
"""


def run(code: str, told: bool) -> int:
    command = [sys.executable, "-c", code.format(told=told)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_later_rounds_fault_in_no_new_pages():
    assert run(FAULTS, True) < 0.5 * run(FAULTS, False)


def test_what_is_freed_is_not_resident():
    assert run(RESIDENT, True) < 2 * 2**20  # one block alone is 19 MiB
