"""The bill: counts against a direct count of what really runs, and failures that stay rows."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from backbones import load_backbone_module
from backbones.layers.spectral import spectral_form
from backbones.registry import BACKBONES
from bench.cells import ceilings, conditions, counted, guesses, memory, timing
from bench.cells.ceilings import ceilings_cell
from bench.cells.conditions import At
from bench.cells.grid import cost_cells
from bench.cells.works import Entrant, build_work, count_work, flops_per_image
from bench.config import CommonFlags, apply_overrides, experiment_preset
from bench.diffusion import Diffusion
from bench.fusion.diffusion import DiffusionFusion
from bench.imaging import get_sensor
from bench.measure import (
    Ceilings,
    Fit,
    FlopCounter,
    MemoryReport,
    MemoryUse,
    StockCount,
    Timing,
    count_flops,
    count_traffic,
    time_interleaved,
)
from bench.recipes import DiffusionRecipe, training_flops
from bench.records import Row, RunFolder, View
from bench.reporting.build import build_sections
from bench.running import Desk
from bench.running.engine import run_cells
from bench.running.presenting import present

BANDS, CPU = 4, torch.device("cpu")
TINY = {
    "fno": ("backbone.width=8", "backbone.layers=2", "backbone.modes=4"),
    # At 64 pixels these many modes run as products on a CPU and as transforms elsewhere.
    "fno, many modes": ("backbone.width=4", "backbone.layers=1", "backbone.modes=30"),
    "wfno": ("backbone.width=4", "backbone.layers=1", "backbone.rings=4", "backbone.heads=1"),
    "attention_unet": (),
    "conv_unet": (),
    "convnext": (),
}


def tiny(name: str, *overrides: str):
    backbone = name.partition(",")[0]
    common = ("sampler.tile=32", "sampler.overlap=8", "sampler.steps=3", "sampler.batch=4")
    if "many modes" in name:
        common = ("sampler.tile=64", *common[1:])
    return apply_overrides(experiment_preset("smoke", backbone), [*TINY[name], *common, *overrides])


def directly(call) -> int:
    with FlopCounter() as counter:
        call()
    return counter.total


@pytest.mark.parametrize(("size", "device", "form"), [(96, "cpu", "fft"), (64, "cpu", "dft"),
                                                     (64, "cuda", "fft")])  # fmt: skip
def test_where_nothing_is_truncated_the_form_that_runs_is_counted(size, device, form):
    recipe = DiffusionRecipe(tiny("wfno", "scheme=one_stage"), BANDS)
    network = recipe.backbone()
    x, cond = (torch.rand(1, channels, size, size) for channels in (BANDS, BANDS + 1))
    with spectral_form(network, form):
        executed = count_flops(network, x, torch.ones(1), cond).executed
    assert recipe.count_step("forward", size, 1, device).executed == executed


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("scheme", ["two_stage", "one_stage", "refine"])
def test_flops_of_an_image_are_those_of_the_fusion_that_runs(name, scheme):
    config = tiny(name, f"scheme={scheme}")
    recipe = DiffusionRecipe(config, BANDS)
    fusion = DiffusionFusion(recipe.network(), Diffusion(config.diffusion), config.sampler)
    size = 80
    assert len(fusion.tile_plan(size, size)[2]) > 1
    images = [torch.rand(1, c, n, n) for c, n in ((BANDS, size // 4), (1, size), (BANDS, size))]
    ran = directly(lambda: fusion.fuse(*images[:2], get_sensor("none", BANDS), images[2]))
    assert flops_per_image(recipe, size).executed == ran


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("scheme", ["two_stage", "joint", "precondition"])
def test_flops_of_training_steps_are_those_of_the_loop(name, scheme):
    config = tiny(name, f"scheme={scheme}")
    entrant = Entrant(config, BANDS)
    for work in ("forward", "train_step", "adapt_step", "denoise_step"):
        ran = directly(build_work(**entrant.arguments(work, At(64, 2, CPU))).step)
        assert count_work(work, entrant, At(64, 2, CPU)).executed == ran, work


def test_training_is_all_its_steps():
    def of_training(*overrides):
        return training_flops(DiffusionRecipe(tiny("fno", *overrides), BANDS)).canonical

    steps = ("steps=12", "prior_share=0.42", "stage1.batch=3", "stage2.batch=2")
    entrant = Entrant(tiny("fno", *steps), BANDS)
    one, two = (
        count_work(work, entrant, At(entrant.config.patch, batch, CPU)).canonical
        for work, batch in (("train_step", 3), ("adapt_step", 2))
    )
    assert of_training(*steps) == 5 * one + 7 * two
    alone = of_training("scheme=one_stage", "steps=5")
    assert 0 < alone < 5 * one  # two patches a step instead of three
    joint = Entrant(tiny("fno", "scheme=joint"), BANDS)
    whole = count_work("adapt_step", joint, At(joint.config.patch, joint.config.stage2.batch, CPU))
    steps = ("scheme=joint", "steps=12")
    assert of_training(*steps) == 12 * whole.canonical


def test_traffic_is_every_operators_tensors_once():
    x, weight = torch.rand(1000, 8), torch.rand(8, 8)

    def call(x: Tensor) -> Tensor:
        return (x.t().t() @ weight).relu_().reshape(8, 1000)  # a product, in place, two views

    product = 4 * (1000 * 8 + 8 * 8 + 1000 * 8)
    assert count_traffic(call, x) == product + 2 * 4 * 1000 * 8
    assert count_traffic(lambda x: x + 1, torch.rand(8, 1).expand(8, 100)) == 4 * (8 + 800)


# Cells: what one competitor cannot do is its row, and the others go on

MIB = 2**20
PLANTED = """
from __future__ import annotations
import torch
from torch import library
from backbones import register_backbone
from backbones.fno import FNO

@library.custom_op("planted::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return 2 * x

@twice.register_fake
def _(x):
    return torch.empty_like(x)

@register_backbone("planted")
class Planted(FNO):
    def body(self, feature, time, adapt):
        return torch.ops.planted.twice(super().body(feature, time, adapt))

@register_backbone("breaks")
class Breaks(FNO):
    def body(self, feature, time, adapt):
        if feature.device.type != "meta":
            raise RuntimeError("no such weather")
        return super().body(feature, time, adapt)
"""


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    path = tmp_path_factory.mktemp("planted") / "planted.py"
    path.write_text(PLANTED)
    targets = dict(BACKBONES._targets)
    load_backbone_module(path)
    yield str(path)
    BACKBONES._targets = targets


def use(mib: int) -> MemoryUse:
    return MemoryUse("cpu", "made up", mib * MIB, mib * MIB, None, MIB, MIB, 2 * MIB, 3 * MIB)


def entrants_of(backbones, module=None) -> list[Entrant]:
    modules = () if module is None else (module,)
    configs = [experiment_preset("smoke", name) for name in backbones]
    return [Entrant(config, BANDS, modules, {"preset": "smoke"}) for config in configs]


def grid_of(backbones, *, module=None, size=32, works=("forward",), batch=1, **options):
    desk = Desk(CommonFlags(preset="smoke", device="cpu", quiet=True), "toy")
    given = {k: options.pop(k) for k in ("threads", "rounds", "timeout") if k in options}
    at = At(size, batch, desk.device, **{"rounds": 3, **given})
    return list(cost_cells(entrants_of(backbones, module), works, at, desk, **options))


def measured(folder, backbones, monkeypatch=None, reports=None, **options):
    """Run the cells of a grid; memory made up unless ``reports`` is None."""
    if reports is not None:
        made_up = dict.fromkeys(backbones, MemoryReport("ok", use(5))) | reports
        monkeypatch.setattr(
            memory,
            "peak_memory",
            lambda _target, arguments, **_: made_up[arguments["experiment"]["backbone"]],
        )
    run_cells(grid_of(backbones, **options), folder, protocol="toy", version=1, config={})
    rows: dict[str, dict[str | None, Row]] = {}
    for row in RunFolder(folder).latest():
        rows.setdefault(row.backbone, {})[row.metric] = row
    return rows


def test_an_unknown_operator_is_named_and_nothing_else_is_lost(planted, tmp_path):
    rows = measured(tmp_path, ("fno", "planted", "breaks"), module=planted)
    assert {row.status for row in rows["fno"].values()} == {"ok"}
    unknown = rows["planted"]["flops_forward"]
    assert unknown.status == "error" and "'planted::twice'" in unknown.reason
    for metric in ("params", "mem_peak_forward", "latency_forward"):
        assert rows["planted"][metric].status == "ok"
    for metric in ("mem_peak_forward", "latency_forward"):
        assert rows["breaks"][metric].status == "error"
        assert "no such weather" in rows["breaks"][metric].reason
    assert rows["breaks"]["flops_forward"].status == "ok"


def test_what_does_not_fit_in_memory_or_time_is_a_row(tmp_path, monkeypatch):
    reports = {
        "conv_unet": MemoryReport("oom", reason="out of memory"),
        "convnext": MemoryReport("timeout", reason="not done after 9 s"),
    }
    rows = measured(tmp_path, ("fno", "conv_unet", "convnext"), monkeypatch, reports)
    for backbone, status in (("fno", "ok"), ("conv_unet", "oom"), ("convnext", "timeout")):
        assert rows[backbone]["mem_peak_forward"].status == status
        assert rows[backbone]["latency_forward"].status == status
        assert rows[backbone]["flops_forward"].status == "ok"
    taken = rows["fno"]["latency_forward"].config["timing"]
    assert (taken["clock"], taken["threads"], taken["rounds"]) == ("cpu", 1, 3)
    assert len(taken["load"]) == 2 and taken["calls"] >= 1


def guess_nothing(monkeypatch, guess) -> None:
    for module in (memory, timing):
        monkeypatch.setattr(module, "guess_seconds", guess)


@pytest.fixture
def race(monkeypatch):
    """Calls that take made-up seconds on a made-up clock; yields who was timed."""
    clock = SimpleNamespace(now=0.0)
    seconds = {"conv_unet": 30.0, "fno": 10.0, "convnext": 15.0}
    timed: list[str] = []

    def build(**arguments):
        def step():
            clock.now += seconds[arguments["experiment"]["backbone"]]

        return replace(build_work(**arguments), step=step)

    def time_them(competitors, *, rounds, **_):
        timed.extend(competitors)
        samples = (1.0,) * rounds
        taken = Timing(samples, samples, None, "cpu", calls=1, warmup=1, threads=1, load=None)
        return dict.fromkeys(competitors, taken)

    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(timing, "build_work", build)
    monkeypatch.setattr(timing, "time_interleaved", time_them)
    guess_nothing(monkeypatch, lambda *_: 0.0)
    return timed


@pytest.mark.parametrize(
    ("timeout", "in_time"),
    [
        (275, ["conv_unet", "fno", "convnext"]),  # 3 rounds, a warm-up, the call here: 5 x 55 s
        (274, ["fno", "convnext"]),  # though conv_unet alone would take 150 s
        (124, ["fno"]),
        (49, []),
    ],
)
def test_a_joint_timing_takes_the_fastest_while_they_fit(
    timeout, in_time, race, tmp_path, monkeypatch
):
    rows = measured(tmp_path, ("conv_unet", "fno", "convnext"), monkeypatch, {}, timeout=timeout)
    assert race == in_time
    for backbone, of_backbone in rows.items():
        row = of_backbone["latency_forward"]
        assert row.status == ("ok" if backbone in in_time else "skip")
        assert of_backbone["flops_forward"].status == "ok"
    if timeout == 274:
        assert rows["conv_unet"]["latency_forward"].reason == (
            "5 rounds of about 55 s, its own share 30 s, are more than 274 s (--timeout)"
        )


def test_what_is_far_beyond_the_limit_is_not_begun(tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(timing, "time_interleaved", lambda *_, **__: begun.append("timing"))
    guess_nothing(monkeypatch, lambda work, *_: 1.0 if work == "image" else 0.2)
    reports = {"fno": MemoryReport("ok", use(5))}
    works = ("train_step", "image")
    # Three rounds, a warm-up and a first call of an image: 5 s. Of memory, 5 steps: 1 s.
    rows = measured(tmp_path / "a", ("fno",), monkeypatch, reports, works=works, timeout=0.4)["fno"]
    assert not begun
    assert rows["mem_peak_train"].status == rows["latency_image"].status == "skip"
    said = "5 calls of an estimated 0.2 s are far more than 0.4 s (--timeout)"
    assert rows["mem_peak_train"].reason == said
    assert rows["latency_train_step"].reason == f"its memory was not measured: {said}"
    rows = measured(tmp_path / "b", ("fno",), monkeypatch, reports, works=("image",), timeout=2)
    assert rows["fno"]["latency_image"].reason.startswith("5 calls of an estimated 1 s are far")
    assert not begun


def test_estimates_are_counted_flops_over_a_measured_speed(monkeypatch):
    speed = 1e9
    monkeypatch.setattr(guesses, "_speed", lambda *_: speed)

    def estimate(backbone="convnext", kind="timing", **options) -> float:
        cells = grid_of((backbone,), **options)
        return sum(cell.estimate() for cell in cells if kind in cell.identity)

    (entrant,) = entrants_of(["convnext"])
    once = count_work("forward", entrant, At(32, 1, CPU)).executed / speed
    assert estimate(rounds=33) - estimate(rounds=11) == pytest.approx(22 * once)
    # A training step is three forward passes; a fresh process takes five of them.
    works = ("forward", "train_step")
    assert estimate(works=works) - estimate() == pytest.approx(5 * 3 * once)
    more = estimate(kind="memory", works=works) - estimate(kind="memory")
    assert more == pytest.approx(memory._FRESH_SECONDS + 5 * 3 * once)
    growth = [
        estimate(name, size=256, rounds=100) / estimate(name, size=64, rounds=100)
        for name in ("attention_unet", "conv_unet")
    ]
    assert growth[0] > growth[1] > 2
    assert estimate(timeout=1e-9) == 0  # is not begun


def test_a_guess_of_seconds_is_near_what_a_call_takes():
    (entrant,) = entrants_of(["conv_unet"])
    guesses._speed.cache_clear()
    step = build_work(**entrant.arguments("forward", At(128, 1, CPU))).step
    taken = time_interleaved({"step": step}, rounds=5)["step"].median
    guess = guesses.guess_seconds("forward", entrant, At(128, 1, CPU))
    assert taken / 4 < guess < 4 * taken


def test_a_size_that_only_some_take_is_skipped_by_the_others(tmp_path, monkeypatch):
    rows = measured(tmp_path, ("fno", "attention_unet"), monkeypatch, {}, size=36)
    assert {row.status for row in rows["attention_unet"].values()} == {"skip"}
    assert all("multiples of" in row.reason for row in rows["attention_unet"].values())
    assert rows["fno"]["latency_forward"].status == "ok"


def kinds_of(cells) -> dict[str, set[str]]:
    """Ids of cells by what they are."""
    found: dict[str, set[str]] = {}
    for cell in cells:
        kind = next(k for k in ("memory", "counted", "timing", "fit") if k in cell.identity)
        found.setdefault(kind, set()).add(cell.cell_id)
    return found


def test_only_a_timing_knows_its_rivals(monkeypatch):
    one, pair = kinds_of(grid_of(("fno",))), kinds_of(grid_of(("fno", "convnext")))
    assert one["counted"] < pair["counted"] and one["memory"] < pair["memory"]
    assert len(one["timing"]) == len(pair["timing"]) == 1 and one["timing"] != pair["timing"]
    assert kinds_of(grid_of(("convnext", "fno"))) == pair
    monkeypatch.setattr(conditions, "machine", lambda: {"cpu": "another", "cores": 1})
    elsewhere = kinds_of(grid_of(("fno",)))
    assert elsewhere["counted"] == one["counted"]
    assert elsewhere["memory"] != one["memory"] and elsewhere["timing"] != one["timing"]


def test_another_backbone_discards_nothing(tmp_path, monkeypatch):
    measured(tmp_path, ("fno",), monkeypatch, {})
    before = {(row.cell_id, row.metric): row.run_id for row in RunFolder(tmp_path).latest()}
    measured(tmp_path, ("fno", "convnext"), monkeypatch, {})
    after = {(row.cell_id, row.metric): row.run_id for row in RunFolder(tmp_path).latest()}
    assert before.items() <= after.items()
    assert [cell for cell in after if cell not in before]


def test_cells_know_the_kind_of_device_but_not_which(monkeypatch):
    def ids(device, **options):
        monkeypatch.setattr(Desk, "device", torch.device(device))
        return kinds_of(grid_of(("fno",), **options))

    assert ids("cuda:0") == ids("cuda:1")
    cpu = ids("cpu")
    assert all(cpu[kind].isdisjoint(ids("cuda:0")[kind]) for kind in cpu)
    for changed in ({"size": 64}, {"batch": 2}):
        assert all(cpu[kind].isdisjoint(ids("cpu", **changed)[kind]) for kind in cpu)
    assert ids("cpu", threads=2)["counted"] == cpu["counted"]
    assert cpu["timing"].isdisjoint(ids("cpu", threads=2)["timing"])


def test_memory_is_told_apart(tmp_path, monkeypatch):
    rows = measured(tmp_path, ("fno",), monkeypatch, {}, works=("train_step",))["fno"]
    parts = {"peak_train": 5, "tensors_train": 5, "weights": 1, "gradients": 1, "optimizer": 2}
    for part, mib in {**parts, "activations": 3}.items():
        assert (rows[f"mem_{part}"].value, rows[f"mem_{part}"].unit) == (mib, "MiB")
    assert not [metric for metric in rows if "reserved" in metric]  # that is for a GPU


@pytest.mark.parametrize(
    ("found", "status", "words"),
    [
        (Fit(37, use(5), capped=False, tried={32: "ok", 37: "ok", 38: "takes 2 GiB"}), "ok", None),
        (Fit(None, None, capped=False, tried={1: "takes 2 GiB"}), "oom", "not even 1 in 1GiB"),
        (Fit(8, use(5), False, {8: "ok", 16: "timeout: not done after 9 s"}), "timeout", "8 fits"),
    ],
)
def test_what_fits_is_a_row(found, status, words, tmp_path, monkeypatch):
    asked = []

    def search(target, arguments, **options):
        asked.append((options["vary"], options["budget"], options["vary"] in arguments))
        return found

    monkeypatch.setattr(memory, "largest_fit", search)
    rows = measured(tmp_path, ("fno",), monkeypatch, {}, fit="1GiB")["fno"]
    assert asked == [("batch", "1GiB", False), ("size", "1GiB", False)]
    for metric in ("fit_batch", "fit_size"):
        assert rows[metric].status == status
        assert rows[metric].value == (37 if status == "ok" else None)
        assert words is None or words in rows[metric].reason


def test_the_report_has_a_table_and_a_figure_for_each_part(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        ceilings,
        "measure_ceilings",
        lambda *_, **__: Ceilings(80.0, 10.0, "cpu", "float32", 1, False),
    )
    counts = {"torch FlopCounterMode": 9_000_000, "fvcore x2": None}
    answers = {name: StockCount(flops, None, "cannot trace") for name, flops in counts.items()}
    monkeypatch.setattr(counted, "stock_flops", lambda *_, **__: answers)
    for size in (32, 64):
        works = ("forward", "train_step", "image") if size == 32 else ("forward",)
        backbones = ("fno", "convnext")
        measured(
            tmp_path, backbones, monkeypatch, {}, size=size, works=works, modules=True, stock=True
        )
    peaks = [ceilings_cell(Desk(CommonFlags(device="cpu"), "toy"), 1)]
    assert 0 < peaks[0].estimate() < 1  # nothing is measured here
    run_cells(peaks, tmp_path, protocol="toy", version=1, config={})
    cells = {row.cell_id for row in RunFolder(tmp_path).latest()}
    present(tmp_path, cells, View("toy", "Cost", ("cost", "scaling", "roofline")))
    out = capsys.readouterr().out
    for words in ("FLOPs by module: fno", "What other FLOP counters say", "Times: cpu clock"):
        assert words in out
    executed = {
        row.size: row.value
        for row in RunFolder(tmp_path).latest()
        if (row.backbone, row.metric) == ("fno", "flops_executed")
    }
    assert f"0.009 ({0.009 / executed[32] - 1:+.1%})" in out
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")}
    for stem in ("", "-scaling", "-roofline"):
        assert {f"figures/toy-cost{stem}.png", f"figures/toy-cost{stem}.pdf"} <= names
    for stem in ("", "-flops", "-memory", "-stock", "-modules-fno-32-1"):
        assert f"tables/toy-cost{stem}.csv" in names


def test_quality_against_cost_is_drawn_for_one_machine_at_a_time():
    def row(backbone, metric, value, run_id, kind="cost"):
        return Row(
            run_id=run_id, cell_id=f"{backbone}-{run_id}", protocol="p", kind=kind, dataset="d",
            method="nodiff", backbone=backbone, metric=metric, value=value, unit=None,
            split="reduced" if kind == "accuracy" else None, seed=0,
        )  # fmt: skip

    rows = [
        made
        for run_id in ("a", "b")
        for backbone, seconds, psnr in (("fno", 1.0, 34.0), ("conv_unet", 9.0, 33.0))
        for made in (
            row(backbone, "train_seconds", seconds, run_id, "training"),
            row(backbone, "train_flops", 2 * seconds, run_id),
            row(backbone, "PSNR", psnr, run_id, "accuracy"),
        )
    ]
    runs = {name: {"machine": {"cpu": name, "cores": 2}} for name in "ab"}

    def sections_of(rows):
        return build_sections(rows, runs, {"p": View("p", "P", ("quality",))})

    sections = sections_of(rows)
    assert [section.title for section in sections] == [
        "Quality against cost on d, a x2",
        "Quality against cost on d, b x2",
    ]
    for section in sections:
        assert all(name.startswith("quality-train") for name in section.figures)
        assert len(section.figures) == 2
    assert sections_of(rows[:3]) == []  # one point is no front
