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


def test_an_arm_is_compared_with_the_arm_that_has_the_baselines_levels(rendered: Get) -> None:
    found = {arm: row["against"] for (arm, _), row in effects(rendered("factorial")).items()}
    assert found == {
        "epsilon=0.0, reduction=sum": "epsilon=0.0, reduction=mean",
        "epsilon=0.0, reduction=none": "epsilon=0.0, reduction=mean",
        "epsilon=0.1, reduction=sum": "epsilon=0.1, reduction=mean",
        "epsilon=0.1, reduction=none": "epsilon=0.1, reduction=mean",
    }


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
