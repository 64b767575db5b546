"""What each part contributes: the parts themselves, and the table of what the whole adds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from backbones import list_backbones
from bench.adapters import recorded
from bench.config import apply_overrides, experiment_preset
from bench.data import load_dataset
from bench.measure import count_parameters
from bench.recipes import ClassicalRecipe, DiffusionRecipe
from bench.records import Row, View
from bench.records.verdicts import Runs, judge
from bench.reporting.blocks.contributions import PRIOR_LEARNT
from bench.reporting.build import build_sections
from tests.cli import toy

CPU = torch.device("cpu")
SMALL = (*toy.TINY, "backbone.layers=2", "sampler.steps=3")
PARTS = ["interpolation", "pseudo_sr", "one_step", "prior_shown_reference", "no_detail"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return load_dataset(toy.write(tmp_path_factory.mktemp("toy") / "toy"), sensor="QB")


def recipe_of(*overrides: str, backbone: str = "fno") -> DiffusionRecipe:
    ours = SMALL if backbone == "fno" else [o for o in SMALL if not o.startswith("backbone.")]
    config = apply_overrides(experiment_preset("smoke", backbone), [*ours, *overrides])
    return DiffusionRecipe(config, 4)


def network_of(recipe: DiffusionRecipe) -> torch.nn.Module:
    """Return its network as if trained: nothing in it is zero, adapters least of all."""
    torch.manual_seed(0)
    network = recipe.network().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.05)
    return network


def image(dataset, number: int = 1):
    split, one = dataset.split("reduced"), slice(number, number + 1)
    return number, split.ms[one], split.pan[one], split.lms[one], split.gt[one]


def part_of(recipe, network, dataset, name):
    return recipe.parts(network, dataset, CPU)[name](*image(dataset))


def fused(recipe, network, dataset):
    number, *images = image(dataset)
    return recipe.fuser(network, dataset, CPU)("reduced", number, *images[:3])


# Parts


def test_each_scheme_has_the_parts_it_can_have(dataset):
    def names(*overrides):
        recipe = recipe_of(*overrides)
        return list(recipe.parts(recipe.network(), dataset, CPU))

    assert names() == PARTS
    assert names("scheme=joint") == [part for part in PARTS if part != "prior_shown_reference"]
    assert names("scheme=one_stage") == ["interpolation", "one_step"]
    for scheme in ("precondition", "refine"):
        assert names(f"scheme={scheme}") == ["interpolation", "super_resolved", "one_step"]
    assert names("adapters.guidance=False") == PARTS[:-1]
    assert names("sampler.steps=1") == [part for part in PARTS if part != "one_step"]
    assert ClassicalRecipe("gsa", 4).parts(None, dataset, CPU) == {}


def test_interpolation_and_the_predictor_are_what_they_are_called_and_valid_images(dataset):
    recipe = recipe_of()
    network = network_of(recipe)
    number, ms, pan, lms, gt = image(dataset)
    lms = 4 * lms - 1  # so that there is something to clip
    assert lms.min() < 0 and lms.max() > 1
    parts = recipe.parts(network, dataset, CPU)
    assert torch.equal(parts["interpolation"](number, ms, pan, lms, gt), lms.clip(0, 1))
    with torch.no_grad():
        expected = network.predictor(pan, lms)[1]
    assert expected.min() < 0 and not torch.equal(expected, lms)
    u = parts["pseudo_sr"](number, ms, pan, lms, gt)
    torch.testing.assert_close(u, expected.clip(0, 1))


@pytest.mark.parametrize("scheme", ["two_stage", "one_stage"])
def test_one_step_is_the_method_whose_sampler_takes_one(scheme, dataset):
    recipe = recipe_of(f"scheme={scheme}")
    network = network_of(recipe)
    sampled_once = recipe_of(f"scheme={scheme}", "sampler.steps=1")
    one = part_of(recipe, network, dataset, "one_step")
    assert torch.equal(one, fused(sampled_once, network, dataset))
    assert not torch.allclose(one, fused(recipe, network, dataset), atol=1e-4)


def test_without_detail_only_the_guidance_misses_it(dataset):
    recipe = recipe_of()
    network = network_of(recipe)
    without = part_of(recipe, network, dataset, "no_detail")
    assert not torch.allclose(without, fused(recipe, network, dataset), atol=1e-4)
    # The same as a predictor whose V is nothing, and whose U is what it was.
    before = network.predictor.forward

    def blind(pan, lms):
        detail, u = before(pan, lms)
        return torch.zeros_like(detail), u

    network.predictor.forward = blind
    assert torch.equal(without, fused(recipe, network, dataset))


def test_the_prior_is_the_backbone_that_stage_one_trained_without_adapters(dataset):
    recipe = recipe_of()
    network = network_of(recipe)
    name = "prior_shown_reference"
    before = part_of(recipe, network, dataset, name), fused(recipe, network, dataset)

    def perturb(parameters):
        with torch.no_grad():
            for parameter in parameters:
                parameter.add_(0.1 * torch.randn_like(parameter))

    added = [p for part in (network.predictor, network.guidance, network.low_rank)
             for p in part.parameters()]  # fmt: skip
    assert sum(p.numel() for p in added) == count_parameters(network) - count_parameters(
        network.backbone
    )
    perturb(added)
    assert torch.equal(part_of(recipe, network, dataset, name), before[0])
    assert not torch.equal(fused(recipe, network, dataset), before[1])
    perturb(network.backbone.parameters())
    assert not torch.equal(part_of(recipe, network, dataset, name), before[0])


def test_the_prior_sees_the_reference_and_the_noise_of_the_whole(dataset):
    recipe = recipe_of()
    network = network_of(recipe)
    part = recipe.parts(network, dataset, CPU)["prior_shown_reference"]
    number, ms, pan, lms, gt = image(dataset)
    shown = part(number, ms, pan, lms, gt)
    assert not torch.equal(shown, part(number, ms, pan, lms, gt.flip(-1)))
    assert torch.equal(shown, part(number, ms, pan.flip(-1), lms, gt))
    expected = recipe.fusion(network.backbone).restore(
        gt, lms, keys=[(dataset.fingerprint, "reduced", number)]
    )
    assert torch.equal(shown, expected)
    assert not torch.equal(shown, part(number + 1, ms, pan, lms, gt))


# What enters the guided blocks


@pytest.mark.parametrize("backbone", list_backbones())
@pytest.mark.parametrize(
    "how", [(), ("scheme=one_stage",), ("adapters.guidance=False",)], ids=lambda how: str(how)
)
def test_all_guided_blocks_are_recorded_and_nothing_changes(backbone, how, dataset):
    recipe = recipe_of(*how, backbone=backbone)
    network = network_of(recipe)
    observed = recipe.observed(network)
    before = fused(recipe, network, dataset)
    with recorded(observed) as seen:
        assert torch.equal(fused(recipe, network, dataset), before)
    assert list(seen) == [block.name for block in observed.guided]
    for block in observed.guided:
        side = recipe.config.sampler.tile // block.factor
        assert seen[block.name].shape[1:] == (block.channels, side, side)
        assert seen[block.name].any()
    kept = {name: feature.clone() for name, feature in seen.items()}
    assert torch.equal(fused(recipe, network, dataset), before)
    assert all(torch.equal(seen[name], kept[name]) for name in kept)  # nothing listens any more


def test_what_is_recorded_is_what_guidance_made_of_it(dataset):
    recipe = recipe_of("sampler.batch=1")
    network = network_of(recipe)
    outputs = {}
    for name, adapter in network.guidance.items():
        adapter.register_forward_hook(
            lambda _module, _inputs, output, name=name: outputs.__setitem__(name, output)
        )
    with recorded(recipe.observed(network)) as seen:
        fused(recipe, network, dataset)
    assert list(seen) == list(outputs)
    assert all(torch.equal(seen[name], outputs[name]) for name in outputs)


# The table

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(40, 2, 6)
VIEW = View("evaluate", "E", ("accuracy", "contributions", "differences", "paired", "intervals"))
GAINS = {"interpolation": -6.0, "pseudo_sr": -0.5, "one_step": -1.5, "no_detail": 0.25}


def row(method, samples, *, seed=0, backbone="fno", kind="accuracy", metric="PSNR", **fields):
    config = {"data": {"fingerprint": "d"}, "scheme": "two_stage"}
    spec = {"PSNR": ("dB", "higher"), "SAM": ("deg", "lower")}[metric]
    common = {"run_id": "r", "protocol": "evaluate", "dataset": "sample-4", "split": "reduced"}
    common |= {"cell_id": f"{backbone}-{seed}", "size": 256, "n": len(samples), "seed": seed}
    common |= {"unit": spec[0], "direction": spec[1], "value": float(np.mean(samples))}
    named = {"method": method, "backbone": backbone, "kind": kind, "metric": metric}
    return Row(**common | named | {"config": config, "samples": list(samples)} | fields)


def entrant(gains=GAINS, prior=5.0, *, seed=0, backbone="fno", method="nodiff"):
    """Return the rows of a run: the whole at 40 dB and a bit, parts at a distance of their own."""
    noise = np.random.default_rng([seed, len(backbone)])
    whole = IMAGES + 0.3 * noise.normal() + 0.02 * noise.normal(size=6)
    gains = gains if prior is None else {**gains, "prior_shown_reference": prior}
    of_run = {"seed": seed, "backbone": backbone}
    parts = []
    for name, gain in gains.items():
        samples = whole + gain + (0.05 * noise.normal() if gain != prior else 0)
        parts.append(row(name, samples, kind="contribution", **of_run))
        parts.append(row(name, 9 - samples / 10, kind="contribution", metric="SAM", **of_run))
    sam = row(method, 9 - whole / 10, metric="SAM", **of_run)
    return [row(method, whole, **of_run), sam, *parts]


def tables_of(rows, view=VIEW):
    sections = build_sections(rows, {}, {view.study: view})
    return {table.name: table for section in sections for table in section.tables}


def table_of(rows, view=VIEW):
    return tables_of(rows, view)["evaluate-sample-4-contributions"]


def samples_of(rows, method, metric="PSNR"):
    found = {r.seed: r.samples for r in rows if (r.method, r.metric) == (method, metric)}
    return np.array(list(found.values()))


def test_the_numbers_are_means_over_seeds_and_the_differences_those_of_judge():
    rows = [r for seed in range(5) for r in entrant(seed=seed)]
    table = table_of(rows)
    [cell] = table.cells.to_dict("records")
    heads = {"interpolation": "EXP", "pseudo_sr": "U", "one_step": "one step"}
    heads |= {"nodiff": "all steps", "prior_shown_reference": "restore(H)", "no_detail": "V = 0"}
    for method, head in heads.items():
        assert cell[head] == f"{samples_of(rows, method).mean():.3f}", head
    assert cell["seeds"] == "5" and cell["prior"] == "learnt, +5.00 dB"

    values = table.values.set_index(["metric", "quantity"])
    added = {"pseudo_sr": "what the diffusion adds to U", "one_step": "steps 2..n",
             "no_detail": "what V adds"}  # fmt: skip
    for metric, unit in (("PSNR", "dB"), ("SAM", "deg")):
        for method, head in added.items():
            sides = [Runs(samples_of(rows, m, metric), tuple(range(5))) for m in (method, "nodiff")]
            expected, line = judge(*sides, None), values.loc[(metric, head)]
            assert line["difference"] == pytest.approx(expected.difference)
            assert (line["low"], line["high"]) == pytest.approx((expected.low, expected.high))
            assert line["p"] == pytest.approx(expected.p) and line["p_holm"] >= line["p"]
            assert line["paired"] and line["unit"] == unit and line["seeds"] == 5
            assert line["mean"] == line["difference"]
    for method, head in heads.items():
        mean = samples_of(rows, method, "SAM").mean()
        assert values.loc[("SAM", head), "mean"] == pytest.approx(mean)
    assert "better" in cell["what the diffusion adds to U"] and "better" in cell["steps 2..n"]
    assert "worse" in cell["what V adds"]
    assert cell["what the diffusion adds to U"].startswith("+0.5")
    # Three comparisons of a metric: the smallest p counts three times.
    psnr = values.loc["PSNR"].dropna(subset=["p"])
    assert psnr["p_holm"].min() == pytest.approx(3 * psnr["p"].min())


def test_one_seed_has_numbers_and_no_verdict():
    [cell] = table_of(entrant()).cells.to_dict("records")
    for column in ("what the diffusion adds to U", "steps 2..n", "what V adds"):
        assert cell[column].endswith(", one seed: no verdict") and "[" not in cell[column]


@pytest.mark.parametrize(
    ("gain", "said"),
    [
        (PRIOR_LEARNT + 0.01, "learnt, +3.01 dB"),
        (PRIOR_LEARNT - 0.01, "prior not learnt, +2.99 dB"),
        (-0.001, "prior not learnt, +0.00 dB"),
    ],
)
def test_a_prior_is_learnt_from_three_decibels_on(gain, said):
    rows = entrant(prior=gain)
    [cell] = table_of(rows).cells.to_dict("records")
    assert cell["prior"] == said
    # By the mean over seeds, each against the whole of its own run: one more far above the border.
    rows += entrant(prior=2 * PRIOR_LEARNT + 0.02 - gain, seed=1)
    [cell] = table_of(rows).cells.to_dict("records")
    assert cell["prior"] == "learnt, +3.01 dB"


def test_what_an_entrant_has_no_part_for_is_not_shown():
    bare = {"interpolation": -3.0, "one_step": -1.0}
    rows = entrant(bare, None, backbone="convnext", method="diffusion")
    assert list(table_of(rows).cells) == [
        "method", "backbone", "seeds", "EXP", "one step", "all steps", "steps 2..n",
    ]  # fmt: skip
    assert "restore(H)" not in " ".join(table_of(rows).notes)
    both = table_of([*rows, *entrant()]).cells.set_index("method")
    assert both.loc["diffusion", ["U", "restore(H)", "V = 0", "what V adds", "prior"]].eq("–").all()
    assert not both.loc["nodiff"].eq("–").any()


def test_every_column_is_defined_in_words():
    table = table_of(entrant())
    notes = " ".join(table.notes)
    for column in list(table.cells)[3:]:
        assert f"{column}: " in notes


def test_a_part_that_failed_says_so_and_takes_nothing_else_away():
    rows = [r for r in entrant() if r.method != "no_detail"]
    why = {"status": "oom", "reason": "too little memory", "value": None, "n": None}
    failed = row("no_detail", [0.0], kind="contribution")
    [cell] = table_of([*rows, replace(failed, **why, samples=None)]).cells.to_dict("records")
    assert cell["V = 0"] == "oom" and cell["what V adds"] == "–"
    assert cell["U"] == f"{samples_of(rows, 'pseudo_sr').mean():.3f}"


def test_parts_are_in_no_other_table_and_old_rows_are_shown_as_before():
    view = replace(VIEW, reference={"method": "nodiff"}, baselines={"exp": "EXP"})
    new = tables_of([r for seed in range(3) for r in entrant(seed=seed)], view)
    for name, table in new.items():
        if not name.endswith("-contributions"):
            assert not table.cells.isin(PARTS).any(axis=None), name
    assert new["evaluate-sample-4"].cells["method"].tolist() == ["nodiff"]

    old = [row("nodiff", IMAGES), row("pseudo_sr", IMAGES - 1)]
    shown = tables_of(old, view)
    assert shown["evaluate-sample-4"].cells["method"].tolist() == ["nodiff", "pseudo_sr"]
    assert "evaluate-sample-4-contributions" not in shown
    # Of a cell of then that was measured again, U is not taken for the whole.
    of_then = replace(old[1], cell_id="fno-0", size=128)
    cells = table_of([*entrant(), of_then]).cells
    assert cells["method"].tolist() == ["nodiff"]
