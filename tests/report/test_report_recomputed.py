"""Every number of a report, computed again from the records and predictions by an audit that is not ours."""

import itertools
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from references import recompute
from report_cases import Get, Rendered, render
from report_results import declare
from test_main import ablate

from ablate.store.records import Predictions
from ablate.study.trials import Trial

pytestmark = pytest.mark.usefixtures("no_figures")

ROOT = Path(__file__).parents[2]
REFERENCE = Path("reference") / "seed_notebook" / "cpu-float32"

STUDY = '''"""Two factors, steps of two kinds; a margin so wide that some arms are equivalent."""
from ablate import Study
study = Study(
    question="Do the numbers add up?",
    base={"data": "digits", "image_size": 8, "arch": "own:net", "epochs": 2, "batch_size": 64, "lr": 0.3},
    factors={"epsilon": (0.0, 0.1, 0.3), "clip_norm": (0.0, 1.0)},
    baseline={"epsilon": 0.0, "clip_norm": 0.0},
    family=("accuracy", "ece"),
    margins={"accuracy": 0.9},
    seeds=3,
)
'''
NETWORK = """from torch import nn
def net(*, num_classes, image_size):
    hidden = nn.Linear(3 * image_size**2, 16)
    return nn.Sequential(nn.Flatten(), hidden, nn.ReLU(), nn.Linear(16, num_classes))
"""

FILES_OF_A_SEARCH = {"tuning", "points", "point_values", "importances"}
FILES_OF_A_STUDY = {
    "trials", "epochs", "reliability", "floors", "confusion", "projection", "effects", "new_images",
    "step_times", "timing",
}  # fmt: skip
LEFT_OUT = recompute.LEFT_OUT_COLUMNS | recompute.LEFT_OUT_OF_A_SEARCH


@dataclass(frozen=True)
class Ran:
    results: Path
    recorded: recompute.Recorded
    report: dict[str, Any]

    def audit(self) -> recompute.Audit:
        audit = recompute.audit_csv(self.recorded, self.results)
        for name in ("arms", "more_metrics"):
            audit.wrong += recompute.audit_arms(self.recorded, self.report[name]).wrong
        if self.report["published"]:
            audit.wrong += recompute.audit_published(self.recorded, self.report["published"]).wrong
        return audit

    def rows(self, name: str) -> list[dict[str, str]]:
        return recompute.rows_of(self.results / f"{name}.csv")

    def wrong_with(self, folder: Path, name: str, rows: list[dict[str, str]]) -> list[str]:
        pd.DataFrame(rows).to_csv(folder / f"{name}.csv", index=False)
        return recompute.audit_csv(self.recorded, folder).wrong


def opened(results: Path, report: Path) -> Ran:
    text = (report / "report.json").read_text(encoding="utf-8")
    return Ran(results, recompute.read(results), json.loads(text))


def reopened(page: Rendered) -> Ran:
    return opened(page.results.root, page.folder)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    here = tmp_path_factory.mktemp("ran")
    (here / "tiny.py").write_text(STUDY, encoding="utf-8")
    (here / "own.py").write_text(NETWORK, encoding="utf-8")
    ended = ablate(here, "run", "tiny.py", "--workers", "0")
    assert ended.status == 0, ended.out + ended.err
    (results,) = (here / "results" / "tiny").iterdir()
    return opened(results, here / "report" / "tiny" / results.name)


def test_the_audit_knows_nothing_of_ablate_and_leaves_out_no_more_than_it_did() -> None:
    source = Path(recompute.__file__).read_text("utf-8")
    assert not re.search(r"^\s*(from|import) ablate", source, re.MULTILINE)
    assert (len(recompute.LEFT_OUT_COLUMNS), len(recompute.LEFT_OUT_OF_A_SEARCH)) == (16, 4)


@pytest.mark.slow
def test_every_table_of_a_run_is_recomputed(ran: Ran) -> None:
    audit = ran.audit()
    assert audit.wrong == []
    assert set(audit.compared) == {f"{name}.csv" for name in FILES_OF_A_STUDY}
    assert audit.left_out == recompute.LEFT_OUT_COLUMNS
    for download in ran.report["downloads"]:
        assert len(ran.rows(download["name"].removesuffix(".csv"))) == download["rows"]


@pytest.mark.slow
def test_published_tables_are_those_of_the_published_predictions() -> None:
    published = opened(ROOT / "results" / REFERENCE, ROOT / "report" / REFERENCE)
    audit, header = published.audit(), list(published.rows("trials")[0])
    assert audit.wrong == []
    assert {"trials.csv", "epochs.csv", "reliability.csv"} <= set(audit.compared)
    # Settings that came after the records.
    younger = {f"trials.{name}" for name in header[: header.index("accuracy")]}
    assert audit.left_out <= recompute.LEFT_OUT_COLUMNS | younger


@pytest.mark.parametrize(
    "case",
    ["sweep", "factorial", "one_seed", "nothing_ran", "single", "harmless"]
    + [pytest.param(case, marks=pytest.mark.slow) for case in ("tuned", "tuned_front")],
)
def test_reports_with_missing_trials_and_of_a_search_are_recomputed(rendered: Get, case: str) -> None:
    audit, searched = reopened(rendered(case)).audit(), case.startswith("tuned")
    assert audit.wrong == []
    known = recompute.LEFT_OUT_OF_A_SEARCH if searched else set()
    assert audit.left_out - recompute.LEFT_OUT_COLUMNS == known
    assert not searched or {f"{name}.csv" for name in FILES_OF_A_SEARCH} <= set(audit.compared)


def _holes(trial: Trial) -> str:
    """One seed of a level is lost, and one combination has a single complete seed."""
    if trial.levels["clip_norm"] == 1.0 and trial.levels["epsilon"] == 0.4 and trial.seed:
        return "diverged"
    return "missing" if trial.seed == 3 and trial.levels["epsilon"] == 0.2 else "complete"


def _blind(trial: Trial) -> Predictions:
    """Predictions that ε does not change."""
    rng = np.random.default_rng([trial.seed, int(trial.fields.clip_norm > 0)])
    labels = rng.integers(0, 10, 200)
    logits = rng.normal(size=(200, 10)) + 2 * np.eye(10)[labels]
    return Predictions(logits.astype(np.float32), labels)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("made", "reason"), [({"outcome": _holes}, "incomplete"), ({"made": _blind}, "identical")]
)
def test_trends_and_contrasts_are_recomputed(tmp_path: Path, made: dict[str, Any], reason: str) -> None:
    factors = {"epsilon": (0.2, 0.0, 0.4), "clip_norm": (0.0, 1.0), "lr": (0.1,), "drop_last": (False, True)}
    asked = ("arms", "interaction", "trend", {"epsilon": 0.4})
    declared = {"baseline": {"epsilon": 0.0}, "family": ("nll", "ece"), "comparisons": asked}
    study = declare(factors=factors, seeds=4, **declared)
    page = render(tmp_path, study=study, **made)
    found = reopened(page)
    assert found.audit().wrong == []
    trends = [row for row in found.rows("effects") if (row["metric"], row["kind"]) == ("accuracy", "trend")]
    assert {row["reason"] for row in trends} == {reason}
    equal = page.report["trends"]["rows"][0][7]["notes"] == ["equal on every seed", "equivalent"]
    assert equal == (reason == "identical")


def _so_many_right(trial: Trial) -> Predictions:
    """Arms a and b predict the same, c is right for ten images more: on every seed the same accuracies."""
    rng = np.random.default_rng(trial.seed)
    labels = rng.integers(0, 10, 300)
    right = np.arange(300) < (210 if trial.fields.arch == "c" else 200)
    taken = np.where(right, labels, (labels + 1) % 10)
    logits = rng.normal(size=(300, 10)) + 12 * np.eye(10)[taken] * rng.uniform(0.8, 1.2, (300, 1))
    return Predictions(logits.astype(np.float32), labels)


def test_a_report_of_arms_without_spread_is_recomputed(tmp_path: Path) -> None:
    study = declare(factors={"arch": ("a", "b", "c")}, baseline={"arch": "a"}, seeds=3)
    found = reopened(render(tmp_path, study=study, made=_so_many_right))
    assert found.audit().wrong == []
    assert found.report["identical"] == [["arch=a", "arch=b"]]
    assert {"identical", "no_spread"} <= {row["reason"] for row in found.rows("effects")}


@pytest.mark.slow
@pytest.mark.parametrize("names", [FILES_OF_A_STUDY, FILES_OF_A_SEARCH], ids=["study", "search"])
def test_a_changed_number_is_found(ran: Ran, rendered: Get, tmp_path: Path, names: set[str]) -> None:
    """In every table, a sample of its numbers, each moved by as little as nine digits, or draws, show."""
    sample, made = np.random.default_rng(0), ran if "trials" in names else reopened(rendered("tuned"))
    for name in sorted(names):
        rows, tried = made.rows(name), 0
        for row, column in itertools.product(rows[:: max(1, len(rows) // 20)], rows[0]):
            known = f"{name}.{column}" in LEFT_OUT or "smece" in (column, row.get("metric"))
            known = known or column.endswith("_floor")  # drawn
            try:
                before, number = row[column], float(row[column])
            except ValueError:
                continue
            every = name == "floors" or names == FILES_OF_A_SEARCH
            if known or not math.isfinite(number) or sample.random() > 0.1 + every:
                continue
            row[column] = repr(number * (2 if name == "floors" else 1 + 1e-7) + 1e-9)
            assert made.wrong_with(tmp_path, name, rows), f"{name}: {column} {number}"
            row[column] = before
            tried += 1
        (tmp_path / f"{name}.csv").unlink(missing_ok=True)
        assert tried


def test_a_changed_number_of_the_page_is_found(rendered: Get) -> None:
    made = reopened(rendered("single"))
    (table,) = made.report["published"]["tables"]
    places: tuple[tuple[dict[str, Any], str], ...] = (
        (table, "inside"),
        (table["rows"][0][1], "high"),
        (made.report["arms"]["rows"][0][2], "value"),
        (made.report["more_metrics"]["rows"][0][2], "value"),
    )
    for part, name in places:
        before = part[name]
        part[name] = before * (1 + 1e-7) + (before == 0)
        assert made.audit().wrong, name
        part[name] = before
