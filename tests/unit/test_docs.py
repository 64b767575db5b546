"""The documentation holds: commands parse, links and anchors lead somewhere, facts are found."""

from __future__ import annotations

import ast
import csv
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated

import pytest
import tyro
import yaml
from facts import FACTS, MARK, filled
from facts_of_code import nox_sessions
from facts_of_results import PUBLISHED

from backbones.names import UnknownNameError
from bench.config import DATASETS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = ("python", "nox", "pytest", "pip")


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """Every page as it is built, and the README."""
    pages = {page: filled((DOCS / page).read_text(encoding="utf-8")) for page in PAGES}
    return {**pages, "README.md": (ROOT / "README.md").read_text(encoding="utf-8")}


def prose(text: str) -> str:
    return FENCE.sub("", text)


def slug(heading: str) -> str:
    """The anchor that Python-Markdown gives a heading."""
    plain = re.sub(r"[`*]|\]\([^)]*\)|\[", "", heading)
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain.lower()).strip())


def commands(text: str) -> list[list[str]]:
    """The words of every command in code blocks and in running text."""
    blocks = [body for language, body in FENCE.findall(text) if language == "bash"]
    lines = [line for body in blocks for line in body.replace("\\\n", " ").splitlines()]
    spans = re.findall(r"`((?:python|nox|pytest) [^`]+)`", prose(text))
    lines += [" ".join(span.split()) for span in spans if "..." not in span]
    parts = [part for line in lines for part in line.split("&&")]
    return [words for part in parts if (words := shlex.split(part, comments=True))]


def flags_of(script: Path) -> type:
    module = import_module(".".join(script.with_suffix("").parts))
    return module.STUDY.flags if hasattr(module, "STUDY") else module.Flags


def parse(script: Path, arguments: list[str]) -> None:
    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes)
    tyro.cli(Annotated[(flags_of(script), *config)], prog=script.name, args=arguments)


def check(words: list[str]) -> None:
    """Raise, or exit, where a command could not run as it is written."""
    name, *rest = words
    assert name in COMMANDS, words
    if name == "pytest":
        assert all((ROOT / word).exists() for word in rest if word.startswith("tests")), words
    elif name == "python" and rest[0] != "-m":
        script = Path(rest[0])
        assert (ROOT / script).is_file(), words
        if len(script.parts) == 2:
            parse(script, rest[1:])
    elif name == "nox":
        given = rest[rest.index("-s") + 1 :]
        own = given[given.index("--") + 1 :] if "--" in given else []
        names = given[: given.index("--")] if "--" in given else given
        for session in names:
            _, scripts = nox_sessions()[session]
            for script in scripts:
                parse(Path(script), own)


@pytest.mark.parametrize("page", [*PAGES, "README.md"])
def test_every_command_parses(page, texts):
    for words in commands(texts[page]):
        try:
            check(words)
        except SystemExit as end:
            assert not end.code, f"{page}: {shlex.join(words)}"


def test_a_command_with_a_wrong_flag_script_or_session_is_noticed(capsys):
    for line, error in {
        "python bench/evaluate.py --methods bt_h": SystemExit,
        "nox -s ablation_modes -- --preset huge": SystemExit,
        "python bench/evaluates.py": AssertionError,
        "nox -s ablation_mode": KeyError,
        "curl elsewhere": AssertionError,
    }.items():
        with pytest.raises(error):
            check(commands(f"```bash\n{line}\n```")[0])
    capsys.readouterr()


def test_pages_have_commands(texts):
    assert sum(len(commands(text)) for text in texts.values()) > 100


@pytest.mark.parametrize("page", PAGES)
def test_links_and_anchors_lead_somewhere(page, texts):
    for target, anchor in re.findall(r"(?<!!)\]\(([^)#\s]*)#?([^)\s]*)\)", prose(texts[page])):
        if target.startswith(("http:", "https:", "/published/")):
            continue
        found = (DOCS / page).parent.joinpath(target) if target else DOCS / page
        other = found.resolve().relative_to(DOCS).as_posix()
        assert other in PAGES, f"{page} -> {target}"
        headings = re.findall(r"^#+ (.+)$", prose(texts[other]), re.MULTILINE)
        assert not anchor or anchor in map(slug, headings), f"{page} -> {target}#{anchor}"


def test_figures_are_committed_and_have_words_for_who_cannot_see_them(texts):
    shown = [
        figure
        for text in texts.values()
        for figure in re.findall(r"!\[(.*?)\]\(/published/(.*?)\)", text)
    ]
    assert len(shown) > 5
    for words, path in shown:
        assert len(words) > 20 and (PUBLISHED / path).is_file(), path


def test_python_in_pages_imports_what_is_there(texts):
    imports = 0
    for text in texts.values():
        for language, body in FENCE.findall(text):
            for node in ast.walk(ast.parse(body)) if language == "python" else ():
                if isinstance(node, ast.ImportFrom):
                    module = import_module(node.module)
                    assert all(hasattr(module, name.name) for name in node.names), body
                    imports += 1
    assert imports


def published(path: str) -> dict[str, dict[str, str]]:
    """A committed table of the mode ablation: lines by their modes, cells by their heading."""
    lines = (PUBLISHED / path).read_text(encoding="utf-8").splitlines()
    split = [[c.strip(" *") for c in line.strip("|").split("|")] for line in lines if "|" in line]
    header, _, *body = split
    key = header.index("modes")
    return {cells[key]: dict(zip(header, cells, strict=True)) for cells in body}


def test_what_pages_say_in_words_is_what_committed_tables_hold():
    """Statements of paper/figure6.md; when rows change, so must the words."""
    modes = "ablation_modes/tables/ablation_modes-sample-4-one_stage"
    verdicts = published(f"{modes}-differences.md")
    assert "better" in verdicts["32"]["PSNR (dB) ↑"]
    assert "no difference" in verdicts["16"]["PSNR (dB) ↑"]
    high = {m: float(line["RMSE, high ↓"].split()[0])
            for m, line in published(f"{modes}-spectrum.md").items()}  # fmt: skip
    assert min(high, key=high.get) == "32"
    steps = published(f"{modes}-contributions.md")
    one = [float(steps[m]["one step"]) for m in ("8", "12", "16", "32")]
    assert max(one) - min(one) <= 0.08 + 1e-9


def test_what_is_said_of_larger_extents_is_what_committed_rows_hold():
    """Statements of resolution_transfer.md."""
    path = PUBLISHED / "resolution_transfer/tables/resolution_transfer-sample-4-extents.csv"
    with path.open(encoding="utf-8") as file:
        of = {(int(line["ground"]), int(float(line["extent"])), line["variant"]): line
              for line in csv.DictReader(file)}  # fmt: skip
    psnr = {key: float(line["PSNR"]) for key, line in of.items()}
    start = {ground: psnr[ground, 64, "whole"] for ground in (256, 512)}
    lost = {key: start[key[0]] - value for key, value in psnr.items() if key[2] == "whole"}
    assert [round(lost[g, 128, "whole"], 1) for g in (256, 512)] == [0.6, 0.5]
    assert {round(lost[key], 1) for key in lost if key[1] > 128} == {0.8}
    gained = [value - start[key[0]] for key, value in psnr.items() if key[2] != "whole"]
    assert min(gained) >= 0 and round(max(gained), 2) == 0.06
    apart = [abs(psnr[g, e, "scaled"] - psnr[g, e, "tiled"]) for g, e, v in psnr if v == "whole"]
    assert max(apart) < 0.03
    micros = {v: float(of[512, 512, v]["latency_image"]) * 1e6 / 512**2
              for v in ("whole", "scaled", "tiled")}  # fmt: skip
    assert {v: round(value) for v, value in micros.items()} == {
        "whole": 6, "scaled": 20, "tiled": 11,
    }  # fmt: skip


def test_every_page_is_in_the_navigation_once():
    def leaves(item):
        parts = item if isinstance(item, list) else item.values() if isinstance(item, dict) else ()
        return (
            [item] if isinstance(item, str) else [leaf for part in parts for leaf in leaves(part)]
        )

    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(leaves(site["nav"])) == PAGES


def test_each_table_and_figure_of_the_paper_has_a_page():
    numbered = [*(f"table{n}" for n in range(1, 4)), *(f"figure{n}" for n in range(1, 10))]
    assert {f"paper/{name}.md" for name in numbered} <= set(PAGES)


def test_data_sets_are_all_described():
    text = (DOCS / "data.md").read_text(encoding="utf-8")
    assert [name for name in DATASETS if f"`{name}`" not in text] == []


def test_a_mark_that_names_no_fact_is_refused():
    with pytest.raises(UnknownNameError, match="did you mean 'presets'"):
        filled("<!-- fact: preset -->")


def test_every_fact_is_used():
    pages = [(DOCS / page).read_text(encoding="utf-8") for page in PAGES]
    assert {mark[1] for page in pages for mark in MARK.finditer(page)} == set(FACTS)


def test_a_study_without_committed_runs_was_not_measured():
    assert FACTS["bill"]("no_such_study").count("not measured") == 2


def test_site_builds_strictly_and_needs_no_network(tmp_path):
    pytest.importorskip("material")
    import hook

    fetching = '<link rel="stylesheet" href="https://fonts.example/css">'
    assert hook._FETCHED.search(fetching) and hook._FETCHED.search('<img src="//x.example/a.png">')
    assert not hook._FETCHED.search('<a href="https://x.example">x</a><img src="a.png">')
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "paper" / "figure6.html").read_text(encoding="utf-8")
    assert "<table>" in page and "<!-- fact" not in page
    assert (tmp_path / "published").is_dir()
