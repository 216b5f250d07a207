"""Tables of the page: verdicts at claims alone, ticks of components, what tells a fragile claim."""

import re
from typing import Any

import pytest
from recorded_study import planned
from report_cases import Get
from report_pages import rows_of
from report_results import declare, effect_row, trial_rows

from ablate.analysis.effects import VERDICTS, effects_table
from ablate.report.cautions import banners
from ablate.report.views import components_view, effects_view
from ablate.store.results import read_plan
from ablate.tables.files import frame, read_tables
from ablate.tables.quantities import quantity, shown

WORDS = re.compile(rf"\b({'|'.join(VERDICTS)})\b")


@pytest.mark.parametrize("case", ["sweep", "factorial", "marked", "tuned", "tuned_front"])
def test_verdicts_stand_at_claims_and_arrows_everywhere_else(rendered: Get, case: str) -> None:
    report, told, claimed = rendered(case).report, 0, 0
    effects = read_tables(rendered(case).results)["effects"]
    for name in ("effects", "trends", "contrasts", "components", "sensitivity"):
        for row in rows_of(report[name]):
            for cell in row.values():
                if "verdict" not in cell:
                    assert not WORDS.search(" ".join([cell["text"], *cell["notes"]]))
                elif cell["verdict"] != "exploratory":
                    claimed += name == "sensitivity"
                    assert cell["notes"][-1] == cell["verdict"]
                    assert cell["text"][0] in "+−0–"
                else:
                    told += 1
                    assert not WORDS.search(" ".join(cell["notes"]))
                    up = (cell["value"] or 0.0) > 0, (cell["value"] or 0.0) < 0
                    equal = cell["value"] == 0 and cell["notes"] == ["equal on every seed"]
                    assert [sign == cell["text"][0] for sign in "↑↓="] == [*up, equal]
    assert claimed == (effects["verdict"] != "exploratory").sum() > 0
    assert told


def test_components_are_ticked_and_stand_beside_their_baseline(rendered: Get) -> None:
    page = rendered("marked")
    tables, plan = read_tables(page.results), read_plan(page.results)
    known = tables["effects"].query("kind == 'arm' and metric == 'accuracy'").set_index("term")
    levels = {trial.arm: trial.levels for trial in plan.trials}
    rows = list(rows_of(page.report["components"]))
    assert [*rows[0]] == ["flip", "clip_norm=1", "arch", "Accuracy", "Δ Accuracy"]
    means = tables["trials"].groupby("arm", sort=False)["accuracy"].mean()
    for arm, row in zip(plan.arms, rows, strict=True):
        own = levels[arm]
        ticks = [row[head]["text"] == "✓" for head in ("flip", "clip_norm=1")]
        assert ticks == [own["flip"], own["clip_norm"] == 1]
        assert (row["arch"]["text"], row["Accuracy"]["value"]) == (own["arch"], pytest.approx(means[arm]))
        expected = (
            shown(known["effect"][arm], quantity("accuracy"), signed=True) if any(ticks) else "baseline"
        )
        assert row["Δ Accuracy"]["text"] == expected
    best = {row["Accuracy"]["text"] for row in rows if row["Accuracy"]["best"]}
    assert best == {f"{100 * means.max():.2f}"}


@pytest.mark.parametrize(
    ("factors", "baseline", "heads"),
    [
        ({"flip": (True, False), "lr": (0.1, 0.2)}, {"flip": True, "lr": 0.2}, ["flip", "lr=0.1"]),
        ({"optimizer": ("sgd", "adamw"), "lr": (0.1, 0.2)}, {}, ["optimizer=adamw", "lr=0.2"]),
        ({"flip": (True, False), "lr": (0.1, 0.2, 0.3)}, {}, None),
    ],
)
def test_off_is_nothing_or_else_the_baseline(factors: Any, baseline: Any, heads: list[str] | None) -> None:
    plan = planned(declare(factors=factors, baseline=baseline, seeds=2))
    table = components_view({"trials": trial_rows(plan)}, frame("effects", []), plan)
    assert [head["label"] for head in (table or {"columns": []})["columns"]][:2] == (heads or [])


@pytest.mark.parametrize(
    ("kind", "factors", "rows"),
    [
        ("main", {"epsilon": (0.0, 0.1), "arch": ("a", "b")}, ["ε: 0.1 − 0", "arch: b − a"]),
        ("pair", {"arch": ("a", "b", "c")}, ["arch=b arch=a", "arch=c arch=a", "arch=c arch=b"]),
    ],
)
def test_what_has_no_baseline_is_in_the_tables(kind: str, factors: dict[str, Any], rows: list[str]) -> None:
    plan = planned(declare(factors=factors, baseline={"epsilon": 0.0} if "epsilon" in factors else {}))
    effects = effects_table({"trials": trial_rows(plan, lambda trial: {"accuracy": 0.5})}, plan)
    heads = ("Contrast",) if kind == "main" else ("Arm", "Against")
    found = rows_of(effects_view(effects, plan, kind))
    assert [" ".join(row[head]["text"] for head in heads) for row in found] == rows


STUDY = declare(factors={"epsilon": (0.0, 0.1)}, baseline={"epsilon": 0.0}, seeds=10)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, None),
        ({"n": 3, "p_sign_flip": 0.25}, "3 seeds"),
        ({"p_sign_flip": 0.06}, "sign-flip p 0.060"),
        ({"n": 5, "p_sign_flip": 0.0625}, None),  # the smallest that five seeds can give
        ({"p_welch": 0.07}, "Welch's adjusted p 0.070"),
        ({"largest_share": 0.61}, "61 % of the squares in one seed"),
        ({"p_sign_flip": 0.2, "p_welch": 0.2}, "sign-flip p 0.200, Welch's adjusted p 0.200"),
        ({"p_sign_flip": 0.9, "p_welch": 0.9, "verdict": "equivalent"}, None),
        ({"n": 3, "verdict": "equivalent", "reason": "identical"}, None),
        ({"n": 3, "verdict": "exploratory"}, None),
    ],
)
def test_a_decided_claim_on_thin_ground_is_told_with_why(changes: dict[str, Any], why: str | None) -> None:
    plan, effects = planned(STUDY), frame("effects", [effect_row(**changes)])
    found = banners({"trials": trial_rows(plan), "effects": effects}, plan)
    items = [item for banner in found if "thin ground" in banner["title"] for item in banner["items"]]
    word = changes.get("verdict", "better")
    assert items == ([f"Accuracy, ε: 0.1 − 0, {word}: {why}"] if why else [])
