"""Two recorded studies side by side; intervals against scipy, records made here."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markdown_it import MarkdownIt
from recorded_study import CUDA, FAILED, Recorded, counts, printed
from scipy import stats

from ablate.errors import StudyError
from ablate.gate.compare import Comparison, Run, compare_runs, show_comparison, write_csv, write_markdown
from ablate.stats.intervals import mean_interval
from ablate.stats.power import seeds_range

A = {(0.0, 0): 600, (0.0, 1): 620, (0.0, 2): 590, (0.1, 0): 640, (0.1, 1): 655, (0.1, 2): 610}
B = {(0.0, 0): 610, (0.0, 1): 640, (0.0, 2): 595, (0.2, 0): 640, (0.2, 1): 655, (0.2, 2): 610}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded(tmp_path_factory.mktemp("first"), A)


def compared(a: Recorded, b: Recorded, *metrics: str) -> Comparison:
    return compare_runs(a.run, b.run, metrics or ("accuracy", "nll", "ece"))


def rows(comparison: Comparison) -> list[Any]:
    return list(comparison.rows.values())


def shown(comparison: Comparison) -> str:
    return printed(show_comparison, comparison)


def markdown(tmp_path: Path, comparison: Comparison) -> str:
    write_markdown(tmp_path / "out.md", comparison)
    return (tmp_path / "out.md").read_text()


def as_csv(tmp_path: Path, comparison: Comparison) -> list[dict[str, str]]:
    write_csv(tmp_path / "out.csv", comparison)
    return list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))


def test_trials_that_differ_by_the_machine_are_paired_by_seed(first: Recorded, tmp_path: Path) -> None:
    b = Recorded(tmp_path, B, numerics=CUDA, precision="bfloat16")
    (row,) = rows(compared(first, b, "accuracy"))
    values = first.accuracy(0.0)
    interval = stats.ttest_rel(b.accuracy(0.0), values).confidence_interval(0.95)
    assert (row.term, row.method, row.n) == ("epsilon=0.0", "paired", 3)
    assert row.effect == pytest.approx(np.mean(b.accuracy(0.0)) - np.mean(values))
    assert (row.low, row.high) == pytest.approx((interval.low, interval.high))
    own = mean_interval(np.array(values), bounds=(0, 1))
    assert (row.a_low, row.a_high) == pytest.approx((own.low, own.high))
    needed = f"{int(row.seeds_from)} to {int(row.seeds_needed)} seeds would likely decide"
    assert f"undecided: {needed}" in shown(compared(first, b, "accuracy"))


def test_seeds_follow_from_the_spread_of_all_arms_that_differ(tmp_path: Path) -> None:
    a = Recorded(tmp_path / "a", counts(e0=[500, 520, 530], e1=[500, 540, 510], e2=[500, 501, 502]))
    b = Recorded(tmp_path / "b", counts(e0=[510, 500, 560], e1=[530, 530, 500], e2=[500, 501, 502]))
    found = rows(compared(a, b, "accuracy"))
    variances = [np.var(differences, ddof=1) for differences in ([10, -20, 30], [30, -10, -10])]
    sd, freedom = math.sqrt(np.mean(variances)) / 1000, 4 * 4 / 5  # of two each, that share a fifth
    expected = seeds_range(0.005, sd=sd, freedom=freedom, comparisons=3, least=4)
    assert [(row.seeds_from, row.seeds_needed) for row in found[:2]] == [expected] * 2


@pytest.mark.parametrize("changes", [{"lr": 0.3}, {"fingerprint": "other"}], ids=str)
def test_other_trials_are_independent(first: Recorded, tmp_path: Path, changes: dict[str, Any]) -> None:
    b = Recorded(tmp_path, B, **changes)
    (row,) = rows(compared(first, b, "accuracy"))
    test = stats.ttest_ind(b.accuracy(0.0), first.accuracy(0.0), equal_var=False)
    interval = test.confidence_interval(0.95)
    assert row.method == "welch"
    assert (row.low, row.high) == pytest.approx((interval.low, interval.high))


def test_arms_of_one_run_only_are_listed_and_not_compared(first: Recorded, tmp_path: Path) -> None:
    text = shown(compared(first, Recorded(tmp_path / "b", B)))
    assert "only in A: epsilon=0.1\nonly in B: epsilon=0.2\n" in text
    comparison = compared(first, Recorded(tmp_path / "c", counts(e3=[500, 510])))
    assert comparison.differences.empty
    assert "no arm in common" in shown(comparison)
    assert "no arm in common" in markdown(tmp_path, comparison)
    assert as_csv(tmp_path, comparison) == []


def test_what_differs_between_the_runs_is_said_first(first: Recorded, tmp_path: Path) -> None:
    machine: dict[str, Any] = {"numerics": CUDA, "ran_on": {"torch_version": "2.16"}, "fingerprint": "other"}
    comparison = compared(first, Recorded(tmp_path, A, profile="full", **machine, lr=0.3))
    assert [side for side in comparison.unlike if side[0] != "data fingerprint"] == [
        ("profile", "quick", "full"),
        ("device", "cpu", "cuda"),
        ("resolved_precision", "float32", "bfloat16"),
        ("torch_version", "2.15", "2.16"),
        ("field lr", "0.4", "0.3"),
    ]
    care = "Take care: the runs differ in device, precision, torch version, data; a difference may"
    for text in (shown(comparison), markdown(tmp_path, comparison)):
        assert text.index("torch_version") < text.index(care) < text.index("Accuracy")


def test_a_run_beside_itself_differs_in_nothing(first: Recorded, tmp_path: Path) -> None:
    comparison = compared(first, first)
    assert comparison.unlike == []
    assert {(row.effect, math.isnan(row.low)) for row in rows(comparison)} == {(0.0, True)}
    assert {row["low"] for row in as_csv(tmp_path, comparison)} == {""}
    text = shown(comparison)
    assert "differ in nothing" in text
    assert "paired by seed, n = 3, equal on every seed" in text
    lines = text[text.index("ECE") :].splitlines()
    assert all("floor" in line for line in lines if line.startswith("epsilon="))
    with pytest.raises(StudyError, match=r"--metric acur: unknown .*are accuracy, .*\n--metric lr: unknown"):
        compared(first, first, "acur", "lr")


def test_the_file_holds_unrounded_numbers_and_no_formula(tmp_path: Path) -> None:
    a, b = Recorded(tmp_path / "a", A), Recorded(tmp_path / "b", B, lr=0.3)
    for run in (a, b):
        of = [
            trial.model_copy(update={"arm": trial.arm.replace("epsilon=0.0", "=1+1")})
            for trial in run.plan.trials
        ]
        plan, renamed = run.plan.model_copy(update={"trials": tuple(of)}), {"arm": {"epsilon=0.0": "=1+1"}}
        run.run = Run(run.folder, plan, run.run.trials.replace(renamed))
    comparison = compared(a, b)
    written = as_csv(tmp_path, comparison)
    assert [cells["metric"] for cells in written] == ["accuracy", "nll", "ece"]
    for cells, row in zip(written, rows(comparison), strict=True):
        assert (cells["arm"], cells["method"]) == ("'=1+1", "welch")
        numbers = [float(cells[name]) for name in ("a_mean", "b_high", "low", "difference", "a_n")]
        assert numbers == [row.a_mean, row.b_high, row.low, row.effect, 3]


@pytest.mark.parametrize(
    ("first", "second", "seed", "margin", "expected"),
    [
        ([600, 620, 590], [660, 640, 655, 630], 10, 0.005, ("better", "", 7, "welch")),
        ([600, 620, 590], [601, 618, 592, 611], 10, 0.05, ("equivalent", "", 7, "welch")),
        # Trials that are lost leave even the plainest difference, or the widest margin, undecided.
        ([100, 110, 120, FAILED], [900, 910, 920, 930], 10, 0.01, ("undecided", "incomplete", 7, "welch")),
        ([100, 110, 120, 130], [900, 910, 920, FAILED], 10, 0.99, ("undecided", "incomplete", 7, "welch")),
        ([100, 110, 120, 130], [900, 915, 920, FAILED], 0, 0.01, ("undecided", "incomplete", 3, "paired")),
        ([500], [100, 200], 10, 0.5, ("undecided", "too_few_seeds", 3, "welch")),
    ],
)
def test_arms_of_other_seeds_are_judged_as_two_samples(
    tmp_path: Path, first: list[int], second: list[int], seed: int, margin: float, expected: tuple[Any, ...]
) -> None:
    study = {"margins": {"accuracy": margin}}
    a = Recorded(tmp_path / "a", counts(e0=first), study=study)
    later = {(0.0, seed + at): count for at, count in enumerate(second)}
    (row,) = rows(compared(a, Recorded(tmp_path / "b", later, study=study), "accuracy"))
    assert (row.verdict, row.reason, row.n, row.method) == expected


NEAR = counts(e0=[600, 620, 590, 610], e1=[640, 655, 610, 630])
WORSE = counts(e0=[540, 561, 531, 552], e1=[641, 655, 611, 631])


def test_verdicts_are_of_b_against_a_over_all_arms_and_metrics(tmp_path: Path) -> None:
    a, b = Recorded(tmp_path / "a", NEAR), Recorded(tmp_path / "b", WORSE)
    comparison = compared(a, b, "accuracy", "brier")
    assert {item.comparisons for item in rows(comparison)} == {4}
    words = {(item.term, item.metric): item.verdict for item in rows(comparison)}
    assert words["epsilon=0.0", "accuracy"] == words["epsilon=0.0", "brier"] == "worse"
    assert words["epsilon=0.1", "accuracy"] == "equivalent"
    found = rows(comparison)[0]
    test = stats.ttest_rel(b.accuracy(0.0), a.accuracy(0.0))
    interval = test.confidence_interval(1 - 0.05 / 4)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p_adjusted == pytest.approx(4 * test.pvalue)
    assert {item.verdict for item in rows(compared(b, a, "accuracy"))} == {"better", "equivalent"}
    text = shown(comparison)
    assert "over 2 arms x 2 metrics = 4 comparisons" in text
    assert "Accuracy (%); B - A in points; margin 0.50" in text
    assert ("worse" in text, "Take care" in text) == (True, False)
    page = MarkdownIt().enable("table").render(markdown(tmp_path, comparison))
    assert (page.count("<table>"), page.count("<td><code>epsilon=0.0</code></td>")) == (2, 2)
    assert ("<td>worse</td>" in page, str(tmp_path) in page) == (True, False)  # a comment is public


def test_the_smaller_margin_of_the_two_counts(tmp_path: Path) -> None:
    a = Recorded(tmp_path / "a", NEAR)
    lax = Recorded(tmp_path / "b", WORSE, study={"margins": {"accuracy": 0.5, "mce": 0.1}})
    for comparison in (compared(a, lax, "accuracy", "mce"), compared(lax, a, "accuracy", "mce")):
        assert {item.margin for item in rows(comparison)} == {0.005, 0.1}
        assert rows(comparison)[0].verdict in ("worse", "better")
    assert ("margin of accuracy", "0.005", "0.5") in compared(a, lax).unlike
    assert ("margin of mce", "none", "0.1") in compared(a, lax).unlike


HOSTILE = [
    "folder:<script>alert(1)</script>",
    "folder:@everyone #1 https://h.example [x](javascript:1) ![y](http://h/p.png) | end | of | cell",
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
    page = markdown(tmp_path, comparison)
    assert not any(sign in page for sign in "\x1b\x07\u202e")
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(page)
    inner = [part for token in tokens for part in token.children or []]
    kinds = {"text", "code_inline", "strong_open", "strong_close", "softbreak"}
    assert {part.type for part in inner} <= kinds
    assert {token.content.strip() for token in tokens if token.type == "html_block"} == {
        "<details><summary>The runs differ in:</summary>",
        "</details>",
    }
    lines = [line for line in page.splitlines() if line.startswith("| `data=")]
    assert {line.count(" | ") for line in lines} == {6}
    assert all("@" not in part.content for part in inner if part.type == "text")
