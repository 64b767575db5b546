"""The page in Chromium: a phone and a desk, light and dark, on paper. Skips where there is none."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from bench.records import load_rows, load_runs, load_views
from bench.reporting.build import write_report

playwright = pytest.importorskip("playwright.sync_api")

PUBLISHED = Path(__file__).parents[2] / "results" / "published"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WIDTHS, SCHEMES = (400, 768, 1280), ("light", "dark")
LONG = "a_method_whose_name_nobody_can_break_" * 3

OUT_OF_REACH = """() => {
  const lost = [];
  for (const scroll of document.querySelectorAll(".scroll")) {
    const frame = scroll.getBoundingClientRect();
    const [left, right] = [frame.left + scroll.clientLeft, frame.right - scroll.clientLeft];
    if (frame.left < 0 || frame.right > innerWidth) lost.push("frame of " + scroll.ariaLabel);
    if (getComputedStyle(scroll).overflowX !== "auto") lost.push("no hand scrolls this");
    for (const row of scroll.querySelectorAll("tr")) {
      const [stays, ...cells] = row.cells;
      const from = left + stays.getBoundingClientRect().width;
      const scrolls = scroll.scrollWidth > scroll.clientWidth;
      if (scrolls && from > left + scroll.clientWidth / 2)
        lost.push(stays.textContent + " covers the rest");
      for (const cell of cells) {
        scroll.scrollLeft += cell.getBoundingClientRect().left - from;
        const at = cell.getBoundingClientRect();
        if (at.left < from - 2) lost.push(cell.textContent + " starts behind the first column");
        scroll.scrollLeft += Math.max(0, at.right - right);
        if (cell.getBoundingClientRect().right > right + 2) lost.push(cell.textContent + " ends");
      }
      scroll.scrollLeft = 0;
    }
  }
  return lost;
}"""
FAINT = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const channels = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (colour) => {
    const [r, g, b] = channels(colour).slice(0, 3).map((v) => {
      v /= 255;
      return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (part) => {
    for (; part; part = part.parentElement) {
      const colour = getComputedStyle(part).backgroundColor;
      if (channels(colour)[3] === 255) return light(colour);
    }
    return 1;
  };
  const faint = [];
  const print = "h1, h2, h3, p, li, th, td, a, summary, dd, dt, figcaption, code";
  for (const part of document.querySelectorAll(print)) {
    const [a, b] = [light(getComputedStyle(part).color), behind(part)];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) faint.push([part.tagName, part.textContent.slice(0, 40), contrast]);
  }
  return faint;
}"""


@pytest.fixture(scope="module")
def browser():
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as driver:
        # Without its sandbox, which containers rarely allow: the page is our own.
        opened = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """A page of committed rows, and of a study with names that cannot be broken."""
    folder, out = PUBLISHED / "ablation_modes", tmp_path_factory.mktemp("page")
    rows, runs = load_rows(folder), load_runs(folder, broken=True)
    renamed = [
        replace(row, protocol="hostile", method=LONG, backbone=row.backbone and LONG)
        for row in rows
        if row.kind == "accuracy"
    ]
    views = load_views(folder)
    _, paths, _ = write_report([*rows, *renamed], runs, views, out, title=f"Results of {LONG}")
    return paths[-1]


@pytest.fixture
def opened(browser, page_file):
    """Open the page; what it complains of, and what it asks for, is in ``page.heard``."""
    contexts = []

    def open_page(width=1280, scheme="light", **options):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, **options
        )
        contexts.append(context)
        page = context.new_page()
        page.heard = []
        page.on("console", lambda message: page.heard.append(message.text))
        page.on("pageerror", lambda error: page.heard.append(str(error)))
        page.on(
            "request",
            lambda request: (
                request.url.startswith(("data:", page_file.as_uri()))
                or page.heard.append(request.url)
            ),
        )
        page.goto(page_file.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_cut_off_nor_complained_of(opened, width, scheme):
    page = opened(width, scheme)
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(OUT_OF_REACH) == []
    assert page.evaluate("[...document.images].filter((i) => !i.naturalWidth || !i.alt)") == []
    assert page.heard == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_print_stands_out_from_its_paper(opened, scheme):
    page = opened(1280, scheme)
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    red = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]")
    assert (int(red) < 60) == (scheme == "dark")
    assert page.evaluate(FAINT) == []


def test_the_first_column_stays_where_it_is(opened):
    page = opened(400)
    moved = page.evaluate(
        """() => [...document.querySelectorAll(".scroll")]
          .filter((s) => s.scrollWidth > s.clientWidth).map((scroll) => {
            const cell = scroll.querySelector("tbody th");
            const before = cell.getBoundingClientRect().left;
            scroll.scrollLeft = 9999;
            return [scroll.scrollLeft > 0, cell.getBoundingClientRect().left - before];
          })"""
    )
    assert len(moved) > 3 and all(scrolled and abs(by) < 1 for scrolled, by in moved)


def test_a_click_on_a_heading_sorts_best_first_then_worst_then_as_it_came(opened):
    page = opened()
    table = page.locator("table.sortable").first
    heading = table.locator("thead th", has_text="PSNR")
    column = heading.evaluate("(cell) => cell.cellIndex")

    def values():
        texts = table.locator("tbody tr").evaluate_all(
            f"(rows) => rows.map((row) => row.cells[{column}].textContent)"
        )
        return [float(text.split()[0]) for text in texts]

    came = values()
    assert came != sorted(came, reverse=True)
    heading.get_by_role("button").click()
    assert values() == sorted(came, reverse=True)
    assert heading.get_attribute("aria-sort") == "descending"
    heading.get_by_role("button").press("Enter")
    assert values() == sorted(came)
    heading.get_by_role("button").click()
    assert values() == came and heading.get_attribute("aria-sort") is None
    cost = table.locator("thead th", has_text="Parameters (M)")
    cost.get_by_role("button").click()
    assert cost.get_attribute("aria-sort") == "ascending"
    last = table.locator("tbody tr").last.locator("td, th")
    assert last.nth(cost.evaluate("(cell) => cell.cellIndex")).inner_text() == "–"


def test_contents_are_open_at_a_desk_and_folded_on_a_phone(opened):
    for width, shown in ((1280, True), (400, False)):
        page = opened(width)
        assert page.locator("nav details").evaluate("(part) => part.open") is shown
    page.locator("nav summary").click()
    page.locator("nav a", has_text="Where the numbers come from").click()
    playwright.expect(page.locator("#sources h2")).to_be_in_viewport()
    assert page.locator("nav details").evaluate("(part) => part.open") is False


def test_a_page_without_script_has_all_the_same(opened):
    page = opened(400, java_script_enabled=False)
    page.locator("nav summary").click()
    assert page.locator("nav a").first.is_visible()
    assert page.locator("table.sortable").first.locator("thead button").count() == 0
    page.locator("summary", has_text="Run ").first.click()
    assert page.locator("dd code", has_text="protocols/ablation_modes.py").first.is_visible()


def test_paper_has_folded_parts_too_and_no_table_beyond_its_edge(opened):
    page = opened(1040)  # a landscape A4 between its margins
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    folded = page.locator("details:not([open]) > summary").all_inner_texts()
    assert set(folded) <= {"Machine, in full", "Versions, in full", "Flags"}
    assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    ends = page.evaluate(
        "[...document.querySelectorAll('#study-1 table')]"
        ".map((table) => table.getBoundingClientRect().right)"
    )
    assert ends and max(ends) <= 1040
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not page.evaluate("document.querySelector('#sources details').open")
