"""Two recorded studies side by side; intervals against scipy, records made here."""

import csv
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt
from recorded_study import CUDA, FAILED, Recorded, counts
from rich.console import Console
from scipy import stats

from ablate.errors import ResultsError, StudyError
from ablate.gate.compare import Comparison, compare_runs, read_run
from ablate.gate.comparison_shown import show_comparison, write_csv, write_markdown
from ablate.stats import seeds_needed
from ablate.store.results import ResultsFolder
from ablate.tables import build_tables, write_tables

A = {(0.0, 0): 600, (0.0, 1): 620, (0.0, 2): 590, (0.1, 0): 640, (0.1, 1): 655, (0.1, 2): 610}
B = {(0.0, 0): 610, (0.0, 1): 640, (0.0, 2): 595, (0.2, 0): 640, (0.2, 1): 655, (0.2, 2): 610}


def compared(a: Recorded, b: Recorded, *metrics: str) -> Comparison:
    return compare_runs(a.run, b.run, metrics or ("accuracy", "nll", "ece"))


def rows(comparison: Comparison) -> list[Any]:
    return list(comparison.differences.itertuples())


def shown(comparison: Any) -> str:
    console = Console(width=40)
    with console.capture() as capture:
        show_comparison(console, comparison)
    return capture.get()


def test_trials_that_differ_by_the_machine_are_paired_by_seed(tmp_path: Path) -> None:
    a, b = Recorded(tmp_path / "a", A), Recorded(tmp_path / "b", B, numerics=CUDA, precision="bfloat16")
    (found,) = rows(compared(a, b, "accuracy"))
    expected = stats.ttest_rel(b.accuracy(0.0), a.accuracy(0.0))
    interval = expected.confidence_interval(0.95)
    assert (found.term, found.method, found.n) == ("epsilon=0.0", "paired", 3)
    assert found.effect == pytest.approx(np.mean(b.accuracy(0.0)) - np.mean(a.accuracy(0.0)))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    mean = stats.t.interval(0.95, 2, np.mean(a.accuracy(0.0)), stats.sem(a.accuracy(0.0)))
    assert (found.a_low, found.a_high) == pytest.approx(mean)


@pytest.mark.parametrize(
    "changes",
    [{"lr": 0.3}, {"fingerprint": "other"}, {"arch": "xresnet18"}],
    ids=["another field", "other data", "another network"],
)
def test_trials_that_differ_otherwise_are_independent_samples(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    a, b = Recorded(tmp_path / "a", A), Recorded(tmp_path / "b", B, **changes)
    (found,) = rows(compared(a, b, "accuracy"))
    test = stats.ttest_ind(b.accuracy(0.0), a.accuracy(0.0), equal_var=False)
    interval = test.confidence_interval(0.95)
    assert found.method == "welch"
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_arms_of_one_run_only_are_listed_and_not_compared(tmp_path: Path) -> None:
    a = Recorded(tmp_path / "a", A)
    text = shown(compared(a, Recorded(tmp_path / "b", B)))
    assert "only in A: epsilon=0.1\n" in text
    assert "only in B: epsilon=0.2\n" in text
    comparison = compared(a, Recorded(tmp_path / "c", counts(e3=[500, 510])))
    assert comparison.differences.empty
    assert "no arm in common" in shown(comparison)
    for write in (write_csv, write_markdown):
        write(tmp_path / "out", comparison)
    assert "no arm in common" in (tmp_path / "out").read_text()


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
    assert comparison.unlike == []
    assert {(item.effect, math.isnan(item.low)) for item in rows(comparison)} == {(0.0, True)}
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
    pd.testing.assert_frame_equal(compare_runs(read_run(a.folder), b.run).differences, before)


def test_the_file_holds_unrounded_numbers(tmp_path: Path) -> None:
    a, b = Recorded(tmp_path / "a", A), Recorded(tmp_path / "b", B, lr=0.3)
    comparison = compared(a, b)
    write_csv(tmp_path / "out.csv", comparison)
    written = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert len(written) == len(comparison.differences) == 3
    for row, item in zip(written, rows(comparison), strict=True):
        assert (row["arm"], row["metric"], row["method"]) == (item.term, item.metric, item.method)
        assert float(row["a_mean"]) == item.a_mean
        assert float(row["b_high"]) == item.b_high
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


def one_row(tmp_path: Path, a: Recorded, b: list[int], **study: Any) -> Any:
    """The accuracy of one arm against other seeds, whose trials are right about so many images."""
    later = {(0.0, seed + 10): count for seed, count in enumerate(b)}
    (row,) = rows(compared(a, Recorded(tmp_path / "b", later, study=study), "accuracy"))
    return row


def test_independent_samples_are_judged_by_scipys_tests(tmp_path: Path) -> None:
    a = Recorded(tmp_path / "a", counts(e0=[600, 620, 590]))
    for counted, margin in (
        ([660, 640, 655, 630], 0.005),
        ([601, 618, 592, 611], 0.05),
        ([610, 640, 630], 0.01),
    ):
        row = one_row(tmp_path / str(margin), a, counted, margins={"accuracy": margin})
        b, margin = np.array(counted) / 1000, row.margin
        differs = stats.ttest_ind(b, a.accuracy(0.0), equal_var=False).pvalue
        same = max(
            stats.ttest_ind(b + margin, a.accuracy(0.0), equal_var=False, alternative="greater").pvalue,
            stats.ttest_ind(b - margin, a.accuracy(0.0), equal_var=False, alternative="less").pvalue,
        )
        assert (row.p, row.p_equivalence) == pytest.approx((differs, same))
        word = "equivalent" if same <= 0.05 else "better" if differs <= 0.05 else "undecided"
        assert (row.verdict, row.method, row.n) == (word, "welch", 3 + len(counted))


def test_independent_samples_of_equal_spread_need_as_many_seeds_as_pairs_of_them(tmp_path: Path) -> None:
    row = one_row(tmp_path, Recorded(tmp_path / "a", counts(e0=[600, 620, 640])), [610, 630, 650])
    needed = seeds_needed(0.01, sd=math.sqrt(2) * 0.02, margin=0.005, least=4)
    assert row.seeds_needed == needed
    assert needed is not None


@pytest.mark.parametrize("lost", ["a", "b", "both"])
def test_independent_samples_that_lack_trials_stay_undecided(tmp_path: Path, lost: str) -> None:
    first = [100, 110, 120, FAILED if lost != "b" else 130]
    second = [900, 910, 920, FAILED if lost != "a" else 930]
    for margin in (0.01, 0.99):
        a = Recorded(tmp_path / f"a{margin}", counts(e0=first), study={"margins": {"accuracy": margin}})
        row = one_row(tmp_path / str(margin), a, second, margins={"accuracy": margin})
        assert row.low > 0.7
        assert (row.verdict, row.reason) == ("undecided", "incomplete")


def test_one_value_has_no_interval(tmp_path: Path) -> None:
    row = one_row(tmp_path, Recorded(tmp_path / "a", counts(e0=[500])), [100, 200], margins={"accuracy": 0.5})
    assert np.isnan([row.low, row.high, row.p]).all()
    assert (row.verdict, row.reason) == ("undecided", "too_few_seeds")


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
    assert "worse" in text


def test_the_smaller_margin_of_the_two_counts(tmp_path: Path) -> None:
    a = Recorded(tmp_path / "a", NEAR)
    lax = Recorded(tmp_path / "b", WORSE, study={"margins": {"accuracy": 0.5, "mce": 0.1}})
    for comparison in (compared(a, lax, "accuracy", "mce"), compared(lax, a, "accuracy", "mce")):
        assert {item.margin for item in rows(comparison)} == {0.005, 0.1}
        assert rows(comparison)[0].verdict in ("worse", "better")
    assert ("margin of accuracy", "0.005", "0.5") in compared(a, lax).unlike
    assert ("margin of mce", "none", "0.1") in compared(a, lax).unlike


def test_a_failed_trial_leaves_its_arm_undecided(tmp_path: Path) -> None:
    a = Recorded(tmp_path / "a", NEAR)
    b = Recorded(tmp_path / "b", {**WORSE, (0.0, 3): FAILED})
    found = rows(compared(a, b, "accuracy"))[0]
    assert (found.a_n, found.b_n, found.n) == (4, 3, 3)
    assert "7 of 8 trials complete" in shown(compared(a, b))
    assert (found.verdict, found.reason) == ("undecided", "incomplete")
    assert found.high < 0
    assert "undecided: trials have no result" in shown(compared(a, b, "accuracy"))


def test_undecided_tells_the_seeds_that_would_decide(tmp_path: Path) -> None:
    a = Recorded(tmp_path / "a", counts(e0=[600, 620, 590]))
    b = Recorded(tmp_path / "b", counts(e0=[610, 625, 605]))
    (found,) = rows(compared(a, b, "accuracy"))
    assert found.verdict == "undecided"
    assert f"about {int(found.seeds_needed)} seeds would decide" in shown(compared(a, b, "accuracy"))


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
        "<details><summary>The runs differ in:</summary>",
        "</details>",
    }
    lines = [line for line in markdown.splitlines() if line.startswith("| `data=")]
    assert {line.count(" | ") for line in lines} == {6}
    assert all("@" not in part.content for part in inner if part.type == "text")


def test_a_name_is_no_formula_in_the_file(tmp_path: Path) -> None:
    a = Recorded(tmp_path / "a", A)
    formula = a.folder.plan.read_text().replace('"epsilon=0.0"', '"=1+1"')
    a.folder.plan.write_text(formula)
    write_csv(tmp_path / "out.csv", compared(a, a))
    written = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert {row["arm"] for row in written} == {"'=1+1", "epsilon=0.1"}


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
    assert [item.method for item in rows(comparison)] == ["paired"] * 3
    assert [item.n for item in rows(comparison)] == [6] * 3
    assert [item.effect for item in rows(comparison)] == pytest.approx([0, 0, 0], abs=1e-12)
    assert not comparison.grave
    assert {item.reason for item in rows(comparison)} == {"no_spread"}
    # Two digests that nobody knows are not the same.
    assert {item.reason for item in rows(compare_runs(a, a))} == {"no_spread"}
    assert {item.reason for item in rows(compare_runs(b, b))} == {"identical"}
