"""The page in a browser: it fits, every image loads, tables sort, and the console stays silent.

Needs the `playwright` package and a Chromium: $ABLATE_CHROMIUM, one on the path, or playwright's own.
"""

import io
import os
import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from PIL import Image
from report_cases import Get

from ablate.figures.theme import DARK, LIGHT, STYLE

playwright = pytest.importorskip("playwright.sync_api", reason="the playwright package is not installed")
pytestmark = pytest.mark.browser
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    known = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
    path = next(filter(None, (os.environ.get("ABLATE_CHROMIUM"), *known)), None)
    with playwright.sync_playwright() as driver:
        try:
            chromium = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no Chromium starts here: {error}")
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Any, rendered: Get) -> Iterator[Callable[..., Any]]:
    """Opens a case's page; what the browser says or asks the network for fails the test at its end."""
    contexts, said = [], []

    def open_case(case: str, *, width: int = 1280, scheme: str = "light") -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.extend(re.findall("^http.*", request.url)))
        page.goto((rendered(case, figures=True).folder / "index.html").as_uri())
        return page

    yield open_case
    for context in contexts:
        context.close()
    assert said == []


@pytest.mark.parametrize(
    ("case", "width", "scheme"),
    [
        ("sweep", 390, "light"), ("single", 1280, "dark"), ("factorial", 390, "dark"),
        ("hostile", 1280, "light"), ("tuned_front", 390, "light"), ("tuned_hostile", 1280, "dark"),
    ],
)  # fmt: skip
def test_it_fits_the_window_and_shows_its_images(open_page: Open, case: str, width: int, scheme: str) -> None:
    page = open_page(case, width=width, scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    images = page.evaluate("[...document.images].map(i => i.naturalWidth > 0 && i.checkVisibility())")
    assert set(images) == {True}


@pytest.mark.parametrize(("width", "fold"), [(1280, 900), (390, 1500)])
def test_answer_and_picture_are_on_the_first_screen(open_page: Open, width: int, fold: int) -> None:
    page = open_page("sweep", width=width)
    ends = "[...document.querySelectorAll('.told, .first img')].map(e => e.getBoundingClientRect().bottom)"
    assert max(page.evaluate(ends)) <= fold
    words = "[...document.querySelectorAll('header *, .answer *')]"
    assert min(page.evaluate(f"{words}.map(e => parseFloat(getComputedStyle(e).fontSize))")) >= 11
    # The smallest words of the picture are its axes': of 10 points where an inch is 72 of the drawing's.
    scale = page.evaluate("(i => i.clientWidth / i.naturalWidth)(document.querySelector('.first img'))")
    assert STYLE["font.size"] * 96 / 72 * scale >= 11


def test_a_link_opens_the_section_that_it_leads_to(open_page: Open) -> None:
    page = open_page("sweep")
    assert page.locator("details.section[open]").count() == 0
    page.get_by_role("link", name="Method", exact=True).click()
    assert page.locator("details.section[open] h2").all_inner_texts() == ["Method"]


def corner(page: Any) -> str:
    picture = page.locator("figure img").first.screenshot()
    return "#" + Image.open(io.BytesIO(picture)).convert("RGB").crop((3, 3, 4, 4)).tobytes().hex()


def test_the_page_and_its_figures_follow_the_colour_scheme_and_print_is_light(open_page: Open) -> None:
    light, dark = (open_page("sweep", scheme=scheme) for scheme in ("light", "dark"))
    back = "getComputedStyle(document.body).backgroundColor"
    assert light.evaluate(back) != dark.evaluate(back)
    assert (corner(light), corner(dark)) == (LIGHT.surface, DARK.surface)
    dark.emulate_media(media="print")
    ink = "getComputedStyle(document.querySelector('.answer')).color"
    assert dark.evaluate(ink) == light.evaluate(ink)


CELLS = "t => [...t.tBodies[0].rows].map(r => [r.cells[0].textContent, r.cells[{}].dataset.value])"


def test_a_click_sorts_by_the_unrounded_number_and_a_second_one_turns_it(open_page: Open) -> None:
    page = open_page("sweep")
    page.locator("#arms summary").first.click()
    table = page.locator("#arms table").first
    before = table.evaluate(CELLS.format(2))
    head = table.locator("th").nth(2)
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert table.evaluate(CELLS.format(2)) == sorted(before, key=lambda row: float(row[1]))
    head.get_by_role("button").press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert table.evaluate(CELLS.format(2)) == sorted(before, key=lambda row: -float(row[1]))
    table.locator("th").nth(3).get_by_role("button").press("Space")
    assert head.get_attribute("aria-sort") is None
    for _ in range(2):  # levels sort as numbers within words
        table.locator("th").first.get_by_role("button").click()
    assert [name for name, _ in table.evaluate(CELLS.format(0))] == ["ε=0.4", "ε=0.1", "ε=0.05", "ε=0"]


def test_absent_values_stay_last_either_way(open_page: Open) -> None:
    page = open_page("factorial")
    for summary in page.locator("#trials summary").all()[:2]:
        summary.click()
    table = page.locator("#trials table")
    button = table.locator("th").nth(4).get_by_role("button")
    for _ in range(2):
        button.click()
        values = [value for _, value in table.evaluate(CELLS.format(4))]
        assert values[14:] == [""] * 10
        assert "" not in values[:14]


def test_without_script_the_page_is_complete(browser: Any, rendered: Get) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((rendered("sweep").folder / "index.html").as_uri())
    assert page.locator("#arms table").first.locator("tbody tr").count() == 4
    assert page.locator("#arms th").nth(2).text_content().startswith("Accuracy")
    assert page.get_by_role("button").count() == 0
    context.close()
