"""Studies that say little or nothing, tables that do not fit, and figures that fail."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from recorded_study import planned
from report_cases import Get, Rendered, render, report_of
from report_results import declare, trial_rows

from ablate import figures
from ablate.analysis.arms import of_plan
from ablate.errors import RecordError, ResultsError
from ablate.metrics import METRICS
from ablate.report import build_report, write_report
from ablate.report.cautions import banners
from ablate.report.content import derived_tables
from ablate.report.views import published_view
from ablate.store.records import Predictions
from ablate.store.results import read_plan
from ablate.study.trials import Trial
from ablate.tables.files import frame, read_tables


def titles(page: Rendered) -> list[str]:
    return [banner["title"] for banner in page.report["banners"]]


def test_one_seed_has_means_and_no_interval(rendered: Get) -> None:
    page = rendered("one_seed")
    accuracy = page.report["arms"]["rows"][0][2]
    assert (accuracy["notes"], accuracy["low"], accuracy["n"]) == (["n = 1: no interval"], None, 1)
    assert page.report["answer"]["sentences"][0]["text"].endswith("one seed has no spread to judge by.")
    assert "Fewer than 5 training runs in every arm" in titles(page)


@pytest.mark.parametrize(("case", "state"), [("all_failed", "2 oom: out of"), ("nothing_ran", "2 not run")])
def test_a_study_without_results_says_so(rendered: Get, case: str, state: str) -> None:
    page = rendered(case)
    nothing = "No trial is complete, so there is no result yet."
    assert [said["text"] for said in page.report["answer"]["sentences"]] == [nothing]
    assert titles(page)[0] == "4 of 4 trials have no result"
    assert state in page.report["banners"][0]["items"][0]
    assert {cell["text"] for cell in page.report["arms"]["rows"][0][2:]} == {"–"}
    assert (page.report["failures"] is None) is (case == "nothing_ran")


def test_lost_trials_and_what_was_pooled_are_told(rendered: Get) -> None:
    """Elsewhere nothing is said of it; digits are not taken for Imagenette."""
    page = rendered("factorial")
    lost, claims = page.report["banners"][0], page.report["answer"]["claims"]
    assert lost["title"] == "10 of 24 trials have no result"
    why = "(3 diverged: the loss is not finite in step 3 of epoch 1)"
    assert lost["items"][1] == f"ε=0, reduction=sum: 3 of 4 without a result {why}"
    assert len(page.report["failures"]["rows"]) == 6
    assert {claim["verdict"] for claim in claims} == {"undecided"}
    assert {claim["n"] for claim in claims} == {1, 3}
    assert "because planned trials are missing" in page.report["answer"]["sentences"][0]["text"]
    pooled = {"Several versions of torch are pooled", "Several commits of ablate are pooled"}
    told = {"Fewer than 5 training runs in every arm", "A small stand-in for the full study"}
    noise = {"Calibration errors that cannot be told from calibration"}
    assert set(titles(page)[1:]) - noise == {*pooled, *told, "Uncommitted code"}
    assert set(titles(rendered("sweep"))) - noise == {*told, "1 decided claim rests on thin ground"}
    sweep, plan = rendered("sweep"), read_plan(rendered("sweep").results)
    for column, said in (("seed", "Each seed's arms were trained with one"), ("epsilon", "In 3 of 3 seeds")):
        trials = read_tables(sweep.results, names=["trials"])["trials"]
        trials["device_name"] = trials[column].astype(str)
        (text,) = [
            one["text"] for one in banners({"trials": trials}, plan) if "processors or GPUs" in one["title"]
        ]
        assert text.startswith(said)
    assert set(titles(rendered("single"))) - noise == told - {"A small stand-in for the full study"}


def test_a_calibration_error_is_called_noise_up_to_its_floor_or_its_band(rendered: Get) -> None:
    page = rendered("sweep")
    tables, plan = read_tables(page.results, names=["trials", "floors"]), read_plan(page.results)
    trials, floors = tables["trials"], tables["floors"].query("metric == 'ece'").set_index("arm")
    for title, bands, ece, said in (
        ("Calibration errors at or under their noise floors", {}, trials["ece_floor"], "floor "),
        ("cannot be told from calibration", tables, trials["arm"].map(floors["high"]), "noise up to"),
    ):
        for shift in (-1e-6, 1e-6):
            given = {**bands, "trials": trials.assign(ece=ece.astype(float) + shift)}
            lists = [one["items"] for one in banners(given, plan) if title in one["title"]]
            items = [item for of in lists for item in of if item.startswith("ECE, ")]
            assert [said in item for item in items] == [True] * len(plan.arms) * (shift < 0)
    found = banners({**tables, "floors": tables["floors"].assign(high=1.0)}, plan)
    (items,) = [banner["items"] for banner in found if "told from calibration" in banner["title"]]
    assert (len(items), items[-1]) == (7, "and 14 more, in the tables")


def test_a_perfect_network_and_empty_bins_make_a_report(tmp_path: Path) -> None:
    labels = np.arange(40) % 10
    sure = Predictions((30 * np.eye(10)[labels]).astype(np.float32), labels)
    page = render(tmp_path, figures=True, study=declare(seeds=3), made=lambda trial: sure)
    assert {figure["error"] for figure in page.report["figures"]} == {""}
    assert page.report["arms"]["rows"][0][2]["notes"] == ["all runs equal"]


def test_a_figure_that_fails_says_why(rendered: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no <room> left")

    monkeypatch.setattr("ablate.figures.training._draw_runs", fail)
    stale = tmp_path / "figures" / "curves.svg"
    stale.parent.mkdir()
    stale.write_text("of an earlier report")
    page = report_of(rendered("sweep").results, tmp_path, figures=True)
    errors = {figure["name"]: figure["error"] for figure in page.report["figures"]}
    assert errors.pop("curves") == "RuntimeError: no <room> left"
    assert set(errors.values()) == {""}
    for words in (page.page.words(), page.markdown_page.words()):
        assert "This figure could not be drawn: RuntimeError: no <room> left" in words
    assert len([tag for tag, _ in page.page.elements if tag == "img"]) == len(errors)
    assert not stale.exists()


def test_figures_are_pdf_on_request(rendered: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered("sweep", figures=True)  # so that every figure is registered before only one is left
    results, paper = rendered("sweep").results, tmp_path / "figures" / "curves.pdf"
    one = [entry for entry in figures.REGISTRY if entry.name == "curves"]
    monkeypatch.setattr(figures, "REGISTRY", one)
    write_report(results, tmp_path, pdf=True)
    assert paper.read_bytes().startswith(b"%PDF-")
    (shown,) = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["figures"]
    assert (shown["pdf"], shown["table"]) == ("figures/curves.pdf", "epochs")
    write_report(results, tmp_path)
    assert not paper.exists()


def test_tables_of_another_plan_and_a_folder_not_to_be_made_are_named(rendered: Get, tmp_path: Path) -> None:
    first, other = rendered("sweep").results, rendered("single").results
    with pytest.raises(RecordError, match=r"other trials than study\.json plans"):
        of_plan(read_tables(first, names=["trials", "epochs"]), read_plan(other))
    (tmp_path / "report").write_text("a file")
    with pytest.raises(ResultsError, match=r"report cannot be written .*--report"):
        write_report(first, tmp_path / "report")


TWO: dict[str, Any] = {"epsilon": (0.0, 0.1, 0.2), "drop_last": (False, True)}
PLAN = planned(declare(factors=TWO, baseline={"epsilon": 0.0}, family=("accuracy", "nll"), seeds=3))
number = st.none() | st.sampled_from([0.0, 1.0, float("inf"), 1e-300]) | st.floats(-1, 1, allow_nan=False)
outcome = st.tuples(st.sampled_from(["complete", "complete", "complete", "diverged", "missing"]), number)
GENERATED = (Phase.explicit, Phase.reuse, Phase.generate)  # shrinking a report of 18 trials takes minutes


@pytest.mark.slow
@settings(phases=GENERATED)
@given(outcomes=st.lists(outcome, min_size=18, max_size=18))
def test_any_table_makes_a_report_without_nan_or_a_p_of_zero(outcomes: list[tuple[str, Any]]) -> None:
    of = {trial.trial_id: one for trial, one in zip(PLAN.trials, outcomes, strict=True)}

    def measured(trial: Trial) -> dict[str, Any]:
        status, value = of[trial.trial_id]
        return {"status": status, **dict.fromkeys(METRICS, value if status == "complete" else None)}

    tables = {"trials": trial_rows(PLAN, measured), "epochs": frame("epochs", [])}
    tables |= derived_tables(tables, PLAN)
    report = build_report(tables, PLAN, [])
    text = json.dumps(report, allow_nan=False)
    assert "p = 0.000" not in text
    assert not re.search(r"\bnan\b", text, flags=re.IGNORECASE)


def beside(epochs: pd.DataFrame, **published: float) -> dict[str, Any]:
    """The part of the report about a published epoch 0, for a study of one arm."""
    source = {"source": "s", "data": "digits", "epochs": ({"epoch": 0.0, **published},)}
    return published_view(epochs, planned(declare(published=source))) or {}


LOSSES = {"train_loss": [1.0, 2.0, 3.0], "valid_loss": [1.0, math.nan, math.nan]}
ACCURACIES = {"train_accuracy": [0.5, 0.5, 0.5], "valid_accuracy": [0.1, 0.1001, 0.1002]}
EPOCHS = pd.DataFrame({"trial_id": ["a", "b", "c"], "arm": "all", "epoch": 0, **LOSSES, **ACCURACIES})


def test_equal_and_missing_values_cannot_be_told_and_the_others_can() -> None:
    """Hand-made epochs: losses 1, 2, 3 hold 2 ± 4.303 · 1 · sqrt(4/3) = 2 ± 4.968."""
    found = beside(EPOCHS, train_loss=6.96, train_accuracy=0.5, valid_loss=1.0, valid_accuracy=0.2)
    (table,) = found["tables"]
    assert [cell["inside"] for cell in table["rows"][0][2::2]] == [True, None, None, False]
    assert (table["runs"], table["published"], table["inside"], len(table["outside"])) == (3, 4, 1, 1)
    assert found["summary"] == (
        "1 of the source's 4 published values lie inside the 95 % prediction interval of 3 runs here; "
        "outside: 1 of accuracy, reported split; 2 cannot be told."
    )
    one = beside(EPOCHS[:1], train_loss=2.0, valid_loss=2.0)
    assert one["summary"].startswith("Whether the source's 2 published values could be of a run here cannot")
    assert (one["tables"][0]["inside"], one["tables"][0]["outside"]) == (0, [])
    none = beside(EPOCHS, seconds=3.0)
    assert none["summary"] == "The published table has none of the columns that are compared."
