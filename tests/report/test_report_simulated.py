"""One simulated study from records to the page: what was planted is what the report says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from report_results import declare, make_results
from scipy import stats

from ablate.report import write_report
from ablate.store.records import Predictions
from ablate.study.trials import Trial
from ablate.tables import read_tables

IMAGES, SEEDS = 2_000, 10
PLANTED = {0.0: 0.0, 0.1: 0.0, 0.2: -0.05, 0.3: 0.05, 0.4: 0.0, 0.5: -0.05}
"""ε to what it does to accuracy."""
NOISE = {0.4: 0.04}
"""ε to the spread of its seeds, elsewhere 0.001."""
SAID = {0.1: "equivalent", 0.2: "worse", 0.3: "better", 0.4: "undecided", 0.5: "undecided"}


def accuracy(trial: Trial) -> float:
    """What the trial's network scores: the seed's luck is shared, the rest is the arm's."""
    epsilon = trial.fields.epsilon
    shared = np.random.default_rng(trial.seed).normal(scale=0.02)
    own = np.random.default_rng([trial.seed, round(100 * epsilon)]).normal(scale=NOISE.get(epsilon, 0.001))
    return round(IMAGES * (0.7 + PLANTED[epsilon] + shared + own)) / IMAGES


def predictions(trial: Trial) -> Predictions:
    """So many images right, the others taken for the next class."""
    labels = np.arange(IMAGES) % 10
    right = np.random.default_rng([trial.seed, 1]).permutation(IMAGES) < round(IMAGES * accuracy(trial))
    predicted = np.where(right, labels, (labels + 1) % 10)
    return Predictions((3.0 * np.eye(10)[predicted]).astype(np.float32), labels)


def test_the_report_says_what_was_planted(tmp_path: Path) -> None:
    study = declare(factors={"epsilon": tuple(PLANTED)}, baseline={"epsilon": 0.0}, seeds=SEEDS)
    results = make_results(
        tmp_path / "results",
        study,
        made=predictions,
        outcome=lambda trial: (
            ("diverged", "the loss is nan") if (trial.fields.epsilon, trial.seed) == (0.5, 3) else "complete"
        ),
    )
    page = write_report(results, tmp_path / "report")
    tables, report = read_tables(results), json.loads((page.parent / "report.json").read_text("utf-8"))

    trials = tables["trials"].set_index(["epsilon", "seed"])["accuracy"].unstack()
    effects = tables["effects"].query("metric == 'accuracy' and kind == 'arm'").set_index("term")
    assert {arm: effects.verdict[f"epsilon={arm}"] for arm in SAID} == SAID
    assert effects.reason["epsilon=0.5"] == "incomplete"
    for epsilon in SAID:
        pairs = (trials.loc[epsilon] - trials.loc[0.0]).dropna()
        row = effects.loc[f"epsilon={epsilon}"]
        level = 1 - 0.05 / len(SAID)
        expected = stats.ttest_1samp(pairs, 0).confidence_interval(level)
        assert (row.low, row.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
        assert row.low <= PLANTED[epsilon] <= row.high

    said = {contrast["arm"]: contrast for contrast in report["headline"]["contrasts"]}
    assert {arm: said[f"ε={arm:g}"]["verdict"] for arm in SAID} == SAID
    assert "only 9 of 10 planned pairs are complete" in said["ε=0.5"]["text"]
    for contrast in said.values():
        assert contrast["text"] in page.read_text("utf-8").replace("&lt;", "<")
