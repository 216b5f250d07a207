"""The report's numbers against the CSV read with the standard library and recomputed with scipy."""

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from report_cases import Rendered, render
from report_results import declare, make_results

from ablate.analysis.effects import effects_table
from ablate.errors import StudyError
from ablate.store.records import Predictions
from ablate.store.results import read_plan
from ablate.study.trials import Trial
from ablate.tables import read_tables

Get = Callable[[str], Rendered]


def values(rendered: Rendered, arm: str, metric: str) -> dict[int, float]:
    """Seed to value of an arm's complete trials."""
    with (rendered.results.root / "trials.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["arm"] == arm and row["status"] == "complete"]
    return {int(row["seed"]): float(row[metric]) for row in rows}


def effects(rendered: Rendered) -> dict[tuple[str, str], dict[str, str]]:
    with (rendered.results.root / "effects.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "arm"]
    return {(row["term"], row["metric"]): row for row in rows}


def paired(rendered: Rendered, arm: str, baseline: str, metric: str) -> tuple[list[float], list[float]]:
    own, other = values(rendered, arm, metric), values(rendered, baseline, metric)
    seeds = sorted(own.keys() & other.keys())
    return [own[seed] for seed in seeds], [other[seed] for seed in seeds]


SWEPT = ("epsilon=0.05", "epsilon=0.1", "epsilon=0.4")


@pytest.mark.parametrize("metric", ["accuracy", "ece", "nll", "temperature"])
def test_effects_are_scipys_paired_t(rendered: Get, metric: str) -> None:
    """In the family of 2 metrics × 3 arms the intervals are Bonferroni's over 6; others stand alone."""
    report = rendered("sweep")
    found = effects(report)
    confidence = 1 - 0.05 / (6 if metric in ("accuracy", "ece") else 1)
    for arm in SWEPT:
        test = scipy.stats.ttest_rel(*paired(report, arm, "epsilon=0.0", metric))
        ends = test.confidence_interval(confidence)
        row = found[arm, metric]
        assert [float(row["low"]), float(row["high"])] == pytest.approx([ends.low, ends.high], rel=1e-9)
        assert float(row["p"]) == pytest.approx(test.pvalue, rel=1e-9)
        assert (row["against"], row["n"]) == ("epsilon=0.0", "3")


def test_p_is_holm_corrected_over_the_family_and_absent_outside(rendered: Get) -> None:
    found = effects(rendered("sweep"))
    family = sorted((float(found[arm, m]["p"]), arm, m) for arm in SWEPT for m in ("accuracy", "ece"))
    largest = 0.0
    for place, (p, arm, metric) in enumerate(family):
        largest = max(largest, min(1.0, (len(family) - place) * p))
        assert float(found[arm, metric]["p_holm"]) == pytest.approx(largest, rel=1e-9)
    assert {row["p_holm"] for (_, metric), row in found.items() if metric not in ("accuracy", "ece")} == {""}


def test_an_arm_is_compared_with_the_arm_that_has_the_baselines_levels(rendered: Get) -> None:
    found = {arm: row["against"] for (arm, _), row in effects(rendered("factorial")).items()}
    assert found == {
        "epsilon=0.0, reduction=sum": "epsilon=0.0, reduction=mean",
        "epsilon=0.0, reduction=none": "epsilon=0.0, reduction=mean",
        "epsilon=0.1, reduction=sum": "epsilon=0.1, reduction=mean",
        "epsilon=0.1, reduction=none": "epsilon=0.1, reduction=mean",
    }


def test_only_complete_pairs_count_and_a_lost_arm_narrows_no_interval(rendered: Get) -> None:
    report = rendered("factorial")
    found = effects(report)
    assert found["epsilon=0.1, reduction=sum", "accuracy"]["n"] == "1"
    assert found["epsilon=0.1, reduction=sum", "accuracy"]["low"] == ""
    arm, baseline = "epsilon=0.1, reduction=none", "epsilon=0.1, reduction=mean"
    test = scipy.stats.ttest_rel(*paired(report, arm, baseline, "accuracy"))
    row = found[arm, "accuracy"]
    assert row["n"] == "3"
    assert float(row["high"]) == pytest.approx(test.confidence_interval(1 - 0.05 / 4).high, rel=1e-9)
    # The two comparisons without a p count in the family, which makes this one's factor 4 or 3.
    assert float(row["p_holm"]) >= min(1.0, 3 * float(row["p"]))


def test_without_a_baseline_nothing_is_compared(tmp_path_factory: pytest.TempPathFactory) -> None:
    study = declare(factors={"epsilon": (0.0, 0.1)}, seeds=2)
    folder = make_results(tmp_path_factory.mktemp("none"), study)
    assert effects_table(read_tables(folder, names=["trials"]), read_plan(folder)).empty


def test_a_second_run_of_a_trial_is_not_another_seed(rendered: Get) -> None:
    folder = rendered("sweep").results
    trials = read_tables(folder, names=["trials"])["trials"]
    plan = read_plan(folder)
    again = trials.assign(repeat=1, accuracy=0.0)
    twice = effects_table({"trials": pd.concat([again, trials])}, plan)
    assert twice.equals(effects_table({"trials": trials}, plan))


def test_an_unknown_primary_metric_is_named_with_the_known_ones(rendered: Get) -> None:
    folder = rendered("sweep").results
    plan = read_plan(folder)
    wrong = plan.model_copy(update={"study": plan.study.replace(primary="acuracy")})
    with pytest.raises(StudyError, match=r"acuracy: no such metric; the metrics are accuracy, "):
        effects_table(read_tables(folder, names=["trials"]), wrong)


def test_a_planted_difference_is_called_worse_and_a_null_one_undecided(tmp_path: Path) -> None:
    """Accuracy falls by 30 points in one arm, and the other is the baseline's twin with own noise."""

    def made(trial: Trial) -> Predictions:
        rng = np.random.default_rng([int(trial.trial_id, 16)])
        labels = np.arange(200) % 10
        wrong = rng.permutation(200)[: 40 + rng.integers(0, 5) + (60 if trial.fields.epsilon == 0.4 else 0)]
        shown = labels.copy()
        shown[wrong] = (shown[wrong] + 1) % 10
        return Predictions(
            (4 * np.eye(10)[shown] + rng.normal(size=(200, 10)) / 9).astype(np.float32), labels
        )

    study = declare(factors={"epsilon": (0.0, 0.1, 0.4)}, baseline={"epsilon": 0.0}, seeds=5)
    headline = render(tmp_path, study=study, made=made).report["headline"]
    assert [contrast["verdict"] for contrast in headline["contrasts"]] == ["undecided", "worse"]
    assert headline["contrasts"][1]["text"].endswith(" Worse.")
    assert headline["contrasts"][1]["p_adjusted"] > 0
    # The interval for new images holds the one over seeds.
    worse = headline["contrasts"][1]
    assert worse["low_images"] <= worse["low"] + 1e-12
    assert worse["high_images"] >= worse["high"] - 1e-12
    assert headline["summary"] == (
        "Of 2 arms, each against its baseline, accuracy is worse in 1 and undecided in 1."
    )


def test_one_arm_is_described_with_its_interval(rendered: Get) -> None:
    report = rendered("single")
    runs = list(values(report, "all", "accuracy").values())
    ends = scipy.stats.ttest_1samp(runs, 0.0).confidence_interval(0.95)
    assert report.report["headline"]["summary"] == (
        f"{report.report['published']['summary']} "
        f"Accuracy {100 * np.mean(runs):.2f} % (95 % interval {100 * ends.low:.2f} to {100 * ends.high:.2f}, "
        "n = 3 training runs)."
    )


def test_the_published_table_stands_beside_our_mean_and_where_one_more_run_would_lie(rendered: Get) -> None:
    report = rendered("single")
    with (report.results.root / "epochs.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    (table,) = report.report["published"]["tables"]
    assert [column["label"] for column in table["columns"]] == [
        "Epoch", "Training loss: ours", "published", "Accuracy, reported split: ours", "published",
    ]  # fmt: skip
    for epoch in range(4):
        ours = [float(row["valid_accuracy"]) for row in rows if row["epoch"] == str(epoch)]
        cell, theirs = table["rows"][epoch][3:]
        # The test of one value against a sample: two-sample t with equal variances.
        p = scipy.stats.ttest_ind(ours, [0.4 + 0.05 * epoch], equal_var=True).pvalue
        edge = scipy.stats.ttest_ind(ours, [cell["high"]], equal_var=True).pvalue
        assert (cell["value"], cell["n"], edge) == (pytest.approx(np.mean(ours)), 3, pytest.approx(0.05))
        assert theirs["value"] == pytest.approx(0.4 + 0.05 * epoch)
        assert (theirs["inside"], theirs["notes"]) == (bool(p > 0.05), ["inside" if p > 0.05 else "outside"])
    ours, theirs = table["rows"][4][3:]  # published, not run by us
    assert (ours["text"], ours["notes"], ours["value"]) == ("–", [], None)
    assert (theirs["inside"], theirs["notes"]) == (None, ["cannot be told"])
    assert table["published"] == 10 == table["inside"] + len(table["outside"]) + 2
    for page in (report.html, report.markdown):
        assert all(line.split(":")[0] in page for line in table["outside"])
    assert report.report["headline"]["summary"].startswith(table["summary"])


def test_report_json_holds_numbers_and_no_nan(rendered: Get) -> None:
    for case in ("sweep", "factorial", "nothing_ran"):
        text = (rendered(case).folder / "report.json").read_text(encoding="utf-8")
        json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in report.json"))
    assert all(
        isinstance(row[2]["value"], float) and not math.isnan(row[2]["value"])
        for row in rendered("sweep").report["arms"]["rows"]
    )
