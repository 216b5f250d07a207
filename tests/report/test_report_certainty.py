"""The table of how sure differences are: scipy's and statsmodels' numbers, and what each cell shows."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from report_cases import Rendered
from report_results import CPU, declare
from scipy.stats import t

from ablate.report.views import certainty_view
from ablate.study.trials import Plan, expand
from ablate.tables import frame

Get = Callable[[str], Rendered]


def plan_of(seeds: int, **declaration: Any) -> Plan:
    study = declare(factors={"epsilon": (0.0, 0.1)}, baseline={"epsilon": 0.0}, seeds=seeds, **declaration)
    trials = tuple(expand(study, lambda fields: "f", lambda fields: CPU))
    return Plan(study=study, profile="p", reason="r", trials=trials)


def test_the_detectable_difference_of_a_family_is_found_in_80_of_100_new_studies(rendered: Get) -> None:
    """Six comparisons of three pairs; the family's intervals of simulated studies, by scipy's t."""
    with (rendered("sweep").results.root / "effects.csv").open(newline="", encoding="utf-8") as file:
        row = next(row for row in csv.DictReader(file) if row["metric"] == "accuracy")
    low, high, n = float(row["low"]), float(row["high"]), 3
    sd = (high - low) / 2 / t.isf(0.025 / 6, n - 1) * math.sqrt(n)
    new = np.random.default_rng(0).normal(float(row["detectable"]), sd, size=(100_000, n))
    half = t.isf(0.025 / 6, n - 1) * new.std(axis=1, ddof=1) / math.sqrt(n)
    assert np.mean(np.abs(new.mean(axis=1)) > half) == pytest.approx(0.8, abs=0.005)


ROW: dict[str, Any] = {
    "kind": "arm", "term": "epsilon=0.1", "against": "epsilon=0.0", "metric": "accuracy", "n": 3,
    "effect": 0.01, "low": -0.01, "high": 0.03, "p": 0.2, "p_adjusted": 0.2, "p_holm": 0.2, "rho": -0.5,
    "margin": 0.005, "p_equivalence": 0.9, "verdict": "undecided", "reason": "", "below_margin": False,
    "seeds_needed": 41, "low_images": -0.02, "high_images": 0.04, "p_sign_flip": 0.5, "detectable": 0.032,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "label", "text"),
    [
        ({}, "Over seeds", "−1.00 to +3.00"),
        ({}, "New images too", "−2.00 to +4.00"),
        ({"low_images": None, "high_images": None}, "New images too", "–"),
        ({}, "Seeds needed", "41"),
        ({"seeds_needed": None}, "Seeds needed", "> 1,000"),
        ({"seeds_needed": None, "verdict": "better"}, "Seeds needed", "–"),
        ({"seeds_needed": None, "low": None, "high": None}, "Seeds needed", "–"),
        ({"p_sign_flip": None, "n": 21}, "Sign-flip p", "–"),
        ({"detectable": None}, "Detectable", "–"),
        ({"rho": None}, "ρ", "–"),
        ({}, "ρ", "−0.50"),
        ({"p_holm": 1e-9}, "Holm's p", "< 0.001"),
    ],
)
def test_what_is_not_known_is_not_shown(changes: dict[str, Any], label: str, text: str) -> None:
    table = certainty_view(frame("effects", [{**ROW, **changes}]), plan_of(3))
    assert table is not None
    place = [head["label"] for head in table["columns"]].index(label)
    assert table["rows"][0][place]["text"] == text


def test_without_comparisons_there_is_no_table(rendered: Get) -> None:
    assert certainty_view(frame("effects", []), plan_of(3)) is None
    assert rendered("single").report["certainty"] is None
    assert "How sure" not in rendered("single").page.words()
    assert "How sure" not in rendered("single").markdown
