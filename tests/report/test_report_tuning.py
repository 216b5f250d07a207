"""The report of a tuned study: what tuning bought, in sentences and tables, and what could mislead."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from report_cases import HOSTILE, Rendered, built, render, tuned
from report_results import declare
from scipy import stats
from tuned_results import EPSILON, Asked, epsilon_points, guess, hump, retest_study, write_search

from ablate.analysis.tuning import read_search
from ablate.errors import RecordError
from ablate.report import build_report
from ablate.report.cautions import banners
from ablate.report.content import derived_tables
from ablate.store.points import read_tuning, write_tuning
from ablate.store.results import ResultsFolder, read_plan
from ablate.study.search import Search
from ablate.study.trials import Plan
from ablate.tables import COLUMNS, DERIVED, TUNING, Tables, frame, points_table, read_tables

Get = Callable[..., Rendered]
NOT_DERIVED = [name for name in COLUMNS if name not in DERIVED]


def read(page: Rendered) -> tuple[Tables, Plan]:
    return read_tables(page.results, names=NOT_DERIVED), read_plan(page.results)


def told(page: Rendered) -> tuple[str, list[str]]:
    """The verdict on the search, and the sentences below it."""
    said = page.report["headline"]["tuning"]
    return said["verdict"], said["sentences"]


def facts(page: Rendered) -> dict[str, str]:
    return {fact["name"]: fact["value"] for fact in page.report["tuning"]["facts"]}


def banner(page: Rendered, words: str) -> dict[str, Any]:
    """The one warning with these words in its title."""
    (found,) = [banner for banner in page.report["banners"] if words in banner["title"]]
    return dict(found)


def searched(
    root: Path, asked: Sequence[Asked], *arms: float, search: Search = EPSILON, made: Any = None, **how: Any
) -> Rendered:
    """A search of these points, and the re-test of some ε."""
    return render(
        root,
        study=retest_study(search, [{"epsilon": epsilon} for epsilon in arms]),
        search=lambda results: write_search(results, search, asked, **{"strength": hump, **how}),
        made=made,
    )


def by_hand(page: Rendered) -> dict[str, float]:
    """Of the winner and the baseline, while tuning and with fresh seeds, in percent, from the CSV files."""
    points = pd.read_csv(page.results.root / "points.csv")
    trials = pd.read_csv(page.results.root / "trials.csv")
    winner = points[points["winner"]].iloc[0]
    seen = 100 * (winner["value"] - points[points["source"] == "baseline"]["value"].iloc[0])
    fresh = trials.pivot(index="seed", columns="epsilon", values="accuracy")
    again = 100 * (fresh[winner["epsilon"]] - fresh[0.0]).mean()
    return {"value": 100 * winner["value"], "seen": seen, "fresh": again, "drop": seen - again}


def test_the_sentences_hold_the_numbers_of_the_tables(rendered: Get) -> None:
    page = rendered("tuned")
    known = by_hand(page)
    verdict, (chosen, winner, cost) = told(page)
    assert chosen == "Tuning chose ε=0.16 of 14 points."
    assert winner.startswith(
        f"On the tuning split: accuracy {known['value']:.2f} %, {known['seen']:+.2f} percentage points "
        "against the baseline there; with 5 fresh seeds on the reported split "
        f"{known['fresh']:+.2f} percentage points against it (simultaneous 95 % "
    )
    assert winner.endswith(": undecided.")
    assert verdict == "Tuning bought nothing that can be shown."
    assert cost == "The search took 66 training runs and 7 minutes, the re-test 15 and 2 minutes."


def test_the_retested_points_stand_in_a_table(rendered: Get) -> None:
    page = rendered("tuned")
    known, table = by_hand(page), page.report["tuning"]["retested"]
    assert [cell["label"] for cell in table["columns"]][2:] == [
        "Accuracy, tuning split", "Accuracy, reported split", "Δ while tuning", "Δ re-tested", "Drop",
    ]  # fmt: skip
    winner, baseline, anchor = table["rows"]
    assert [row[0]["notes"] for row in table["rows"]] == [["winner"], ["baseline"], ["anchor"]]
    assert [cell["text"] for cell in baseline[4:]] == ["–", "–", "–"]
    expected = [known["value"], known["seen"], known["fresh"], known["drop"]]
    found = [100 * winner[place]["value"] for place in (2, 4, 5, 6)]
    assert found == pytest.approx(expected)
    effects = {row[0]["text"]: row[3] for row in page.report["effects"]["rows"]}
    assert (winner[5], anchor[5]) == (effects["ε=0.16"], effects["ε=0.1"])


def test_every_point_stands_in_a_table_with_why_it_was_given_up(rendered: Get) -> None:
    page = rendered("tuned")
    rows = page.report["tuning"]["points"]["rows"]
    assert [int(row[0]["text"]) for row in rows] == list(range(14))
    assert rows[11][3] == {
        "text": "pruned", "notes": ["after 4 seeds: Worse than point 4."], "value": "pruned",
    }  # fmt: skip
    assert rows[12][3]["notes"] == ["seed 1000001: diverged: not finite"]
    assert [rows[place][6]["text"] for place in (11, 12, 13)] == ["4/5", "1/5", "5/5"]
    assert rows[12][4]["value"] is None
    assert [row[2]["text"] for row in rows if "winner" in row[2]["text"]] == ["sampler, winner"]


def test_the_facts_of_the_search_are_told(rendered: Get) -> None:
    known, more = facts(rendered("tuned")), facts(rendered("tuned_front"))
    assert known["Searched"] == "ε: 0 to 0.5 by 0.005"
    assert known["Budget"] == "14 points of 5 training runs: 12 complete, 1 pruned, 1 failed"
    assert known["Reported split"].startswith("not looked at while tuning; digest cdcd")
    assert "3 of the tuning images are in it" in known["Reported split"]
    assert not [name for name in known if name.startswith("Importance")]
    assert "batch_size: 32 to 128 by 32 (where arch=a)" in more["Searched"]
    assert more["Importance for NLL"].startswith("ε 0.25, lr 0.25")


@pytest.mark.parametrize(
    ("changes", "verdict", "sentence"),
    [
        (
            {"made": lambda trial: guess(trial, 3.5 if trial.levels["epsilon"] else 2.0, images=800)},
            "Tuning bought something that fresh seeds confirm: ε=0.16 beats the baseline.",
            ": better.",
        ),
        (
            {"outcome": lambda trial: "missing"},
            "What tuning bought is open until its choice is re-run with fresh seeds.",
            "not re-run with fresh seeds yet.",
        ),
        (
            {"outcome": lambda trial: "missing" if trial.seed == 4 else "complete"},
            "Tuning bought nothing that can be shown yet: its re-test is not complete.",
            ": undecided.",
        ),
    ],
)
def test_what_the_re_test_came_to(
    tmp_path: Path, changes: dict[str, Any], verdict: str, sentence: str
) -> None:
    found, sentences = told(render(tmp_path, **{**tuned(), **changes}))
    assert found == verdict
    assert sentences[1].endswith(sentence)


FIRST, SECOND = "ε=0.2, lr=0.01, arch=d", "ε=0.3, lr=0.01, arch=d"


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (("better", "undecided"), ("worse", "worse"), f"fresh seeds confirm: {FIRST} beats the baseline."),
        (("better", "better"), ("equivalent", "better"), f"confirm: {FIRST} and {SECOND} beat the baseline."),
        (("better", "worse"), ("undecided",) * 2, "Tuning bought one objective with the other: with "),
        (("worse", "undecided"), ("worse", "worse"), "bought nothing: with fresh seeds its choice is worse"),
        (("equivalent",) * 2, ("equivalent",) * 2, "bought nothing that matters: with fresh"),
        (("equivalent", "undecided"), ("worse", "worse"), "Tuning bought nothing that can be shown."),
        (("undecided",) * 2, ("undecided",) * 2, "Tuning bought nothing that can be shown."),
    ],
)
def test_the_verdict_is_that_of_the_fresh_seeds(
    rendered: Get, first: tuple[str, str], second: tuple[str, str], expected: str
) -> None:
    """The two points of the re-test are taken for the winners, whatever the smoothing says."""
    tables, plan = read(rendered("tuned_front"))
    tables["points"] = tables["points"].assign(winner=tables["points"]["number"].isin([3, 7]))
    derived = derived_tables(tables, plan)
    effects = derived["effects"]
    for arm, words in zip(plan.arms[1:], (first, second), strict=True):
        for metric, word in zip(("accuracy", "nll"), words, strict=True):
            rows = (effects["term"] == arm) & (effects["metric"] == metric)
            effects.loc[rows, ["verdict", "reason"]] = [word, ""]
    assert expected in build_report({**tables, **derived}, plan, [])["headline"]["tuning"]["verdict"]


def test_a_winner_that_is_the_baseline_found_nothing_better(tmp_path: Path) -> None:
    page = searched(
        tmp_path, epsilon_points(), 0.0, 0.1, strength=lambda levels: 2.5 - 4 * float(levels["epsilon"])
    )
    verdict, (chosen, winner, _) = told(page)
    assert verdict == "Tuning found nothing better than the baseline."
    assert chosen == "Tuning chose ε=0 of 14 points."
    assert "against" not in winner.partition(";")[0]
    assert page.report["tuning"]["retested"]["rows"][0][0]["notes"] == ["winner, baseline"]


def test_a_search_that_goes_on_says_how_far_it_is(tmp_path: Path) -> None:
    some = [*epsilon_points()[:3], Asked({"epsilon": 0.3}, state="running", done=1)]
    page = searched(tmp_path, some, 0.0, 0.1, choose=False)
    verdict, (cost,) = told(page)
    assert verdict == "Tuning is not finished: 3 of 14 points have ended, and none is chosen yet."
    assert cost.startswith("The search took 16 training runs and 2 minutes")
    assert page.report["banners"][0]["title"] == "The search's budget is not spent"


def test_a_search_without_a_value_chose_nothing(tmp_path: Path) -> None:
    lost = [Asked({"epsilon": 0.1 * at}, state="failed", done=0, reason="no memory") for at in range(4)]
    page = searched(tmp_path, lost, 0.0, 0.1, search=EPSILON.model_copy(update={"points": 4}))
    assert told(page)[0] == "Tuning chose nothing: none of its points has a value."
    failed = banner(page, "failed")
    assert failed["title"] == "4 of 4 points of the search failed"
    assert failed["items"] == [f"ε={level}: no memory" for level in ("0", "0.1", "0.2", "0.3")]


def test_what_could_mislead_is_said(rendered: Get) -> None:
    one, two = (
        [banner["title"] for banner in rendered(case).report["banners"]] for case in ("tuned", "tuned_front")
    )
    shared = "The tuning split and the reported split share images"
    assert one[0] == shared
    assert "3 of 240 tuning images" in rendered("tuned").report["banners"][0]["text"]
    assert {
        "The search's budget is not spent",
        "3 of 18 points of the search failed",
        "Fewer than 3 training runs per point of the search",
    } <= set(two)
    assert shared not in two
    assert not [title for title in one if "points of the search" in title]
    tables, plan = read(rendered("tuned"))
    tables["tuning"] = tables["tuning"].assign(points_pruned=12, points_done=1)
    pruned = "12 of 14 points of the search were pruned"
    assert pruned in [banner["title"] for banner in built(tables, plan)["banners"]]


@pytest.mark.parametrize(
    ("case", "words"),
    [("tuned", "of equal ones the first"), ("tuned_front", "beats in both smoothed values")],
)
def test_the_method_says_how_it_was_chosen(rendered: Get, case: str, words: str) -> None:
    first = rendered(case).report["method"][0]
    assert (first["title"], words in first["text"]) == ("Tuning", True)


def test_runs_that_pruning_stopped_are_not_counted_and_that_is_said(tmp_path: Path) -> None:
    stopped: dict[str, Any] = {"state": "pruned", "reason": "below", "pruned_at": 1, "done": 0}
    pruned = [Asked({"epsilon": level}, **stopped, intermediate={1: 0.1}) for level in (0.3, 0.4)]
    asked = [Asked({"epsilon": 0.0}, "baseline"), Asked({"epsilon": 0.16}), *pruned]
    search = EPSILON.model_copy(update={"pruning": "median", "points": 4})
    page = searched(tmp_path, asked, 0.0, 0.16, search=search)
    words = "10 training runs and 65 seconds (not counted: 2 training runs that pruning stopped early)"
    assert f"The search took {words}" in told(page)[1][-1]
    assert facts(page)["Cost"] == words


@pytest.mark.parametrize(
    ("images", "objective", "expected"),
    [
        (240, ("accuracy",), "It has 240 images: one image is 0.42 points of accuracy."),
        (500, ("accuracy",), None),
        (800, ("accuracy", "ece"), "of accuracy. Of fewer than 1,000 images, ECE is mostly noise."),
        (1000, ("accuracy", "ece"), None),
    ],
)
def test_a_small_tuning_split_is_warned_of(
    rendered: Get, images: int, objective: tuple[str, ...], expected: str | None
) -> None:
    tables, plan = read(rendered("tuned"))
    found = read_search(tables, plan)
    assert found is not None
    other = dataclasses.replace(
        found,
        search=found.search.model_copy(update={"objective": objective}),
        facts=pd.Series({**found.facts, "tuning_images": images}),
    )
    found_banners = banners(tables["trials"], plan, None, other)
    texts = [banner["text"] for banner in found_banners if banner["title"] == "A small tuning split"]
    assert len(texts) == (expected is not None)
    assert all(text.endswith(str(expected)) for text in texts)


def test_hostile_levels_keep_their_points(rendered: Get) -> None:
    tables, plan = read(rendered("tuned_hostile"))
    found = read_search(tables, plan)
    assert found is not None
    assert len(rendered("tuned_hostile").report["tuning"]["retested"]["rows"]) == 3
    levels = {found.levels(row)["arch"] for _, row in found.points.iterrows()}
    assert levels <= set(HOSTILE)
    assert len(levels) == found.points["arch"].nunique() > 2


def test_a_study_that_was_not_tuned_is_reported_as_ever(rendered: Get, tmp_path: Path) -> None:
    """Neither a search's tables without its declaration nor the declaration alone shows anywhere."""
    plain = render(tmp_path / "plain", study=declare(seeds=2))
    assert "tuning" not in plain.report
    assert "tuning" not in plain.report["headline"]
    assert "Tuning" not in plain.html
    assert "Tuning" not in plain.markdown
    assert not [path.name for path in plain.results.root.glob("*.csv") if path.stem in TUNING]
    tables, plan = read(rendered("tuned"))
    without = plan.model_copy(update={"study": plan.study.model_copy(update={"search": None})})
    bare = {name: frame(name, []) if name in TUNING else table for name, table in tables.items()}
    reports = [built(given, without) | {"downloads": []} for given in (tables, bare)]
    assert reports[0] == reports[1]
    assert "tuning" not in built(bare, plan)


def test_levels_that_were_asked_for_twice_are_judged_by_all_their_runs(tmp_path: Path) -> None:
    """The one that was chosen stands for them; the baseline was asked for again too."""
    asked = [*epsilon_points(), *(Asked({"epsilon": level}) for level in (0.0, 0.16, 0.16))]
    search = EPSILON.model_copy(update={"points": 17})
    page = searched(tmp_path, asked, 0.0, 0.1, 0.16, search=search, choose=False, winners=(5,),
                    made=lambda trial: guess(trial, hump(trial.levels), images=300))  # fmt: skip
    points = pd.read_csv(page.results.root / "points.csv")
    values = pd.read_csv(page.results.root / "point_values.csv").merge(points[["number", "epsilon"]])
    own = 100 * values[values["epsilon"] == 0.16]["value"]
    other = 100 * values[values["epsilon"] == 0.0]["value"]
    assert (len(own), len(other)) == (15, 10)
    winner, baseline, _ = page.report["tuning"]["retested"]["rows"]
    assert {row[1]["text"] for row in (winner, baseline)} == {"5, 15, 16", "0, 14"}
    low, high = stats.t.interval(0.95, 14, own.mean(), stats.sem(own))
    assert winner[2]["text"] == f"{own.mean():.2f}"
    assert winner[2]["notes"][0] == f"{low:.2f} to {high:.2f}, n = 15"
    assert baseline[2]["notes"][0].endswith(", n = 10")
    seen = own.mean() - other.mean()
    assert 100 * winner[4]["value"] == pytest.approx(seen)
    trials = pd.read_csv(page.results.root / "trials.csv")
    fresh = trials.pivot(index="seed", columns="epsilon", values="accuracy")
    found = 100 * (fresh[0.16] - fresh[0.0]).mean()
    assert 100 * winner[6]["value"] == pytest.approx(seen - found)
    said = f"accuracy {own.mean():.2f} % (mean of 15 runs of 3 points), {seen:+.2f} percentage points against"
    assert said in told(page)[1][1]


def test_a_metric_without_an_interval_shows_none(tmp_path: Path) -> None:
    asked = [Asked({"epsilon": 0.1 * at}, "sampler" if at else "baseline") for at in range(3)]
    search = EPSILON.model_copy(update={"seeds": 1, "pruning": "none", "points": 3})
    page = searched(tmp_path, asked, 0.0, 0.1, search=search)
    assert page.report["tuning"]["points"]["rows"][0][4]["notes"] == ["no interval"]
    assert "There is one." in banner(page, "per point")["text"]


def test_a_damaged_search_is_named(tmp_path: Path) -> None:
    results = ResultsFolder(tmp_path)
    tuning = write_search(results, EPSILON, [Asked({"epsilon": 0.0})], strength=hump)
    write_tuning(results, tuning)
    assert read_tuning(results) == tuning
    (results.root / "tuning" / "tuning.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RecordError, match="damaged"):
        points_table(results)
