"""Two recorded studies side by side; intervals against scipy, records made here."""

import csv
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from recorded_study import CUDA, FAILED, Recorded, counts
from rich.console import Console
from scipy import stats

from ablate.compare import (
    WelchEffect,
    compare_runs,
    read_run,
    show_comparison,
    welch_effect,
    welch_verdict,
    write_csv,
    write_markdown,
)
from ablate.errors import ResultsError, StudyError
from ablate.stats import paired_effect, verdict
from ablate.store.results import ResultsFolder
from ablate.tables import build_tables, write_tables

A = {(0.0, 0): 600, (0.0, 1): 620, (0.0, 2): 590, (0.1, 0): 640, (0.1, 1): 655, (0.1, 2): 610}
B = {(0.0, 0): 610, (0.0, 1): 640, (0.0, 2): 595, (0.2, 0): 640, (0.2, 1): 655, (0.2, 2): 610}


def compared(a: Recorded, b: Recorded, *metrics: str) -> Any:
    return compare_runs(a.run, b.run, metrics or ("accuracy", "nll", "ece"))


def shown(comparison: Any) -> str:
    console = Console(width=40)
    with console.capture() as capture:
        show_comparison(console, comparison)
    return capture.get()


def test_trials_that_differ_by_the_machine_are_paired_by_seed(tmp_path: Path) -> None:
    a, b = Recorded(tmp_path / "a", A), Recorded(tmp_path / "b", B, numerics=CUDA, precision="bfloat16")
    (found,) = compared(a, b, "accuracy").differences
    expected = stats.ttest_rel(b.accuracy(0.0), a.accuracy(0.0))
    interval = expected.confidence_interval(0.95)
    assert (found.arm, found.method, found.n) == ("epsilon=0.0", "paired", 3)
    assert found.difference == pytest.approx(np.mean(b.accuracy(0.0)) - np.mean(a.accuracy(0.0)))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    mean = stats.t.interval(0.95, 2, np.mean(a.accuracy(0.0)), stats.sem(a.accuracy(0.0)))
    assert (found.a.low, found.a.high) == pytest.approx(mean)


@pytest.mark.parametrize(
    "changes",
    [{"lr": 0.3}, {"fingerprint": "other"}, {"arch": "xresnet18"}],
    ids=["another field", "other data", "another network"],
)
def test_trials_that_differ_otherwise_are_independent_samples(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    a, b = Recorded(tmp_path / "a", A), Recorded(tmp_path / "b", B, **changes)
    (found,) = compared(a, b, "accuracy").differences
    test = stats.ttest_ind(b.accuracy(0.0), a.accuracy(0.0), equal_var=False)
    interval = test.confidence_interval(0.95)
    assert found.method == "welch"
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_other_seeds_are_independent_samples(tmp_path: Path) -> None:
    later = {(level, seed + 3): count for (level, seed), count in A.items()}
    a, b = Recorded(tmp_path / "a", A), Recorded(tmp_path / "b", later)
    assert {item.method for item in compared(a, b).differences} == {"welch"}
    assert ("seeds", "0, 1, 2", "3, 4, 5") in compared(a, b).unlike


def test_a_failed_trial_leaves_its_pair_out(tmp_path: Path) -> None:
    a, b = Recorded(tmp_path / "a", A), Recorded(tmp_path / "b", {**A, (0.0, 1): FAILED, (0.0, 2): 600})
    found = compared(a, b, "accuracy").differences[0]
    assert (found.a.n, found.b.n, found.n) == (3, 2, 2)
    assert found.difference == pytest.approx(np.mean([0.0, 0.010]))
    assert "5 of 6 trials complete" in shown(compared(a, b))


def test_arms_of_one_run_only_are_listed(tmp_path: Path) -> None:
    comparison = compared(Recorded(tmp_path / "a", A), Recorded(tmp_path / "b", B))
    assert comparison.only_a == ("epsilon=0.1",)
    assert comparison.only_b == ("epsilon=0.2",)
    text = shown(comparison)
    assert "only in A: epsilon=0.1\n" in text
    assert "only in B: epsilon=0.2\n" in text


def test_without_a_common_arm_nothing_is_compared(tmp_path: Path) -> None:
    other = {(0.3, 0): 500, (0.3, 1): 510}
    comparison = compared(Recorded(tmp_path / "a", A), Recorded(tmp_path / "b", other))
    assert comparison.differences == ()
    assert "no arm in common" in shown(comparison)


def test_what_differs_between_the_runs_is_said_first(tmp_path: Path) -> None:
    a = Recorded(tmp_path / "a", A)
    b = Recorded(tmp_path / "b", A, profile="full", numerics=CUDA, ran_on={"torch_version": "2.16"}, lr=0.3)
    comparison = compared(a, b)
    unlike = {name: (first, second) for name, first, second in comparison.unlike}
    assert unlike == {
        "profile": ("quick", "full"),
        "device": ("cpu", "cuda"),
        "resolved_precision": ("float32", "bfloat16"),
        "torch_version": ("2.15", "2.16"),
        "field lr": ("0.4", "0.3"),
    }
    text = shown(comparison)
    assert text.index("torch_version") < text.index("Accuracy")


def test_a_run_beside_itself_differs_in_nothing(tmp_path: Path) -> None:
    a = Recorded(tmp_path / "a", A)
    comparison = compared(a, a)
    assert comparison.unlike == ()
    assert {(item.difference, math.isnan(item.low)) for item in comparison.differences} == {(0.0, True)}
    text = shown(comparison)
    assert "differ in nothing" in text
    assert "paired by seed, n = 3, equal on every seed" in text


def test_ece_is_not_shown_without_its_floor(tmp_path: Path) -> None:
    a = Recorded(tmp_path / "a", A)
    lines = shown(compared(a, a, "ece")).splitlines()
    assert all("floor" in line for line in lines if line.startswith("epsilon="))


def test_published_results_without_predictions_are_read_from_their_table(tmp_path: Path) -> None:
    a, b = Recorded(tmp_path / "a", A), Recorded(tmp_path / "b", B)
    before = compared(a, b).differences
    write_tables(a.folder, build_tables(a.folder, a.plan))
    for path in a.folder.predictions.iterdir():
        path.unlink()
    a.folder.predictions.rmdir()
    assert compare_runs(read_run(a.folder), b.run).differences == before


def test_the_file_holds_unrounded_numbers(tmp_path: Path) -> None:
    a, b = Recorded(tmp_path / "a", A), Recorded(tmp_path / "b", B, lr=0.3)
    comparison = compared(a, b)
    write_csv(tmp_path / "out.csv", comparison)
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert len(rows) == len(comparison.differences) == 3
    for row, item in zip(rows, comparison.differences, strict=True):
        assert (row["arm"], row["metric"], row["method"]) == (item.arm, item.metric, item.method)
        assert float(row["a_mean"]) == item.a.mean
        assert float(row["b_high"]) == item.b.high
        assert float(row["low"]) == item.low
        assert int(row["a_n"]) == 3
    write_csv(tmp_path / "same.csv", compared(a, a))
    assert {row["low"] for row in csv.DictReader((tmp_path / "same.csv").read_text().splitlines())} == {""}


def test_a_file_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    a = Recorded(tmp_path / "a", A)
    with pytest.raises(ResultsError, match="another file with --csv"):
        write_csv(tmp_path / "no" / "such" / "folder.csv", compared(a, a))


@pytest.mark.parametrize("name", ["acuracy", "lr"])
def test_only_what_was_measured_is_a_metric(tmp_path: Path, name: str) -> None:
    a = Recorded(tmp_path / "a", A)
    with pytest.raises(StudyError, match=f"--metric {name}: unknown metric; known are accuracy, "):
        compared(a, a, name)


samples = st.lists(st.integers(0, 1000).map(lambda count: count / 1000), min_size=2, max_size=8)


def varies(sample: list[float]) -> bool:
    return len(set(sample)) > 1


@given(a=samples, b=samples, comparisons=st.integers(1, 30))
def test_welch_is_scipys(a: list[float], b: list[float], comparisons: int) -> None:
    found = welch_effect(np.array([*a, math.nan]), np.array(b), comparisons=comparisons)
    if not (varies(a) and varies(b)):
        # scipy warns of precision where a sample does not vary
        assert math.isnan(found.low) == math.isnan(found.p) == (not varies(a) and not varies(b))
        return
    test = stats.ttest_ind(b, a, equal_var=False)
    interval = test.confidence_interval(1 - 0.05 / comparisons)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-7, abs=1e-9)
    assert (found.p, found.freedom) == pytest.approx((test.pvalue, test.df))
    assert found.n == (len(a), len(b))


@pytest.mark.parametrize("few", [[], [0.5]])
def test_one_value_has_no_interval(few: list[float]) -> None:
    found = welch_effect(np.array(few), np.array([0.1, 0.2]))
    assert math.isnan(found.low)
    assert math.isnan(found.p)
    judged = welch_verdict(found, planned=(len(few), 2), higher_is_better=True, margin=0.5)
    assert (judged.word, judged.reason) == ("undecided", "too_few_seeds")


def one_sided_p(a: list[float], b: list[float], margin: float) -> float:
    """The larger p of two one-sided Welch tests against the margin, by scipy."""
    above = stats.ttest_ind(np.array(b) + margin, a, equal_var=False, alternative="greater")
    below = stats.ttest_ind(np.array(b) - margin, a, equal_var=False, alternative="less")
    return max(float(above.pvalue), float(below.pvalue))


@given(a=samples.filter(varies), b=samples.filter(varies), margin=st.sampled_from([0.01, 0.3, 2.0]))
def test_independent_samples_are_judged_by_scipys_tests(
    a: list[float], b: list[float], margin: float
) -> None:
    found = welch_effect(np.array(a), np.array(b), comparisons=3)
    judged = welch_verdict(found, planned=(len(a), len(b)), higher_is_better=False, margin=margin)
    p = one_sided_p(a, b, margin)
    assert judged.p_equivalence == pytest.approx(min(3 * p, 1), abs=1e-9)
    differs = 3 * stats.ttest_ind(b, a, equal_var=False).pvalue <= 0.05
    if 3 * p <= 0.05:
        expected = "equivalent"
    else:
        expected = ("worse" if np.mean(b) > np.mean(a) else "better") if differs else "undecided"
    assert judged.word == expected
    assert judged.below_margin == (expected == "equivalent" and differs)
    assert judged.seeds_needed is None or (expected == "undecided" and judged.seeds_needed > min(found.n))


def test_independent_samples_of_equal_spread_are_told_how_many_seeds_pairs_would_need() -> None:
    a, b = np.array([0.60, 0.62, 0.64]), np.array([0.61, 0.63, 0.65])
    judged = welch_verdict(welch_effect(a, b), planned=(3, 3), higher_is_better=True)
    # the same spread of differences, by pairs in which nothing is shared: 2, 0 and -2 sd apart
    apart = np.sqrt(2) * 0.02 * np.array([-1.0, 0.0, 1.0])
    alone = verdict(paired_effect(0.5 + 0.01 + apart, np.full(3, 0.5)), planned=3, higher_is_better=True)
    assert judged.seeds_needed == alone.seeds_needed
    assert judged.seeds_needed is not None


@pytest.mark.parametrize("planned", [(4, 3), (3, 4), (5, 5)])
def test_independent_samples_that_lack_trials_stay_undecided(planned: tuple[int, int]) -> None:
    a, b = np.array([0.1, 0.11, 0.12]), np.array([0.9, 0.91, 0.92])
    for margin in (math.nan, 2.0):
        found: WelchEffect = welch_effect(a, b)
        assert found.low > 0.7
        judged = welch_verdict(found, planned=planned, higher_is_better=True, margin=margin)
        assert (judged.word, judged.reason) == ("undecided", "incomplete")


NEAR = counts(e0=[600, 620, 590, 610], e1=[640, 655, 610, 630])
WORSE = counts(e0=[540, 561, 531, 552], e1=[641, 655, 611, 631])


def test_verdicts_are_of_b_against_a_over_all_arms_and_metrics(tmp_path: Path) -> None:
    a, b = Recorded(tmp_path / "a", NEAR), Recorded(tmp_path / "b", WORSE)
    comparison = compared(a, b, "accuracy", "brier")
    assert {item.comparisons for item in comparison.differences} == {4}
    words = {(item.arm, item.metric): item.verdict.word for item in comparison.differences}
    assert words["epsilon=0.0", "accuracy"] == words["epsilon=0.0", "brier"] == "worse"
    assert words["epsilon=0.1", "accuracy"] == "equivalent"
    found = comparison.differences[0]
    test = stats.ttest_rel(b.accuracy(0.0), a.accuracy(0.0))
    interval = test.confidence_interval(1 - 0.05 / 4)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.verdict.p_adjusted == pytest.approx(4 * test.pvalue)
    assert {item.verdict.word for item in compared(b, a, "accuracy").differences} == {"better", "equivalent"}
    text = shown(comparison)
    assert "over 2 arms x 2 metrics = 4 comparisons" in text
    assert "Accuracy (%); B - A in points; margin 0.50" in text
    assert "worse" in text


def test_the_smaller_margin_of_the_two_counts(tmp_path: Path) -> None:
    a = Recorded(tmp_path / "a", NEAR)
    lax = Recorded(tmp_path / "b", WORSE, study={"margins": {"accuracy": 0.5, "mce": 0.1}})
    for comparison in (compared(a, lax, "accuracy", "mce"), compared(lax, a, "accuracy", "mce")):
        assert {item.margin for item in comparison.differences} == {0.005, 0.1}
        assert comparison.differences[0].verdict.word in ("worse", "better")
    assert ("margin of accuracy", "0.005", "0.5") in compared(a, lax).unlike
    assert ("margin of mce", "none", "0.1") in compared(a, lax).unlike


def test_a_failed_trial_leaves_its_arm_undecided(tmp_path: Path) -> None:
    a = Recorded(tmp_path / "a", NEAR)
    b = Recorded(tmp_path / "b", {**WORSE, (0.0, 3): FAILED})
    found = compared(a, b, "accuracy").differences[0]
    assert (found.verdict.word, found.verdict.reason) == ("undecided", "incomplete")
    assert found.high < 0
    assert "undecided: trials have no result" in shown(compared(a, b, "accuracy"))


def test_undecided_tells_the_seeds_that_would_decide(tmp_path: Path) -> None:
    a = Recorded(tmp_path / "a", counts(e0=[600, 620, 590]))
    b = Recorded(tmp_path / "b", counts(e0=[610, 625, 605]))
    (found,) = compared(a, b, "accuracy").differences
    assert found.verdict.word == "undecided"
    assert f"about {found.verdict.seeds_needed} seeds would decide" in shown(compared(a, b, "accuracy"))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"fingerprint": "other"}, "data"),
        ({"numerics": CUDA}, "device and precision"),
        ({"ran_on": {"device_name": "another"}}, "device"),
        ({"ran_on": {"torch_version": "2.16"}}, "torch version"),
        ({"ran_on": {"commit": "def"}}, "commit"),
        (
            {"ran_on": {"commit": None, "torch_version": "2.16"}, "fingerprint": "other"},
            "torch version, commit and data",
        ),
    ],
)
def test_what_can_cause_a_difference_by_itself_is_said_plainly(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    a, b = Recorded(tmp_path / "a", A), Recorded(tmp_path / "b", A, **changes)
    sentence = f"Take care: the runs differ in {named}, and a difference may come from that alone."
    assert sentence in shown(compared(a, b))
    write_markdown(tmp_path / "out.md", compared(a, b))
    assert f"> {sentence}" in (tmp_path / "out.md").read_text()
    assert "Take care" not in shown(compared(a, Recorded(tmp_path / "c", A, lr=0.3)))


def test_the_markdown_shows_every_difference(tmp_path: Path) -> None:
    comparison = compared(Recorded(tmp_path / "a", NEAR), Recorded(tmp_path / "b", WORSE))
    write_markdown(tmp_path / "out.md", comparison)
    text = (tmp_path / "out.md").read_text()
    page = MarkdownIt().enable("table").render(text)
    assert page.count("<table>") == 3
    assert page.count("<td><code>epsilon=0.0</code></td>") == 3
    assert "<td>worse</td>" in page
    assert "over 2 arms x 3 metrics = 6 comparisons" in page
    assert str(tmp_path) not in text  # a comment is public, the path of a results folder need not be


HOSTILE = [
    "folder:<script>alert(1)</script>",
    "folder:[x](javascript:1) ![y](http://h/p.png)",
    "folder:@everyone #1 https://h.example | end | of | cell",
    "folder:`code` </details> **x**\n\n# head",
    "folder:\x1b]0;title\x07\x1b[31m\u202ereversed",
]


@pytest.mark.parametrize("level", HOSTILE)
def test_a_hostile_name_does_nothing(tmp_path: Path, level: str) -> None:
    correct = {(name, seed): 600 + 10 * seed for name in ("folder:plain", level) for seed in (0, 1)}
    a = Recorded(tmp_path / "a", correct, factor="data")
    b = Recorded(tmp_path / "b", {**correct, ("folder:more" + level, 0): 1}, factor="data")
    comparison = compared(a, b, "accuracy")
    text = shown(comparison)
    assert not any(sign in text for sign in "\x1b\x07\u202e")
    assert text.count("paired by seed") == 2
    write_markdown(tmp_path / "out.md", comparison)
    markdown = (tmp_path / "out.md").read_text()
    assert not any(sign in markdown for sign in "\x1b\x07\u202e")
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(markdown)
    inner = [part for token in tokens for part in token.children or []]
    assert {part.type for part in inner} <= {
        "text",
        "code_inline",
        "strong_open",
        "strong_close",
        "softbreak",
    }
    assert {token.content.strip() for token in tokens if token.type == "html_block"} == {
        "<details><summary>What differs between the runs</summary>",
        "</details>",
    }
    rows = [line for line in markdown.splitlines() if line.startswith("| `data=")]
    assert {line.count(" | ") for line in rows} == {6}
    assert all("@" not in part.content for part in inner if part.type == "text")


def test_a_name_is_no_formula_in_the_file(tmp_path: Path) -> None:
    a = Recorded(tmp_path / "a", A)
    formula = a.folder.plan.read_text().replace('"epsilon=0.0"', '"=1+1"')
    a.folder.plan.write_text(formula)
    write_csv(tmp_path / "out.csv", compared(a, a))
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert {row["arm"] for row in rows} == {"'=1+1", "epsilon=0.1"}


REFERENCE = Path(__file__).parents[1] / "results" / "reference" / "seed_notebook" / "cpu-float32"


def test_a_run_of_ones_own_is_compared_with_the_published_one(tmp_path: Path) -> None:
    own = tmp_path / "seed_notebook" / "cpu"
    shutil.copytree(REFERENCE, own)
    published = tmp_path / "published"
    shutil.copytree(REFERENCE, published, ignore=shutil.ignore_patterns("predictions"))
    # As an older version published it: without the columns that came later.
    table = pd.read_csv(published / "trials.csv", dtype="string", keep_default_na=False)
    table.drop(columns=["predictions_sha256", "smece"], errors="ignore").to_csv(
        published / "trials.csv", index=False
    )
    a, b = (read_run(ResultsFolder(path)) for path in (published, own))
    comparison = compare_runs(a, b)
    assert [item.method for item in comparison.differences] == ["paired"] * 3
    assert [item.n for item in comparison.differences] == [6] * 3
    assert [item.difference for item in comparison.differences] == pytest.approx([0, 0, 0], abs=1e-12)
    assert not comparison.grave
    assert {item.verdict.reason for item in comparison.differences} == {"no_spread"}
    # Two digests that nobody knows are not the same.
    assert {item.verdict.reason for item in compare_runs(a, a).differences} == {"no_spread"}
    assert {item.verdict.reason for item in compare_runs(b, b).differences} == {"identical"}
