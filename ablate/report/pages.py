"""What templates/ hold: the words between the numbers (words.md by name, method.md), and the pages.

The pages are one HTML file that loads nothing, and its Markdown twin with figures by relative path: the same
sections of report.json, each {"id", "title", "lead", "parts"}. A part has any of `title`, `text`, `items` (a
list), `facts` (names and values), `code`, `table`; one with `folded` is closed in HTML, and not in Markdown.
"""

import base64
import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from ablate.figures import Figure
from ablate.report.cells import Json
from ablate.study.comparisons import terms
from ablate.study.trials import Plan

TEMPLATES = Path(__file__).parent / "templates"
EMPTY: Json = {
    "title": "", "text": "", "items": [], "facts": [], "code": "", "table": None, "folded": "", "pre": False,
}  # fmt: skip
COLOR = re.compile(rb"(?<=: )#[0-9a-f]{6}\b")  # a colour in the style of an SVG's element
SAFE = " !$'()*+,-./:;<=>?@[]^_`{|}~"  # what a data URL of an SVG in an attribute of HTML holds unquoted
SPECIAL = re.compile(r"[\\`*\[\]<>|~$&]|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])")
"""Characters that mean something to Markdown or to GitHub's tables and formulas; inside a word an underscore
means nothing."""
LEADING = re.compile(r"^(?:#|[-+](?=[-\s]|$)|=(?==*$)|(\d+)([.)])(?=\s|$))")
"""What would start a heading, a list or a rule."""


def environment(**options: Any) -> jinja2.Environment:
    """What renders templates; a blank that nothing fills is an error."""
    loader, undefined = jinja2.FileSystemLoader(TEMPLATES), jinja2.StrictUndefined
    options |= {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    return jinja2.Environment(loader=loader, undefined=undefined, **options)


@functools.cache
def texts() -> dict[str, jinja2.Template]:
    """The texts of words.md by name."""
    parts = (TEMPLATES / "words.md").read_text(encoding="utf-8").split("\n## ")[1:]
    plain = environment()
    return {name: plain.from_string(body) for name, _, body in (part.partition("\n") for part in parts)}


def words(name: str, **values: Any) -> str:
    """A text of words.md in one line, its blanks filled."""
    return " ".join(texts()[name].render(values).split())


def titled(text: str) -> Json:
    """A text whose first line is its title."""
    title, _, body = text.partition("\n")
    return {"title": title, "text": " ".join(body.split())}


def method(plan: Plan, *, tuned: bool) -> list[Json]:
    """What each number of the report means: the paragraphs that apply to a study, in reading order."""
    study, compared = plan.study, terms(plan)
    facts = {
        "compared": compared, "search": study.search, "tuned": tuned, "study": study,
        "alone": study.trained_by and "accuracy" not in study.usual("accuracy"),
        "asked": sum(term.asked for term in compared),
        "averages": any(term.kind not in ("arm", "pair") for term in compared),
        "family": [(name, study.all_margins.get(name)) for name in study.comparison_family],
    }  # fmt: skip
    text = environment().get_template("method.md").render(facts)
    return [titled(part) for part in text.split("## ")[1:]]


def sections(report: Json) -> list[Json]:
    """The sections that a report has, in reading order, those of its figures and files aside."""
    more = "More metrics: other calibration errors, and how well confidence ranks errors"
    alike, paper = "On every seed these arms gave the same predictions.", report["methods_paragraph"]
    same = {"title": "Identical to the last bit", "text": alike}
    identical = [{**same, "items": labels} for labels in report["identical"]]
    timing, command, said = report["timing"], report["reproduce"], report["description"]
    description = {"folded": "What the study file says", "text": said, "pre": True} if said else None
    arms = [_table(report["arms"]), _table(report["more_metrics"], more), *identical]
    effects = [_table(report["effects"]), _table(report["sensitivity"], "How sure are the claims")]
    cost = [{"text": timing["note"]}, _table(timing["table"])] if timing["note"] else []
    tuning, published = report.get("tuning"), report["published"]
    search, compared = list[Json | None](), list[Json | None]()
    if tuning:
        points = _table(tuning["points"], "All {} points of the search")
        search = [_table(tuning["retested"]), {"facts": tuning["facts"]}, points]
    if published:
        lead = words("published.lead", source=published["source"], differences=published["differences"])
        several = len(published["tables"]) > 1
        compared = [{"text": lead}, {"text": published["caution"]}]
        for table in published["tables"]:
            title, outside = table["arm"] if several else "", table["outside"]
            compared.append({"title": title, "text": table["summary"], "items": outside, "table": table})
    found: list[tuple[str, str, list[Json | None]]] = [
        ("arms", "Arms", arms),
        ("components", "Components", [_table(report["components"])]),
        ("retune", "Each arm tuned on its own", [_table((report["retune"] or {}).get("table"))]),
        ("differences", "Differences from the baseline", effects),
        ("trends", "Trends", [_table(report["trends"])]),
        ("contrasts", "Main effects and interactions", [_table(report["contrasts"])]),
        ("tuning", "Tuning", search),
        ("cost", "Cost of a step", cost),
        ("published", "Beside the published run", compared),
        ("failures", "Failed trials", [_table(report["failures"])]),
        ("mislead", "What could mislead", report["banners"]),
        ("methods", "Methods, to paste", [{"text": paper["text"], "items": paper["references"]}]),
        ("method", "Method", [*report["method"], description]),
        ("provenance", "Provenance", [{"facts": report["provenance"]}]),
        ("reproduce", "How to reproduce", [{"code": command["command"], "text": command["note"]}]),
        ("trials", "Trials", [_table(report["trials"], "All {} trials")]),
    ]
    return [
        {
            "id": name,
            "title": title,
            "lead": words(f"lead.{name}") if f"lead.{name}" in texts() else "",
            "parts": [EMPTY | one for one in parts if one],
        }
        for name, title, parts in found
        if any(parts)
    ]


def _table(table: Json | None, folded: str = "") -> Json | None:
    return {"table": table, "folded": folded.format(len(table["rows"]))} if table else None


def render_html(report: Json, figures: Sequence[Figure], downloads: Mapping[str, bytes]) -> str:
    """The page of a report: style, script, figures and the tables to download are inside it."""
    style, script = ((TEMPLATES / f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    # The browser runs this one script, applies this one style and loads nothing.
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_source_hash(style)}'; "
        f"script-src '{_source_hash(script)}'; base-uri 'none'; form-action 'none'"
    )
    # Text and not base64, which would make it a third longer.
    svg = {figure.name: quote(adaptive(figure.light, figure.dark), safe=SAFE) for figure in figures}
    csv = {name: base64.b64encode(content).decode() for name, content in downloads.items()}
    images = {name: Markup(f"data:image/svg+xml,{text}") for name, text in svg.items()}
    carried = {name: f"data:text/csv;charset=utf-8;base64,{text}" for name, text in csv.items()}
    looks = {"style": style, "script": script, "policy": policy}
    page = environment(autoescape=True).get_template("report.html.j2")
    return page.render(report=report, sections=sections(report), images=images, downloads=carried, **looks)


def _source_hash(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def adaptive(light: bytes, dark: bytes) -> bytes:
    """One SVG in the place of two that differ in colours alone: it takes those of the reader's scheme."""
    if light == dark:
        return light
    dark_of = dict(zip(COLOR.findall(light), COLOR.findall(dark), strict=True))
    names = {color: b"--c%d" % place for place, color in enumerate(dark_of)}
    ours = b";".join(b"%b:%b" % (names[color], color) for color in dark_of)
    theirs = b";".join(b"%b:%b" % (names[color], dark_of[color]) for color in dark_of)
    style = b":root{%b}@media screen and (prefers-color-scheme:dark){:root{%b}}" % (ours, theirs)
    painted = COLOR.sub(lambda color: b"var(%b)" % names[color[0]], light)
    return painted.replace(b"<defs>", b"<style>%b</style><defs>" % style, 1)


def render_markdown(report: Json) -> str:
    """The page of a report in Markdown, for a repository or a message: the same numbers."""
    # The autoescape of HTML is off; every value goes through `finalize` instead.
    plain = environment(autoescape=False, finalize=escaped)
    plain.filters["code"] = code
    text = plain.get_template("report.md.j2").render(report=report, sections=sections(report))
    return re.sub(r"\n{3,}", "\n\n", text)


def escaped(value: object) -> object:
    """A value as a template of Markdown prints it: `Markup` is Markdown already."""
    return escape(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def escape(text: str) -> str:
    """Text that Markdown shows as it is: in one line, nothing in it a mark, a tag, a link or a cell's end."""
    line = SPECIAL.sub(r"\\\g<0>", " ".join(text.split()))
    return LEADING.sub(lambda start: f"{start[1] or ''}\\{start[2] or start[0]}", line)


def code(text: str) -> Markup:
    """Text as inline code, fenced by more backquotes than it holds."""
    line = " ".join(text.split())
    fence = max(re.findall("`+", line), default="") + "`"
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return Markup(f"{fence}{space}{line}{space}{fence}")
