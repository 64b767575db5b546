"""The compare verb, as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.records import Row, RunFolder

ROOT = Path(__file__).parents[2]


def write(path, shift=0.0, cpu="Xeon", version=1, images=8, seeds=(0, 1, 2, 3, 4)):
    folder = RunFolder(path)
    run_id = folder.begin(["bench/evaluate.py"], {}, {"cpu": cpu, "cores": 2}, {}, None)
    common = {"run_id": run_id, "protocol": "evaluate", "protocol_version": version}
    common |= {"method": "nodiff", "backbone": "fno", "dataset": "WV3"}
    values = [30.0 + 2 * (i % 3) + shift + 0.01 * i for i in range(images)]
    timings = [10.0 + shift + 0.1 * i for i in range(11)]
    psnr = {"metric": "PSNR", "unit": "dB", "direction": "higher", "split": "reduced"}
    time = {"metric": "latency_forward", "unit": "ms", "direction": "lower", "size": 64}
    same = {"network": {"width": 8}}
    for seed in seeds:
        cell = common | {"cell_id": f"c{seed}", "seed": seed}
        of_seed = [v + 0.1 * (seed % 2) + 0.02 * shift * (seed - 2) for v in values]
        mean = sum(of_seed) / images
        folder.append([Row(**cell, **psnr, kind="accuracy", value=mean, samples=of_seed)], same)
    cell = common | {"cell_id": "c", "kind": "cost", "value": sorted(timings)[5]}
    folder.append([Row(**cell, **time, samples=timings)], same)
    folder.end(run_id, "ok")
    return folder.path


def compare(*arguments):
    command = [sys.executable, str(ROOT / "bench" / "compare.py"), *map(str, arguments)]
    return subprocess.run(command, cwd="/", capture_output=True, text=True)


def test_tells_a_difference_of_several_runs(tmp_path):
    a, b = write(tmp_path / "a"), write(tmp_path / "b", shift=0.5)
    done = compare(a, b, "--json")
    assert done.returncode == 0, done.stderr
    [line] = json.loads(done.stdout)
    assert line["metric"] == "PSNR" and line["verdict"] == "better"
    assert line["difference"] == pytest.approx(0.5)
    assert (line["seeds_a"], line["areas"], len(line["by_seed"])) == (5, 8, 5)


def test_one_run_of_each_is_no_verdict(tmp_path):
    a, b = write(tmp_path / "a", seeds=[0]), write(tmp_path / "b", shift=0.5, seeds=[0])
    done = compare(a, b)
    assert done.returncode == 0 and "one seed: no verdict" in done.stdout


def test_sees_none_where_there_is_none_and_writes_the_table(tmp_path):
    a, b = write(tmp_path / "a"), write(tmp_path / "b")
    done = compare(a, b, "--out", tmp_path / "out")
    assert done.returncode == 0 and "no difference larger than 0 dB" in done.stdout
    assert (tmp_path / "out" / "comparison.csv").is_file()


def test_cost_within_one_class_of_machine_only(tmp_path):
    a, b = write(tmp_path / "a"), write(tmp_path / "b", shift=10.0)
    done = compare(a, b, "--kind", "cost", "--json")
    assert json.loads(done.stdout)[0]["verdict"] == "worse"
    other = compare(a, write(tmp_path / "c", cpu="EPYC"), "--kind", "cost")
    assert other.returncode == 2 and "EPYC x2 and Xeon x2" in other.stderr
    assert other.stdout == ""


def test_refusals_are_bad_usage_and_missing_folders_are_missing(tmp_path):
    a = write(tmp_path / "a")
    newer = compare(a, write(tmp_path / "b", version=2))
    assert newer.returncode == 2 and "protocol versions" in newer.stderr
    assert compare(a, tmp_path / "none").returncode == 3
    typo = compare(a, a, "--where-b", "metod=nodiff")
    assert typo.returncode == 2 and "did you mean 'method'" in typo.stderr


def variants(path, *modes, backbone="fno", version=1):
    """Write a folder of nodiff and pseudo_sr rows at several modes, with a shift each."""
    folder = RunFolder(path)
    run_id = folder.begin(["bench/evaluate.py"], {}, {"cpu": "Xeon", "cores": 2}, {}, None)
    for place, count in enumerate(modes):
        values = [30.0 + 2 * (i % 3) + count / 10 + 0.01 * i for i in range(8)]
        common = {"run_id": run_id, "protocol": "evaluate", "kind": "accuracy", "unit": "dB"}
        common |= {"metric": "PSNR", "direction": "higher", "split": "reduced", "dataset": "WV3"}
        common |= {"backbone": backbone, "backbone_version": version, "cell_id": f"{place}"}
        config = {"backbone": {"modes": count}, "sampler": {"steps": 10}, "stage1": {"steps": 5}}
        folder.append(
            [Row(**common, method=m, value=1.0, samples=values) for m in ("nodiff", "pseudo_sr")],
            config,
        )
    folder.end(run_id, "ok")
    return folder.path


def lines_of(done):
    return [(line["a"], line["b"]) for line in json.loads(done.stdout)]


def test_variants_are_matched_within_their_method_and_named_by_what_differs(tmp_path):
    a, b = variants(tmp_path / "a", 12), variants(tmp_path / "b", 8)
    done = compare(a, b, "--json")
    assert done.returncode == 0, done.stderr
    assert lines_of(done) == [
        ("nodiff, fno, modes = 12", "nodiff, fno, modes = 8"),
        ("pseudo_sr, fno, modes = 12", "pseudo_sr, fno, modes = 8"),
    ]
    other = compare(a, variants(tmp_path / "c", 12, backbone="unet"), "--json")
    assert lines_of(other) == [
        ("nodiff, fno", "nodiff, unet"),
        ("pseudo_sr, fno", "pseudo_sr, unet"),
    ]
    version = compare(a, variants(tmp_path / "d", 12, version=2), "--json")
    assert lines_of(version)[0] == (
        "nodiff, fno, backbone_version = 1", "nodiff, fno, backbone_version = 2",
    )  # fmt: skip


def test_what_is_left_over_is_listed_and_the_rest_is_compared(tmp_path):
    a, b = variants(tmp_path / "a", 8, 12), variants(tmp_path / "b", 12, 16, 32)
    done = compare(a, b, "--json")
    assert done.returncode == 1
    assert lines_of(done)[0] == ("nodiff, fno, modes = 12",) * 2
    for line in ("modes = 8, only in A: PSNR on WV3", "modes = 32, only in B: PSNR on WV3"):
        assert f"not compared: nodiff, fno, {line}" in done.stderr
        assert f"not compared: pseudo_sr, fno, {line}" in done.stderr


def test_conditions_name_settings_by_their_end(tmp_path):
    a = variants(tmp_path / "a", 8, 12)
    for name in ("modes", "backbone.modes", "config.backbone.modes"):
        done = compare(a, a, "--where-a", f"{name}=12", "--where-b", f"{name}=8", "--json")
        assert done.returncode == 0 and len(lines_of(done)) == 2, done.stderr
    unsure = compare(a, a, "--where-a", "steps=10")
    assert unsure.returncode == 2
    assert "ambiguous: sampler.steps, stage1.steps" in unsure.stderr
