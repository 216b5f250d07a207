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


def sections(report: Json) -> list[Json]:
    """The sections that a report has, those of its figures and files aside."""
    more = "More metrics: other calibration errors, and how well confidence ranks errors"
    alike = "On every seed these arms gave the same predictions."
    identical = [
        {"title": "Identical to the last bit", "items": labels, "text": alike}
        for labels in report["identical"]
    ]
    description = {"folded": "What the study file says", "text": report["description"], "pre": True}
    timing, command = report["timing"], report["reproduce"]
    found = [
        _section(
            "arms", "Arms", _table(report["arms"]), _table(report["more_metrics"], folded=more), *identical
        ),
        _section(
            "differences",
            "Differences from the baseline",
            _table(report["effects"]),
            _table(report["certainty"], folded="How sure are these differences"),
        ),
        _section("trends", "Trends", _table(report["trends"])),
        _section("contrasts", "Main effects and interactions", _table(report["contrasts"])),
        _section("tuning", "Tuning", *_tuning(report.get("tuning"))),
        _section("cost", "Cost of a step", {"text": timing["note"]}, _table(timing["table"])),
        _section("published", "Beside the published run", *_published(report["published"])),
        _section("failures", "Failed trials", _table(report["failures"])),
        _section("mislead", "What could mislead", *report["banners"]),
        _section("method", "Method", *report["method"], description if report["description"] else None),
        _section("provenance", "Provenance", {"facts": report["provenance"]}),
        _section("reproduce", "How to reproduce", {"code": command["command"], "text": command["note"]}),
        _section(
            "trials", "Trials", _table(report["trials"], folded=f"All {len(report['trials']['rows'])} trials")
        ),
    ]
    return [section for section in found if section]


def _section(name: str, title: str, *parts: Json | None) -> Json | None:
    """A section of those parts that there are; None without any."""
    kept = [EMPTY | part for part in parts if part]
    lead = words(f"lead.{name}") if name in LED else ""
    return {"id": name, "title": title, "lead": lead, "parts": kept} if kept else None


LED = ("arms", "differences", "trends", "contrasts", "tuning")
"""Sections that words.md has a lead for."""


def _table(table: Json | None, **also: Any) -> Json | None:
    return {"table": table, **also} if table else None


def _tuning(tuning: Json | None) -> list[Json | None]:
    if not tuning:
        return []
    points = _table(tuning["points"], folded=f"All {len(tuning['points']['rows'])} points of the search")
    return [_table(tuning["retested"]), {"facts": tuning["facts"]}, points]


def _published(published: Json | None) -> list[Json]:
    if not published:
        return []
    lead = words("lead.published", source=published["source"], differences=published["differences"])
    tables = published["tables"]
    compared = [
        {
            "title": table["arm"] if len(tables) > 1 else "",
            "text": table["summary"],
            "items": table["outside"],
            "table": table,
        }
        for table in tables
    ]
    return [{"text": lead}, {"text": published["caution"]}, *compared]
