"""What was planted is what the report says; sentences hold the numbers that scipy finds in the CSV files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from report_cases import Rendered, render
from report_pages import rows_of
from report_results import declare
from scipy import stats

from ablate.store.records import Predictions
from ablate.study.trials import Trial
from ablate.tables.files import read_tables
from ablate.tables.quantities import quantity

Get = Callable[[str], Rendered]
IMAGES, SEEDS = 2_000, 10
PLANTED = {0.0: 0.0, 0.1: 0.0, 0.2: -0.05, 0.3: 0.05, 0.4: 0.0, 0.5: -0.05}
"""ε to what it does to accuracy."""
NOISE = {0.4: 0.04}
"""ε to the spread of its seeds, elsewhere 0.001."""
SAID = {0.1: "equivalent", 0.2: "worse", 0.3: "better", 0.4: "undecided", 0.5: "undecided"}


def predictions(trial: Trial) -> Predictions:
    """So many images right, the others taken for the next class; the seed's luck is shared by all arms."""
    epsilon = trial.fields.epsilon
    shared = np.random.default_rng(trial.seed).normal(scale=0.02)
    own = np.random.default_rng([trial.seed, round(100 * epsilon)]).normal(scale=NOISE.get(epsilon, 0.001))
    accuracy = 0.7 + PLANTED[epsilon] + shared + own
    labels = np.arange(IMAGES) % 10
    right = np.random.default_rng([trial.seed, 1]).permutation(IMAGES) < round(IMAGES * accuracy)
    predicted = np.where(right, labels, (labels + 1) % 10)
    return Predictions((3.0 * np.eye(10)[predicted]).astype(np.float32), labels)


@pytest.mark.slow
def test_the_report_says_what_was_planted(tmp_path: Path) -> None:
    def outcome(trial: Trial) -> str:
        return "diverged" if (trial.fields.epsilon, trial.seed) == (0.5, 3) else "complete"

    study = declare(factors={"epsilon": tuple(PLANTED)}, baseline={"epsilon": 0.0}, seeds=SEEDS)
    page = render(tmp_path, study=study, made=predictions, outcome=outcome)
    tables = read_tables(page.results)
    trials = tables["trials"].set_index(["epsilon", "seed"])["accuracy"].unstack()
    effects = tables["effects"].query("metric == 'accuracy' and kind == 'arm'").set_index("term")
    said = {claim["term"]: claim for claim in page.report["answer"]["claims"]}
    for epsilon, word in SAID.items():
        row, claim = (found[f"epsilon={epsilon}"] for found in (effects.loc, said))
        pairs = (trials.loc[epsilon] - trials.loc[0.0]).dropna()
        expected = stats.ttest_1samp(pairs, 0).confidence_interval(1 - 0.05 / len(SAID))
        assert (row.low, row.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
        assert row.low <= PLANTED[epsilon] <= row.high
        assert (row.verdict, claim["verdict"]) == (word, word)
        numbers = (claim["effect"], claim["low"], claim["high"], claim["n"])
        assert numbers == pytest.approx((pairs.mean(), row.low, row.high, len(pairs)), abs=1e-12)
    assert effects.reason["epsilon=0.5"] == "incomplete"


def test_one_arm_is_described_with_its_interval(rendered: Get) -> None:
    page = rendered("single")
    runs = 100 * read_tables(page.results, names=["trials"])["trials"]["accuracy"]
    images = read_tables(page.results, names=["new_images"])["new_images"]
    (low, high), *_ = 100 * images.loc[images["metric"] == "accuracy", ["low", "high"]].to_numpy()
    said = [sentence["text"] for sentence in page.report["answer"]["sentences"]]
    assert " ".join(said[:2]) == (
        f"{page.report['published']['summary']} Accuracy {runs.mean():.2f} % "
        f"(95 % interval {low:.2f} to {high:.2f}, n = 3 training runs)."
    )


SURE = {
    "Seeds": "n", "Difference": "effect", "New images too": "low_images", "p": "p", "Welch's p": "p_welch",
    "Sign-flip p": "p_sign_flip", "Largest share": "largest_share", "ρ": "rho", "Detectable": "detectable",
}  # fmt: skip


def same(shown: float | None, known: Any) -> bool:
    return bool(pd.isna(known)) if shown is None else shown == pytest.approx(float(known), rel=1e-12)


@pytest.mark.parametrize("case", ["sweep", "factorial"])
def test_tables_of_the_page_hold_the_numbers_of_the_csv_files(rendered: Get, case: str) -> None:
    page = rendered(case)
    report, tables = page.report, read_tables(page.results)
    trials, effects = tables["trials"], tables["effects"]
    for cells, (_, trial) in zip(rows_of(report["trials"]), trials.iterrows(), strict=True):
        assert (cells["Trial"]["text"], cells["Seed"]["value"]) == (trial["trial_id"], trial["seed"])
        for head, column in {"Accuracy": "accuracy", "NLL": "nll", "Training step": "step_ms"}.items():
            assert same(cells[head]["value"], trial[column])
    for cells, (_, runs) in zip(rows_of(report["arms"]), trials.groupby("arm", sort=False), strict=True):
        floor = f"floor {100 * runs['ece_floor'].mean():.2f}"
        assert cells["ECE"]["notes"][1:] == [floor] * (cells["ECE"]["n"] > 0)
    for name, kinds in (("effects", "arm"), ("trends", "trend"), ("contrasts", "main interaction")):
        asked = effects[effects["kind"].isin(kinds.split())].groupby(["kind", "term", "against"], sort=False)
        for cells, (_, own) in zip(rows_of(report[name]), asked, strict=True):
            for metric, known in own.set_index("metric").loc[["accuracy", "nll", "ece"]].iterrows():
                cell = cells[f"Δ {quantity(str(metric)).label}"]
                assert cell["verdict"] == known["verdict"]
                shown = [cell[name] for name in ("value", "low", "high", "p_adjusted")]
                assert all(map(same, shown, known[["effect", "low", "high", "p_adjusted"]]))
    claimed = effects[effects["verdict"] != "exploratory"]
    for cells, (_, known) in zip(rows_of(report["sensitivity"]), claimed.iterrows(), strict=True):
        assert [head for head, column in SURE.items() if not same(cells[head]["value"], known[column])] == []
        assert same(cells["New images too"]["high"], known["high_images"])
