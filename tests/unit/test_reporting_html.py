"""The page: one file that loads nothing, with every table and figure, whatever the rows."""

from __future__ import annotations

import base64
import html
import io
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from bench.records import Row, View, load_rows, load_runs, load_views
from bench.reporting.build import build_sections, write_report
from bench.reporting.figures import (
    draw_all,
    embed,
    feature_maps,
    full_images,
    fused_images,
    photographic,
    render_figure,
)
from bench.reporting.html import Chapter, Section, render_html
from bench.reporting.sources import doubts, run_of, shared_settings
from bench.reporting.tables import Table

PUBLISHED = Path(__file__).parents[2] / "results" / "published"
MOST = 1_500_000
RNG = np.random.default_rng(0)


def drawn(figures):
    names = list(figures)
    return dict(zip(names, (p.embedded for p in draw_all(list(figures.items()))), strict=True))


def page_of(*tables, figures=None, **options):
    section = Section("part", list(tables), embedded=drawn(figures or {}))
    return render_html("T", [Chapter("Study", [("Part", section)])], [], **options)


def table(cells, **options):
    cells = pd.DataFrame(cells)
    return Table.of("name", "Title", cells, cells, **options)


def headings(page):
    return [html.unescape(text) for text in re.findall(r'<th scope="col"[^>]*>([^<]*)<', page)]


def pictures(page):
    """Return media type, bytes and alternative text of every picture."""
    found = re.findall(r"""<img alt="([^"]*)"[^>]*? src='data:([^;,]+)(;base64)?,([^']+)'""", page)
    return [
        (kind, base64.b64decode(data) if coded else unquote(data).encode(), html.unescape(alt))
        for alt, kind, coded, data in found
    ]


@pytest.fixture(scope="module", params=["ablation_modes", "efficiency", "speed"])
def published(request, tmp_path_factory):
    """A page of committed rows, its sections and its folder."""
    folder, out = PUBLISHED / request.param, tmp_path_factory.mktemp(request.param)
    rows, runs = load_rows(folder), load_runs(folder, broken=True)
    sections, paths, _ = write_report(rows, runs, load_views(folder), out, title="Results")
    return paths[-1].read_text("utf-8"), sections, runs


def test_a_page_loads_nothing_and_its_links_stay_inside(published):
    page, _, _ = published
    assert "default-src 'none'" in page
    for _, data, _ in pictures(page):
        assert not re.search(rb"url\((?!#)|href=[\"'](?!#)|<script|@import", data)
    page = re.sub(r"src='data:image/[^']*'", "", page)
    assert not re.search(r"(?:src|srcset|action|poster)=[\"']", page)
    assert "<link" not in page and "@import" not in page and "url(" not in page
    targets, ids = re.findall(r'href="([^"]*)"', page), re.findall(r'\bid="([^"]+)"', page)
    assert targets and all(target.removeprefix("#") in ids for target in targets)
    assert len(ids) == len(set(ids))


def test_a_page_has_every_table_every_figure_and_stays_small(published):
    page, sections, runs = published
    text = html.unescape(page)
    tables = [table for section in sections for table in section.tables]
    assert page.count("<table") == len(tables)
    for name in (cell for table in tables for cell in table.cells.to_numpy().ravel()):
        assert f">{name}<" in text
    assert all(note in text for table in tables for note in table.notes)
    figures = [figure for section in sections for figure in section.figures.values()]
    assert len(pictures(page)) == len(figures)
    for kind, data, alt in pictures(page):
        assert kind == "image/svg+xml" and data.startswith(b"<svg") and len(alt) > 30
    assert all(run_id in page for run_id in runs) and len(page) < MOST


def test_answers_stand_before_tables_and_sources_are_folded(published):
    page, _, _ = published
    assert page.index("In short") < page.index('<li class="first">') < page.index("<table")
    sources = page[page.index('id="sources"') :]
    assert "<details open" not in page and '<details class="folded"><summary>Run ' in sources
    assert sources.count("<dt>Command</dt>") == sources.count("<summary>Run ")


@pytest.mark.slow
def test_all_that_is_published_fits_on_one_page(tmp_path):
    folders = sorted(path for path in PUBLISHED.iterdir() if (path / "rows.jsonl").is_file())
    rows, runs = load_rows(*folders), load_runs(*folders, broken=True)
    _, paths, _ = write_report(rows, runs, load_views(*folders), tmp_path, title="All")
    page = paths[-1].read_text("utf-8")
    for study in {row.protocol for row in rows}:
        assert load_views(*folders)[study].title in html.unescape(page)
    assert len(page) < 120_000 * len(folders)  # of one study it is held to MOST


# Tables


def test_what_tells_lines_apart_is_the_first_column():
    cells = {"method": [*"mmmme"], "modes": ["4", "8", "12", "16", "–"], "PSNR (dB) ↑": [*"12345"]}
    assert [name.split()[0] for name in headings(page_of(table(cells)))] == [
        "modes", "method", "PSNR",
    ]  # fmt: skip
    cells = {"backbone": ["a", "b"] * 3, "size": list("112233"), "Time (ms) ↓": list("123456")}
    assert headings(page_of(table(cells)))[0] == "backbone"
    assert headings(page_of(table({"a": ["0.1"], "b": ["0.2"]}))) == ["a", "b"]


def test_columns_of_numbers_sort_as_numbers_and_best_first():
    cells = {
        "line": ["a", "b", "c"],
        "PSNR (dB) ↑": ["44.1 ± 0.1", "oom", "9"],
        "SAM (deg) ↓": ["-0.5 [-0.6, -0.4] worse (seen from 0.2)", "–", "+1e-05, one seed: no"],
        "case": ["4 x 32", "8 layers, 2", "1 x 2"],
        "run": ["20261125T1", "3", "4"],
    }
    found = dict(re.findall(r'data-first="(\w+)" class="([^"]*)">', page_of(table(cells))))
    assert "number" in found["descending"]
    kinds = re.findall(r'class="([^"]*)">(line|PSNR|SAM|case|run)', page_of(table(cells)))
    assert {name: "number" in kind for kind, name in kinds} == {
        "line": False, "PSNR": True, "SAM": True, "case": False, "run": False,
    }  # fmt: skip
    assert "long" in {name: kind for kind, name in kinds}["SAM"]


def test_marks_and_markup_of_cells():
    one = table({"line": ["<b>a</b>", "c"], "x ↑": ["1", "2"]})
    marks = one.marks.copy()
    marks["x ↑"] = ["second", "best"]
    page = page_of(replace(one, marks=marks))
    assert re.search(r'<td class="best number[^"]*">2<', page)
    assert re.search(r'<td class="second number[^"]*">1<', page)
    assert "<b>a" not in page and "&lt;b&gt;a" in page


# Figures


def plot(title="Lines"):
    figure = Figure(figsize=(4, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], label="fno")
    axes.set_title("PSNR (dB) ↑", loc="left")
    axes.set_xlabel("modes")
    axes.legend()
    if title:
        figure.suptitle(title)
    figure.supxlabel("Not iso-\nparameter, on two\nlines.")
    return figure


def fused(count=8, side=256):
    image = np.cumsum(RNG.normal(size=(4, side, side)), axis=2)
    image = (image - image.min()) / np.ptp(image)
    pictures = {}
    for number in range(count):
        noisy = image + RNG.normal(0, 0.01, image.shape)
        arrays = {"fused": noisy, "reference": image, "lms": image, "pan": image[:1]}
        pictures[f"line {number}"] = arrays | {
            "rgb": np.array([2, 1, 0]),
            "hqnr": RNG.random((8, 8)),
        }
    return pictures


def test_a_plot_is_svg_with_print_as_text_and_its_words_beside_it():
    found = embed(plot(), "stem")
    text = found.data.decode()
    assert found.kind == "image/svg+xml" and "<text" in text and "sans-serif" in text
    assert found.title == "Lines" and found.notes == ("Not iso-parameter, on two lines.",)
    assert "Lines" not in text and "iso" not in text
    assert found.alt == (
        "Lines. Panels: PSNR (dB) ↑. Horizontal axis: modes. Drawn: fno."
    )  # fmt: skip
    assert embed(plot(title=None), "stem").title == "stem"
    assert found.width == pytest.approx(4 * 96, rel=0.1)


def test_a_figure_stays_as_it_is_and_equal_figures_give_equal_bytes():
    figure = plot()
    before = render_figure(figure, "png")
    first = embed(figure, "f")
    assert render_figure(figure, "png") == before
    assert embed(figure, "f") == first == embed(plot(), "f")


@pytest.mark.parametrize("draw", [fused_images, full_images])
def test_photographs_are_webp_cut_to_what_is_drawn(draw):
    figure = draw(fused(2, 64), title="Images", note="Below.")
    found = embed(figure, "f")
    image = Image.open(io.BytesIO(found.data))
    assert found.kind == "image/webp" and image.format == "WEBP" and found.notes == ("Below.",)
    edges = np.asarray(image.convert("L"))
    assert edges[0].min() > 200 and edges[-1].min() > 200  # paper, not black from outside
    assert image.width / image.height == pytest.approx(found.width / found.height, rel=0.02)
    assert "line 1" in found.alt and photographic(figure) == 3
    render_figure(figure, "png")
    assert embed(figure, "f").data == found.data


def test_photographs_share_what_a_page_may_weigh():
    figures = {"images": fused_images(fused(5), title="Images")}
    for number in range(5):  # noise: the worst there is to compress
        blocks = {f"block {k}": RNG.normal(size=(2, 64, 64)) for k in range(8)}
        figures[f"features {number}"] = feature_maps(blocks, title="Features")
    page = page_of(figures=figures)
    sizes = [len(data) for _, data, _ in pictures(page)]
    assert len(page) < MOST and len(sizes) == 6
    assert sizes[0] == max(sizes)  # what is looked at closely keeps more
    assert embed(figures["images"], "f", 10**9).width == embed(figures["images"], "f", 1).width


def test_notes_of_the_chapter_are_not_said_again_below_figures():
    section = Section(
        "part", [table({"a": ["1"]}, notes=["Said.", "Own."])], embedded=drawn({"f": plot()})
    )
    chapter = Chapter("S", [("Part", section)], notes=["Said.", "Not iso-parameter,"])
    page = render_html("T", [chapter], [])
    assert page.count("Said.") == 1 and "<p>Own.</p>" in page
    assert page.count("Not iso-parameter,") == 1 and "on two lines." in page


# Sources


RECORD = {
    "run_id": "r1",
    "status": "ok",
    "started_at": "2026-01-01T00:00:00",
    "command": ["evaluate.py", "--backbone", "<fno>"],
    "commit": {"hash": "c" * 40, "dirty": True},
    "machine": {"cpu": "Xeon", "cores": 2, "os": "Linux"},
    "versions": {"torch": "2.13.0"},
    "config": {"preset": "laptop"},
}


def row(run_id="r1", **fields):
    common = {"protocol": "p", "cell_id": "c", "kind": "accuracy", "method": "m", "dataset": "d"}
    return Row(run_id=run_id, **common | {"metric": "PSNR", "value": 1.0} | fields)


def test_what_is_doubtful_is_said():
    frame = pd.DataFrame({"run_id": ["r1", "r2", "lost"], "status": ["ok", "oom", "ok"]})
    other = RECORD | {"run_id": "r2", "status": "interrupted", "commit": "d" * 40}
    said = " ".join(doubts(frame, {"r1": RECORD, "r2": other}))
    assert "'interrupted'" in said and "changes of its own" in said and "lost" in said
    assert "several commits" in said and "several machines" not in said and "1 of 3 rows" in said
    clean = RECORD | {"commit": {"hash": "c" * 40, "dirty": False}}
    frame = pd.DataFrame({"run_id": ["r1"], "status": ["ok"]})
    assert list(doubts(frame, {"r1": clean})) == []


def test_a_run_is_told_as_far_as_its_record_is_whole(caplog):
    run = run_of(RECORD)
    assert dict(run.facts)["Command"] == "evaluate.py --backbone <fno>"
    assert run.machine == "Xeon x2" and "laptop" in dict(run.records)["Flags"]
    broken = run_of({"run_id": "b", "machine": 3})
    assert broken.run_id == "b" and not broken.facts and "not a whole record" in caplog.text
    page = render_html("T", [], [RECORD, {"run_id": "b"}], ["Mind <this>."])
    assert "&lt;fno&gt;" in page and "Mind &lt;this&gt;." in page and "1 warning<" in page


def test_warnings_of_the_house_are_on_the_page(tmp_path):
    artefact = replace(row(), kind="artefact", metric="fused", split="reduced", value=None)
    rows = [row(), replace(artefact, artefact="../outside.npz")]
    runs = {"r1": RECORD | {"folder": tmp_path / "run"}}
    _, paths, _ = write_report(rows, runs, {}, tmp_path / "out", title="T")
    page = paths[-1].read_text("utf-8")
    assert "lies outside its result folder" in page[page.index('id="warnings"') :]


def test_shared_settings_are_those_of_one_value():
    frame = pd.DataFrame(
        {
            "config.a": [1, 1, None],
            "config.b": [1, 2, 3],
            "config.c": [None, None, None],
            "config.training": ["x", "x", "x"],
        },
        dtype=object,
    )
    assert shared_settings(frame) == {"a": "1"}


def test_sections_of_several_studies_stand_in_their_chapters(tmp_path):
    rows = [
        row(
            protocol=study,
            cell_id=f"{study}{k}",
            method=f"m{k}",
            value=float(k),
            direction="higher",
        )
        for study in ("one", "two")
        for k in range(2)
    ]
    views = {study: View(study, f"Study {study}") for study in ("one", "two")}
    assert [s.studies for s in build_sections(rows, {}, views)] == [["one"], ["two"]]
    _, paths, _ = write_report(rows, {}, views, tmp_path, title="T")
    page = paths[-1].read_text("utf-8")
    places = [page.index(f"<h2>Study {study}</h2>") for study in ("one", "two")]
    parts = [page.index(f'<section id="part-{study}-d">') for study in ("one", "two")]
    assert places[0] < parts[0] < places[1] < parts[1]


def test_no_rows_are_a_page_too(tmp_path):
    _, paths, _ = write_report([], {}, {}, tmp_path, title="Nothing")
    page = paths[-1].read_text("utf-8")
    assert "<h1>Nothing</h1>" in page and "answer no question" in page
