"""Reports of rows that nobody foresaw: lines, views, broken and hostile files."""

from __future__ import annotations

import csv
import io
import json
import logging
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest

from bench.config import UsageError
from bench.records import Row, RunFolder, View, generic_view, load_runs, load_views, write_view
from bench.reporting.build import Report, build_sections, frame_of, write_report
from bench.reporting.shown import headers, notes_of, of_accuracy, show
from bench.reporting.summary import last_rows, summarise_rows
from bench.reporting.terminal import print_report
from bench.reporting.text import escape_latex, escape_markdown, slug

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(30, 2, 8)
FULL = {
    "scheme": "two_stage",
    "preset": "laptop",
    "scale": "small",
    "backbone": {"modes": 12, "layers": 8},
    "adapters": {"guidance": True},
    "sampler": {"steps": 10, "tile": 64, "batch": 16},
    "evaluation": {"convention": "pancollection", "images": None},
    "data": {"fingerprint": "abc", "notes": ["PAN is simulated"]},
}
MACHINE = {"machine": {"cpu": "Xeon", "cores": 2}}


def changed(**settings):
    """Return the configuration with some settings (``backbone__layers=4``) changed."""
    config = json.loads(json.dumps(FULL))
    for name, value in settings.items():
        group, _, field = name.partition("__")
        if field:
            config[group][field] = value
        else:
            config[group] = value
    return config


def make(config, gain=0.0, *, method="nodiff", backbone="fno", metric="PSNR", seed=0, **fields):
    values = (IMAGES + gain).tolist()
    common = {"run_id": "r", "protocol": "evaluate", "kind": "accuracy", "dataset": "sample-4"}
    common |= {"split": "reduced", "unit": "dB", "direction": "higher", "n": len(values)}
    common |= {"cell_id": f"{method}{backbone}{config}{seed}", "value": float(np.mean(values))}
    row = {"method": method, "backbone": backbone, "metric": metric, "config": config}
    return Row(**common | row | {"samples": values, "seed": seed} | fields)


FOUR = [
    make(FULL, 3.0),
    make(changed(adapters__guidance=False), 2.0),
    make(changed(backbone__layers=4), 1.0),
    make(changed(sampler__tile=None), 0.5),
]


def sections_of(rows, view=None, runs=None):
    return build_sections(rows, runs or {}, {view.study: view} if view else {})


def table(rows, name, view=None):
    found = {t.name: t for section in sections_of(rows, view) for t in section.tables}
    return found[name]


# Lines


def test_four_configurations_in_one_folder_are_four_lines_named_by_what_differs():
    cells = table(FOUR, "evaluate-sample-4").cells
    assert len(cells) == 4
    assert set(zip(cells["guidance"], cells["layers"], cells["tile"], strict=True)) == {
        ("True", "8", "64"), ("False", "8", "64"), ("True", "4", "64"), ("True", "8", "none"),
    }  # fmt: skip
    names = show(frame_of(FOUR, {}), generic_view("evaluate")).lines.index
    assert len(set(names)) == 4 and "layers = 8, guidance = True, tile = none" in names


def test_repeats_are_seeds_and_a_second_run_or_a_setting_without_effect_counts_once():
    seeds = [make(FULL, gain, seed=seed) for seed, gain in ((0, 1.0), (1, 3.0))]
    again = make(changed(sampler__batch=4), 2.0)
    line = summarise_rows(show(frame_of([*seeds, again], {}), generic_view("e")).frame, ["line"])
    assert line["n"].tolist() == [2] and line["spread"].tolist() == ["seeds"]
    assert line["center"][0] == pytest.approx(IMAGES.mean() + 2.5)
    [cell] = table([seeds[0], again], "evaluate-sample-4").cells["PSNR (dB) ↑"]
    assert cell.startswith(f"{IMAGES.mean() + 2:.3f}") and "n=" not in cell


def test_rows_of_two_machines_with_many_settings_take_a_column_more_without_a_warning():
    many = changed(stage1={f"rate_{i}": i for i in range(120)})
    runs = {"a": MACHINE, "b": {"machine": {"cpu": "EPYC", "cores": 2}}}
    rows = [make(many, run_id="a"), make(changed(backbone__layers=4), run_id="b", seed=1)]
    frame = frame_of(rows, runs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frame.assign(more=1)
        show(frame, generic_view("evaluate")).frame.assign(more=1)
        of_accuracy(frame, generic_view("evaluate")).assign(more=1)
    assert frame["config.stage1.rate_7"].tolist() == [7, None]
    assert frame["config.backbone.layers"].tolist() == [8, 4]
    assert frame["machine"].nunique() == 2 and frame.columns.is_unique


def test_a_later_failure_does_not_hide_what_was_measured():
    failed = make(changed(sampler__batch=4), value=None, samples=None, status="oom", reason="x")
    kept = last_rows(frame_of([FOUR[0], replace(failed, value=None, samples=None)], {}), [])
    assert kept["status"].tolist() == ["ok"]


def test_what_differs_together_is_a_note_and_labels_are_columns_where_they_vary():
    both = changed(backbone__layers=4, backbone__modes=8, scale="own defaults", preset="paper")
    shown = table([make(FULL), make(both)], "evaluate-sample-4")
    assert "modes" in shown.cells or "layers" in shown.cells
    assert "Also different between lines: backbone." in " ".join(shown.notes)
    assert shown.cells["scale"].tolist() == ["small", "own defaults"]
    assert shown.cells["preset"].tolist() == ["laptop", "paper"]
    assert (
        "declares no scales, so that it runs at its full size beside networks at scale small"
        in (" ".join(shown.notes))
    )
    assert "scale" not in table(FOUR, "evaluate-sample-4").cells
    for words in ("sample-4: PAN is simulated.", "Preset laptop:", "Preset paper:"):
        assert any(note.startswith(words) for note in shown.notes)


def test_lines_on_different_ground_are_never_ranked_nor_paired():
    rows = [make(FULL), make(changed(data__fingerprint="new"), 5.0)]
    rows += [make(changed(backbone__layers=4), -1.0)]
    view = View("evaluate", "E", reference={"backbone.layers": 8})
    ranked = table(rows, "evaluate-sample-4", view)
    old = ranked.cells["fingerprint"] == "abc"
    assert (ranked.marks.loc[~old, "PSNR (dB) ↑"] == "").all()
    differences = table(rows, "evaluate-sample-4-differences", view)
    assert differences.cells["PSNR (dB) ↑"].tolist() == ["-1, one seed: no verdict"]


def test_headings_are_as_short_as_they_can_be():
    assert headers(["method", "config.stage1.steps", "config.stage2.steps", "config.a.b"]) == {
        "method": "method",
        "config.stage1.steps": "stage1.steps",
        "config.stage2.steps": "stage2.steps",
        "config.a.b": "b",
    }


def test_error_by_frequency_is_a_table_of_its_own_where_rows_have_it():
    errors = {"RMSE": 0.005, "RMSE_low": 0.003, "RMSE_mid": 0.004, "RMSE_high": 0.0001}
    rows = [make(changed(backbone__modes=modes)) for modes in (8, 12)]
    assert not [t for s in sections_of(rows) for t in s.tables if t.name.endswith("spectrum")]
    rows += [
        make(changed(backbone__modes=modes), metric=metric, direction="lower", unit=None,
             samples=[error * modes] * 8, value=error * modes)
        for modes in (8, 12) for metric, error in errors.items()
    ]  # fmt: skip
    view = View("evaluate", "E", axis="backbone.modes")
    shown = table(rows, "evaluate-sample-4-spectrum", view)
    assert shown.cells.columns.tolist() == [
        "method", "modes", "RMSE ↓", "RMSE, low ↓", "RMSE, middle ↓", "RMSE, high ↓",
    ]  # fmt: skip
    assert shown.cells["modes"].tolist() == ["8", "12"]
    assert shown.cells["RMSE, high ↓"].tolist() == ["0.00080 ± 0.00000", "0.00120 ± 0.00000"]
    assert shown.marks["RMSE, high ↓"].tolist() == ["best", "second"]
    assert list(table(rows, "evaluate-sample-4", view).cells)[-1] == "PSNR (dB) ↑"


# Views


def test_the_reference_is_the_views_and_its_absence_is_said():
    shown = table(FOUR, "evaluate-sample-4-differences", View("evaluate", "E", reference={
        "adapters.guidance": True, "backbone.layers": 8, "sampler.tile": 64,
    }))  # fmt: skip
    assert shown.cells["PSNR (dB) ↑"].tolist() == [
        f"{number}, one seed: no verdict" for number in ("-1", "-2", "-2.5")
    ]
    names = [t.name for section in sections_of(FOUR) for t in section.tables]
    assert "evaluate-sample-4-differences" not in names
    gone = table(FOUR, "evaluate-sample-4-differences", View("evaluate", "E", reference={"x": 1}))
    assert gone.cells.empty and "No row has the reference, x = 1" in gone.notes[0]
    assert gone.markdown() and gone.latex() and gone.html()


def test_a_reference_may_be_a_field_of_the_row_and_lines_without_a_partner_are_named():
    rows = [make(FULL, method=m, backbone=b) for m in ("nodiff", "x") for b in ("fno", "unet")]
    rows += [make({}, method="exp", backbone=None)]
    view = View("evaluate", "E", reference={"backbone": "fno"})
    shown = table(rows, "evaluate-sample-4-differences", view)
    assert shown.cells["method"].tolist() == ["nodiff", "x"]
    assert "to compare with: exp" in shown.notes[-1]


def test_an_axis_draws_a_curve_for_each_entrant_and_remaining_settings():
    view = View("evaluate", "E", axis="backbone.modes", baselines={"exp": "EXP"})
    rows = [
        make(changed(backbone__modes=modes, adapters__guidance=guided), gain, backbone=backbone)
        for backbone in ("fno", "naf")
        for guided in (True, False)
        for gain, modes in enumerate((8, 12))
    ] + [make({}, method="exp", backbone=None)]
    [figure] = [s.figures["evaluate-sample-4"] for s in sections_of(rows, view) if s.figures]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(labels) == [
        "EXP", "fno, guidance = False", "fno, guidance = True", "naf, guidance = False",
        "naf, guidance = True",
    ]  # fmt: skip


def test_an_unknown_block_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'accuracy'"):
        sections_of(FOUR, View("evaluate", "E", blocks=("acuracy",)))
    only = sections_of(FOUR, View("evaluate", "E", blocks=("intervals",)))
    assert only == []  # no row has an interval


def test_a_view_of_wrong_types_is_refused_and_its_rows_shown_in_a_generic_way(tmp_path, caplog):
    write_view(View("evaluate", "Mine", notes=("Note.",)), tmp_path)
    assert load_views(tmp_path)["evaluate"].title == "Mine"
    named = '{"study": "evaluate", "title": "x", '
    for wrong in (
        '{"study": "evaluate", "title": 3}', '{"title": "x"}', "[]", "\x00",
        named + '"notes": [3]}', named + '"baselines": {"exp": null}}', named + '"paper": 9}',
    ):  # fmt: skip
        caplog.clear()
        (tmp_path / "view-evaluate.json").write_text(wrong)
        assert load_views(tmp_path) == {}
        assert "not a view" in caplog.text and len(caplog.records) == 1
    assert table(FOUR, "evaluate-sample-4").title == "Accuracy on sample-4"
    assert notes_of(frame_of(FOUR, {}), View("e", "E", notes=("Note.",)))[-1] == "Note."


def test_intervals_have_a_line_for_each_line_and_seed():
    ends = {"ci_low": 29.0, "ci_high": 31.0, "ci_level": 0.95, "ci_method": "BCa"}
    rows = [make(row.config, seed=seed, **ends) for row in FOUR for seed in (0, 1)]
    cells = table(rows, "evaluate-sample-4-intervals").cells
    assert len(cells) == 8 and set(cells["PSNR (dB) ↑"]) == {"[29.000, 31.000]"}


def cost_of(row, metric, value, unit):
    return replace(row, kind="cost", metric=metric, value=value, unit=unit, samples=None, n=None)


def test_quality_reads_the_folders_beside_and_leaves_out_what_is_not_there(tmp_path, caplog):
    rows = {}
    for name, gain, modes in (("here", 1.0, 8), ("there", 2.0, 16)):
        folder = RunFolder(tmp_path / name)
        run_id = folder.begin(["x"], {}, MACHINE["machine"], {}, None)
        row = replace(make(changed(backbone__modes=modes), gain), run_id=run_id)
        folder.append([row, cost_of(row, "train_flops", gain, "TFLOP")], row.config)
        rows[name] = folder.rows()
    view = View("evaluate", "E", blocks=("quality",), beside=("../there", "../nowhere"))
    with caplog.at_level(logging.INFO):
        [section] = sections_of(rows["here"], view, load_runs(tmp_path / "here"))
    assert section.tables[0].cells["modes"].tolist() == ["16", "8"]
    assert "quality-train_flops" in section.figures and "nowhere" in caplog.text
    everything = [*rows["here"], *rows["there"]]
    [whole] = [
        s
        for s in sections_of(
            [*everything, *(replace(r, protocol="other") for r in rows["here"])],
            runs=load_runs(tmp_path),
        )
        if s.title.startswith("Quality")
    ]
    assert len(whole.tables[0].cells) == 2  # the same cell in two studies is one point


# Arrays


@pytest.fixture
def pictured(tmp_path):
    """Rows of twelve configurations, each with images, features and a history."""
    runs = {"r": {"folder": tmp_path, **MACHINE}}
    rows = []
    for number in range(14):
        image = RNG.random((4, 16, 16))
        np.savez(
            tmp_path / f"i{number}.npz",
            fused=image, reference=image + 0.01, pan=image[:1], rgb=np.array([2, 1, 0]),
        )  # fmt: skip
        np.savez(tmp_path / f"f{number}.npz", last=image)
        np.savez(tmp_path / f"h{number}.npz", loss=np.array([[0, 1.0], [9, 0.1]]))
        scheme = ("two_stage", "one_stage")[number % 2]
        row = make(changed(scheme=scheme, backbone__layers=number), backbone="naf")
        blank = replace(row, value=None, samples=None, n=None)
        rows += [
            row,
            replace(blank, kind="artefact", metric="fused", artefact=f"i{number}.npz"),
            replace(blank, kind="artefact", metric="features", artefact=f"f{number}.npz"),
            replace(blank, kind="training", metric="loss_stage1", artefact=f"h{number}.npz"),
        ]
    return rows, runs


def figures_of(rows, runs, view=None):
    sections = sections_of(rows, view, runs)
    return {name: figure for section in sections for name, figure in section.figures.items()}


def words_in(figure):
    return " ".join(text.get_text() for text in figure.findobj(lambda a: hasattr(a, "get_text")))


def test_pictures_of_any_number_of_settings_are_drawn_and_a_cut_is_said(pictured):
    figures = figures_of(*pictured)
    for kind, shown in (("images", 8), ("features", 8), ("training", 12)):
        words = words_in(figures[f"evaluate-sample-4-{kind}"])
        assert f"The first {shown} of 14 lines are shown." in words.replace("\n", " ")
        assert "layers = 0" in words.replace("\n", " ") and "layers = 13" not in words
    view = View("evaluate", "E", blocks=("pictures",), reference={"backbone.layers": 13})
    last = words_in(figures_of(*pictured, view)["evaluate-sample-4-images"]).replace("\n", " ")
    assert "The reference and the first others, 8 of 14 lines are shown." in last
    assert "layers = 13" in last and "layers = 6" in last and "layers = 7" not in last
    few = figures_of(pictured[0][:12], pictured[1])
    assert "are shown" not in words_in(few["evaluate-sample-4-images"])


def test_an_array_that_cannot_be_read_is_logged_and_left_out(pictured, caplog):
    rows, runs = pictured
    folder = runs["r"]["folder"]
    (folder / "i0.npz").write_bytes(b"PK\x03\x04 torn")
    np.savez(folder / "i1.npz", fused=np.zeros(3))
    (folder / "f0.npz").write_bytes(b"")
    np.save(folder / "h0.npz.npy", np.zeros(3))
    (folder / "h0.npz.npy").replace(folder / "h0.npz")
    outside = replace(rows[9], artefact="../../i2.npz")
    figures = figures_of([*rows[:9], outside, *rows[10:20]], runs)
    assert caplog.text.count("cannot be shown") == 4
    assert "outside its result folder" in caplog.text
    titles = [a.get_title(loc="left") for a in figures["evaluate-sample-4-images"].axes]
    assert not any("layers = 0" in title.replace("\n", " ") for title in titles)


def test_a_broken_run_record_does_not_end_a_report(tmp_path, caplog):
    runs = {"r": {"run_id": "r", "machine": 3, "folder": tmp_path}, "s": {}}
    _, paths, _ = write_report(FOUR, runs, {}, tmp_path / "out", title="T")
    assert paths[-1].is_file() and "not a whole record" in caplog.text


# Names from anybody

HOSTILE = ("../../etc/x", "<script>alert(1)</script>", "a|b*c", "$x_1$ & 50 % \\input{y}", "=1+1")


@pytest.mark.parametrize("name", HOSTILE)
def test_names_never_become_paths_markup_or_formulas(name, tmp_path):
    rows = [
        replace(make(FULL, gain, method=name, protocol=name, dataset=name), cell_id=str(gain))
        for gain in (1.0, 2.0)
    ]
    rows[1] = replace(rows[1], backbone=name)
    rows += [cost_of(row, "train_flops", 1.0 + place, "TFLOP") for place, row in enumerate(rows)]
    rows += [cost_of(row, "flops_forward", 1.0 + place, "GFLOP") for place, row in enumerate(rows)]
    out = tmp_path / "deep" / "out"
    sections, paths, _ = write_report(rows, {"r": MACHINE}, {}, out, title=name)
    assert all(path.parent in (out, out / "tables", out / "figures") for path in paths)
    assert all(slug(path.stem) == path.stem for path in paths) and len(set(paths)) == len(paths)
    page = (out / "report.html").read_text()
    assert page.count("<script") == 1 and "alert(1)<" not in page
    for path in out.rglob("*.csv"):
        cells = [cell for line in csv.reader(path.open(newline="")) for cell in line]
        assert not any(cell.startswith(("=", "@")) for cell in cells)
    for path in (out / "tables").glob("*.tex"):
        assert "\\input" not in path.read_text()
    for path in (out / "tables").glob("*.md"):
        lines = [line for line in path.read_text().splitlines() if line.startswith("|")]
        assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
        assert "<script" not in path.read_text()
    assert any(section.figures for section in sections)


def test_stems_stay_what_they_are_and_never_collide(tmp_path):
    assert slug("efficiency-cost_1.2") == "efficiency-cost_1.2"
    assert slug("a/b") != slug("a b") and slug("../x")[0] not in "./"
    assert len(slug("x" * 999)) < 130 and slug("x" * 999) != slug("x" * 998)
    rows = [make(FULL, protocol="a-b", dataset="c"), make(FULL, protocol="a", dataset="b-c")]
    rows += [make(FULL, protocol="A", dataset="b-c")]
    _, paths, _ = write_report(rows, {}, {}, tmp_path, title="T")
    tables = [path.name.lower() for path in paths if path.suffix == ".md"]
    assert len(tables) == 3 and len(set(tables)) == 3


def test_escapes():
    assert escape_latex(r"\a{b}~^_") == (
        r"\textbackslash{}a\{b\}\textasciitilde{}\textasciicircum{}\_"
    )
    assert escape_markdown("attention_unet [1, 2]") == "attention_unet [1, 2]"
    assert escape_markdown("_a_ [x](y)\nz") == r"\_a\_ [x]\(y) z"


def test_a_console_that_knows_few_characters_ends_nothing(tmp_path, monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", console)
    print_report(Report(sections_of(FOUR), [tmp_path / "report.html"], ["30 dB – a lead"]))
    console.flush()
    said = console.buffer.getvalue()
    assert b"PSNR (dB) ?" in said and b"30 dB ? a lead" in said and said.endswith(b"report.html\n")
