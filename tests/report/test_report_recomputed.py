"""Every number of a report, computed again from the records and predictions by an audit that is not ours."""

from __future__ import annotations

import ast
import copy
import csv
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from references import recompute
from report_cases import Rendered, render
from report_results import declare
from tuned_results import EPSILON, Asked, retest_study, write_search

from ablate.store.records import Predictions
from ablate.study.trials import Trial

ROOT = Path(__file__).parents[2]
REFERENCE = Path("reference") / "seed_notebook" / "cpu-float32"

STUDY = '''"""Two factors, steps of two kinds; a margin so wide that some arms are equivalent."""
from ablate.study.study import Study
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

SECTIONS_OF_A_STUDY = {
    *("headline", "arms", "identical", "effects", "certainty", "contrasts", "trends", "timing", "trials"),
}
FILES_OF_A_STUDY = {
    *("trials", "epochs", "reliability", "floors", "confusion", "projection"),
    *("effects", "new_images", "step_times", "timing"),
}


@dataclass(frozen=True)
class Ran:
    """A results folder with its report."""

    results: Path
    recorded: recompute.Recorded
    report: dict[str, Any]

    def audit(self, report: dict[str, Any] | None = None) -> recompute.Audit:
        return recompute.audit_report(self.recorded, report or self.report)

    def audit_csv(self) -> recompute.Audit:
        return recompute.audit_csv(self.recorded, self.results)


def opened(results: Path, report: Path) -> Ran:
    text = (report / "report.json").read_text(encoding="utf-8")
    return Ran(results, recompute.read(results), json.loads(text))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A small study, run from the command line as a user runs one."""
    here = tmp_path_factory.mktemp("ran")
    (here / "tiny.py").write_text(STUDY, encoding="utf-8")
    (here / "own.py").write_text(NETWORK, encoding="utf-8")
    own = {"ABLATE_CACHE": str(here / "cache"), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "ablate", "run", "tiny.py"]
    done = subprocess.run(
        command, cwd=here, env={**os.environ, **own}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (results,) = (here / "results" / "tiny").iterdir()
    return opened(results, here / "report" / "tiny" / results.name)


def test_the_audit_knows_nothing_of_ablate() -> None:
    tree = ast.parse(Path(recompute.__file__).read_text(encoding="utf-8"))
    imported = [name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names]
    imported += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert imported
    assert not [name for name in imported if name.split(".")[0] == "ablate"]


def test_every_number_of_a_run_is_recomputed(ran: Ran) -> None:
    audit = ran.audit()
    assert audit.wrong == []
    assert set(audit.compared) == SECTIONS_OF_A_STUDY
    assert set(ran.report) == recompute.LEFT_OUT_SECTIONS | set(recompute.SECTIONS)
    assert sum(audit.compared.values()) > 1000
    assert "equivalent" in {own["verdict"] for own in ran.report["headline"]["contrasts"]}
    assert audit.left_out == recompute.LEFT_OUT_SECTIONS | recompute.LEFT_OUT_METRICS
    assert {trial.record["status"] for trial in ran.recorded.trials if trial.record} == {"complete"}


def test_every_table_of_a_run_is_recomputed(ran: Ran) -> None:
    audit = ran.audit_csv()
    assert audit.wrong == []
    assert set(audit.compared) == {f"{name}.csv" for name in FILES_OF_A_STUDY}
    assert audit.left_out == recompute.LEFT_OUT_COLUMNS
    for download in ran.report["downloads"]:
        with (ran.results / download["name"]).open(encoding="utf-8", newline="") as file:
            assert len(list(csv.DictReader(file))) == download["rows"]


def test_what_is_left_out_is_known() -> None:
    """Adding to these lists takes numbers out of the audit, so it shows here."""
    assert {
        *("points.smoothed", "points.smoothed_2", "points.smoothed_sd", "points.smoothed_sd_2"),
    } == recompute.LEFT_OUT_OF_A_SEARCH
    assert {"smece_floor"} == recompute.LEFT_OUT_METRICS
    assert {
        *("banners", "description", "downloads", "failures", "figures", "first_line", "format", "method"),
        *("profile", "provenance", "question", "reproduce", "study"),
    } == recompute.LEFT_OUT_SECTIONS
    assert {
        *(
            "trials.commit",
            "trials.device",
            "trials.device_name",
            "trials.engine",
            "trials.failure",
            "trials.profile",
        ),
        *("trials.predictions_sha256", "trials.resolved_precision", "trials.status", "trials.study"),
        *("trials.torch_version", "trials.smece_floor", "step_times.device_name", "step_times.others"),
        *("floors.low of smece", "floors.high of smece"),
    } == recompute.LEFT_OUT_COLUMNS


def test_published_report_is_that_of_the_published_predictions() -> None:
    published = opened(ROOT / "results" / REFERENCE, ROOT / "report" / REFERENCE)
    audit = published.audit()
    assert audit.wrong == []
    assert {"headline", "arms", "published", "trials"} <= set(audit.compared)
    assert audit.left_out <= recompute.LEFT_OUT_SECTIONS | recompute.LEFT_OUT_METRICS


def test_published_tables_are_those_of_the_published_predictions() -> None:
    published = opened(ROOT / "results" / REFERENCE, ROOT / "report" / REFERENCE)
    audit = published.audit_csv()
    assert audit.wrong == []
    assert {"trials.csv", "epochs.csv", "reliability.csv"} <= set(audit.compared)
    header = (published.results / "trials.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    # Settings that came after the records.
    younger = {f"trials.{name}" for name in header[: header.index("accuracy")]}
    assert audit.left_out <= recompute.LEFT_OUT_COLUMNS | younger


@pytest.mark.parametrize("case", ["sweep", "factorial", "one_seed", "nothing_ran", "single"])
def test_reports_with_missing_trials_are_recomputed(rendered: Callable[[str], Rendered], case: str) -> None:
    found = rendered(case)
    made = opened(found.results.root, found.folder)
    for audit in (made.audit(), made.audit_csv()):
        assert audit.wrong == []
        known = recompute.LEFT_OUT_SECTIONS | recompute.LEFT_OUT_METRICS | recompute.LEFT_OUT_COLUMNS
        assert audit.left_out <= known


@pytest.mark.parametrize("case", ["tuned", "tuned_front"])
def test_the_report_of_a_search_is_recomputed(rendered: Callable[[str], Rendered], case: str) -> None:
    found = rendered(case)
    made = opened(found.results.root, found.folder)
    audit, tables = made.audit(), made.audit_csv()
    assert (audit.wrong, tables.wrong) == ([], [])
    assert audit.left_out == recompute.LEFT_OUT_SECTIONS | recompute.LEFT_OUT_METRICS
    assert tables.left_out - recompute.LEFT_OUT_COLUMNS == recompute.LEFT_OUT_OF_A_SEARCH
    assert {"points.csv", "point_values.csv", "tuning.csv", "importances.csv"} <= set(tables.compared)
    assert audit.compared["tuning"] > 100


def test_the_report_of_a_search_that_chose_the_baseline_is_recomputed(tmp_path: Path) -> None:
    asked = [Asked({"epsilon": 0.1 * at}, "sampler" if at else "baseline") for at in range(5)]
    search = EPSILON.model_copy(update={"points": 6, "anchors": ()})
    found = render(
        tmp_path,
        study=retest_study(search, [{"epsilon": 0.0}], seeds=2),
        search=lambda results: write_search(
            results, search, asked, strength=lambda levels: 2.5 - 4 * float(levels["epsilon"])
        ),
    )
    made = opened(found.results.root, found.folder)
    assert (made.audit().wrong, made.audit_csv().wrong) == ([], [])
    assert "beats" not in found.html


def test_a_changed_number_of_a_search_is_found(rendered: Callable[[str], Rendered]) -> None:
    found = rendered("tuned_front")
    made, tried = opened(found.results.root, found.folder), 0
    report, sample = copy.deepcopy(made.report), np.random.default_rng(0)
    for name in ("retested", "points"):
        table = report["tuning"][name]
        for row in table["rows"]:
            for head, cell in zip(table["columns"], row, strict=True):
                for what in _mutants_of(head["label"], cell) if sample.random() < 0.1 else ():
                    tried += 1
                    assert made.audit(report).wrong, f"not found: {what}"
    said = report["headline"]["tuning"]["sentences"]
    for place, before in enumerate(said):
        for said[place] in list(changed(before))[::5]:
            tried += 1
            assert made.audit(report).wrong, f"not found: {said[place]}"
        said[place] = before
    assert tried > 50
    assert report == made.report


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


@pytest.mark.parametrize("kind", ["holes", "blind"])
def test_trends_and_contrasts_with_holes_or_without_an_effect_are_recomputed(
    tmp_path: Path, kind: str
) -> None:
    factors: dict[str, Any] = {
        "epsilon": (0.2, 0.0, 0.4),
        "clip_norm": (0.0, 1.0),
        "batch_size": (32, 64, 256),
    }
    if kind == "holes":
        del factors["batch_size"]
    study = declare(factors=factors, baseline={"epsilon": 0.0}, family=("nll", "ece"), seeds=4)
    ways: dict[str, dict[str, Any]] = {"holes": {"outcome": _holes}, "blind": {"made": _blind}}
    found = render(tmp_path, study=study, **ways[kind])
    own = opened(found.results.root, found.folder)
    audits = own.audit(), own.audit_csv()
    assert [audit.wrong for audit in audits] == [[], []]
    assert {"trends", "contrasts", "certainty"} <= set(audits[0].compared)
    with (own.results / "effects.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "accuracy"]
    reasons = {row["reason"] for row in rows if row["kind"] == "trend"}
    assert reasons == {"holes": {"incomplete"}, "blind": {"identical"}}[kind]


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
    found = render(tmp_path, study=study, made=_so_many_right)
    made = opened(found.results.root, found.folder)
    assert made.audit().wrong == []
    assert made.audit_csv().wrong == []
    assert made.report["identical"] == [["arch=a", "arch=b"]]
    with (made.results / "effects.csv").open(encoding="utf-8", newline="") as file:
        reasons = {row["reason"] for row in csv.DictReader(file)}
    assert {"identical", "no_spread"} <= reasons


# An audit that finds nothing must be able to.


def changed(text: str) -> Iterator[str]:
    """The text with one of its numbers one unit of its last digit higher, each number in turn."""
    for match in re.finditer(r"\d+(?:\.\d+)?", text):
        digit = str((int(match.group()[-1]) + 1) % 10)
        yield text[: match.end() - 1] + digit + text[match.end() :]


def cells(report: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The cells of all tables with numbers of the study, each with its column's label."""
    tables = [
        report[name]
        for name in ("arms", "more_metrics", "effects", "certainty", "trends", "contrasts", "trials")
    ]
    for table in [*tables, report["timing"]["table"]]:
        for row in table["rows"]:
            yield from zip([head["label"] for head in table["columns"]], row, strict=True)


def mutants(report: dict[str, Any]) -> Iterator[str]:
    """Change one number by as little as a reader could see, say what, put it back; and so on.

    A sample of the cells of all tables, and a contrast's sentences.
    """
    sample = np.random.default_rng(0)
    for label, cell in cells(report):
        if sample.random() < 0.05:
            yield from _mutants_of(label, cell)
    for key in ("text", "also"):
        own, before = report["headline"]["contrasts"][0], report["headline"]["contrasts"][0][key]
        for own[key] in changed(before):
            yield own[key]
        own[key] = before


def _mutants_of(label: str, cell: dict[str, Any]) -> Iterator[str]:
    before = copy.deepcopy(cell)
    for cell["text"] in changed(before["text"]):
        yield f"{label}: {before['text']} to {cell['text']}"
    cell["text"] = before["text"]
    for place, note in enumerate(before["notes"]):
        if label == "Smooth ECE" and note.startswith("floor"):
            continue
        for cell["notes"][place] in changed(note):
            yield f"{label}: {note} to {cell['notes'][place]}"
        cell["notes"][place] = note
    for key in set(before) - {"text", "notes"}:
        if isinstance(before[key], float):
            shift = 1e-4 if label == "Smooth ECE" else 1e-8
            cell[key] = before[key] * (1 + shift) + (before[key] == 0)
            yield f"{label}: {key} {before[key]} to {cell[key]}"
            cell[key] = before[key]


def test_a_changed_number_is_found(ran: Ran) -> None:
    report, tried = copy.deepcopy(ran.report), 0
    for what in mutants(report):
        tried += 1
        assert ran.audit(report).wrong, f"not found: {what}"
    assert tried > 50
    assert report == ran.report


def test_a_changed_number_beside_a_published_table_is_found(rendered: Callable[[str], Rendered]) -> None:
    found = rendered("single")
    made = opened(found.results.root, found.folder)
    (table,) = made.report["published"]["tables"]
    assert table["outside"]
    assert made.audit().wrong == []
    changes: tuple[Callable[[dict[str, Any]], Any], ...] = (
        lambda part: part.update(inside=part["inside"] + 1),
        lambda part: part["outside"].pop(),
        lambda part: part["outside"].__setitem__(0, next(changed(part["outside"][0]))),
        lambda part: part.update(summary=next(changed(part["summary"]))),
        lambda part: part["rows"][0][1].update(high=part["rows"][0][1]["high"] * (1 + 1e-8)),
        lambda part: part["rows"][0][2].update(inside=not part["rows"][0][2]["inside"]),
    )
    for change in changes:
        report = copy.deepcopy(made.report)
        change(report["published"]["tables"][0])
        assert made.audit(report).wrong


def test_a_changed_word_is_found(ran: Ran) -> None:
    report = copy.deepcopy(ran.report)
    report["effects"]["rows"][0][3]["notes"][-1] = "worse"
    report["headline"]["summary"] = report["headline"]["summary"].replace("accuracy", "error")
    report["identical"] = [["ε=0, clip_norm=0", "ε=0.2, clip_norm=0"]]
    places = [wrong.split(":")[0] for wrong in ran.audit(report).wrong]
    assert places == ["headline", "identical", "effects"]


def test_a_column_that_the_audit_does_not_know_is_found(ran: Ran) -> None:
    report = copy.deepcopy(ran.report)
    report["arms"]["columns"][-1]["label"] = "Brand new"
    assert "arms: column 'Brand new' is not recomputed" in ran.audit(report).wrong


def test_a_changed_prediction_is_found(ran: Ran, tmp_path: Path) -> None:
    """One image of one trial taken for another class: the report is not that of these predictions."""
    results = tmp_path / "results"
    shutil.copytree(ran.results, results)
    path = sorted((results / "predictions").iterdir())[0]
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    label = arrays["labels"][0]
    arrays["logits"][0, label] = (
        arrays["logits"][0].min() - 1 if arrays["logits"][0].argmax() == label else 99
    )
    np.savez(path, **arrays)
    audit = recompute.audit_report(recompute.read(results), ran.report)
    assert {wrong.split(":")[0] for wrong in audit.wrong} >= {
        "arms",
        "effects",
        "contrasts",
        "trials",
        "headline",
    }
    assert recompute.audit_csv(recompute.read(results), results).wrong


@pytest.mark.parametrize(
    ("metric", "off"), [("ece", 0.02), ("ece_equal_mass", 0.02), ("mce", 1e-8), ("classwise_ece", 0.15)]
)
def test_a_changed_band_is_found(ran: Ran, tmp_path: Path, metric: str, off: float) -> None:
    """One end of one arm's band moved, each in turn; where labels are drawn, by more than the draws can."""
    with (ran.results / "floors.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    own = [at for at, row in enumerate(rows) if row["metric"] == metric]
    assert len(own) == len(ran.recorded.arms)
    for at, column in itertools.product(own, ("low", "high")):
        before = rows[at][column]
        rows[at][column] = str(float(before) * (1 + off))
        with (tmp_path / "floors.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        (wrong,) = recompute.audit_csv(ran.recorded, tmp_path).wrong
        assert wrong.startswith(f"floors.csv: row {at}, {column}")
        rows[at][column] = before
