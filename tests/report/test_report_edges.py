"""Studies that say little or nothing, tables that do not fit, and figures that fail."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from report_cases import Rendered, read_rendered, render
from report_results import CPU, declare, make_results, number_of

from ablate.analysis.effects import effects_table
from ablate.errors import RecordError, ResultsError, StudyError
from ablate.metrics import METRICS
from ablate.report import build_report, write_report
from ablate.report.views import published_view
from ablate.store.records import Predictions
from ablate.store.results import ResultsFolder, read_plan
from ablate.study.trials import Plan, Trial, expand
from ablate.tables import Tables, frame, read_tables

Get = Callable[[str], Rendered]


def titles(page: Rendered) -> list[str]:
    return [banner["title"] for banner in page.report["banners"]]


def test_one_seed_has_means_and_no_interval(rendered: Get) -> None:
    page = rendered("one_seed")
    accuracy = page.report["arms"]["rows"][0][2]
    assert (accuracy["notes"], accuracy["low"], accuracy["n"]) == (["n = 1: no interval"], None, 1)
    assert page.report["headline"]["summary"].endswith(
        "(n = 1 pair, no interval). Undecided: one pair has no spread to judge by."
    )
    assert "Fewer than 5 training runs in every arm" in titles(page)


@pytest.mark.parametrize(
    ("case", "state"), [("all_failed", "4 oom: out of memory"), ("nothing_ran", "4 not run")]
)
def test_a_study_without_results_says_so(rendered: Get, case: str, state: str) -> None:
    page = rendered(case)
    assert page.report["headline"]["summary"] == "No trial is complete, so there is no result yet."
    assert titles(page)[0] == "4 of 4 trials have no result"
    assert state.replace("4", "2", 1) in page.report["banners"][0]["items"][0]
    assert {cell["text"] for cell in page.report["arms"]["rows"][0][2:]} == {"–"}
    assert (page.report["failures"] is None) is (case == "nothing_ran")
    assert "nothing to draw" in page.page.words()


def test_lost_trials_are_listed_by_arm_with_their_reasons(rendered: Get) -> None:
    page = rendered("factorial")
    lost = page.report["banners"][0]
    assert lost["title"] == "10 of 24 trials have no result"
    assert lost["items"][1] == (
        "ε=0, reduction=sum: 3 of 4 without a result "
        "(3 diverged: the loss is not finite in step 3 of epoch 1)"
    )
    assert len(page.report["failures"]["rows"]) == 6
    contrasts = page.report["headline"]["contrasts"]
    assert {contrast["verdict"] for contrast in contrasts} == {"undecided"}
    planned = ("only 1 of 4 planned pairs are complete.", "only 3 of 4 planned pairs are complete.")
    assert all(contrast["text"].endswith(planned) for contrast in contrasts)


def test_what_is_pooled_and_uncommitted_is_said(rendered: Get) -> None:
    found = titles(rendered("factorial"))
    assert "Several versions of torch are pooled" in found
    assert "Several commits of ablate are pooled" in found
    assert "Uncommitted code" in found
    assert not {
        title for title in titles(rendered("sweep")) if "pooled" in title or "commit" in title.lower()
    }


def test_digits_are_not_taken_for_imagenette(rendered: Get) -> None:
    assert "A small stand-in for the full study" in titles(rendered("sweep"))
    assert "A small stand-in for the full study" not in titles(rendered("single"))


def calibrated(trial: Trial) -> Predictions:
    """Labels drawn from the predicted probabilities themselves: the ECE is noise."""
    rng = np.random.default_rng(trial.seed)
    logits = rng.normal(size=(300, 10)) * 2
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([rng.choice(10, p=row) for row in p])
    return Predictions(logits.astype(np.float32), labels)


def test_an_ece_is_called_noise_only_at_or_under_its_floor(rendered: Get, tmp_path: Path) -> None:
    folder = make_results(tmp_path, declare(seeds=6), made=calibrated)
    tables, plan = read_tables(folder, names=["trials", "epochs", "reliability"]), read_plan(folder)
    trials = tables["trials"]
    for shift, expected in ((-0.01, True), (0.01, False)):
        tables["trials"] = trials.assign(ece=trials["ece_floor"] + shift)
        items = [
            item for banner in build_report(tables, plan, [])["banners"] for item in banner["items"]
            if banner["title"] == "Calibration errors at or under their noise floors"
        ]  # fmt: skip
        assert any(item.startswith("ECE, all runs: ") for item in items) is expected
    assert not any(
        item.startswith("ECE, ε")
        for banner in rendered("sweep").report["banners"]
        for item in banner["items"]
    )


def test_an_error_in_the_band_cannot_be_told_from_calibration(tmp_path: Path) -> None:
    folder = make_results(tmp_path, declare(seeds=6), made=calibrated)
    tables, plan = read_tables(folder, names=["trials", "epochs", "reliability", "floors"]), read_plan(folder)
    trials, floors = tables["trials"], tables["floors"].set_index("metric")
    most = floors["high"]["ece"]
    assert most > 1.1 * trials["ece_floor"].max()
    for value, expected in ((most - 1e-6, True), (most + 1e-6, False)):
        tables["trials"] = trials.assign(ece=value)
        items = [
            item for banner in build_report(tables, plan, [])["banners"] for item in banner["items"]
            if banner["title"] == "Calibration errors that cannot be told from calibration"
        ]  # fmt: skip
        said = f"ECE, all runs: {100 * value:.2f} %, noise up to {100 * most:.2f} %"
        assert (said in items) is expected
        assert any(item.startswith("ECE, all runs: ") for item in items) is expected


def test_the_list_of_errors_in_the_band_is_capped(tmp_path: Path) -> None:
    study = declare(factors={"epsilon": (0.0, 0.1)}, baseline={"epsilon": 0.0}, seeds=2)
    folder = make_results(tmp_path, study, made=calibrated)
    names = ["trials", "epochs", "reliability", "floors"]
    tables, plan = read_tables(folder, names=names), read_plan(folder)
    tables["floors"] = tables["floors"].assign(high=1.0)
    (items,) = [
        banner["items"] for banner in build_report(tables, plan, [])["banners"]
        if banner["title"] == "Calibration errors that cannot be told from calibration"
    ]  # fmt: skip
    assert len(items) == 7
    assert items[-1] == "and 4 more, in the tables"


def test_equal_arms_are_called_equal_and_not_certain(tmp_path: Path) -> None:
    """Two levels that compute the same: the differences have no spread, so no interval and no p of 0."""
    study = declare(factors={"reduction": ("mean", "none")}, baseline={"reduction": "mean"}, seeds=3)
    rng = np.random.default_rng
    page = render(
        tmp_path,
        study=study,
        made=lambda trial: Predictions(
            rng(trial.seed).normal(size=(50, 10)).astype(np.float32), np.arange(50) % 10
        ),
    )
    (contrast,) = [page.report["headline"]["summary"]]
    assert contrast.endswith("accuracy 0.00 percentage points (n = 3 pairs, no interval). "
                             "Equivalent: the same predictions on every seed.")  # fmt: skip
    assert page.report["effects"]["rows"][0][3]["notes"] == ["equal on every seed", "equivalent"]
    assert page.report["identical"] == [["reduction=mean", "reduction=none"]]


def test_equal_values_of_different_predictions_are_undecided(tmp_path: Path) -> None:
    """Accuracies that tie on every seed are chance where the predictions differ."""
    study = declare(factors={"epsilon": (0.0, 0.1)}, baseline={"epsilon": 0.0}, seeds=3)

    def made(trial: Trial) -> Predictions:
        labels = np.arange(50) % 10
        rng = np.random.default_rng(number_of(trial))
        return Predictions((9 * np.eye(10)[labels] + rng.normal(size=(50, 10))).astype(np.float32), labels)

    summary = render(tmp_path, study=study, made=made).report["headline"]["summary"]
    assert "Undecided: all pairs differ alike, which leaves no spread to judge by." in summary


def test_a_perfect_network_and_empty_bins_make_a_report(tmp_path: Path) -> None:
    labels = np.arange(40) % 10
    sure = Predictions((30 * np.eye(10)[labels]).astype(np.float32), labels)
    page = render(tmp_path, study=declare(seeds=3), made=lambda trial: sure)
    assert {figure["error"] for figure in page.report["figures"]} == {""}
    assert page.report["arms"]["rows"][0][2]["notes"] == ["all runs equal"]


def test_a_figure_that_fails_says_why_in_its_place(
    rendered: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no <room> left")

    monkeypatch.setattr("ablate.figures.training._draw_runs", fail)
    first = rendered("sweep")
    stale = tmp_path / "figures" / "curves.svg"
    stale.parent.mkdir()
    stale.write_text("of an earlier report")
    page = read_rendered(first.results, write_report(first.results, tmp_path).parent)
    errors = {figure["name"]: figure["error"] for figure in page.report["figures"]}
    assert errors.pop("curves") == "RuntimeError: no <room> left"
    assert set(errors.values()) == {""}
    for words in (page.page.words(), page.markdown_page.words()):
        assert "This figure could not be drawn: RuntimeError: no <room> left" in words
    assert len([tag for tag, _ in page.page.elements if tag == "img"]) == len(errors)
    assert not stale.exists()


def test_a_report_without_a_usable_plotting_library_is_complete_but_for_figures(
    rendered: Get, tmp_path: Path
) -> None:
    code = (
        "import pathlib, sys; from ablate.report import write_report; "
        "from ablate.store.results import ResultsFolder; "
        "write_report(ResultsFolder(pathlib.Path(sys.argv[1])), pathlib.Path(sys.argv[2]))"
    )
    first = rendered("sweep")
    command = [sys.executable, "-W", "error", "-c", code, str(first.results.root), str(tmp_path)]
    subprocess.run(command, check=True, env={**os.environ, "MPLBACKEND": "bogus"})
    page = read_rendered(first.results, tmp_path)
    assert all("bogus" in figure["error"] for figure in page.report["figures"])
    assert page.report["arms"] == first.report["arms"]


def test_importing_the_report_brings_neither_torch_nor_matplotlib() -> None:
    code = "import ablate.report, sys; print(sorted({'torch', 'matplotlib'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


def test_tables_of_another_plan_are_refused(rendered: Get, tmp_path: Path) -> None:
    first, other = rendered("sweep"), rendered("single")
    folder = ResultsFolder(tmp_path)
    for name in ("trials.csv", "epochs.csv", "reliability.csv"):
        (tmp_path / name).write_bytes((first.results.root / name).read_bytes())
    folder.plan.write_bytes(other.results.plan.read_bytes())
    with pytest.raises(RecordError, match=r"other trials than study\.json plans"):
        write_report(folder, tmp_path / "report")


def test_a_report_folder_that_cannot_be_made_is_named(rendered: Get, tmp_path: Path) -> None:
    (tmp_path / "report").write_text("a file")
    with pytest.raises(ResultsError, match=r"report cannot be written .*--report"):
        write_report(rendered("sweep").results, tmp_path / "report")


STUDY = declare(
    factors={"epsilon": (0.0, 0.1, 0.2), "drop_last": (False, True)},
    baseline={"epsilon": 0.0},
    family=("accuracy", "nll"),
    seeds=3,
)
PLAN = Plan(
    study=STUDY,
    profile="p",
    reason="r",
    trials=tuple(expand(STUDY, lambda fields: "f", lambda fields: CPU)),
)
number = st.none() | st.sampled_from([0.0, 1.0, float("inf"), 1e-300]) | st.floats(-1, 1, allow_nan=False)
outcome = st.tuples(st.sampled_from(["complete", "complete", "complete", "diverged", "missing"]), number)


GENERATED = (Phase.explicit, Phase.reuse, Phase.generate)  # shrinking a report of 18 trials takes minutes


def random_tables(outcomes: list[tuple[str, Any]]) -> Tables:
    rows = [
        {
            "trial_id": trial.trial_id, "arm": trial.arm, "seed": trial.seed, "repeat": 0, "study": "s",
            "profile": "p", "status": status, "device": "cpu", **trial.fields.model_dump(),
            **(dict.fromkeys(METRICS, value) if status == "complete" else {"failure": None}),
        }
        for trial, (status, value) in zip(PLAN.trials, outcomes, strict=True)
    ]  # fmt: skip
    return {
        "trials": frame("trials", rows),
        "epochs": frame("epochs", []),
        "reliability": frame("reliability", []),
    }


@settings(max_examples=20, deadline=None, phases=GENERATED)
@given(outcomes=st.lists(outcome, min_size=18, max_size=18))
def test_any_table_makes_a_report_without_nan_or_a_p_of_zero(outcomes: list[tuple[str, Any]]) -> None:
    tables = random_tables(outcomes)
    report = build_report(tables, PLAN, [])
    text = json.dumps(report, allow_nan=False)
    assert "p = 0.000" not in text
    assert not re.search(r"\bnan\b", text, flags=re.IGNORECASE)
    for contrast in report["headline"]["contrasts"]:
        pairs = contrast["n_pairs"]
        assert (contrast["low"] is None) or pairs > 1
        apart = contrast["low"] is not None and (contrast["low"] > 0 or contrast["high"] < 0)
        assert (contrast["verdict"] in ("better", "worse")) <= apart
        if contrast["verdict"] in ("better", "worse"):
            assert contrast["p_adjusted"] <= 0.05


@settings(max_examples=20, deadline=None, phases=GENERATED)
@given(outcomes=st.lists(outcome, min_size=18, max_size=18))
def test_family_intervals_are_wider_than_lone_ones(outcomes: list[tuple[str, Any]]) -> None:
    """The same values in every metric: those of the family must have the wider interval."""
    effects = effects_table(random_tables(outcomes), PLAN)
    inside = effects[effects["metric"] == "accuracy"].set_index(["kind", "term", "against"])
    outside = effects[effects["metric"] == "brier"].set_index(["kind", "term", "against"])
    known = inside["low"].notna()
    width = {name: (rows["high"] - rows["low"])[known] for name, rows in (("in", inside), ("out", outside))}
    assert (width["in"] > width["out"]).all()
    assert outside["p_holm"].isna().all()
    assert pd.Series(inside["p_holm"] >= inside["p"])[known].all()


def test_the_ece_figure_has_its_noise_floor(rendered: Get) -> None:
    for case in ("sweep", "single"):
        (figure,) = [figure for figure in rendered(case).report["figures"] if figure["name"] == "ece"]
        assert "where 95 % of means of a perfectly calibrated network would fall" in figure["caption"]
        assert figure["caption"] in figure["alt"]


def test_older_results_have_the_floor_without_its_band(rendered: Get, tmp_path: Path) -> None:
    results = ResultsFolder(tmp_path / "results")
    shutil.copytree(rendered("sweep").results.root, results.root)
    (results.root / "floors.csv").unlink()
    report = json.loads(write_report(results, tmp_path / "report").with_name("report.json").read_text())
    (figure,) = [figure for figure in report["figures"] if figure["name"] == "ece"]
    assert "The dashed line is the noise floor" in figure["caption"]
    assert "95 % of means" not in figure["alt"]


def test_a_failed_run_is_not_set_beside_the_published_one(tmp_path: Path) -> None:
    study = declare(
        seeds=3, published={"source": "s", "data": "digits", "epochs": ({"epoch": 0.0, "train_loss": 2.0},)}
    )
    folder = make_results(
        tmp_path, study, outcome=lambda trial: "diverged" if trial.seed == 1 else "complete"
    )
    tables = read_tables(folder, names=["trials", "epochs", "reliability"])
    (table,) = build_report(tables, read_plan(folder), [])["published"]["tables"]
    assert table["runs"] == 2


def published_part(tmp_path: Path, epochs: pd.DataFrame | None = None, **declaration: Any) -> dict[str, Any]:
    folder = make_results(tmp_path, declare(**declaration))
    plan, tables = read_plan(folder), read_tables(folder, names=["epochs"])
    return published_view(tables["epochs"] if epochs is None else epochs, plan) or {}


def source(**columns: float) -> dict[str, Any]:
    return {"source": "s", "data": "digits", "epochs": ({"epoch": 0.0, **columns},)}


def test_beside_one_run_nothing_can_be_told(tmp_path: Path) -> None:
    found = published_part(tmp_path, seeds=1, published=source(train_loss=2.0, valid_loss=2.0))
    assert found["summary"].startswith(
        "Whether the source's 2 published values could be of a run here cannot"
    )
    (table,) = found["tables"]
    assert (table["inside"], table["outside"], table["rows"][0][2]["inside"]) == (0, [], None)


def test_equal_and_missing_values_cannot_be_told_and_the_others_can(tmp_path: Path) -> None:
    """Hand-made epochs: losses 1, 2, 3 hold 2 ± 4.303 · 1 · sqrt(4/3) = 2 ± 4.968."""
    epochs = pd.DataFrame(
        {
            "trial_id": ["a", "b", "c"],
            "arm": "all",
            "epoch": 0,
            "train_loss": [1.0, 2.0, 3.0],
            "train_accuracy": [0.5, 0.5, 0.5],
            "valid_loss": [1.0, math.nan, math.nan],
            "valid_accuracy": [0.1, 0.1001, 0.1002],
        }
    )
    numbers = {"train_loss": 6.96, "train_accuracy": 0.5, "valid_loss": 1.0, "valid_accuracy": 0.2}
    found = published_part(tmp_path, epochs, seeds=3, published=source(**numbers))
    assert [cell["inside"] for cell in found["tables"][0]["rows"][0][2::2]] == [True, None, None, False]
    assert found["summary"] == (
        "1 of the source's 4 published values lie inside the 95 % prediction interval of 3 runs here; "
        "outside: 1 of accuracy, reported split; 2 cannot be told."
    )


def test_arms_are_told_apart_and_a_table_without_known_columns_says_so(tmp_path: Path) -> None:
    arms: dict[str, Any] = {"factors": {"epsilon": (0.0, 0.1)}, "seeds": 2}
    said = published_part(tmp_path / "a", published=source(train_loss=9.0), **arms)["summary"]
    assert re.findall(r"(ε=\S+): 0 of the source's 1 published values", said) == ["ε=0", "ε=0.1"]
    none = published_part(tmp_path / "b", seeds=2, published=source(seconds=3.0))
    assert none["summary"] == "The published table has none of the columns that are compared."


@pytest.mark.parametrize(("columns", "seeds"), [({"seconds": 3.0}, 2), ({"train_loss": 2.0}, 1)])
def test_the_figure_beside_a_published_table_needs_no_interval(
    tmp_path: Path, columns: dict[str, float], seeds: int
) -> None:
    page = render(tmp_path, study=declare(seeds=seeds, published=source(**columns)))
    (figure,) = [figure for figure in page.report["figures"] if figure["name"] == "published"]
    assert not figure["error"]
    assert page.report["published"]["summary"] in figure["alt"]


def test_a_published_number_that_is_none_is_refused() -> None:
    with pytest.raises(StudyError, match="finite"):
        declare(published=source(train_loss=math.nan))
