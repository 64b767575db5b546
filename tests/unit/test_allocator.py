"""Memory that is freed stays with the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

COUNT = """
import resource
import torch
from bench.config.allocator import keep_freed_memory
if {keep}:
    assert keep_freed_memory()
faults = []
for _ in range(8):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(12_000_000) for _ in range(4)]
    del blocks
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(faults[1:]))  # a system short of memory may take pages away in some round
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_later_rounds_fault_in_no_new_pages():
    def faults(keep: bool) -> int:
        run = [sys.executable, "-c", COUNT.format(keep=keep)]
        return int(subprocess.run(run, check=True, capture_output=True, text=True).stdout)

    assert faults(keep=True) < 0.5 * faults(keep=False)
