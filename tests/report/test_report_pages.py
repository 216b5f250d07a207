"""The pages: what they may contain, that both show report.json's numbers, and that bytes repeat."""

import base64
import hashlib
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from report_cases import CASES, HOSTILE, SCRIPT, Get, render
from report_pages import markdown_page, squeezed
from report_results import declare, predict

from ablate.analysis.arms import arm_label
from ablate.report import write_report
from ablate.report.pages import code, escape
from ablate.store.results import ResultsFolder
from ablate.tables.columns import COLUMNS, DERIVED, TUNING
from ablate.tables.files import read_tables
from ablate.tables.quantities import UNSEEN, quantity, shown, shown_p

EVERY = [case for case in CASES if case != "harmless"]
WITH_FIGURES = ["sweep", "single", "hostile", "tuned_hostile"]
FOLDED = ("more_metrics", "sensitivity", "points", "trials")
"""Tables that are closed in the HTML page, and that Markdown leaves to the CSV files."""
ORDER = (
    "answer", "arms", "more_metrics", "components", "effects", "sensitivity", "trends", "contrasts",
    "retested", "points", "timing", "published", "failures", "trials",
)  # fmt: skip


def json_tables(report: dict[str, Any], *leave_out: str) -> list[dict[str, Any]]:
    known = {**report, **report.get("tuning", {}), "timing": report["timing"]["table"]}
    known["answer"] = report["answer"]["arms"]
    known = {name: [known[name]] if known.get(name) else [] for name in ORDER}
    known["published"] = (report["published"] or {"tables": []})["tables"]
    return [table for name, tables in known.items() if name not in leave_out for table in tables]


def lines(table: dict[str, Any]) -> list[list[list[str]]]:
    """A cell's lines as a browser shows them."""
    return [[[*map(squeezed, (cell["text"], *cell["notes"]))] for cell in row] for row in table["rows"]]


def texts(value: Any) -> Iterator[str]:
    for item in value.values() if isinstance(value, dict) else value:
        yield from [item] if isinstance(item, str) else texts(item)


@pytest.mark.parametrize("case", EVERY)
def test_html_and_markdown_show_the_cells_and_the_sentences_of_report_json(rendered: Get, case: str) -> None:
    page, report = rendered(case), rendered(case).report
    assert page.page.bodies() == [lines(table) for table in json_tables(report)]
    # In Markdown the facts of the provenance stand in a table of their own.
    shown = [body for body in page.markdown_page.bodies() if len(body[0]) != 2]
    assert shown == [lines(table) for table in json_tables(report, *FOLDED)]
    assert all(len(row) == len(rows[0]) for rows in page.markdown_page.tables for row in rows)
    answer, published = report["answer"], (report["published"] or {"tables": []})["tables"]
    said = [answer.get(name, "") for name in ("about", "recommendation", "tuning")]
    said += [sentence["text"] for sentence in answer["sentences"]]
    said += [report[name] for name in ("question", "banners", "method", "provenance")]
    said += [report.get("tuning", {"facts": []})["facts"], [table["outside"] for table in published]]
    for words in (page.page.words(), page.markdown_page.words()):
        assert [text for text in texts(said) if squeezed(text) not in words] == []


@pytest.mark.parametrize("case", EVERY)
def test_the_page_loads_nothing_and_runs_only_its_own_script(rendered: Get, case: str) -> None:
    page = rendered(case, figures=case in WITH_FIGURES).page
    assert {tag for tag, _ in page.elements} <= {
        "html", "head", "meta", "title", "style", "body", "div", "header", "nav", "main", "section", "aside",
        "footer", "h1", "h2", "h3", "p", "a", "ul", "li", "span", "table", "thead", "tbody", "tr", "th", "td",
        "small", "figure", "figcaption", "img", "dl", "dt", "dd", "pre", "code", "details", "summary",
        "script", "strong", "b", "svg", "path",
    }  # fmt: skip
    names = {name for _, attributes in page.elements for name in attributes}
    assert not {name for name in names if name.startswith("on")} | (names & {"style", "srcset", "action"})
    assert all(url.startswith("data:image/svg+xml,") for url in page.values("src"))
    places = [url for url in page.values("href") if not url.startswith("data:text/csv;")]
    assert {*places} == {f"#{name}" for name in page.values("id")}


@pytest.mark.parametrize("case", ["sweep", "hostile"])
def test_the_policy_allows_exactly_the_inline_style_and_script(rendered: Get, case: str) -> None:
    html = rendered(case).html
    policy = re.search('http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    rules = dict(rule.split(" ", 1) for rule in policy[1].replace("&#39;", "'").split("; "))
    for element, rule in (("style", "style-src"), ("script", "script-src")):
        (source,) = re.findall(f"<{element}>(.*?)</{element}>", html, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    assert (rules["default-src"], rules["img-src"], rules["base-uri"]) == ("'none'", "data:", "'none'")
    assert html.index("Content-Security-Policy") < html.index("<style>")


@pytest.mark.parametrize(("bad", "good"), [("hostile", "harmless"), ("tuned_hostile", "tuned_front")])
def test_hostile_words_stay_words_in_both_pages(rendered: Get, bad: str, good: str) -> None:
    hostile, harmless = rendered(bad), rendered(good)
    assert hostile.page.shape() == harmless.page.shape()
    assert hostile.markdown_page.shape() == harmless.markdown_page.shape()
    for page in (hostile.page, hostile.markdown_page):
        assert SCRIPT in page.words()
    assert not UNSEEN.search((hostile.folder / "report.json").read_text(encoding="utf-8"))


def painted(svg: str, scheme: str) -> str:
    """An SVG with the colours of one scheme in the place of its variables, as a browser takes them."""
    found = re.search(r"<style>:root\{(.*?)\}@media (.*?)\{:root\{(.*?)\}\}</style>", svg)
    assert found is not None
    assert found[2] == "screen and (prefers-color-scheme:dark)"
    colors = dict(rule.split(":") for rule in found[1 if scheme == "light" else 3].split(";"))
    return re.sub(r"var\((--c\d+)\)", lambda name: colors[name[1]], svg.replace(found[0], "", 1))


@pytest.mark.parametrize("case", WITH_FIGURES)
def test_every_figure_is_svg_light_and_dark_with_words(rendered: Get, case: str) -> None:
    page = rendered(case, figures=True)
    figures = page.report["figures"]
    assert {figure["error"] for figure in figures} == {""}
    said = [figure["caption"] for figure in figures]
    for words in (page.page.words(), page.markdown_page.words()):
        assert [text for text in said if squeezed(text) not in words] == []
    images = [attributes for tag, attributes in page.page.elements if tag == "img"]
    for image, figure in zip(images, figures, strict=True):
        svg = unquote((image["src"] or "").partition(",")[2])
        assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
        assert [painted(svg, scheme) for scheme in ("light", "dark")] == [
            (page.folder / figure[scheme]).read_text(encoding="utf-8") for scheme in ("light", "dark")
        ]
        assert len((image["alt"] or "").split()) > 8
    assert all((page.folder / path).is_file() for path in re.findall(r"\]\((figures/.*?)\)", page.markdown))


def test_the_tables_travel_along_byte_by_byte(rendered: Get) -> None:
    page = rendered("sweep")
    carried = {a["download"]: a["href"] or "" for _, a in page.page.elements if "download" in a}
    names = {"trials", "epochs", "reliability", "effects", "new_images", "floors"}
    assert set(carried) == {f"{name}.csv" for name in names}
    for name, url in carried.items():
        assert base64.b64decode(url.partition(",")[2]) == (page.results.root / str(name)).read_bytes()


def test_the_command_is_the_one_that_ran(rendered: Get) -> None:
    command = "python -m ablate run tiny.py --profile quick"
    assert rendered("sweep").page.text["code"] == [command]
    assert f"`{command}`" in rendered("sweep").markdown
    quoted = rendered("hostile").report["reproduce"]["command"]
    assert quoted.startswith("python -m ablate run '<script>")


def test_the_tables_and_the_plan_alone_give_the_same_bytes_again(rendered: Get, tmp_path: Path) -> None:
    first, copied = rendered("sweep", figures=True), ResultsFolder(tmp_path)
    for name in (
        "study.json",
        "tables.json",
        *(f"{name}.csv" for name in COLUMNS if name not in (*DERIVED, *TUNING)),
    ):
        (tmp_path / name).write_bytes((first.results.root / name).read_bytes())
    again = write_report(copied, tmp_path / "report").parent
    files = sorted(path.relative_to(first.folder) for path in first.folder.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert [(first.folder / f).read_bytes() for f in files] == [(again / f).read_bytes() for f in files]
    assert (tmp_path / "effects.csv").read_bytes() == (first.results.root / "effects.csv").read_bytes()
    assert set(read_tables(copied)) == set(COLUMNS)


@pytest.mark.soak
def test_fourteen_arms_of_ten_seeds_stay_under_3_megabytes(tmp_path: Path) -> None:
    factors = {"epsilon": (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5), "arch": ("seed_cnn", "xresnet18")}
    base = {"data": "folder:x", "image_size": 8, "epochs": 13}
    study = declare(base=base, factors=factors, baseline={"epsilon": 0.0}, seeds=10)
    page = render(tmp_path, figures=True, study=study, made=lambda trial: predict(trial, images=60))
    assert len(page.html.encode()) < 3_000_000
    assert "eft out for want of room" in page.html
    assert "epochs.csv (too large to carry along" in " ".join(page.page.text["li"])


@pytest.mark.parametrize(
    "word", [*HOSTILE, "a_b _c_ d", "1. x", "- x", "+1", "---", "===", "# x", "2.11.0", "&lt;"]
)
def test_escaped_text_is_that_text_and_nothing_else(word: str) -> None:
    word = UNSEEN.sub("", word)
    for text, tags in ((escape(word), ["p"]), (code(word), ["p", "code"])):
        page = markdown_page(text)
        assert [tag for tag, _ in page.elements] == tags
        assert "".join(page.text[tags[-1]]) == squeezed(word)


@pytest.mark.parametrize(
    ("value", "metric", "text", "difference"),
    [
        (0.57914, "accuracy", "57.91", "+57.91"),
        (-0.08114, "confidence_gap", "−8.11", "−8.11"),
        (-0.00001, "accuracy", "0.00", "0.00"),
        (0.85184, "nll", "0.8518", "+0.8518"),
        (float("nan"), "nll", "–", "–"),
    ],
)
def test_numbers_are_shown_in_their_unit(value: float, metric: str, text: str, difference: str) -> None:
    what = quantity(metric)
    assert (shown(value, what), shown(value, what, signed=True)) == (text, difference)
    p_values = {1e-300: "< 0.001", 0.0009: "< 0.001", 0.001: "0.001", 0.0514: "0.051", 1.0: "> 0.99"}
    assert {p: shown_p(p) for p in p_values} == p_values
    assert shown_p(float("nan")) == "–"
    assert arm_label({"epsilon": 0.0, "lr": 1e-05, "drop_last": True}) == "ε=0, lr=1e-05, drop_last=True"
    assert arm_label({}) == "all runs"
