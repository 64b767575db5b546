"""Grids of cells: what is redone, what stands, what a failure leaves; and trainings shared."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from backbones.registry import BACKBONES
from bench.cells.accuracy import accuracy_cell
from bench.cells.conditions import At
from bench.cells.works import WORKS, Entrant, build_work, flops_per_image
from bench.config import (
    CommonFlags,
    ExitCode,
    MissingError,
    UsageError,
    apply_overrides,
    experiment_preset,
)
from bench.config.progress import Progress
from bench.data import load_dataset
from bench.fusion.diffusion import DiffusionFusion
from bench.measure import count_flops
from bench.recipes import ClassicalRecipe, DiffusionRecipe, base, train_recipe
from bench.records import RunFolder, View
from bench.running import Cell, Desk, load_backbone_modules, resolve_device
from bench.running.choices import print_choices
from bench.running.engine import run_cells
from bench.running.presenting import present
from bench.running.study import Study, _jobs
from bench.training import Checkpoint, DivergedError

TINY = ("backbone.width=8", "backbone.layers=2", "backbone.modes=4", "patch=32",
        "sampler.tile=32", "steps=6")  # fmt: skip
CPU = torch.device("cpu")


def tiny(*overrides: str, backbone: str = "fno"):
    base = experiment_preset("smoke", backbone)
    ours = TINY if backbone == "fno" else TINY[3:]
    return apply_overrides(base, [*ours, *overrides])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Images of 4 bands in PanCollection's format, far smaller than any real ones."""
    folder = tmp_path_factory.mktemp("toy")
    rng = np.random.default_rng(0)
    for name, count, side in (("train", 8, 32), ("valid", 4, 32), ("test_reduced", 2, 64)):
        coarse = rng.uniform(200, 1500, (count, 4, side // 2, side // 2))
        gt = np.kron(coarse, np.ones((2, 2)))
        ms = gt.reshape(count, 4, side // 4, 4, side // 4, 4).mean(axis=(3, 5))
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["gt"], file["ms"] = gt, ms
            file["lms"] = np.kron(ms, np.ones((4, 4)))
            file["pan"] = gt.mean(axis=1, keepdims=True)
    return load_dataset(folder, sensor="QB")


def place_at(folder, device=CPU):
    """Where networks are trained."""
    return SimpleNamespace(
        checkpoints=folder,
        device=device,
        progress=Progress(quiet=True),
        report=lambda *_: None,
        alone=False,
        flags=CommonFlags(),
    )


@pytest.fixture
def workspace(tmp_path):
    return place_at(tmp_path / "checkpoints")


def recipe_of(config, bands=4) -> DiffusionRecipe:
    return DiffusionRecipe(config, bands)


def train_experiment(config, dataset, place):
    return train_recipe(recipe_of(config), dataset, place)


def diffusion_cell(config, dataset, place):
    return accuracy_cell(recipe_of(config), dataset, place, config.evaluation)


def method_cell(name, dataset, place, evaluation):
    return accuracy_cell(ClassicalRecipe(name, 4), dataset, place, evaluation)


def identity_of(config, stage, data):
    return {one.name: one.identity for one in recipe_of(config).stages(data)}[stage]


# Running cells


def make_cell(name: str, outcome=1.0, calls=None) -> Cell:
    def execute(context):
        if calls is not None:
            calls.append(name)
        if isinstance(outcome, BaseException):
            raise outcome
        return [context.row(metric="PSNR", value=outcome, unit="dB", direction="higher")]

    return Cell(name, {"cell": name}, {"method": name}, execute)


def run(cells, folder, **options):
    return run_cells(cells, folder, protocol="toy", version=3, config={"n": 1.0}, **options)


def statuses(folder) -> dict[str, str]:
    return {row.method: row.status for row in RunFolder(folder).latest()}


def test_rows_say_what_and_run_files_say_how(tmp_path):
    assert run([make_cell("a", 30.0)], tmp_path) == ExitCode.OK
    (row,) = RunFolder(tmp_path).latest()
    assert (row.method, row.value, row.protocol, row.protocol_version) == ("a", 30.0, "toy", 3)
    assert row.cell_id == make_cell("a").cell_id
    assert row.wall_s >= 0 and row.started_at
    record = RunFolder(tmp_path).runs()[row.run_id]
    assert (record["status"], record["config"]) == ("ok", {"n": 1})
    assert record["versions"]["torch"] == torch.__version__


def test_finished_cells_are_not_redone(tmp_path):
    calls = []
    names = ["a", "b", "a"]  # the same cell twice is one cell
    assert run([make_cell(n, calls=calls) for n in names], tmp_path) == ExitCode.OK
    assert run([make_cell(n, calls=calls) for n in "abc"], tmp_path) == ExitCode.OK
    assert calls == ["a", "b", "c"]
    assert run([make_cell(n, calls=calls) for n in "abc"], tmp_path) == ExitCode.OK
    assert calls == ["a", "b", "c"] and len(RunFolder(tmp_path).runs()) == 2
    assert run([make_cell("a", 7.0, calls)], tmp_path, force=True) == ExitCode.OK
    assert calls == ["a", "b", "c", "a"]
    assert {row.method: row.value for row in RunFolder(tmp_path).latest()}["a"] == 7.0


@pytest.mark.parametrize(
    ("failure", "status", "reason", "stands"),
    [
        (ValueError("two\nlines"), "error", "ValueError: two", False),
        (UsageError("patch = 3"), "error", "patch = 3", False),
        (DivergedError("loss nan at step 20"), "diverged", "loss nan at step 20", True),
        (torch.OutOfMemoryError("CUDA out of memory"), "oom", "CUDA out of memory", True),
        (MemoryError("no room"), "oom", "no room", True),
        (ImportError("a.so: failed to map segment"), "oom", "a.so: failed to map segment", True),
        (ImportError("no module"), "error", "ImportError: no module", False),
        (RuntimeError(), "error", "RuntimeError: RuntimeError", False),
    ],
)
def test_a_failure_is_a_row_and_the_rest_goes_on(failure, status, reason, stands, tmp_path):
    calls = []
    cells = [make_cell("bad", failure, calls), make_cell("good", calls=calls)]
    assert run(cells, tmp_path) == ExitCode.SOME_FAILED
    assert statuses(tmp_path) == {"bad": status, "good": "ok"}
    (row,) = (row for row in RunFolder(tmp_path).latest() if row.method == "bad")
    assert (row.reason, row.metric, row.value) == (reason, None, None)
    # The same command again: what may be cured is tried again, what stands is not.
    assert run(cells, tmp_path) == ExitCode.SOME_FAILED
    assert calls == ["bad", "good"] + ([] if stands else ["bad"])
    assert run([cells[1]], tmp_path) == ExitCode.OK
    assert run([make_cell("bad", 2.0)], tmp_path, force=stands) == ExitCode.OK
    assert statuses(tmp_path)["bad"] == "ok"


def test_an_interrupt_keeps_what_is_done_and_the_next_run_continues(tmp_path):
    calls = []
    cells = [make_cell("a", calls=calls), make_cell("b", KeyboardInterrupt(), calls)]
    with pytest.raises(KeyboardInterrupt):
        run(cells, tmp_path)
    assert statuses(tmp_path) == {"a": "ok"}
    (record,) = RunFolder(tmp_path).runs().values()
    assert record["status"] == "interrupted"
    assert run([cells[0], make_cell("b", calls=calls)], tmp_path) == ExitCode.OK
    assert calls == ["a", "b", "b"]


@pytest.mark.parametrize("finished", [True, False])
def test_a_cell_another_process_holds_is_looked_at_again(finished, tmp_path, caplog):
    """It is waited for, in words, and done where the other one did not do it."""
    calls = []
    cells = [make_cell("a", calls=calls), make_cell("b", calls=calls)]
    holding, waiting = threading.Event(), threading.Event()

    def other():
        folder = RunFolder(tmp_path)
        with folder.claim(cells[0].cell_id):
            holding.set()
            waiting.wait(10)
            if finished:
                context = cells[0].context(tmp_path, "other", "toy", 3)
                folder.append(cells[0].execute(context))

    class Waits(logging.Handler):
        def emit(self, record):
            if "waiting for another process to finish: a" in record.getMessage():
                waiting.set()

    log = logging.getLogger("bench.running.engine")
    handler = Waits()
    log.addHandler(handler)
    thread = threading.Thread(target=other)
    thread.start()
    holding.wait(10)
    try:
        with caplog.at_level(logging.INFO):
            assert run(cells, tmp_path) == ExitCode.OK
    finally:
        log.removeHandler(handler)
        thread.join()
    assert waiting.is_set() and calls[0] == "b" and calls.count("a") == 1
    assert {row.method: row.run_id == "other" for row in RunFolder(tmp_path).latest()} == {
        "a": finished,
        "b": False,
    }


def test_a_folder_without_rows_yet_is_no_error(tmp_path, capsys):
    present(tmp_path, {"cell"}, View("toy", "Toy"))
    assert capsys.readouterr().out.strip() == str(tmp_path / "report.html")


def test_what_measures_time_is_alone(tmp_path):
    """Neither other cells of the folder nor another timing of the machine run beside it."""
    begun, go_on = threading.Event(), threading.Event()
    spans = {}

    def execute(name, context):
        start = time.monotonic()
        if name == "work":
            begun.set()
            go_on.wait(10)
        time.sleep(0.2)
        spans[name] = (start, time.monotonic())
        return [context.row(metric="PSNR", value=1.0)]

    def cell(name, company):
        one = Cell(name, {"cell": name}, {"method": name}, partial(execute, name), company=company)
        return threading.Thread(target=run, args=([one], tmp_path / ("b" if name == "c" else "a")))

    threads = [cell("work", "any"), cell("a", "none"), cell("c", "none")]
    threads[0].start()
    begun.wait(10)
    for thread in threads[1:]:
        thread.start()
    time.sleep(0.5)
    assert "a" not in spans
    go_on.set()
    for thread in threads:
        thread.join()
    assert spans["a"][0] >= spans["work"][1]
    first, second = sorted([spans["a"], spans["c"]])
    assert first[1] <= second[0]


def test_retraining_forgets_first_and_a_lost_result_is_made_again(tmp_path):
    calls, there = [], True
    cell = replace(
        make_cell("a", calls=calls), forget=lambda: calls.append("forgotten"), stands=lambda: there
    )
    assert run([cell], tmp_path) == ExitCode.OK and calls == ["a"]
    assert run([cell], tmp_path, force=True) == ExitCode.OK and calls == ["a", "a"]
    assert run([cell], tmp_path, retrain=True) == ExitCode.OK
    assert calls == ["a", "a", "forgotten", "a"]
    there = False
    run([cell], tmp_path)
    assert calls[-1] == "a" and len(calls) == 5


def test_a_dry_run_shows_the_cells_and_leaves_nothing(tmp_path, capsys):
    calls, folder = [], tmp_path / "run"
    done = make_cell("cell done", calls=calls)
    cells = [done, replace(make_cell("cell to do", calls=calls), estimate=lambda: 600.0)]
    assert run(cells, folder, dry_run=True) == ExitCode.OK
    assert not folder.exists() and calls == []
    assert capsys.readouterr().out.count("to do") >= 2
    run([done], folder)
    before = sorted(p.name for p in folder.iterdir())
    capsys.readouterr()
    assert run(cells, folder, dry_run=True) == ExitCode.OK
    out = capsys.readouterr().out
    assert "10 min" in out and cells[0].cell_id in out and "done" in out
    assert sorted(p.name for p in folder.iterdir()) == before and calls == ["cell done"]


# What a cell is


def test_the_identity_of_a_cell_holds_what_changes_its_rows(dataset, workspace, tmp_path):
    def cell_id(*overrides, place=workspace, **fields):
        return diffusion_cell(replace(tiny(*overrides), **fields), dataset, place).cell_id

    base = cell_id()
    assert cell_id(place=place_at(tmp_path / "other", torch.device("meta"))) == base
    assert cell_id("sampler.batch=1") == base
    assert cell_id("backbone.form=auto") == base
    changed = {
        cell_id(change)
        for change in (
            "sampler.steps=3", "sampler.kind=ddpm", "sampler.tile=none", "sampler.clip=false",
            "evaluation.images=1", "steps=7", "backbone.modes=5", "adapters.alpha=2",
        )
    } | {cell_id(seed=1), base}  # fmt: skip
    assert len(changed) == 10
    evaluation = tiny().evaluation
    ids = {method_cell(name, dataset, workspace, evaluation).cell_id for name in ("exp", "gsa")}
    assert len(ids) == 2


def test_options_left_alone_and_defaults_written_out_are_one_training(dataset, monkeypatch):
    def identity(*overrides):
        config = apply_overrides(experiment_preset("paper"), overrides)
        return identity_of(config, "stage2", dataset.fingerprint)

    base = identity()
    assert identity("backbone.modes=12", "backbone.layers=8") == base
    assert identity("backbone.modes=8") != base
    monkeypatch.setattr(BACKBONES.get("fno"), "version", 1000)
    assert identity() != base


# From flags to experiments


def test_flags_become_experiments():
    flags = CommonFlags(
        backbone=("fno", "conv*"), preset="smoke", seed=(3, 4), override=("patch=32",)
    )
    configs = Desk(flags, "toy").experiments()
    assert [(c.backbone, c.seed) for c in configs] == [
        (name, seed) for name in ("fno", "conv_unet", "convnext") for seed in (3, 4)
    ]
    assert all(c.patch == 32 for c in configs)
    several = Desk(CommonFlags(preset="workstation"), "toy")
    assert [len(several.experiments(scheme=s)) for s in ("one_stage", "two_stage")] == [5, 3]
    assert recipe_of(configs[2]).options.multipliers == (1, 2)


def test_trainings_of_small_networks_share_the_cores_of_a_cpu(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    memory = SimpleNamespace(available=100 * 2**30)
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)

    def jobs(trains=True, preset="laptop", device="cpu", cells=9):
        study = Study("s", 1, "t", CommonFlags, lambda *_: [], trains=trains)
        place = SimpleNamespace(device=torch.device(device))
        return _jobs(study, CommonFlags(preset=preset), place, cells)

    assert jobs() == 3
    assert jobs(cells=2) == 2
    assert jobs(trains=False) == jobs(preset="smoke") == jobs(device="cuda") == 1
    memory.available = 7 * 2**30
    assert jobs() == 2
    memory.available = 0
    assert jobs() == 1


def test_devices():
    assert resolve_device("cpu") == CPU
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(MissingError, match="cuda:99"):
        resolve_device("cuda:99")
    for name in ("gpu", "mps", "meta", "cuda:x"):
        with pytest.raises(UsageError, match=f"'{name}': expected"):
            resolve_device(name)


@pytest.mark.parametrize(
    ("backbone", "overrides", "message"),
    [
        ("fno", ["backbone.modes=40", "patch=64"], "patch = 64: .*modes=40.* at least 80 pixels"),
        ("fno", ["backbone.modes=16", "sampler.tile=24"], "sampler.tile = 24: .* at least 32"),
        ("conv_unet", ["patch=33"], "patch = 33: .*multiples of 2"),
        ("fno", ["backbone.mode=4"], "option of backbone 'fno' 'mode' - did you mean 'modes'"),
        ("fno", ["backbone.layers=0"], "layers must be at least 1, got 0"),
        ("fno", ["backbone.modes=many"], "backbone 'fno'"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_does(backbone, overrides, message):
    config = tiny(*overrides, backbone=backbone)
    with pytest.raises(UsageError, match=message) as info:
        recipe_of(config).check()
    assert "\n" not in str(info.value)


def test_sizes_are_checked_too():
    recipe_of(tiny()).check([8, 64])
    with pytest.raises(UsageError, match=r"size = 6: .* at least 8"):
        recipe_of(tiny()).check([64, 6])


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    monkeypatch.setattr(BACKBONES, "_targets", dict(BACKBONES._targets))
    path = tmp_path / "mine.py"
    path.write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from backbones import register_backbone\n"
        "from backbones.fno import FNO, FNOConfig\n"
        "@dataclass(frozen=True)\n"
        "class Config(FNOConfig):\n"
        "    width: int = 4\n"
        "    layers: int = 1\n"
        "    modes: int = 4\n"
        "@register_backbone('mine')\n"
        "class Mine(FNO):\n"
        "    Config = Config\n"
    )
    return path


def test_a_users_backbone_runs_as_any_other(user_module, capsys):
    modules = (str(user_module),)
    flags = CommonFlags(backbone=("mine",), preset="smoke", backbone_module=modules, list=True)
    (config,) = Desk(flags, "toy").experiments()
    recipe_of(config).check()
    entrant = Entrant(config, 4, modules)
    build_work(**entrant.arguments("denoise_step", At(16, 1, CPU))).step()
    load_backbone_modules([user_module])  # once more changes nothing
    user_module.write_text(user_module.read_text() + "# edited\n")
    with pytest.raises(UsageError, match="'mine' is already registered"):
        load_backbone_modules([user_module])


def test_a_users_file_that_is_not_there_or_registers_nothing(tmp_path):
    with pytest.raises(MissingError, match=r"none\.py"):
        load_backbone_modules([tmp_path / "none.py"])
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(UsageError, match="registers no backbone"):
        load_backbone_modules([tmp_path / "empty.py"])


@pytest.mark.parametrize("as_json", [False, True])
def test_the_list_of_what_can_be_named(as_json, user_module, capsys):
    print_choices(CommonFlags(json=as_json, backbone_module=(str(user_module),)))
    out = capsys.readouterr().out
    for name in ("mine", "attention_unet", "bdsd_pc", "sample-8", "laptop"):
        assert name in out
    if as_json:
        assert json.loads(out)["backbones"] == BACKBONES.names()


# Training


def trained_folders(workspace) -> set[str]:
    return {p.parent.name for p in workspace.checkpoints.glob("*/weights.safetensors")}


def state(trained):
    return {name: value.clone() for name, value in trained.network.state_dict().items()}


def equal(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def test_equal_configs_train_once_and_stage_one_is_shared(dataset, workspace, monkeypatch):
    first = train_experiment(tiny(), dataset, workspace)
    assert len(trained_folders(workspace)) == 2
    assert first.histories.keys() == {"stage1", "stage2"} and first.seconds > 0
    assert not first.network.training
    prior = identity_of(tiny(), "stage1", dataset.fingerprint)
    stored = load_file(Checkpoint(workspace.checkpoints, prior).folder / "weights.safetensors")
    assert equal(first.network.backbone.state_dict(), stored)
    second = train_experiment(tiny("adapters.rank=3"), dataset, workspace)
    assert len(trained_folders(workspace)) == 3
    assert equal(first.network.backbone.state_dict(), second.network.backbone.state_dict())

    def never(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr(base, "train", never)
    again = train_experiment(tiny("sampler.steps=9", "backbone.form=auto"), dataset, workspace)
    assert equal(state(again), state(first))
    assert again.histories == first.histories


@pytest.mark.parametrize("scheme", ["two_stage", "joint", "one_stage", "refine"])
def test_same_seed_same_weights_wherever_it_runs(scheme, dataset, tmp_path):
    results = []
    for number, seed in enumerate((0, 0, 1)):
        torch.manual_seed(number)
        place = place_at(tmp_path / str(number))
        config = replace(tiny(f"scheme={scheme}"), seed=seed)
        results.append(state(train_experiment(config, dataset, place)))
    assert equal(results[0], results[1])
    assert not equal(results[0], results[2])


def test_schemes_train_what_they_say(dataset, workspace, monkeypatch):
    seen = []
    real = base.train

    def spy(network, objective, batches, config, *, steps, **options):
        bare = getattr(network, "backbone", network)
        seen.append((type(network).__name__, bare.cond_channels, steps,
                     any(p.requires_grad for p in bare.parameters())))  # fmt: skip
        return real(network, objective, batches, config, steps=steps, **options)

    monkeypatch.setattr(base, "train", spy)
    for scheme in ("two_stage", "joint", "one_stage"):
        train_experiment(tiny(f"scheme={scheme}", "steps=5", "prior_share=0.6"), dataset, workspace)
    assert seen == [
        ("FNO", 4, 3, True),
        ("AdaptedDenoiser", 4, 2, False),
        ("AdaptedDenoiser", 4, 5, True),
        ("FNO", 5, 5, True),
    ]


def test_parts_start_alike_whatever_is_beside_them():
    """U is paired across modes and backbones; joint training and stage I begin at one point."""

    def initial(*overrides, backbone="fno", seed=0):
        config = replace(tiny(*overrides, backbone=backbone), seed=seed)
        return [stage.build(None).state_dict() for stage in recipe_of(config).stages("d")]

    def of(part, state):
        return {k.removeprefix(part): v for k, v in state.items() if k.startswith(part)}

    prior, adapted = initial()
    for other in (initial("backbone.modes=5"), initial("adapters.rank=3"),
                  initial(backbone="conv_unet")):  # fmt: skip
        assert equal(of("predictor.", adapted), of("predictor.", other[-1]))
    assert equal(of("guidance.", adapted), of("guidance.", initial("backbone.modes=5")[-1]))
    assert equal(prior, of("backbone.", adapted))
    (joint,) = initial("scheme=joint")
    assert equal(joint, adapted)
    assert not equal(adapted, initial(seed=1)[-1])
    assert not equal(prior, initial("backbone.modes=5")[0])


def test_every_backbone_sees_the_same_data_and_noise(dataset, workspace, monkeypatch):
    seen = {}

    def spy(network, objective, batches, config, *, seed, **options):
        seen.setdefault(type(network).__name__, []).append((seed, batches(5).gt))
        raise KeyboardInterrupt

    monkeypatch.setattr(base, "train", spy)
    for backbone in ("fno", "conv_unet", "convnext"):
        with pytest.raises(KeyboardInterrupt):
            train_experiment(tiny(backbone=backbone), dataset, workspace)
    (first, *others) = (entries[0] for entries in seen.values())
    assert len(others) == 2
    assert all(seed == first[0] and torch.equal(gt, first[1]) for seed, gt in others)


def test_a_kill_between_the_stages_keeps_stage_one(dataset, workspace, monkeypatch):
    real, stages = base.train, []

    def killed(*args, name, **options):
        stages.append(name.split()[-1])
        if stages == ["stage1", "stage2"]:
            raise KeyboardInterrupt
        return real(*args, name=name, **options)

    monkeypatch.setattr(base, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        train_experiment(tiny(), dataset, workspace)
    train_experiment(tiny(), dataset, workspace)
    assert stages == ["stage1", "stage2", "stage2"]


def test_an_experiment_becomes_rows(dataset, workspace, tmp_path):
    """The whole of a cell, twice into different folders: equal values, image by image."""
    config = tiny("sampler.steps=2", "evaluation.convention=none")
    values = []
    for number in range(2):
        place = place_at(tmp_path / f"checkpoints{number}")
        cells = [
            method_cell("exp", dataset, place, config.evaluation),
            diffusion_cell(config, dataset, place),
        ]
        assert run(cells, tmp_path / f"run{number}") == ExitCode.OK
        rows = RunFolder(tmp_path / f"run{number}").latest()
        values.append(
            {
                (r.kind, r.method, r.metric): r.samples
                for r in rows
                if r.kind in ("accuracy", "contribution") and r.samples
            }
        )
        for row in rows:
            assert row.status == "ok"
            if row.artefact:
                assert (tmp_path / f"run{number}" / row.artefact).is_file()
    assert values[0] == values[1]
    whole = {
        ("accuracy", method, metric) for method in ("exp", "nodiff") for metric in ("PSNR", "Q2n")
    }
    assert whole <= set(values[0])
    parts = {(method, metric) for kind, method, metric in values[0] if kind == "contribution"}
    names = ("interpolation", "pseudo_sr", "one_step", "prior_shown_reference", "no_detail")
    assert parts == {(name, metric) for name in names for metric in ("PSNR", "SAM", "ERGAS")}
    assert {method for kind, method, _ in values[0] if kind == "accuracy"} == {"exp", "nodiff"}
    # Clipped or not, interpolation is the method of that name.
    interpolation = values[0]["contribution", "interpolation", "PSNR"]
    assert interpolation == values[0]["accuracy", "exp", "PSNR"]
    assert all(len(samples) == 2 for samples in values[0].values())
    assert all(math.isfinite(x) for x in values[0]["accuracy", "nodiff", "PSNR"])


def test_a_part_that_fails_costs_nothing_else(dataset, workspace, tmp_path, monkeypatch):
    def broken(*_args, **_options):
        raise ValueError("no prior today")

    monkeypatch.setattr(DiffusionFusion, "restore", broken)
    config = tiny("sampler.steps=2", "evaluation.convention=none")
    assert run([diffusion_cell(config, dataset, workspace)], tmp_path / "run") == (
        ExitCode.SOME_FAILED
    )
    rows = [row for row in RunFolder(tmp_path / "run").latest() if row.metric == "PSNR"]
    failed = [row for row in rows if row.status != "ok"]
    assert [(row.method, row.kind, row.status) for row in failed] == [
        ("prior_shown_reference", "contribution", "error")
    ]
    assert {"nodiff", "no_detail"} <= {row.method for row in rows if row.value is not None}


@pytest.mark.parametrize("how", ["scheme=one_stage", "adapters.guidance=False"])
def test_features_are_kept_without_guidance(how, dataset, workspace, tmp_path):
    config = tiny(how, "sampler.steps=2", "evaluation.convention=none")
    assert run([diffusion_cell(config, dataset, workspace)], tmp_path / "run") == ExitCode.OK
    [row] = [row for row in RunFolder(tmp_path / "run").latest() if row.metric == "features"]
    with np.load(tmp_path / "run" / row.artefact) as arrays:
        assert list(arrays) == ["layer0", "layer1"]
        assert all(arrays[name].shape == (8, 32, 32) for name in arrays)


def test_a_diverged_training_is_a_row(dataset, workspace, tmp_path):
    cell = diffusion_cell(tiny("stage1.learning_rate=1e30", "stage1.clip_norm=1e30",
                               "steps=20"), dataset, workspace)  # fmt: skip
    assert run([cell], tmp_path / "run") == ExitCode.SOME_FAILED
    assert statuses(tmp_path / "run") == {"nodiff": "diverged"}


# Works


@pytest.mark.parametrize("work", WORKS)
def test_workloads_do_one_iteration(work):
    workload = build_work(**Entrant(tiny(), 4).arguments(work, At(32, 2, CPU)))
    before = {k: v.clone() for k, v in workload.module.state_dict().items()}
    workload.step()
    moved = not equal(before, workload.module.state_dict())
    trains = work in ("train_step", "adapt_step")
    assert moved is trains
    assert (workload.optimizer is not None) is trains


def test_flops_of_an_image_grow_with_steps_and_tiles():
    def flops(*overrides, size=64):
        return flops_per_image(recipe_of(tiny(*overrides)), size).canonical

    one, two, three = (flops(f"sampler.steps={n}") for n in (1, 2, 3))
    assert three - two == two - one > 0
    # Four disjoint tiles of 32 are four images of 32, the predictor being linear in pixels.
    tiles = flops("sampler.overlap=0")
    assert tiles == pytest.approx(4 * flops("sampler.overlap=0", size=32), rel=2e-3)
    network = recipe_of(tiny()).network()
    once = count_flops(
        network.predictor, torch.zeros(1, 1, 64, 64), torch.zeros(1, 4, 64, 64)
    ).canonical
    times = count_flops(network.time_part, torch.full((1,), 0.5)).canonical
    once += tiny().sampler.steps * times  # tabulated for all tiles together
    overlapping = flops("sampler.overlap=16")  # nine tiles, and the predictor on the whole image
    assert overlapping - once == pytest.approx(9 / 4 * (tiles - once), rel=1e-9)


def test_networks_of_the_stages():
    assert type(recipe_of(tiny()).backbone()).__name__ == "FNO"
    assert recipe_of(tiny("scheme=one_stage")).network().cond_channels == 5
    assert recipe_of(tiny()).network().backbone.cond_channels == 4
    assert recipe_of(tiny("scheme=joint")).network().frozen is False


def test_what_a_run_tried_to_no_avail_is_not_tried_again_by_it(tmp_path):
    """Neither by another job of it nor by the command that started the jobs; by the next one."""
    from bench.running.engine import _Run

    calls = []
    cell = make_cell("a", ValueError("no"), calls)
    jobs = [_Run(tmp_path, "toy", 1, False, "run") for _ in range(2)]
    for job in jobs:
        job.all([cell])
    assert calls == ["a"]
    assert run([cell], tmp_path) == ExitCode.SOME_FAILED and calls == ["a", "a"]


def test_what_is_skipped_for_a_known_reason_is_no_failure(tmp_path):
    def skip(context):
        return [context.row(status="skip", reason="known beforehand")]

    skipped = Cell("skipped", {"cell": "skipped"}, {"method": "skipped"}, skip)
    assert run([make_cell("a"), skipped], tmp_path / "some") == ExitCode.OK
    assert run([skipped], tmp_path / "all") == ExitCode.SOME_FAILED
