"""A report's sections, in reading order: what both pages show of report.json, with the words between tables.

A section is {"id", "title", "lead", "parts"}. A part has any of `title`, `text`, `items` (a list), `facts`
(names and values), `code` and `table`; with `folded` it is closed in the HTML page, and not in the other one.
"""

from __future__ import annotations

from typing import Any

from ablate.tables.cells import Json

EMPTY: Json = {
    "title": "",
    "text": "",
    "items": [],
    "facts": [],
    "code": "",
    "table": None,
    "folded": "",
    "pre": False,
}
INTERVALS = "Where an adjusted p is given, the intervals hold together over "
LEADS = {
    "arms": "Means over complete training runs, below each its 95 % t interval.",
    "differences": "Mean paired differences over seeds, below each its 95 % interval and the verdict. "
    f"{INTERVALS}the study's family; elsewhere each stands alone, and its verdict, in brackets, is "
    "exploratory.",
    "trends": "The change along the straight line that fits best, from a factor's lowest level to its "
    "highest, seed by seed and averaged over the other factors. A line tells rise from fall and nothing "
    "else: a hump in the middle has no slope. Below each its 95 % interval and the verdict. "
    f"{INTERVALS}this table.",
    "contrasts": "A main effect is the difference between two levels of a factor, averaged over the other "
    "factors. An interaction is how much that difference changes with another factor's level: none means "
    "that the factors can be read one at a time. Where trials are missing, the average is over those "
    "combinations and seeds that keep the most values, and the verdict is undecided. Below each its 95 % "
    f"interval and the verdict, which for an interaction is at most higher or lower. {INTERVALS}this table.",
    "tuning": "What was run again: its mean while tuning, then with fresh seeds on the reported split, and "
    "what of the advantage over the baseline did not show again. Differences of fresh seeds are those of "
    "the table above.",
}


def sections(report: Json) -> list[Json]:
    """The sections that a report has, those of its figures and files aside."""
    tuning, failures = report.get("tuning"), report["failures"]
    found = [
        _section("arms", "Arms", _table(report["arms"]), _more(report), *_identical(report["identical"])),
        _section(
            "differences",
            "Differences from the baseline",
            _table(report["effects"]),
            _table(report["certainty"], folded="How sure are these differences"),
        ),
        _section("trends", "Trends", _table(report["trends"])),
        _section("contrasts", "Main effects and interactions", _table(report["contrasts"])),
        _section("tuning", "Tuning", *_tuning(tuning)) if tuning else None,
        _section(
            "cost", "Cost of a step", {"text": report["timing"]["note"]}, _table(report["timing"]["table"])
        ),
        _section("published", "Beside the published run", *_published(report["published"])),
        _section("failures", "Failed trials", _table(failures)),
        _section("mislead", "What could mislead", *report["banners"]),
        _section("method", "Method", *_method(report)),
        _section("provenance", "Provenance", {"facts": report["provenance"]}),
        _section(
            "reproduce",
            "How to reproduce",
            {"code": report["reproduce"]["command"], "text": report["reproduce"]["note"]},
        ),
        _section(
            "trials", "Trials", _table(report["trials"], folded=f"All {len(report['trials']['rows'])} trials")
        ),
    ]
    return [section for section in found if section]


def _section(name: str, title: str, *parts: Json | None) -> Json | None:
    """A section of those parts that there are; None without any."""
    kept = [EMPTY | part for part in parts if part]
    return {"id": name, "title": title, "lead": LEADS.get(name, ""), "parts": kept} if kept else None


def _table(table: Json | None, **also: Any) -> Json | None:
    return {"table": table, **also} if table else None


def _more(report: Json) -> Json | None:
    folded = "More metrics: other calibration errors, and how well confidence ranks errors"
    return _table(report["more_metrics"], folded=folded)


def _identical(groups: list[list[str]]) -> list[Json]:
    text = "On every seed these arms gave the same predictions."
    return [{"title": "Identical to the last bit", "items": labels, "text": text} for labels in groups]


def _tuning(tuning: Json) -> list[Json | None]:
    points = _table(tuning["points"], folded=f"All {len(tuning['points']['rows'])} points of the search")
    return [_table(tuning["retested"]), {"facts": tuning["facts"]}, points]


def _published(published: Json | None) -> list[Json]:
    if not published:
        return []
    about = (
        f"Published by: {published['source']}. Ours are means over training runs, below each the 95 % "
        "prediction "
        f"interval: where one more run of ours would lie. {published['differences']}".rstrip()
    )
    several = len(published["tables"]) > 1
    return [
        {"text": about},
        {"text": published["caution"]},
        *(
            {
                "title": table["arm"] if several else "",
                "text": table["summary"],
                "items": table["outside"],
                "table": table,
            }
            for table in published["tables"]
        ),
    ]


def _method(report: Json) -> list[Json]:
    said = {"folded": "What the study file says", "text": report["description"], "pre": True}
    return [*report["method"], *([said] if report["description"] else [])]
