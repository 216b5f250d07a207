"""A search from its declaration to its re-tested winner: what is trained, with which seeds and images."""

import itertools
import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest
from made_records import SEARCH, TRAINED, Watching, asked, declared, tuned
from test_driver import pictures

from ablate.errors import AblateError, DataError, ResultsError, StudyError
from ablate.execution.driver import Options, plan_settled, settle
from ablate.store.points import tuning_folder
from ablate.store.records import read_predictions, read_records
from ablate.store.results import read_plan
from ablate.study.search import FIRST_TUNING_SEED, Choice, Range
from ablate.study.study import Profile, Study
from ablate.tables import points_table
from ablate.tuning import Tuned, budget_in_words
from ablate.tuning.run import first_points

EPSILON = SEARCH.space


def predicted(found: Tuned) -> dict[str, str | None]:
    records = read_records(tuning_folder(found.folder))
    return {name: record.predictions_sha256 for name, record in records.items()}


def states(found: Tuned) -> list[str]:
    return [point.state for point in found.tuning.points]


WHOLE: dict[str, Any] = {
    "search": {"anchors": ({"epsilon": 0.0},), "points": 4, "seeds": 2},
    "profiles": {"quick": Profile(search={"points": 6}), "full": Profile()},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """An uninterrupted search: baseline, one anchor and four points of the sampler, two seeds each."""
    return tuned(declared(**WHOLE), tmp_path_factory.mktemp("whole"))


def test_the_budget_is_met_on_images_held_back_from_training(whole: Tuned) -> None:
    tuning, folder = whole.tuning, tuning_folder(whole.folder)
    assert [point.source for point in tuning.points] == ["baseline", "anchor", *["sampler"] * 4]
    assert [point.levels for point in tuning.points[:2]] == [{"epsilon": 0.1}, {"epsilon": 0.0}]
    assert (states(whole), tuning.is_spent) == (["complete"] * 6, True)
    records = read_records(folder)
    assert sorted(records) == sorted(trial_id for point in tuning.points for trial_id in point.trial_ids)
    parts = [record.trial.fields.tuning_part for record in records.values()]
    judged = {len(read_predictions(folder, record).labels) for record in records.values()}
    assert (judged, parts) == ({200}, [0.33] * 12)
    assert (tuning.tuning_images, tuning.train_images, tuning.overlap) == (200, 400, 0)
    assert tuning.tuning_digest != tuning.reported_digest
    # Optuna's dashboard opens it as it is.
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder.root / 'optuna.sqlite3'}")
    study = optuna.load_study(study_name="tiny/quick", storage=storage)
    assert [trial.params for trial in study.trials] == [point.levels for point in tuning.points]
    assert (study.metric_names, study.best_value) == (["accuracy"], points_table(whole.folder)["value"].max())
    storage.engine.dispose()


def test_the_winner_is_judged_anew_with_fresh_seeds_on_all_training_images(whole: Tuned) -> None:
    plan, records = read_plan(whole.folder), read_records(whole.folder).values()
    (winner,) = whole.tuning.winners
    chosen = whole.tuning.points[winner].levels["epsilon"]
    trained = {(trial.fields.epsilon, trial.fields.tuning_part, trial.seed) for trial in plan.trials}
    assert trained == set(itertools.product({0.1, 0.0, chosen}, {0.0}, {0, 1}))
    assert all(seed >= FIRST_TUNING_SEED for point in whole.tuning.points for seed in point.seeds)
    assert {baseline for _, baseline in plan.comparisons} == {"epsilon=0.1"}
    assert whole.retest is not None
    assert whole.retest.failed == 0
    assert {len(read_predictions(whole.folder, record).labels) for record in records} == {1197}


@pytest.mark.slow
def test_a_search_that_was_stopped_goes_on_as_one_that_never_was(whole: Tuned, tmp_path: Path) -> None:
    def stop(count: int) -> None:
        if count == 5:
            raise KeyboardInterrupt

    first, again = Watching(stop), Watching()
    stopped, resumed = (tuned(declared(**WHOLE), tmp_path, watcher) for watcher in (first, again))
    assert (stopped.interrupted, stopped.retest) == (True, None)
    assert resumed.tuning == whole.tuning
    trained = [trial.trial_id for trial in (*first.trained, *again.trained)]
    assert len(trained) == len(set(trained)) == 12 + len(read_plan(resumed.folder).trials)
    assert predicted(resumed) == predicted(whole)


@pytest.mark.slow
def test_a_larger_budget_goes_on_and_another_search_is_refused(whole: Tuned, tmp_path: Path) -> None:
    study, heard, copied = declared(**WHOLE), Watching(), tmp_path / "copied"
    shutil.copytree(whole.folder.root.parents[1], copied)
    larger = tuned(study, copied, points=7)
    assert (asked(larger.tuning)[:6], states(larger)) == (asked(whole.tuning), ["complete"] * 7)
    arms = {trial.fields.epsilon for trial in read_plan(larger.folder).trials}
    chosen = (*larger.tuning.winners, *larger.tuning.retested, 0, 1)
    assert arms == {larger.tuning.points[number].levels["epsilon"] for number in chosen}
    assert len(tuned(study, copied, heard).tuning.points) == 7  # what was asked for is not taken back
    assert heard.trained == []
    narrower = {"epsilon": Range(low=0.0, high=0.3, step=0.005)}
    for message, changes in (
        (r"space was .*0\.5.* now .*0\.3.*--results", {"search": {**WHOLE["search"], "space": narrower}}),
        (r"tuning_part was 0\.33, now 0\.5", {"search": {**WHOLE["search"], "tuning_part": 0.5}}),
        (r"baseline and anchors were .*0\.1.* now .*0\.2", {"baseline": {"epsilon": 0.2}}),
        ("what a point trains", {"base": {**TRAINED, "epochs": 2}}),
    ):
        with pytest.raises(ResultsError, match=message):
            tuned(declared(**{**WHOLE, **changes}), copied)


def pruned(epochs: int, **search: Any) -> Study:
    """A random search for the learning rate that gives up points."""
    base = {**TRAINED, "epochs": epochs, "batch_size": 32}
    return declared({"batch": 1, "sampler": "random", **search}, baseline={"lr": 0.1}, base=base, seeds=1)


@pytest.mark.slow
def test_a_point_that_loses_gets_no_more_seeds_and_one_that_fails_can_be_tried_again(tmp_path: Path) -> None:
    # With this seed, the sampler's first draw is the hopeless learning rate.
    space = {"space": {"lr": (0.1, 1e-6, 1e9)}, "anchors": ({"lr": 1e9},), "sampler_seed": 3}
    study = pruned(2, pruning="seeds", points=3, seeds=6, **space)
    watcher = Watching()
    found = tuned(study, tmp_path, watcher)
    assert (states(found), found.tuning.winners) == (["complete", "failed", "pruned"], (0,))
    _, failed, loser = found.tuning.points
    assert f"seed {FIRST_TUNING_SEED}: diverged: " in failed.reason
    assert loser.levels == {"lr": 1e-6}
    assert "Wilcoxon" in loser.reason
    trained = sum(trial.trial_id in loser.trial_ids for trial in watcher.trained)
    assert 4 <= trained == loser.pruned_at == len(loser.intermediate) < 6

    for retry_failed, again in ((False, set()), (True, {1e9})):
        watcher = Watching()
        assert states(tuned(study, tmp_path, watcher, retry_failed=retry_failed)) == states(found)
        tried = {trial.fields.lr for trial in watcher.trained if trial.seed >= FIRST_TUNING_SEED}
        assert tried == again


@pytest.mark.soak
def test_a_point_that_lags_behind_while_it_trains_is_stopped(tmp_path: Path) -> None:
    space = {"lr": Range(low=1e-7, high=0.1, log=True, levels=13)}
    found = tuned(pruned(6, pruning="median", points=8, space=space), tmp_path)
    stopped = [point for point in found.tuning.points if point.state == "pruned"]
    assert stopped
    for point in stopped:
        assert point.pruned_at == len(point.intermediate) <= 6
        assert "the median of the complete points" in point.reason
        assert not set(point.trial_ids) & set(read_records(tuning_folder(found.folder)))
    assert found.tuning.is_spent


@pytest.mark.soak
def test_of_two_objectives_the_reported_images_have_no_say_in_the_search(tmp_path: Path) -> None:
    found = []
    for name, seed in (("one", 1), ("other", 2)):
        root = pictures(tmp_path / name, valid=seed)
        base = {**TRAINED, "data": f"folder:{root}", "batch_size": 8}
        search = {"objective": ("accuracy", "ece"), "sampler": "nsga2", "points": 4}
        result = tuned(declared(search, base=base, seeds=1), tmp_path / f"results {name}")
        assert states(result) == ["complete"] * 4
        assert 1 <= len(result.tuning.winners) <= 2
        assert read_plan(result.folder).study.family == ("accuracy", "ece")
        found.append((asked(result.tuning), predicted(result)))
    assert found[0] == found[1]


def test_images_that_are_reported_cannot_be_tuned_on(tmp_path: Path) -> None:
    base = {**TRAINED, "data": f"folder:{pictures(tmp_path / 'data', valid=0)}", "batch_size": 8}
    with pytest.raises(DataError, match="tuning split"):
        tuned(declared(base=base), tmp_path / "results")
    assert not list((tmp_path / "results").rglob("*.json"))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Range(low=0.5, high=0.0, step=0.1), "expected a range with low < high, but 0.5 to 0.0 came"),
        (lambda: Range(low=0.0, high=1.0), "step: expected a distance above 0, but None came"),
        (lambda: Range(low=0.0, high=1.0, step=0.3), "high: 1.0 is not on the grid"),
        (lambda: Range(low=0.1, high=1.0, log=True), "levels: how many values"),
        (lambda: Choice(of=("a",)), "at least two different values"),
        (lambda: declared({"points": 0}), "points: input should be greater than or equal to 1, but 0"),
        (lambda: declared({"space": {}}), "space: nothing to search"),
        (lambda: declared({"space": {"epsilom": EPSILON["epsilon"]}}), "unknown field.*epsilon"),
        (lambda: declared({"anchors": ({"epsilon": 0.123},)}), "0.123 is not among the values searched"),
        (lambda: declared({"space": {"data": ("digits", "synthetic")}}), "data cannot be searched"),
        (lambda: declared({"space": {"epsilon": 0.3}}), "epsilon: expected a Range, or a tuple"),
        (lambda: declared({"objective": ("accuracy", "accuracy")}), "one metric or two different ones"),
        (lambda: declared({"objective": ("accuracy", "ece"), "pruning": "median"}), "needs one objective"),
        (lambda: declared({"pruning": "seeds", "seeds": 3}), "at least 5"),
        (lambda: declared({"sampler": "nsga2"}), "nsga2 is for two objectives"),
        (lambda: declared(factors={"lr": (0.1, 0.2)}), "swept or searched, not both"),
        (lambda: declared(baseline={"epsilon": 0.6}), "0.6 is not among the values searched"),
        (lambda: declared(seeds=(0, FIRST_TUNING_SEED)), "are for tuning"),
        (lambda: declared({"space": {"lr": Range(low=1, high=2, step=1, when={"epsilon": 0})}}), "before it"),
    ],
)  # fmt: skip
def test_a_search_that_makes_no_sense_is_refused_in_plain_words(make: Any, said: str) -> None:
    with pytest.raises(StudyError, match=said):
        make()


ADAMW_ALONE = Range(low=0.9, high=0.99, step=0.01, when={"optimizer": "adamw"})
BETA2 = {"optimizer": ("sgd", "adamw"), "beta2": ADAMW_ALONE}


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({"objective": "acuracy"}, "objective: acuracy: unknown metric.*accuracy"),
        ({"objective": "mean_confidence"}, "mean_confidence has no better direction"),
        (None, "expected a study with a search"),
        ({"space": {"lr": Range(low=0.2, high=1.0, step=0.1)}}, "lr=0.1 is not among .*0.2 to 1 by 0.1"),
        ({"anchors": ({"epsilon": 0.0},), "points": 1}, "baseline and anchors alone are 2"),
        ({"space": {"eval_batch_size": (256, 128)}}, "=256 and eval_batch_size=128 train the same network"),
        ({"space": BETA2, "anchors": ({"beta2": 0.95},)}, "beta2 is searched only with optimizer='adamw'"),
    ],
)
def test_what_is_wrong_is_found_at_once(search: dict[str, Any] | None, said: str, tmp_path: Path) -> None:
    study = declared(search, baseline={}) if search else Study(question="?", name="s", base=TRAINED)
    with pytest.raises(AblateError, match=said):
        tuned(study, tmp_path)
    assert not [*tmp_path.rglob("tuning.json"), *tmp_path.rglob("optuna.sqlite3")]


def test_run_and_plan_say_what_a_search_needs(tmp_path: Path) -> None:
    options = Options(device="cpu", results=tmp_path)
    assert "4 points x 1 seeds = up to 4 trainings" in budget_in_words(declared(), options)
    with pytest.raises(StudyError, match="use `python -m ablate tune`"):
        plan_settled(settle(declared(), options), options, Watching())
    assert not list(tmp_path.iterdir())


def test_the_first_points_are_on_the_grid_where_there_are_steps() -> None:
    space = {
        **EPSILON,
        "lr": Range(low=1e-4, high=1e-1, log=True, levels=13),
        "arch": ("seed_cnn", "vit_tiny"),
        "batch_size": Range(low=8, high=64, step=8, when={"arch": "vit_tiny"}),
    }
    base = TRAINED | {"arch": "seed_cnn", "lr": 0.0123}
    anchors = ({"arch": "vit_tiny"}, {"epsilon": 0.1})
    study = declared({"space": space, "anchors": anchors}, base=base, baseline={"epsilon": 0.1 + 2e-10})
    baseline = {"epsilon": 0.1, "lr": 0.0123, "arch": "seed_cnn"}  # the condition of batch_size fails
    assert first_points(study) == [baseline, baseline | {"arch": "vit_tiny", "batch_size": 64}]
