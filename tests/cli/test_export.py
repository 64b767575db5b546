"""The export verb: two graphs of a trained denoiser, their sizes, and requests that cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bench.config import ExitCode, MissingError, UsageError
from bench.export import Flags, main
from bench.train import STUDY as TRAIN
from bench.train import Flags as TrainFlags
from tests.cli import toy

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a tiny FNO, trained in one stage."""
    folder = tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NODIFF_BENCH_HOME", str(folder / "home"))
        data = toy.write(folder / "toy")
        flags = {"dataset": str(data), "sensor": "QB", "preset": "smoke", "scheme": "one_stage"}
        assert TRAIN.run(TrainFlags(**flags, override=toy.TINY, quiet=True)) == ExitCode.OK
    (weights,) = (folder / "home" / "runs" / "checkpoints").glob("*/weights.safetensors")
    return weights


def export(capsys, **flags):
    capsys.readouterr()
    assert main(Flags(**flags, json=True)) == ExitCode.OK
    return {one["what"]: one for one in json.loads(capsys.readouterr().out)}


def test_step_and_sampler_lie_beside_the_weights_and_agree(trained, capsys):
    found = export(capsys, checkpoint=trained, steps=2, batch=2)
    assert {Path(one["path"]) for one in found.values()} == {
        trained.with_name("step.onnx"), trained.with_name("sampler.onnx"),
    }  # fmt: skip
    assert found["step"]["inputs"] == {
        "x": [2, 4, 32, 32], "time": [2], "pan": [2, 1, 32, 32], "lms": [2, 4, 32, 32],
    }  # fmt: skip
    assert found["sampler"]["inputs"]["noise"] == [1, 2, 4, 32, 32]
    for one in found.values():
        assert one["sizes"].startswith("32 x 32 pixels only: its layers are built for one size")
        assert 0 <= one["difference"] < 1e-5


def test_the_graph_is_the_trained_network_at_a_size_asked_for(trained, tmp_path, capsys):
    from bench.fusion.exported import load_onnx
    from bench.recipes import load_trained

    found = export(capsys, checkpoint=trained.parent, what=("step",), size=40, out=tmp_path,
                   fixed=True)  # fmt: skip
    x, time, pan = torch.randn(1, 4, 40, 40), torch.tensor([0.7]), torch.rand(1, 1, 40, 40)
    lms = torch.rand(1, 4, 40, 40)
    with torch.no_grad():
        expected = load_trained(trained.parent).network(x, time, torch.cat([lms, pan], 1))
    out = load_onnx(Path(found["step"]["path"]))(x, time, pan, lms)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    assert main(Flags(checkpoint=trained, what=("step",), size=40, out=tmp_path, fixed=True)) == 0
    assert "sizes: 40 x 40 pixels only: asked for at one size" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"size": 4}, r"size = 4: backbone 'fno'.* needs at least 8 pixels"),
        ({"batch": 0}, "--batch = 0: expected at least 1"),
        ({"steps": 10_000}, "--steps = 10000: expected at most"),
        ({"what": ()}, "--what needs a value"),
    ],
)
def test_what_cannot_be_is_one_line(trained, flags, message, tmp_path):
    with pytest.raises(UsageError, match=message) as info:
        main(Flags(checkpoint=trained, out=tmp_path, **flags))
    assert "\n" not in str(info.value) and not list(tmp_path.iterdir())


def test_a_folder_without_weights(tmp_path):
    with pytest.raises(MissingError, match="expected the folder of a trained network"):
        main(Flags(checkpoint=tmp_path))
