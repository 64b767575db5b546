"""The evaluate verb: methods, trained denoisers and images fused elsewhere, as users run it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from bench.config import ExitCode, MissingError, UsageError
from bench.evaluate import STUDY, Flags
from bench.fusion import FUSION_METHODS
from bench.prepare import Flags as PrepareFlags
from bench.prepare import main as prepare
from bench.recipes.fused import method_options
from bench.records import RunFolder
from bench.records.metric_specs import FULL_RESOLUTION, REDUCED_RESOLUTION

ROOT = Path(__file__).parents[2]
PEAK = 2047
TINY = ("patch=32", "sampler.tile=32", "backbone.modes=4")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data set of 4 bands with some 64 x 64 test images of counts up to 2047."""
    folder = tmp_path_factory.mktemp("evaluate")
    grain = np.random.default_rng(0)
    pan = np.kron(grain.integers(0, 1500, (80, 80)), np.ones((8, 8))) + grain.normal(
        250, 9, (640,) * 2
    )
    ms = pan.reshape(160, 4, 160, 4).mean((1, 3)) * np.array([1.0, 0.9, 0.8, 0.5])[:, None, None]
    with h5py.File(folder / "scene.h5", "w") as file:
        file["ms"], file["pan"] = ms.clip(0, PEAK).round(), pan.clip(0, PEAK).round()
    sizes = {"patch": 32, "stride": 16, "test_size": 64, "margin": 0}
    shares = {"valid_share": 0.25, "test_share": 0.45}
    out = folder / "data"
    flags = PrepareFlags(ms=(folder / "scene.h5",), out=out, sensor="QB", **sizes, **shares)
    assert prepare(flags) == ExitCode.OK
    return out


def evaluate(data, capsys, **flags):
    """Return (exit code, rows by method, split and metric)."""
    capsys.readouterr()
    common = {"dataset": str(data), "convention": "none", "json": True}
    code = STUDY.run(Flags(**{**common, **flags}))
    rows = json.loads(capsys.readouterr().out)
    return code, {(row["method"], row["split"], row["metric"]): row for row in rows}


def read(data, split, key):
    with h5py.File(data / f"test_{split}.h5") as file:
        return file[key][:].astype(np.float64)


@pytest.mark.parametrize("module", [False, True])
def test_table_and_rows_from_the_command_line(data, tmp_path, module):
    start = ["-m", "bench.evaluate"] if module else [str(ROOT / "bench" / "evaluate.py")]
    flags = ["--method", "exp", "bt_[h]", "--dataset", data, "--convention", "none"]
    done = subprocess.run(
        [sys.executable, *start, *map(str, flags), "--out", str(tmp_path / "out")],
        cwd=ROOT if module else tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "Accuracy on data" in done.stdout and "95% confidence intervals" in done.stdout
    assert "| exp |" in done.stdout and "| bt_h |" in done.stdout
    rows = [row for row in RunFolder(tmp_path / "out").rows() if row.kind == "accuracy"]
    assert len(rows) == 2 * (12 + 3)
    known = {spec.name: spec.unit for spec in (*REDUCED_RESOLUTION, *FULL_RESOLUTION)}
    for row in rows:
        assert len(row.samples) == len(read(data, row.split, "pan"))
        assert row.ci_low <= row.value <= row.ci_high and row.ci_level == 0.95
        assert row.unit == known[row.metric] and row.config["evaluation"]["convention"] == "none"
    assert (tmp_path / "out" / "samples.csv").is_file()


def test_interpolation_has_the_error_of_the_files_own_lms(data, capsys):
    _, rows = evaluate(data, capsys, method=("exp",))
    gt, lms = read(data, "reduced", "gt"), read(data, "reduced", "lms")
    mse = ((gt - lms) ** 2).mean((2, 3))
    expected = (10 * np.log10(PEAK**2 / mse)).mean(1)
    np.testing.assert_allclose(rows["exp", "reduced", "PSNR"]["samples"], expected, rtol=1e-5)


def test_pancollection_files_say_their_sensor_by_name_alone(data, tmp_path, capsys):
    for split, name in {"reduced": "multiExm1", "full": "OrigScale_multiExm1"}.items():
        with h5py.File(tmp_path / f"test_qb_{name}.h5", "w") as file:
            for key in ("gt", "ms", "lms", "pan") if split == "reduced" else ("ms", "lms", "pan"):
                file[key] = read(data, split, key)
    with pytest.raises(UsageError, match="--sensor GF2 contradicts"):
        evaluate(tmp_path, capsys, method=("exp",), sensor="GF2")
    _, theirs = evaluate(tmp_path, capsys, method=("exp",))
    _, ours = evaluate(data, capsys, method=("exp",))
    for key in (("exp", "reduced", "Q2n"), ("exp", "full", "HQNR")):
        assert theirs[key]["samples"] == ours[key]["samples"]


def test_finished_cells_are_not_run_again(data, tmp_path, capsys):
    out = tmp_path / "out"
    evaluate(data, capsys, method=("exp",), out=out)
    before = (out / "rows.jsonl").read_bytes()
    evaluate(data, capsys, method=("exp",), out=out)
    assert (out / "rows.jsonl").read_bytes() == before
    evaluate(data, capsys, method=("exp",), out=out, images=1)
    assert (out / "rows.jsonl").read_bytes() != before


def test_first_images(data, capsys):
    _, every = evaluate(data, capsys, method=("gsa",))
    _, one = evaluate(data, capsys, method=("gsa",), images=1)
    key = ("gsa", "reduced", "SAM")
    assert one[key]["samples"] == every[key]["samples"][:1] and one[key]["ci_low"] is None


@pytest.mark.parametrize("scale", ["counts", "unit"])
def test_the_reference_itself_is_ideal(data, tmp_path, capsys, scale):
    gt = read(data, "reduced", "gt").astype(np.float32)
    for index, image in enumerate(gt / np.float32(PEAK) if scale == "unit" else gt):
        np.save(tmp_path / f"image{index}.npy", image)
    code, rows = evaluate(data, capsys, fused=tmp_path, name="theirs", scale=scale)
    ideal = {"PSNR": "inf", "SAM": 0, "ERGAS": 0, "Q2n": 1, "SCC": 1, "SSIM": 1}
    values = {metric: rows["theirs", "reduced", metric]["value"] for metric in ideal}
    assert code == ExitCode.OK and values.pop("PSNR") == "inf"
    assert values == pytest.approx({k: v for k, v in ideal.items() if k != "PSNR"}, abs=1e-6)


def test_images_fused_elsewhere_score_as_the_method_here(data, tmp_path, capsys):
    np.save(tmp_path / "lms.npy", read(data, "full", "lms"))
    flags = {"fused": tmp_path / "lms.npy", "split": "full", "method": ("exp",)}
    _, rows = evaluate(data, capsys, **flags)
    assert rows["lms", "full", "HQNR"]["samples"] == rows["exp", "full", "HQNR"]["samples"]
    assert ("lms", "reduced", "PSNR") not in rows


def test_refusals(data, tmp_path, capsys):
    def refused(match, error=UsageError, **flags):
        with pytest.raises(error, match=match):
            evaluate(data, capsys, **flags)

    gt = read(data, "reduced", "gt")
    np.save(tmp_path / "few.npy", gt[:-1])
    np.save(tmp_path / "unit.npy", gt / PEAK)
    np.save(tmp_path / "counts.npy", gt)
    refused("nothing to evaluate: give --method .*bt_h")
    refused("did you mean 'bt_h'", ValueError, method=("bth",))
    refused("did you mean 'dlpan'", ValueError, method=("exp",), convention="dplan")
    refused("images = 0", method=("exp",), images=0)
    refused(f"{len(gt) - 1} images; the reduced test set", fused=tmp_path / "few.npy")
    refused("scale='counts'.* did you mean scale='unit'", fused=tmp_path / "unit.npy")
    refused("did you mean scale='counts'", fused=tmp_path / "counts.npy", scale="unit")
    refused("is a method of this tool", fused=tmp_path / "counts.npy", name="gsa")
    refused("no file or folder", MissingError, fused=tmp_path / "none")


def test_a_method_that_breaks_down_is_a_row(data, capsys, monkeypatch):
    class Broken(FUSION_METHODS.get("exp")):
        def _fuse(self, scene):
            return scene.lms / (scene.ms.shape[-1] == 0)

    monkeypatch.setitem(FUSION_METHODS._targets, "broken", Broken)
    code, rows = evaluate(data, capsys, method=("broken", "exp"))
    row = rows["broken", "reduced", "PSNR"]
    assert code == ExitCode.SOME_FAILED and row["status"] == "diverged" and row["value"] is None
    assert "not finite" in row["reason"] and row["unit"] == "dB"
    assert rows["exp", "reduced", "PSNR"]["status"] == "ok"


def test_lrtcfpan_takes_the_parameters_of_each_split():
    assert method_options("lrtcfpan", "full") == {"regime": "full"}
    assert method_options("lrtcfpan", "reduced", {"max_iterations": 3}) == {
        "regime": "reduced",
        "max_iterations": 3,
    }
    assert method_options("exp", "full") == {}


def test_a_denoiser_is_trained_once_and_measured(data, home, capsys):
    flags = {"backbone": ("fno",), "preset": "smoke", "override": TINY, "quiet": True}
    code, rows = evaluate(data, capsys, **flags, method=("exp",), images=1)
    assert code == ExitCode.OK
    parts = {row["method"] for row in rows.values() if row["kind"] == "contribution"}
    assert {row["method"] for row in rows.values()} - parts == {"exp", "nodiff"}
    assert len(parts) == 5 and len(rows["no_detail", "reduced", "PSNR"]["samples"]) == 1
    assert len(rows["nodiff", "full", "HQNR"]["samples"]) == 1
    weights = sorted((home / "runs" / "checkpoints").glob("*/weights.safetensors"))
    stamps = [path.stat().st_mtime_ns for path in weights]
    assert len(weights) == 2  # stage I and II
    _, again = evaluate(data, capsys, **flags, images=1, force=True)
    assert [path.stat().st_mtime_ns for path in weights] == stamps
    key = ("nodiff", "reduced", "PSNR")
    assert again[key]["samples"] == rows[key]["samples"]


def test_a_black_image_costs_no_method_the_values_of_the_others(data, tmp_path, capsys):
    folder = tmp_path / "black"
    folder.mkdir()
    for path in data.glob("*.h5"):
        with h5py.File(path) as old, h5py.File(folder / path.name, "w") as new:
            for name in ("gt", "ms", "lms", "pan"):
                if name in old:
                    images = old[name][:]
                    if "test_reduced" in path.name:
                        images[1] = 0
                    new[name] = images
    methods = ("exp", "gsa", "bdsd_pc", "mtf_glp_fs")
    _, before = evaluate(data, capsys, method=methods)
    code, rows = evaluate(folder, capsys, method=methods, sensor="QB")
    assert code == ExitCode.OK
    for method in methods:
        for metric in ("PSNR", "SAM", "Q2n"):
            found = rows[method, "reduced", metric]["samples"]
            expected = before[method, "reduced", metric]["samples"]
            assert found[:1] + found[2:] == expected[:1] + expected[2:], (method, metric)
