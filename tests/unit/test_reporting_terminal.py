"""Reports on a terminal: no line wider than it, no number broken, the answer last."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from bench.reporting.tables import Table
from bench.reporting.terminal import show

WIDTHS = (60, 80, 120, 200)
LONG = "no difference larger than 0.38 dB (seen from 0.29), five seeds"
CELLS = pd.DataFrame({
    "method": ["diffusion", "diffusion", "exp"],
    "modes": ["8", "12", "–"],
    **{f"{n} (unit) ↑": ["44.485 ± 0.128", "44.639 ± 0.050", "42.095 (n=1)"] for n in "ABCDE"},
    "Inference time (s) ↓": ["0.00219 [0.002012, 0.002535]", "1.3 [1.2, 1.4]", "–"],
    "difference": [f"-0.154 [-0.27, -0.04] {LONG}", "0, the reference", "-2.5 worse"],
    "paper (in words)": ["worse than 12: features too smooth, details lost", "best", "–"],
})  # fmt: skip


def table(cells: pd.DataFrame = CELLS) -> Table:
    return Table.of("wide", "Modes on sample-4", cells, cells, ["Mean ± deviation over 5 seeds."])


def printed(of: Table, width: int, **more) -> str:
    console = Console(width=width, file=io.StringIO(), **more)
    show(console, [of], ["PSNR – 12 modes lead."], Path("runs/report.html"))
    return console.file.getvalue()


def parts(text: str) -> list[list[str]]:
    """Return the lines of each part below its rule."""
    found, lines = [], iter(text.splitlines())
    for line in lines:
        if line.startswith("───"):
            found.append([])
        elif found and line.strip():
            found[-1].append(line)
    return found


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_wider_and_every_number_stays_whole(width):
    text = printed(table(), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for column in CELLS:
        for cell in CELLS[column]:
            if len(cell) <= 28:
                assert cell in text
    words = " ".join(text.split())
    assert all(words.count(word) for cell in CELLS["difference"] for word in cell.split())


@pytest.mark.parametrize("width", (60, 80))
def test_parts_repeat_what_tells_lines_apart_and_name_the_file_with_all(width):
    text = printed(table(), width)
    found = parts(text)
    assert len(found) > 1
    for lines in found:  # notes and answers follow the last part
        assert any(re.match(r"diffusion +12 ", line) for line in lines)
    assert f"In {len(found)} parts, to fit the terminal; all columns in one:" in text
    assert "runs/tables/wide.csv" in text.splitlines()


def test_a_table_that_fits_is_one_and_says_nothing_of_parts():
    text = printed(table(CELLS.iloc[:, :4]), 80)
    assert len(parts(text)) == 1 and "parts" not in text
    lines = text.splitlines()
    (eight,) = (line for line in lines if "44.485" in line)
    (none,) = (line for line in lines if line.startswith("exp"))
    assert len(eight.rstrip()) == len(none.rstrip())  # numbers end below each other
    assert none.index("–") == eight.index(" 8 ") + 1


def test_the_answer_is_the_last_line_after_the_path():
    assert printed(table(), 80).splitlines()[-2:] == ["runs/report.html", "PSNR – 12 modes lead."]


def test_best_is_bold_and_second_underlined():
    of = table(CELLS.iloc[:, :3])
    of.marks.iloc[1, 2], of.marks.iloc[0, 2] = "best", "second"
    text = printed(of, 80, force_terminal=True, color_system="standard", legacy_windows=False)
    assert re.search(r"\x1b\[1m44\.639 ± 0\.050\x1b\[0m", text)
    assert re.search(r"\x1b\[4m44\.485 ± 0\.128\x1b\[0m", text)
    assert not re.search(r"\x1b\[[14]m42\.095", text)


def test_a_word_too_long_for_a_terminal_is_folded_not_cut():
    name = "x" * 90
    cells = pd.DataFrame({"method": [name, "exp"], "PSNR": ["44.485 ± 0.128", "42.095 ± 3.389"]})
    text = printed(table(cells), 40)
    assert max(len(line) for line in text.splitlines()) <= 40
    assert text.count("x") == 90 + "exp".count("x") and "44.485 ± 0.128" in text


def test_names_cannot_steer_the_terminal_and_are_no_markup():
    cells = pd.DataFrame({"method": ["[red]a\x1b[2Jb", "c\nd"], "PSNR": ["1", "2"]})
    text = printed(table(cells), 80)
    assert "\x1b" not in text and "[red]a?[2Jb" in text and "c d" in text


def test_a_table_of_notes_alone_has_no_grid():
    text = printed(table(pd.DataFrame()), 60)
    assert "─" not in text and "Mean ± deviation" in text
