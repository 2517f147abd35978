"""The report's page in a real browser: what a reader does, and what the page must never do."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_records import make_grid, make_record, write_record
from PIL import Image

from bench.analysis.facts import Facts
from bench.config.spec import ReportSpec
from bench.report.build import write_report

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((path for name in NAMES if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no chromium here (tests/install_browser.sh installs it)"
)

ROWS = {
    "EfficientNet-lite1": ("efficientnet_lite1", 2.0),
    "EfficientNet-lite2": ("efficientnet_lite2", 3.0),
    "ResNet18": ("resnet18", 11.0),
    "ResNet50": ("resnet50", 9.0),
    "ViT": ("vit", None),
}


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of four rows with two seeds each, and one row that failed."""
    folder = tmp_path_factory.mktemp("page")
    report = ReportSpec(
        paper="table2",
        rank_by="fd_lab",
        target="5",
        columns=("params_m", "fd_lab", "fd_l1", "images_per_s", "paper_params_m", "paper_fid"),
    )
    rows = {label: {"backbone.name": name} for label, (name, _) in ROWS.items()}
    grid = make_grid(rows, report, seeds=(0, 1))
    for spec in grid.runs:
        final = ROWS[spec.row][1]
        if final is None:
            made = make_record(spec, {}, status="failed", error="loss is <b>not</b> finite")
            write_record(folder / "runs", spec, made)
            continue
        final += spec.config.train.seed / 8
        levels = {f"fd_l{i}": final / i for i in (1, 2, 3, 4)}
        curve = {n: {"fd_lab": final * 4000 / n, **levels} for n in (1000, 2000, 4000)}
        speed = {"images_per_s": 10 * final, "warmup_seconds": 1.0}
        done = make_record(spec, curve, throughput=speed)
        path = write_record(folder / "runs", spec, done).parent / "samples"
        path.mkdir()
        for name in ("000001000", "000002000", "000004000"):
            Image.new("RGB", (256, 256), (200, 60, 30)).save(path / f"{name}.png")
    write_report(
        Facts.read(grid, folder / "runs"), folder / "results", lambda text: None, width=120
    )
    return folder / "results" / "made" / "index.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=BROWSER, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield found
        found.close()


@pytest.fixture
def page(browser: Any, page_path: Path) -> Iterator[Any]:
    """The page as opened from disk; it must not complain, and must ask for nothing but itself."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_path.as_uri())
    yield page
    context.close()
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [page_path.as_uri()]


def names(page: Any) -> list[str]:
    return [text.strip() for text in page.locator("#t-table tbody tr:visible th").all_inner_texts()]


def test_a_heading_sorts_both_ways_and_what_is_missing_goes_last(page: Any) -> None:
    head = page.locator("#t-table thead th", has_text="FD-lab").first
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    # 9 stands before 11: by number, not by letters.
    assert names(page) == [
        "EfficientNet-lite1",
        "EfficientNet-lite2",
        "ResNet50",
        "ResNet18",
        "ViT",
    ]
    page.keyboard.press("Enter")  # the button has the focus
    assert head.get_attribute("aria-sort") == "descending"
    assert names(page) == [
        "ResNet18",
        "ResNet50",
        "EfficientNet-lite2",
        "EfficientNet-lite1",
        "ViT",
    ]


def test_words_filter_the_rows_and_boxes_the_columns(page: Any) -> None:
    page.fill("#filter", "resnet")
    assert names(page) == ["ResNet18", "ResNet50"]
    assert page.inner_text("#shown") == "2 of 5 rows"
    page.fill("#filter", "")
    assert len(names(page)) == 5
    column = page.locator("#t-table thead th.g-machine")
    assert column.is_visible()
    page.uncheck("[data-group=machine]")
    assert not column.is_visible()


def test_a_number_opens_the_runs_behind_it(page: Any) -> None:
    row = page.locator("#t-table tbody tr", has=page.get_by_text("ResNet18", exact=True))
    row.locator("button.number").first.click()
    dialog = page.locator("#evidence-dialog")
    assert dialog.is_visible()
    text = dialog.inner_text()
    assert "ResNet18: FD-lab" in text and "11.0625" in text  # the mean of 11 and 11.125
    dialog.locator("summary").first.click()
    text = dialog.inner_text()
    for fact in ("f00d", "abc", "2000 generated against 8192 real", "backbone.name", "python 3.11"):
        assert fact in text  # fingerprint, commit, protocol, configuration, environment
    dialog.evaluate("dialog => dialog.scrollTop = dialog.scrollHeight")
    top, close = dialog.bounding_box(), dialog.locator(".close").bounding_box()
    assert 0 <= close["y"] - top["y"] < 60  # within reach, however far one has read
    page.keyboard.press("Escape")
    assert not dialog.is_visible()


def test_every_kind_of_number_leads_to_its_runs(page: Any) -> None:
    dialog = page.locator("#evidence-dialog")
    for place in ("#levels table.heat", "#cost .bars"):
        page.locator(place).first.locator("button.number").first.click()
        text = " ".join(dialog.inner_text().split())
        assert "run seed value" in text.lower() and text.count("leakage: ") <= 1
        page.keyboard.press("Escape")
    row = page.locator("#runs details", has_text="ResNet18").first
    assert not row.locator("article").first.is_visible()
    page.locator("#table tbody a", has_text="ResNet18").first.click()
    assert row.locator("article").first.is_visible()
    lonely = page.locator("a[href^='#r']").evaluate_all(
        "all => all.filter(a => !document.querySelector(a.getAttribute('href'))).length"
    )
    assert lonely == 0


def test_the_papers_number_says_where_it_is_from(page: Any) -> None:
    page.locator("#t-table [data-cell='table/ResNet18/paper_fid'] button").click()
    text = page.locator("#evidence-dialog").inner_text()
    assert "experiments/paper/table2.csv" in text and "4.16" in text


def test_the_curve_tells_its_values_to_the_mouse_and_to_the_keys(page: Any) -> None:
    chart = page.locator(".images > svg.chart")
    tip = page.locator(".tip")
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    page.mouse.move(box["x"] + box["width"] - 20, box["y"] + 100)
    assert "4 thousand images" in tip.inner_text() and "ResNet18" in tip.inner_text()
    page.mouse.move(0, 0)
    assert not tip.is_visible()
    chart.focus()
    page.keyboard.press("ArrowRight")
    assert "1 thousand images" in tip.inner_text()
    assert chart.locator(".target").count() == 1 and "target 5" in chart.text_content()


def test_the_curve_is_shown_against_time_too(page: Any) -> None:
    assert page.locator(".images > svg.chart").is_visible()
    page.get_by_role("radio", name="training time").check()
    assert page.locator(".time > svg.chart").is_visible()
    assert not page.locator(".images > svg.chart").is_visible()


def test_a_row_of_the_legend_is_brought_out_of_the_chart(page: Any) -> None:
    page.locator(".legend button", has_text="ResNet18").click()
    page.mouse.move(0, 0)
    bold = page.locator(".images .series.on")
    number = page.locator(".legend button", has_text="ResNet18").get_attribute("data-series")
    assert {g.get_attribute("data-series") for g in bold.all()} == {number}
    dim = page.locator(".images .series:not(.on)").first
    assert dim.evaluate("g => getComputedStyle(g).opacity") == "0.13"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_charts_have_the_colours_of_the_page(browser: Any, page_path: Path, scheme: Any) -> None:
    """No line of a chart is of the ground's colour, in light or dark; letters are the page's."""
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto(page_path.as_uri())
    found = page.evaluate("""() => {
      const style = (element, name) => getComputedStyle(element)[name];
      const ground = style(document.querySelector(".room"), "backgroundColor");
      const strokes = [...document.querySelectorAll(".images .series path")].map(
        (path) => style(path, "stroke"));
      const text = document.querySelector(".images text");
      return [ground, strokes, style(text, "fill"), style(text, "fontFamily"),
        style(document.body, "fontFamily")];
    }""")
    context.close()
    ground, strokes, ink, font, body = found
    numbers = [int(n) for n in re.findall(r"\d+", ink)]
    assert ground not in strokes and len({s for s in strokes if s != "none"}) >= 4
    assert (luminance(numbers) > 0.3) == (scheme == "dark") and font == body


def test_a_point_says_its_values_and_leads_to_its_row(page: Any) -> None:
    point = page.locator("#size .series", has_text="ResNet18").first
    assert point.locator("title").text_content().startswith("ResNet18: ")
    page.locator("#size a", has_text="ResNet18").first.click()
    row = page.locator("#runs details", has_text="ResNet18").first
    assert row.locator("article").first.is_visible()


def test_what_failed_stands_there_with_its_reason_as_text(page: Any) -> None:
    text = page.locator("#runs").inner_text()
    assert "2 of 10" in text and "loss is <b>not</b> finite" in text


@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_no_width_scrolls_sideways(browser: Any, page_path: Path, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800})
    page = context.new_page()
    page.goto(page_path.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


def luminance(colour: list[int]) -> float:
    parts = [c / 255 for c in colour[:3]]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_letters_stand_out_in_light_and_dark(browser: Any, page_path: Path, scheme: Any) -> None:
    """Contrast of WCAG 2 at level AA, 4.5 to 1, of all texts against their own ground."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.goto(page_path.as_uri())
    pairs = page.evaluate("""() => {
      const parse = (text) => text.match(/[\\d.]+/g).map(Number);
      const seen = new Map();
      for (const element of document.querySelectorAll("body *")) {
        const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
        const skip = element.closest("svg, script, noscript") || !element.checkVisibility();
        if (!own || skip) continue;
        let ground = element;
        while (ground && parse(getComputedStyle(ground).backgroundColor)[3] === 0) {
          ground = ground.parentElement;
        }
        const colours = [getComputedStyle(element).color,
          ground ? getComputedStyle(ground).backgroundColor : "rgb(255, 255, 255)"];
        seen.set(colours.join("|"), [...colours.map(parse), element.textContent.slice(0, 40)]);
      }
      return [...seen.values()];
    }""")
    context.close()
    assert len(pairs) > 5
    for ink, ground, text in pairs:
        light, dark = sorted([luminance(ink), luminance(ground)], reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ink, ground)
    dark_ground = luminance(pairs[0][1]) < 0.5
    assert dark_ground == (scheme == "dark")
