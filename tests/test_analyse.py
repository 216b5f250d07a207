"""Runs of another tool as a report: its numbers are those of scipy and statsmodels, and its errors say what to do."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

import ablate
from ablate.errors import AblateError, StudyError
from ablate.tables.quantities import quantity

DECIDED = {1: "better", -1: "worse"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(seeds: int = 10, lrs: tuple[float, ...] = (0.1, 0.3), nets: tuple[str, ...] = ("small", "wide")) -> pd.DataFrame:
    """Accuracy in percent and loss of runs that share a seed's luck; a higher rate costs, a wider net helps."""
    rng = np.random.default_rng(7)
    luck = rng.normal(0, 0.8, seeds)
    rows = [
        {
            "lr": lr, "net": net, "seed": seed,
            "val/acc": 90 + luck[seed] - 8 * (lr - 0.1) + 0.9 * (net == "wide") + rng.normal(0, 0.4 + lr),
            "val_loss": 0.4 + lr / 10 + rng.normal(0, 0.02),
        }
        for seed in range(seeds) for lr in lrs for net in nets
    ]  # fmt: skip
    return pd.DataFrame(rows)


METRICS = {"val/acc": "higher", "val_loss": "lower"}
ASKED: dict[str, Any] = {"factors": ["lr", "net"], "metrics": METRICS, "baseline": {"lr": 0.1, "net": "small"}}


def column(frame: pd.DataFrame, arm: str, metric: str) -> np.ndarray[Any, Any]:
    levels = dict(part.split("=") for part in arm.split(", "))
    own = frame[(frame["lr"].astype(str) == levels["lr"]) & (frame["net"] == levels["net"])]
    return own.sort_values("seed")[metric].to_numpy()


@pytest.mark.parametrize("seed", ["seed", None])
@pytest.mark.slow
def test_forty_runs_of_a_csv_become_a_page_whose_numbers_are_those_of_scipy_and_statsmodels(
    here: Path, seed: str | None
) -> None:
    frame = made()
    frame.to_csv("runs.csv", index=False)
    words = ["report", "runs.csv", "--factors", "lr,net", "--metric", "val/acc:higher", "--metric", "val_loss:lower"]
    words += ["--baseline", "lr=0.1", "--baseline", "net=small", "--margin", "val/acc=0.5", "--family", "val/acc,val_loss"]
    words += ["--seed", seed] if seed else []
    done = subprocess.run([sys.executable, "-m", "ablate", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    effects = pd.read_csv("report/runs/effects.csv")
    arms = effects[effects["kind"] == "arm"]
    family = len(arms)
    assert family == 3 * 2
    p_values = []
    for row in arms.itertuples():
        one, other = (column(frame, arm, row.metric) for arm in (row.term, row.against))
        if seed:
            test = scipy_stats.ttest_rel(one, other)
            described = DescrStatsW(one - other)
            low, high = described.tconfint_mean(alpha=0.05 / family)
            beyond = max(described.ttest_mean(0.5, "smaller")[1], described.ttest_mean(-0.5, "larger")[1])
        else:
            test = scipy_stats.ttest_ind(one, other, equal_var=False)
            both = CompareMeans(DescrStatsW(one), DescrStatsW(other))
            low, high = both.tconfint_diff(alpha=0.05 / family, usevar="unequal")
            beyond = max(both.ttest_ind("smaller", "unequal", 0.5)[1], both.ttest_ind("larger", "unequal", -0.5)[1])
        p_values.append(test.pvalue)
        np.testing.assert_allclose([row.effect, row.low, row.high, row.p],
                                   [one.mean() - other.mean(), low, high, test.pvalue], rtol=1e-9)
        sign = np.sign(row.effect) * (1 if row.metric == "val/acc" else -1)
        expected = "undecided" if low <= 0 <= high else DECIDED[sign]
        if row.metric == "val/acc" and -0.5 <= low and high <= 0.5:
            expected = "equivalent"
        assert row.verdict == expected
        if row.metric == "val/acc":
            assert row.p_equivalence == pytest.approx(min(1, family * beyond), rel=1e-9)
    _, bonferroni, _, _ = multipletests(p_values, method="bonferroni")
    _, holm, _, _ = multipletests(p_values, method="holm")
    np.testing.assert_allclose(arms["p_adjusted"], bonferroni, rtol=1e-9)
    np.testing.assert_allclose(arms["p_holm"], holm, rtol=1e-9)
    report = json.loads(Path("report/runs/report.json").read_text())
    cells = {(row[0]["text"], head["label"]): cell
             for row in report["effects"]["rows"] for head, cell in zip(report["effects"]["columns"], row)}
    for row in arms.itertuples():
        shown = cells[row.term, f"Δ {row.metric}"]
        assert [shown[name] for name in ("value", "low", "high", "p_adjusted")] == [row.effect, row.low, row.high, row.p_adjusted]
        assert shown["notes"][-1] == row.verdict
    means = {row[0]["text"]: row for row in report["arms"]["rows"]}
    for arm, row in means.items():
        own = column(frame, arm, "val/acc")
        low, high = DescrStatsW(own).tconfint_mean()
        np.testing.assert_allclose([row[2]["value"], row[2]["low"], row[2]["high"]], [own.mean(), low, high])
