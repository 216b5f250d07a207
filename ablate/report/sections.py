"""A report's sections, in reading order: what both pages show of report.json, with the words between tables.

A section is {"id", "title", "lead", "parts"}. A part has any of `title`, `text`, `items` (a list), `facts`
(names and values), `code` and `table`; with `folded` it is closed in the HTML page, and not in the other one.
"""

from __future__ import annotations

from typing import Any

from ablate.report.cells import Json
from ablate.report.words import words

EMPTY: Json = {
    "title": "", "text": "", "items": [], "facts": [], "code": "", "table": None, "folded": "", "pre": False,
}  # fmt: skip
LED = ("arms", "differences", "trends", "contrasts", "tuning")
"""Sections that words.md has a lead for."""


def sections(report: Json) -> list[Json]:
    """The sections that a report has, those of its figures and files aside."""
    more = "More metrics: other calibration errors, and how well confidence ranks errors"
    sure, every = "How sure are these differences", f"All {len(report['trials']['rows'])} trials"
    alike = "On every seed these arms gave the same predictions."
    identical = [
        {"title": "Identical to the last bit", "items": labels, "text": alike}
        for labels in report["identical"]
    ]
    timing, command, said = report["timing"], report["reproduce"], report["description"]
    description = {"folded": "What the study file says", "text": said, "pre": True} if said else None
    arms = [_table(report["arms"]), _table(report["more_metrics"], folded=more), *identical]
    effects = [_table(report["effects"]), _table(report["certainty"], folded=sure)]
    found: list[tuple[str, str, list[Json | None]]] = [
        ("arms", "Arms", arms),
        ("differences", "Differences from the baseline", effects),
        ("trends", "Trends", [_table(report["trends"])]),
        ("contrasts", "Main effects and interactions", [_table(report["contrasts"])]),
        ("tuning", "Tuning", _tuning(report.get("tuning"))),
        ("cost", "Cost of a step", [{"text": timing["note"]}, _table(timing["table"])]),
        ("published", "Beside the published run", _published(report["published"])),
        ("failures", "Failed trials", [_table(report["failures"])]),
        ("mislead", "What could mislead", report["banners"]),
        ("method", "Method", [*report["method"], description]),
        ("provenance", "Provenance", [{"facts": report["provenance"]}]),
        ("reproduce", "How to reproduce", [{"code": command["command"], "text": command["note"]}]),
        ("trials", "Trials", [_table(report["trials"], folded=every)]),
    ]
    return [
        {
            "id": name,
            "title": title,
            "lead": words(f"lead.{name}") if name in LED else "",
            "parts": [EMPTY | part for part in parts if part],
        }
        for name, title, parts in found
        if any(parts)
    ]


def _table(table: Json | None, **also: Any) -> Json | None:
    return {"table": table, **also} if table else None


def _tuning(tuning: Json | None) -> list[Json | None]:
    if not tuning:
        return []
    points = _table(tuning["points"], folded=f"All {len(tuning['points']['rows'])} points of the search")
    return [_table(tuning["retested"]), {"facts": tuning["facts"]}, points]


def _published(published: Json | None) -> list[Json | None]:
    if not published:
        return []
    lead = words("lead.published", source=published["source"], differences=published["differences"])
    titles = [table["arm"] if len(published["tables"]) > 1 else "" for table in published["tables"]]
    compared = [
        {"title": title, "text": table["summary"], "items": table["outside"], "table": table}
        for title, table in zip(titles, published["tables"], strict=True)
    ]
    return [{"text": lead}, {"text": published["caution"]}, *compared]
