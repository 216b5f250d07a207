"""Arms that are each tuned on their own: known winners, equal budgets, images apart, stops, the page."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from recorded_study import planned, printed

from ablate.errors import StudyError
from ablate.execution.progress import Watcher
from ablate.gate.plan import show_plan
from ablate.pipeline import Run, run
from ablate.store.points import read_tuning, tuning_folder
from ablate.store.records import read_predictions, read_records
from ablate.store.results import ResultsFolder, read_plan
from ablate.study.comparisons import terms
from ablate.study.options import Options
from ablate.study.search import FIRST_TUNING_SEED, LOG_LEVELS, Range, Search
from ablate.study.study import Profile, Study
from ablate.study.trials import arm_name
from ablate.tables.tuning import points_table

pytestmark = pytest.mark.usefixtures("no_figures")

SPACE, ANCHORS = {"lr": (0.001, 0.1, 1.0)}, ({"lr": 0.001}, {"lr": 0.1})
BEST = {"sgd": 0.1, "adamw": 0.001}
"""Of plain SGD, which hardly moves at .001, and of AdamW, whose steps at .1 are a hundred times the usual."""


def declare(**changes: Any) -> Study:
    base = {"data": "digits", "image_size": 8, "epochs": 2, "batch_size": 32, "lr": 1.0}
    factors = {"optimizer": ("sgd", "adamw")}
    search = Search(SPACE, anchors=ANCHORS, points=3, seeds=2, tuning_part=0.33)
    declared = {"question": "Which?", "name": "fair", "base": base, "factors": factors, "retune": search}
    return Study(**{**declared, "baseline": {"optimizer": "sgd"}, "seeds": 2, **changes})


def run_in(place: Path, study: Study) -> Run:
    where: dict[str, Any] = {"results": place / "results", "report": place / "report"}
    return run(study, workers=0, timing=False, device="cpu", **where)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_in(tmp_path_factory.mktemp("fair"), declare())


def searches(ended: Run) -> Iterator[tuple[dict[str, Any], ResultsFolder]]:
    for one in read_plan(ResultsFolder(ended.folder)).study.chosen:
        yield one.model_dump(), ResultsFolder(ended.folder / "retune" / arm_name(one.arm))


@pytest.mark.slow
def test_each_arm_gets_its_budget_and_takes_the_best_of_its_points(whole: Run) -> None:
    assert len(list(searches(whole))) == 2
    for one, folder in searches(whole):
        points = points_table(folder)
        assert len(points) == 3
        scored = points.dropna(subset=["smoothed"])
        best = scored.sort_values("smoothed").iloc[-1]
        assert (one["levels"]["lr"], one["value"]) == (best["lr"], best["value"])
        assert (one["complete"], one["declared"]) == (len(scored), points["value"][0])
        assert best["lr"] == BEST[one["arm"]["optimizer"]]


@pytest.mark.slow
def test_no_reported_image_and_no_seed_of_a_search_is_in_the_final_runs(whole: Run) -> None:
    final = read_records(ResultsFolder(whole.folder))
    reported = {record.trial.fingerprint for record in final.values()}
    for one, folder in searches(whole):
        tuning, records = read_tuning(folder), read_records(tuning_folder(folder))
        assert tuning is not None
        assert (one["overlap"], tuning.overlap) == (0, 0)
        assert tuning.tuning_digest != tuning.reported_digest
        for record in records.values():
            assert record.trial.seed >= FIRST_TUNING_SEED
            assert record.trial.fields.tuning_part == 0.33
            assert record.trial.fingerprint not in reported
            assert len(read_predictions(tuning_folder(folder), record).labels) == one["tuning_images"] == 200
    assert {record.trial.seed for record in final.values()} == {0, 1}
    assert {record.trial.fields.tuning_part for record in final.values()} == {0.0}


@pytest.mark.slow
def test_the_page_has_every_arm_as_declared_and_re_tuned_with_verdicts_of_the_latter(whole: Run) -> None:
    plan = read_plan(ResultsFolder(whole.folder))
    chosen = {one.arm["optimizer"]: one.levels["lr"] for one in plan.study.chosen}
    for trial in plan.trials:
        own = chosen[trial.levels["optimizer"]] if trial.levels["tuning"] == "re-tuned" else 1.0
        assert (trial.fields.lr, trial.fields.optimizer) == (own, trial.levels["optimizer"])
    asked = [(term.term, term.against) for term in terms(plan) if term.asked]
    assert asked == [("optimizer=adamw, tuning=re-tuned", "optimizer=sgd, tuning=re-tuned")]
    effects, trials = whole.tables["effects"], whole.tables["trials"]
    assert set(effects.loc[effects["verdict"] != "exploratory", "term"]) == {asked[0][0]}
    # How much re-tuning changes the difference, by hand.
    values = trials.pivot(index="seed", columns="arm", values="accuracy")
    by_hand = [values[f"optimizer=adamw, tuning={kind}"] - values[f"optimizer=sgd, tuning={kind}"] for kind in
               ("re-tuned", "as declared")]  # fmt: skip
    found = effects.query("kind == 'interaction' and metric == 'accuracy'")["effect"].item()
    assert found == pytest.approx((by_hand[0] - by_hand[1]).mean())
    assert "Each arm tuned on its own" in whole.page
    assert any("3 points of 2 runs each, on 200 images" in line for line in whole.answer)


@pytest.mark.soak
def test_a_run_that_was_stopped_in_a_search_ends_as_one_that_was_not(
    whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened, seen = Watcher.happened, list[int]()

    def stop(self: Watcher, *told: Any) -> None:
        happened(self, *told)
        seen.append(told[2] is not None)
        if sum(seen) == 9:  # in the second arm's search
            raise KeyboardInterrupt

    monkeypatch.setattr(Watcher, "happened", stop)
    first = run_in(tmp_path, declare())
    assert (first.interrupted, first.report) == (True, None)
    monkeypatch.setattr(Watcher, "happened", happened)
    second = run_in(tmp_path, declare())
    assert second.ran == whole.ran - 9
    columns = ["trial_id", "arm", "seed", "accuracy", "predictions_sha256"]
    assert second.tables["trials"][columns].equals(whole.tables["trials"][columns])
    assert run_in(tmp_path, declare()).ran == 0


@pytest.mark.slow
def test_an_arm_that_keeps_its_setting_is_trained_once_and_stands_in_both(tmp_path: Path) -> None:
    search = Search({"lr": (0.1, 1e-6)}, points=2, seeds=1)
    base = {**declare().base, "lr": 0.1, "epochs": 1}
    ended = run_in(tmp_path, declare(base=base, factors={"optimizer": ("sgd",)}, seeds=2, retune=search))
    assert list(ended.tables["trials"]["lr"]) == [0.1] * 4
    assert (ended.ran, ended.tables["trials"]["trial_id"].nunique()) == (2 + 2, 2)


def test_a_profile_has_a_budget_of_its_own_and_a_range_with_log_its_values() -> None:
    small = declare(profiles={"small": Profile(search={"points": 2})}).with_profile("small")
    assert small.retune is not None
    assert (small.retune.points, small.search) == (2, None)
    rates = Range(1e-4, 1e-1, log=True)
    assert rates == Range(low=1e-4, high=1e-1, log=True, levels=LOG_LEVELS)
    assert rates.nearest(1e-3) == pytest.approx(1e-3)
    assert Study.model_validate_json(declare().model_dump_json()) == declare()


@pytest.mark.parametrize("asked", ["arms", "main", "interaction", "trend"])
@pytest.mark.parametrize("baseline", [{}, {"net": "small", "epsilon": 0.0}])
def test_all_that_is_asked_is_asked_of_re_tuned_arms(asked: str, baseline: dict[str, Any]) -> None:
    nets = {"small": {"arch": "seed_cnn", "lr": 0.01}, "deep": {"arch": "xresnet18", "lr": 0.001}}
    factors = {"net": nets, "epsilon": (0.0, 0.1, 0.2)}
    study = declare(factors=factors, baseline=baseline, comparisons=(asked,))
    found = {"value": 0.5, "declared": None, "complete": 3, "tuning_images": 9, "overlap": 0}
    chosen = [{"arm": arm, "levels": {"lr": 0.1 + at}, **found} for at, arm in enumerate(study.arms())]
    both: dict[str, Any] = {"tuning": {"as declared": {}, "re-tuned": {}}}
    run_as = Study.model_validate_json(study.model_dump_json()).replace(
        factors={**study.factors, **both}, named=study.named, chosen=chosen
    )
    plan = planned(run_as)
    rates = {trial.arm: trial.fields.lr for trial in plan.trials}
    for arm, rate in rates.items():
        number = next(at for at, own in enumerate(study.arms()) if arm.startswith(arm_name(own)))
        declared = nets["small" if "small" in arm else "deep"]["lr"]
        assert rate == (0.1 + number if "re-tuned" in arm else declared)
    claims = [term for term in terms(plan) if term.asked]
    assert len(claims) == sum(term.asked for term in terms(planned(study))) > 0
    assert all("tuning=re-tuned" in plan.arms[arm] for term in claims for arm in term.arms.ravel())


def test_a_plan_says_what_the_searches_train(tmp_path: Path) -> None:
    shown = printed(show_plan, declare(), Options(device="cpu", results=tmp_path), None)
    assert "each of 2 arms is tuned: 3 points x 2 seeds" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"factors": {"lr": (0.03, 30.0)}, "baseline": {}}, "retune: lr is what the arms differ in"),
        ({"factors": {}, "baseline": {}}, r"retune: is of a study's arms; give it factors"),
        ({"factors": {"tuning": {"a": {}, "b": {}}}, "baseline": {}}, "factors.tuning: re-tuning"),
        ({"retune": Search(SPACE, ("ece", "nll"), points=3)}, "retune: expected one objective"),
        ({"search": Search(SPACE, points=3)}, "retune: is of a study's arms; .* and no search"),
    ],
)
def test_a_wrong_declaration_says_what_to_write(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        declare(**changes)
