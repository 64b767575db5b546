"""``torchrun``: two processes walk the path of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bench.config import ExitCode, UsageError
from bench.records import RunFolder
from bench.training import Batch
from bench.training.parallel import Ranks
from tests.cli import toy

ROOT = Path(__file__).parents[2]
STEPS = 25


def trained(data: Path, place: Path, *launcher: str) -> tuple[dict, dict, RunFolder]:
    call = [*launcher, str(ROOT / "bench" / "train.py"), "--dataset", str(data), "--sensor", "QB",
            "--preset", "smoke", "--seed", "0", "--scheme", "two_stage", "--device", "cpu", "--out",
            str(place / "out"), "--quiet", "--override", *toy.TINY, f"steps={STEPS}",
            "stage1.batch=4", "stage2.batch=4"]  # fmt: skip
    environment = {**os.environ, "NODIFF_BENCH_HOME": str(place / "home"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == ExitCode.OK, done.stderr
    assert done.stdout.count("weights.safetensors") == 1
    folders = sorted((place / "home" / "runs" / "checkpoints").glob("*/weights.safetensors"))
    weights = {path.parent.name: load_file(path) for path in folders}
    histories = {
        path.parent.name: json.loads((path.parent / "history.json").read_text()) for path in folders
    }
    return weights, histories, RunFolder(place / "out")


@pytest.mark.slow
def test_two_processes_have_the_loss_curve_and_the_weights_of_one(data, tmp_path):
    weights, histories, _ = trained(data, tmp_path / "one", sys.executable)
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone",
                "--nproc-per-node", "2")  # fmt: skip
    theirs, curves, folder = trained(data, tmp_path / "two", *torchrun)
    assert theirs.keys() == weights.keys() and len(weights) == 2
    for name, history in histories.items():
        for curve in ("loss", "validation"):
            ours = [value for _, value in history[curve]]
            assert [value for _, value in curves[name][curve]] == pytest.approx(ours, rel=2e-4)
        for key, value in weights[name].items():
            torch.testing.assert_close(theirs[name][key], value, rtol=1e-3, atol=2e-4)
    rows = folder.rows()
    assert len(folder.runs()) == 1 and len({row.cell_id for row in rows}) == 1
    assert {row.config["computed"]["processes"] for row in rows} == {2}


def test_parts_of_a_batch_are_the_batch():
    images = torch.arange(24.0).reshape(6, 1, 2, 2)
    batch = Batch(images, images, images)
    parts = [Ranks(rank, 3).part(batch) for rank in range(3)]
    assert torch.equal(torch.cat([part.gt for part in parts]), images)
    assert [part.to(torch.device("cpu")).of for part in parts] == [(0, 3), (1, 3), (2, 3)]
    with pytest.raises(UsageError, match="batch = 6: 4 processes need a multiple of 4"):
        Ranks(0, 4).part(batch)


def test_what_is_drawn_for_the_parts_is_what_is_drawn_for_the_whole():
    from bench.config import DiffusionConfig
    from bench.diffusion import Diffusion
    from bench.training import PlainObjective

    seen = []

    class Looking(torch.nn.Module):
        def forward(self, x, time, cond):
            seen.append((x, time))
            return x

    objective = PlainObjective(Diffusion(DiffusionConfig()), "reference")
    images = torch.rand(4, 3, 8, 8)
    whole = Batch(images, images / 2, images[:, :1])
    losses = [
        objective(Looking(), batch, torch.Generator().manual_seed(3)).item()
        for batch in (whole, whole.part(0, 2), whole.part(1, 2))
    ]
    for ours, *parts in zip(*seen, strict=True):
        assert torch.equal(ours, torch.cat(parts))
    assert losses[0] == pytest.approx(sum(losses[1:]) / 2, rel=1e-6)
