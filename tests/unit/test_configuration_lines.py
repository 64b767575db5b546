"""Configurations to plain data and back, into hashes, and into the lines of tables."""

from __future__ import annotations

from dataclasses import dataclass, field, make_dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.config import (
    ExperimentConfig,
    UsageError,
    apply_overrides,
    as_plain,
    canonical_json,
    experiment_from_plain,
    experiment_preset,
)
from bench.config.plain import from_plain
from bench.recipes import DiffusionRecipe
from bench.records import Row, to_frame
from bench.records.grouping import split_lines
from bench.records.lines import complete

CHOICES = {
    "backbone.modes": (4, 6),
    "backbone.form": ("auto", "fft"),
    "adapters.guidance": (True, False),
    "adapters.rank": (2, 3),
    "diffusion.target": ("x0", "eps"),
    "steps": (8, 12),
    "prior_share": (0.25, 0.5),
    "stage1.learning_rate": (1e-3, 2e-3),
    "stage2.learning_rate": (1e-3, 2e-3),
    "sampler.tile": ("none", 32),
    "sampler.batch": (1, 4),
    "sampler.clip": (True, False),
    "patch": (32, 64),
    "scheme": ("two_stage", "joint", "one_stage", "precondition", "refine"),
    "operator": ("fno", "wfno"),
}
OUTSIDE = {"backbone.form", "sampler.batch", "adapters.guidance", "adapters.rank"}
WITHOUT_EFFECT = {
    "two_stage": {"backbone.form", "sampler.batch", "operator"},
    "joint": {"backbone.form", "sampler.batch", "operator", "prior_share", "stage2.learning_rate"},
    "one_stage": {*OUTSIDE, "operator", "prior_share", "stage2.learning_rate"},
    "precondition": OUTSIDE,
    "refine": OUTSIDE,
}  # fmt: skip
overrides = st.fixed_dictionaries({name: st.sampled_from(v) for name, v in CHOICES.items()})


def config_of(values: dict, seed: int = 0) -> ExperimentConfig:
    words = [f"{name}={value}" for name, value in values.items()]
    return replace(apply_overrides(experiment_preset("smoke"), words), seed=seed)


def row_of(values: dict, seed: int, cell: str) -> Row:
    recipe = DiffusionRecipe(config_of(values, seed), 4)
    fields = {**recipe.fields, "method": "m", "config": dict(recipe.settings)}
    return Row(run_id="r", cell_id=cell, protocol="p", kind="accuracy", metric="PSNR",
               value=1.0, dataset="d", split="reduced", **fields)  # fmt: skip


def what_counts(values: dict) -> dict:
    return {k: v for k, v in values.items() if k not in WITHOUT_EFFECT[values["scheme"]]}


@settings(max_examples=60, deadline=None)
@given(
    overrides, st.lists(st.sampled_from(list(CHOICES)), max_size=3), st.integers(0, 1), st.data()
)
def test_two_experiments_are_one_line_only_if_they_agree_in_all_that_counts(
    one, changed, seed, data
):
    two = {**one, **{name: data.draw(st.sampled_from(CHOICES[name])) for name in changed}}
    frame = to_frame([row_of(one, 0, "a"), row_of(two, seed, "b")])
    lines = split_lines(frame)
    groups = lines.frame.groupby([lines.frame[c].map(repr) for c in lines.by]).ngroup()
    assert (groups.nunique() == 1) == (what_counts(one) == what_counts(two))


@settings(max_examples=40, deadline=None)
@given(overrides)
def test_the_way_to_plain_data_has_a_way_back(values):
    config = config_of(values)
    assert experiment_from_plain(as_plain(config)) == config


def test_plain_data_of_others_is_refused_in_one_line():
    plain = as_plain(experiment_preset("smoke"))
    for change, words in (
        ({"colour": 1}, "no field 'colour'.*newer version"),
        ({"sampler": {"stepps": 3}}, "'stepps' - did you mean 'steps'"),
        ({"sampler": 3}, "expected the fields of SamplerConfig"),
        ({"scheme": "two-stage"}, "did you mean 'two_stage'"),
        ({"patch": "wide"}, "patch = 'wide': expected int"),
        ({"patch": True}, "patch = True: expected int"),
        ({"patch": 0}, "patch = 0: expected at least 1"),
    ):
        with pytest.raises(UsageError, match=words) as info:
            experiment_from_plain({**plain, **change})
        assert "\n" not in str(info.value)
    with pytest.raises(UsageError, match="lacks 'steps'"):
        experiment_from_plain({})


def test_stages_that_had_steps_of_their_own_are_read():
    plain = as_plain(experiment_preset("smoke"))
    old = {k: v for k, v in plain.items() if k not in ("steps", "prior_share")}
    old["stage1"] = {**plain["stage1"], "steps": 5}
    old["stage2"] = {**plain["stage2"], "steps": 7}
    assert experiment_from_plain(old).stage_steps == (5, 7)
    assert experiment_from_plain(old).stage1 == experiment_preset("smoke").stage1


@dataclass(frozen=True)
class Before:
    width: int = 8


Since = make_dataclass(
    "Since",
    [
        ("width", int, 8),
        ("norm", str, field(default="layer", metadata={"historic": "none"})),
    ],
    frozen=True,
)


def test_a_field_that_is_added_orphans_nothing():
    assert canonical_json(Since(8, "none")) == canonical_json(Before(8))
    assert canonical_json(Since(8, "layer")) != canonical_json(Before(8))
    assert canonical_json([{"a": Since(8, "none")}]) == canonical_json([{"a": Before(8)}])
    assert as_plain(Since(8, "none")) == {"width": 8, "norm": "none"}
    # What was written before the field existed had its historic value, not today's default.
    assert from_plain(Since, {"width": 4}, "since") == Since(4, "none")


def test_rows_from_before_a_field_have_its_historic_value():
    def row(cell, **config):
        return Row(run_id="r", cell_id=cell, protocol="p", kind="accuracy", method="m",
                   backbone="net", metric="PSNR", value=1.0, config=config)  # fmt: skip

    old = row("a", backbone={"width": 8}, sampler={"steps": 2})
    new = row("b", backbone={"width": 8, "norm": "none"}, sampler={"steps": 2, "eta": 1},
              historic={"backbone.norm": "none", "sampler.eta": 0})  # fmt: skip
    other = replace(old, cell_id="c", backbone="other")
    filled = {one.cell_id: one.config for one in complete([old, new, other])}
    assert filled["a"] == {
        "backbone": {"width": 8, "norm": "none"},
        "sampler": {"steps": 2, "eta": 0},
    }
    assert "norm" not in filled["c"]["backbone"] and filled["c"]["sampler"]["eta"] == 0
    assert filled["b"] == new.config
