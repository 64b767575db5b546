"""Studies of the paper's tables and figures: their grids, their tables, one command for all."""

from __future__ import annotations

import h5py
import pandas as pd
import pytest
import torch

from bench.config import ExitCode, UsageError
from bench.metrics import full_resolution as full_resolution_indices
from bench.records import RunFolder
from bench.reporting.paper import load_paper_table
from bench.reporting.tables import Table, with_ideal, with_paper_numbers
from bench.running import Desk
from protocols import (
    ablation_finetuning,
    ablation_sampler,
    full_resolution,
    operator_roles,
    paper,
    visuals,
)
from tests.cli import pancollection, toy

TINY = (*toy.TINY, "steps=2")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy.write(tmp_path_factory.mktemp("toy") / "toy", patch=64)


def common(data, **changes):
    given = {"dataset": str(data), "sensor": "QB", "preset": "smoke", "quiet": True}
    return {**given, "override": TINY, **changes}


def test_table_3_has_the_papers_lines_beside_ours(data, home, capsys):
    flags = ablation_finetuning.Flags(**common(data))
    assert ablation_finetuning.STUDY.run(flags) == ExitCode.OK
    rows = RunFolder(home / "runs/ablation_finetuning/toy-smoke").latest()
    psnr = [row for row in rows if (row.kind, row.metric) == ("accuracy", "PSNR")]
    variants = {row.config.get("variant") for row in psnr if row.method == "nodiff"}
    assert variants == set(ablation_finetuning.VARIANTS)
    printed = {row.method for row in load_paper_table(3).itertuples()}
    assert printed - {"NODiff"} <= variants | {"full"} or "full" in variants
    blind = next(row for row in psnr if row.config.get("variant") == "LoRA blind to time")
    assert blind.config["adapters"]["time_aware"] is False
    out = capsys.readouterr().out
    assert "| nodiff | w/o CGA |" in out and "one seed: no verdict" in out


def test_a_lora_blind_to_time_has_no_gates_and_fewer_parameters():
    import torch

    from backbones import create_backbone
    from bench.adapters import TimeAwareLowRank

    ops = create_backbone("fno", 4, 5, width=8, layers=2, modes=4).adaptable
    aware, blind = (TimeAwareLowRank(ops, 2, 0.5, time_aware=flag) for flag in (True, False))
    gates = blind.gates(torch.tensor([0.1, 0.9]))
    assert gates.shape == aware.gates(torch.tensor([0.1, 0.9])).shape
    assert torch.equal(gates, torch.full_like(gates, 0.5))
    assert sum(p.numel() for p in blind.parameters()) < sum(p.numel() for p in aware.parameters())


def test_samplers_share_one_training(data, home):
    flags = ablation_sampler.Flags(**common(data, scheme=("one_stage",), steps=(1, 3)))
    assert ablation_sampler.STUDY.run(flags) == ExitCode.OK
    rows = RunFolder(home / "runs/ablation_sampler/toy-smoke").latest()
    lines = {
        (row.config["sampler"]["kind"], row.config["sampler"]["steps"]): row.value
        for row in rows
        if (row.kind, row.metric, row.method) == ("accuracy", "PSNR", "diffusion")
    }
    assert set(lines) == {(kind, steps) for kind in ("ddim", "ddpm") for steps in (1, 3)}
    assert lines["ddim", 3] != lines["ddpm", 3]
    assert len(list((home / "runs" / "checkpoints").glob("*/weights.safetensors"))) == 1


@pytest.mark.slow
def test_operators_in_every_role_share_what_they_can(data, home, capsys):
    given = common(data, override=("evaluation.convention=none",))
    assert operator_roles.STUDY.run(operator_roles.Flags(**given, rounds=2)) == ExitCode.OK
    rows = RunFolder(home / "runs/operator_roles/toy-smoke").latest()
    assert {row.status for row in rows} == {"ok"}
    psnr = {row.method: row for row in rows if (row.kind, row.metric) == ("accuracy", "PSNR")}
    assert set(psnr) == {"exp", "precondition", "refine", "nodiff", "diffusion"}
    assert psnr["precondition"].value != psnr["refine"].value
    parts = {row.config["scheme"]: row.value for row in rows
             if (row.method, row.metric) == ("super_resolved", "PSNR")}  # fmt: skip
    assert parts["precondition"] == parts["refine"]
    for metric in ("latency_image", "latency_train_step", "flops_image"):
        found = [row.method for row in rows if row.metric == metric and row.config.get("threads")]
        expected = [] if metric == "flops_image" else sorted(set(psnr) - {"exp"})
        assert sorted(found) == expected
    trained = list((home / "runs" / "checkpoints").glob("*/weights.safetensors"))
    assert len(trained) == 6  # four schemes, NODiff's prior, and one operator for both outside
    assert "what the diffusion adds to S" in capsys.readouterr().out

    # The same training by the verbs, and from its folder.
    from bench.evaluate import STUDY, Flags
    from bench.recipes import load_trained

    flags = Flags(**given, backbone=("attention_unet",), scheme="refine", out=home / "out")
    assert STUDY.run(flags) == ExitCode.OK
    assert len(list((home / "runs" / "checkpoints").glob("*/weights.safetensors"))) == 6
    (again,) = (row for row in RunFolder(home / "out").latest()
                if (row.kind, row.metric) == ("accuracy", "PSNR"))  # fmt: skip
    assert again.value == psnr["refine"].value
    stored = load_trained(home / "runs" / "checkpoints" / again.config["training"])
    assert stored.recipe.config.scheme == "refine"
    pan, lms = torch.rand(1, 1, 64, 64), torch.rand(1, 4, 64, 64)
    assert not torch.equal(stored.method().super_resolved(pan, lms), lms)


def test_full_resolution_alone_measures_nothing_else(data, home, capsys):
    flags = full_resolution.Flags(**common(data, method=("exp", "bt_h"), backbone=()))
    assert full_resolution.STUDY.run(flags) == ExitCode.OK
    rows = RunFolder(home / "runs/full_resolution/toy-smoke").latest()
    assert {row.split for row in rows} == {"full"}
    table = capsys.readouterr().out
    assert "ideal value" in table and "PSNR" not in table
    assert "toy" in table and "QB" not in table.split("not comparable")[0].split("**")[1]


def test_a_table_at_full_resolution_names_the_set_of_wv3(tmp_path, monkeypatch, capsys):
    """Two published sets have the same name and shape; EXP's scores, in the table, tell."""
    sides = {"train": 64, "valid": 64, "reduced": 64, "full": 64}
    folder = pancollection.write(tmp_path / "data", ("WV3",), {"full": 1}, sides)
    pancollection.as_published(tmp_path / "t.toml", monkeypatch, sides)

    def said(out: str, methods: tuple[str, ...]) -> str:
        given = {"dataset": str(folder), "sensor": "WV3", "preset": "smoke", "quiet": True}
        flags = full_resolution.Flags(**given, out=tmp_path / out, method=methods, backbone=())
        assert full_resolution.STUDY.run(flags) == ExitCode.OK
        return capsys.readouterr().out

    unknown = "which of PanCollection's two sets of 1 WV3 images at full resolution this is cannot"
    text = said("a", ("exp", "bt_h"))
    assert f"{unknown} be told: EXP scores D_lambda_K" in text and "as on neither" in text

    with h5py.File(pancollection.place(folder, "WV3", "full")) as file:
        lms, ms, pan = (file[key][()] for key in ("lms", "ms", "pan"))
    scores = full_resolution_indices(lms, ms, pan, lms=lms, sensor="WV3")
    found = {name: f"{float(scores[name]):.4f}" for name in ("D_lambda_K", "D_s")}
    changes = {
        "D_lambda_K = 0.0232": f"D_lambda_K = {found['D_lambda_K']}",
        "D_s = 0.0813": f"D_s = {found['D_s']}",
    }
    pancollection.as_published(tmp_path / "u.toml", monkeypatch, sides, changes)
    text = said("b", ("exp", "bt_h"))
    assert "at full resolution the set of the .mat files, which published tables use" in text
    assert f"EXP: D_lambda_K {found['D_lambda_K']}" in text and unknown not in text


@pytest.mark.slow
def test_a_pancollection_folder_goes_through_unchanged(tmp_path, home, capsys):
    """As users run it: published names, layout and type; one study, others differ in the grid."""
    folder = pancollection.write(
        tmp_path / "PanCollection", ("WV3",), {"reduced": 1}, {"reduced": 128, "full": 128}
    )
    given = {"dataset": str(folder), "sensor": "WV3", "preset": "smoke", "quiet": True}
    assert paper.main(paper.Flags(**given, only=("ablation_modes",))) == ExitCode.OK
    rows = RunFolder(home / "runs/ablation_modes/PanCollection-smoke").latest()
    assert {(row.status, row.sensor) for row in rows} == {("ok", "WV3")}
    assert {row.split for row in rows if row.kind == "accuracy"} == {"reduced", "full"}
    page = home / "reports/paper-PanCollection-smoke/report.html"
    assert capsys.readouterr().out.splitlines()[-1] == str(page) and page.is_file()


def test_visuals_draw_errors_and_hqnr(data, home):
    flags = visuals.Flags(**common(data, method=("exp", "bt_h"), backbone=()))
    assert visuals.STUDY.run(flags) == ExitCode.OK
    names = {path.name for path in (home / "runs/visuals/toy-smoke/figures").iterdir()}
    assert {"visuals-toy-images.png", "visuals-toy-images-full.png"} <= names


def test_one_command_runs_the_studies_it_is_told(data, home, capsys):
    for flag in ({"override": ("steps=3",)}, {"backbone": ("convnext",)}):
        with pytest.raises(UsageError, match="belongs to one study"):
            paper.main(paper.Flags(**common(data, **{"override": (), **flag})))
    with pytest.raises(UsageError, match="--only tabel: the studies are ablation_modes"):
        paper.main(paper.Flags(**common(data, override=(), only=("tabel",))))
    names = {study.name for study in paper.STUDIES}
    assert names >= {"reduced_resolution", "full_resolution", "ablation_finetuning", "visuals"}


def test_every_study_lays_out_its_grid(data):
    for study in paper.STUDIES:
        own = study.flags(**common(data, override=("evaluation.convention=none",)))
        cells = list(study.cells(own, Desk(own, study.name)))
        assert len({cell.cell_id for cell in cells}) == len(cells) > 5, study.name


def test_the_papers_row_stands_beside_ours_where_the_data_are_the_same():
    cells = pd.DataFrame({"method": ["fusionnet", "mine"], "PSNR (dB) ↑": ["1", "2"]})
    table = with_ideal(Table.of("t", "T", cells, cells), ["PSNR"])
    assert list(table.cells["method"]) == ["fusionnet", "mine", "ideal value"]
    assert table.cells["PSNR (dB) ↑"].iloc[-1] == "+inf"
    numbers = load_paper_table(1)
    beside = with_paper_numbers(table, numbers, "WV3")
    (row,) = numbers[
        (numbers["method"] == "FusionNet") & (numbers["metric"] == "PSNR")
    ].itertuples()
    shown = beside.cells["PSNR (paper, WV3)"]
    assert list(shown) == [f"{row.mean:.3f} ± {row.std:.3f}", "–", "–"]
    assert "Comparable where scenes is PanCollection's WV3" in " ".join(
        with_paper_numbers(table, numbers, "scenes", "WV3").notes
    )
    other = with_paper_numbers(table, numbers, "sample-4", "none")
    assert list(other.cells) == list(table.cells)
    assert "sample-4 is not comparable with the paper's numbers, which are of WV3." in other.notes
