"""The report of a tuned study: what tuning bought, in sentences and tables, and what could mislead."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from report_cases import Get, Rendered, built, render
from report_results import EPSILON, Asked, epsilon_points, guess, hump, retest_study, write_search

from ablate.report import build_report
from ablate.report.content import derived_tables
from ablate.store.results import read_plan
from ablate.study.trials import Plan
from ablate.tables.columns import COLUMNS, DERIVED, TUNING
from ablate.tables.files import Tables, frame, read_tables


def read(page: Rendered) -> tuple[Tables, Plan]:
    names = [name for name in COLUMNS if name not in DERIVED]
    return read_tables(page.results, names=names), read_plan(page.results)


def with_search(plan: Plan, **changes: Any) -> Plan:
    search = EPSILON.model_copy(update=changes)
    return plan.model_copy(update={"study": plan.study.model_copy(update={"search": search})})


def facts(report: dict[str, Any]) -> dict[str, str]:
    return {fact["name"]: fact["value"] for fact in report["tuning"]["facts"]}


def in_percent(page: Rendered) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Accuracies from the CSV files: of every run of the search, and of fresh seeds by ε."""
    names = ("points", "point_values", "trials")
    points, runs, trials = (pd.read_csv(page.results.root / f"{name}.csv") for name in names)
    runs = runs.merge(points[["number", "epsilon"]])
    fresh = trials.pivot(index="seed", columns="epsilon", values="accuracy")
    return runs.assign(value=100 * runs["value"]), 100 * fresh


def test_sentences_and_the_table_hold_what_the_csv_files_say(rendered: Get) -> None:
    page = rendered("tuned")
    runs, fresh = in_percent(page)
    value, base = (runs[runs["number"] == number]["value"].mean() for number in (10, 0))
    seen, again = value - base, (fresh[0.105] - fresh[0.0]).mean()
    said = page.report["answer"]["tuning"]
    chosen, winner, cost = said["sentences"]
    assert said["verdict"] == "Tuning bought nothing that can be shown."
    assert chosen == "Tuning chose ε=0.105 of 14 points."
    for part in (f"accuracy {value:.2f} %", f"{seen:+.2f} points", "5 fresh seeds", f"{again:+.2f} points"):
        assert part in winner
    assert winner.endswith(": undecided.")
    assert cost == "The search took 66 training runs and 7 minutes, the re-test 15 and 2 minutes."
    table = page.report["tuning"]["retested"]
    assert [cell["label"] for cell in table["columns"]][2:] == [
        "Accuracy, tuning split", "Accuracy, reported split", "Δ while tuning", "Δ re-tested", "Drop",
    ]  # fmt: skip
    best, baseline, anchor = table["rows"]
    assert [row[0]["notes"] for row in table["rows"]] == [["winner"], ["baseline"], ["anchor"]]
    assert [cell["text"] for cell in baseline[4:]] == ["–", "–", "–"]
    expected = [value, fresh[0.105].mean(), seen, again, seen - again]
    assert [100 * cell["value"] for cell in best[2:]] == pytest.approx(expected)
    effects = {row[0]["text"]: row[3] for row in page.report["effects"]["rows"]}
    assert (best[5], anchor[5]) == (effects["ε=0.105"], effects["ε=0.1"])


def test_every_point_stands_in_a_table_with_why_it_was_given_up(rendered: Get) -> None:
    rows = rendered("tuned").report["tuning"]["points"]["rows"]
    assert [int(row[0]["text"]) for row in rows] == list(range(14))
    pruned = {"text": "pruned", "notes": ["after 4 seeds: Worse than point 4."], "value": "pruned"}
    assert (rows[11][3], rows[12][3]["notes"]) == (pruned, ["seed 1000001: diverged: not finite"])
    assert [rows[place][6]["text"] for place in (11, 12, 13)] == ["4/5", "1/5", "5/5"]
    assert rows[12][4]["value"] is None
    assert [row[2]["text"] for row in rows if "winner" in row[2]["text"]] == ["sampler, winner"]
    one, two = rendered("tuned").report, rendered("tuned_front").report
    known, more = facts(one), facts(two)
    assert known["Searched"] == "ε: 0 to 0.5 by 0.005"
    assert known["Budget"] == "14 points of 5 training runs: 12 complete, 1 pruned, 1 failed"
    assert known["Reported split"].startswith("not looked at while tuning; digest cdcd")
    assert "3 of the tuning images are in it" in known["Reported split"]
    assert not [name for name in known if name.startswith("Importance")]
    assert "batch_size: 32 to 128 by 32 (where arch=a)" in more["Searched"]
    assert more["Importance for NLL"].startswith("ε 0.25, lr 0.25")
    for report, words in ((one, "of equal ones the first"), (two, "beats in both smoothed values")):
        assert words in report["method"][0]["text"]


@pytest.mark.parametrize(
    ("status", "winner", "done", "verdict"),
    [
        ("missing", 10, 12, "What tuning bought is open until its choice is re-run with fresh seeds."),
        ("complete", 0, 12, "Tuning chose the baseline itself."),
        ("complete", None, 2, "Tuning is not finished: 4 of 14 points have ended, and none is chosen yet."),
        ("complete", None, 12, "Tuning chose nothing: none of its points has a value."),
    ],
)
def test_why_no_comparison(rendered: Get, status: str, winner: int | None, done: int, verdict: str) -> None:
    tables, plan = read(rendered("tuned"))
    tables["trials"] = tables["trials"].assign(status=status)
    tables["points"] = tables["points"].assign(winner=[number == winner for number in range(14)])
    tables["tuning"] = tables["tuning"].assign(points_done=done)
    report = built(tables, plan)
    said = report["answer"]["tuning"]
    assert said["verdict"] == verdict
    assert ("The search's budget is not spent" in str(report["banners"])) == (done < 12)
    assert ("not re-run with fresh seeds yet." in str(said["sentences"])) == (status == "missing")
    if winner == 0:
        assert "against" not in said["sentences"][1].partition(";")[0]
        assert report["tuning"]["retested"]["rows"][0][0]["notes"] == ["winner, baseline"]


FIRST, SECOND = "ε=0.2, lr=0.01, arch=d", "ε=0.3, lr=0.01, arch=d"


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (("better", "undecided"), ("worse", "worse"), f"fresh seeds confirm: {FIRST} beats the baseline."),
        (("better", "better"), ("equivalent", "better"), f"confirm: {FIRST} and {SECOND} beat the baseline."),
        (("better", "worse"), ("undecided",) * 2, "Tuning bought one objective with the other: with "),
        (("worse", "undecided"), ("worse", "worse"), "bought nothing: with fresh seeds its choice is worse"),
        (("equivalent",) * 2, ("equivalent",) * 2, "bought nothing that matters: with fresh"),
        (("undecided",) * 2, ("undecided",) * 2, "Tuning bought nothing that can be shown."),
        (("undecided",) * 2, ("undecided", "incomplete"), "shown yet: its re-test is not complete."),
    ],
)
def test_the_verdict_is_that_of_the_fresh_seeds(
    rendered: Get, first: tuple[str, str], second: tuple[str, str], expected: str
) -> None:
    """The two points of the re-test are taken for the winners, whatever the smoothing says."""
    tables, plan = read(rendered("tuned_front"))
    tables["points"] = tables["points"].assign(winner=tables["points"]["number"].isin([3, 7]))
    tables |= derived_tables(tables, plan)
    effects = tables["effects"]
    for arm, words in zip(plan.arms[1:], (first, second), strict=True):
        for metric, word in zip(("accuracy", "nll"), words, strict=True):
            rows = (effects["term"] == arm) & (effects["metric"] == metric)
            told = ["undecided", word] if word == "incomplete" else [word, ""]
            effects.loc[rows, ["verdict", "reason"]] = told
    assert expected in build_report(tables, plan, [])["answer"]["tuning"]["verdict"]


def test_what_could_mislead_is_said(rendered: Get) -> None:
    told = (rendered(case).report["banners"] for case in ("tuned", "tuned_front"))
    one, two = ({banner["title"]: banner for banner in banners} for banners in told)
    shared = "The tuning split and the reported split share images"
    failed = "3 of 18 points of the search failed"
    assert next(iter(one)) == shared
    assert "3 of 240 tuning images" in one[shared]["text"]
    few = "Fewer than 3 training runs per point of the search"
    assert {"The search's budget is not spent", failed, few} <= set(two)
    assert {item.partition(": ")[2] for item in two[failed]["items"]} == {"its fields cannot be trained: a"}
    assert shared not in two
    assert "Fewer than 5 training runs in every arm" not in one  # it has five
    assert not [title for title in one if "points of the search" in title]


def test_a_search_that_pruned_within_runs_and_had_one_seed_a_point_says_so(rendered: Get) -> None:
    tables, plan = read(rendered("tuned"))
    plan = with_search(plan, pruning="median")
    tables["tuning"] = tables["tuning"].assign(points_pruned=12, points_done=1, seeds=1)
    tables["points"] = tables["points"].assign(seeds_done=0, low=np.nan, high=np.nan)
    report = built(tables, plan)
    told = {banner["title"]: banner["text"] for banner in report["banners"]}
    assert "12 of 14 points of the search were pruned" in told
    assert "There is one." in told["Fewer than 3 training runs per point of the search"]
    words = "66 training runs and 7 minutes (not counted: 1 training run that pruning stopped early)"
    assert facts(report)["Cost"] == words
    assert f"The search took {words}" in report["answer"]["tuning"]["sentences"][-1]
    rows = report["tuning"]["points"]["rows"]
    assert rows[11][3]["notes"] == ["after 4 epochs: Worse than point 4."]
    assert rows[0][4]["notes"] == ["no interval"]


@pytest.mark.parametrize(
    ("images", "objective", "expected"),
    [
        (240, ("accuracy",), ["It has 240 images: one image is 0.42 points of accuracy."]),
        (500, ("accuracy",), []),
        (800, ("accuracy", "ece"), ["of accuracy. Of fewer than 1,000 images, ECE is mostly noise."]),
        (1000, ("accuracy", "ece"), []),
    ],
)
def test_a_small_split(rendered: Get, images: int, objective: tuple[str, ...], expected: list[str]) -> None:
    tables, plan = read(rendered("tuned"))
    tables["tuning"] = tables["tuning"].assign(tuning_images=images)
    told = built(tables, with_search(plan, objective=objective))["banners"]
    texts = [banner["text"] for banner in told if banner["title"] == "A small tuning split"]
    assert [text[-len(expected[0]) :] for text in texts] == expected


def test_a_study_that_was_not_tuned_is_reported_as_ever(rendered: Get) -> None:
    plain = rendered("one_seed")
    assert "Tuning" not in plain.html + plain.markdown
    assert not [name for name in TUNING if (plain.results.root / f"{name}.csv").exists()]
    assert [len(read(plain)[0][name]) for name in TUNING] == [0] * len(TUNING)
    tables, plan = read(rendered("tuned"))
    without = plan.model_copy(update={"study": plan.study.model_copy(update={"search": None})})
    bare = {name: frame(name, []) if name in TUNING else table for name, table in tables.items()}
    for report in (plain.report, built(tables, without), built(bare, plan)):
        assert "tuning" not in {*report, *report["answer"]}


def test_levels_that_were_asked_for_twice_are_judged_by_all_their_runs(tmp_path: Path) -> None:
    """The one that was chosen stands for them; the baseline was asked for again too."""
    asked = [*epsilon_points(), *(Asked({"epsilon": level}) for level in (0.0, 0.16, 0.16))]
    search = EPSILON.model_copy(update={"points": 17})

    def searched(results: Any) -> None:
        write_search(results, search, asked, strength=hump, winners=(5,))

    study = retest_study(search, [{"epsilon": epsilon} for epsilon in (0.0, 0.1, 0.16)])
    page = render(tmp_path, study=study, search=searched, made=lambda trial: guess(trial, hump(trial.levels)))
    runs, fresh = in_percent(page)
    own, other = (runs[runs["epsilon"] == epsilon]["value"] for epsilon in (0.16, 0.0))
    winner, baseline, _ = page.report["tuning"]["retested"]["rows"]
    assert (winner[1]["text"], baseline[1]["text"]) == ("5, 15, 16", "0, 14")
    assert winner[2]["text"] == f"{own.mean():.2f}"
    assert [row[2]["notes"][0][-8:] for row in (winner, baseline)] == [", n = 15", ", n = 10"]
    seen, again = own.mean() - other.mean(), (fresh[0.16] - fresh[0.0]).mean()
    assert [100 * winner[place]["value"] for place in (4, 6)] == pytest.approx([seen, seen - again])
    said = f"accuracy {own.mean():.2f} % (mean of 15 runs of 3 points), {seen:+.2f} points against"
    assert said in page.report["answer"]["tuning"]["sentences"][1]
