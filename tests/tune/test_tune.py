"""A search: its declaration, its ledger after stops, kills and damage, its re-tested winner."""

import contextlib
import functools
import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from made_records import (
    NAME,
    SEARCH,
    TRAINED,
    Watching,
    asked,
    complete,
    declared,
    opened,
    record,
    spend,
    train,
    tuned,
)
from optuna.distributions import IntDistribution
from test_driver import pictures

from ablate.errors import AblateError, ResultsError, StudyError
from ablate.execution.driver import Options, plan_settled, settle
from ablate.pipeline import require_metrics
from ablate.store.points import Point, read_tuning, tuning_folder
from ablate.store.records import read_predictions, read_record, read_records
from ablate.store.results import ResultsFolder, read_plan
from ablate.study.search import FIRST_TUNING_SEED, Choice, Range, Search
from ablate.study.study import Profile, Study
from ablate.tables.tuning import points_table, winners_of
from ablate.tuning.ledger import Ledger, SharedStorage, Storage, point_means
from ablate.tuning.points import Points
from ablate.tuning.run import Tuned, budget_in_words, first_points

EPSILON = SEARCH.space


def predicted(found: Tuned) -> dict[str, str | None]:
    records = read_records(tuning_folder(found.folder))
    return {name: record.predictions_sha256 for name, record in records.items()}


def states(found: Tuned) -> list[str]:
    return [point.state for point in found.tuning.points]


WHOLE: dict[str, Any] = {
    "comparisons": ("trend",),  # the re-test compares arms, whatever else a study asks
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
    assert plan.study.comparisons == ()
    assert whole.retest is not None
    assert whole.retest.failed == 0
    assert {len(read_predictions(whole.folder, record).labels) for record in records} == {1197}


@pytest.mark.slow
def test_a_search_that_was_stopped_goes_on_as_one_that_never_was(whole: Tuned, tmp_path: Path) -> None:
    def stop(count: int) -> None:
        if count == 5:
            raise KeyboardInterrupt

    first, again = Watching(stop), Watching()
    stopped, resumed = (tuned(declared(**WHOLE), tmp_path, one, workers=1) for one in (first, again))
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
    study = pruned(1, pruning="seeds", points=3, seeds=6, **space)
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
        base = {**TRAINED, "data": f"folder:{root}", "batch_size": 5}
        search = {"objective": ("accuracy", "ece"), "sampler": "nsga2", "points": 4}
        result = tuned(declared(search, base=base, seeds=1), tmp_path / f"results {name}")
        assert states(result) == ["complete"] * 4
        assert 1 <= len(result.tuning.winners) <= 2
        assert read_plan(result.folder).study.family == ("accuracy", "ece")
        found.append((asked(result.tuning), predicted(result)))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Range(low=0.5, high=0.0, step=0.1), "expected a range with low < high, but 0.5 to 0.0 came"),
        (lambda: Range(low=0.0, high=1.0), "step: expected a distance above 0, but None came"),
        (lambda: Range(low=0.0, high=1.0, step=0.3), "high: 1.0 is not on the grid"),
        (lambda: Range(0.1, 1.0, log=True, step=0.1), "low: .* with log, not 0.1, and no step"),
        (lambda: Choice(of=("a",)), "at least two different values"),
        (lambda: declared({"space": {}}), "space: nothing to search"),
        (lambda: declared({"anchors": ({"epsilon": 0.123},)}), "0.123 is not among the values searched"),
        (lambda: declared({"space": {"data": ("digits", "synthetic")}}), "data cannot be searched"),
        (lambda: declared({"space": {"epsilon": 0.3}}), "epsilon: expected a Range, or a tuple"),
        (lambda: declared({"objective": ("accuracy", "accuracy")}), "one metric or two different ones"),
        (lambda: declared({"objective": ("accuracy", "ece"), "pruning": "median"}), "needs one objective"),
        (lambda: declared({"pruning": "seeds", "seeds": 3}), "at least 5"),
        (lambda: declared({"sampler": "nsga2"}), "nsga2 is for two objectives"),
        (lambda: declared(factors={"lr": (0.1, 0.2)}), "swept or searched, not both"),
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
        (None, "expected a study with a search"),
        ({"space": {"lr": Range(low=0.2, high=1.0, step=0.1)}}, "lr=0.1 is not among .*0.2 to 1 by 0.1"),
        ({"anchors": ({"epsilon": 0.0},), "points": 1}, "baseline and anchors are 2"),
        ({"space": {"eval_batch_size": (256, 128)}}, "=256 and eval_batch_size=128 train the same network"),
        ({"space": BETA2, "anchors": ({"beta2": 0.95},)}, "beta2 is searched only with optimizer='adamw'"),
    ],
)
def test_what_is_wrong_is_found_at_once(search: dict[str, Any] | None, said: str, tmp_path: Path) -> None:
    study = declared(search, baseline={}) if search else Study(question="?", name="s", base=TRAINED)
    with pytest.raises(AblateError, match=said):
        tuned(study, tmp_path)
    assert not [*tmp_path.rglob("tuning.json"), *tmp_path.rglob("optuna.sqlite3")]


def test_an_objective_is_a_metric_with_a_better_direction() -> None:
    with pytest.raises(StudyError, match=r"acuracy: unknown metric.*\n.*mean_confidence has no better"):
        require_metrics(declared({"objective": ("acuracy", "mean_confidence")}))


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


Open = Callable[..., Ledger]


class Killed(BaseException):
    """Stands for SIGKILL: nothing handles it."""


def kill_at_write(storage: Any, number: int, patch: pytest.MonkeyPatch) -> list[str]:
    """Die before the write of this number to Optuna's storage; the writes before it, as they are made."""
    made: list[str] = []

    def write(name: str, original: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        if len(made) == number:
            raise Killed
        made.append(name)
        return original(*arguments, **named)

    for name in (name for name in dir(storage) if name.startswith(("create_", "set_", "delete_"))):
        patch.setattr(storage, name, functools.partial(write, name, getattr(storage, name)))
    return made


@pytest.fixture(params=["alone", pytest.param("shared", marks=pytest.mark.postgres)])
def open_ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Open the search of a results folder as a tuner does that begins now, and any other is gone."""
    session = contextlib.ExitStack()
    urls: dict[str, str] = {}

    def tuner(folder: str = "a", search: Search = SEARCH) -> Ledger:
        session.close()
        results = ResultsFolder(tmp_path / folder)
        tuning_folder(results).create()
        if request.param == "alone":
            storage = Storage(results.root / "tuning" / "optuna.sqlite3")
        else:
            urls[folder] = urls.get(folder) or request.getfixturevalue("postgresql").new_database()
            storage = SharedStorage(urls[folder], NAME)
        session.callback(storage.close)
        return opened(storage, results, search)

    with session:
        yield tuner


def test_the_budget_is_asked_for_in_batches_and_the_best_smoothed_point_wins(open_ledger: Open) -> None:
    ledger = open_ledger()
    assert [point.levels["epsilon"] for point in ledger.next_points()] == [0.1, 0.0]
    assert [point.state for point in ledger.tuning.points] == ["running"] * 2
    assert read_tuning(ledger.results) == ledger.tuning
    assert [*complete(ledger, ledger.tuning.points), *spend(ledger)] == [0, 1, 2, 3, 4, 5]
    ledger.conclude()
    assert ledger.tuning.winners == winners_of(points_table(ledger.results))
    means = [point_means(ledger.results, point, SEARCH.objective) for point in ledger.tuning.points]
    assert ledger.points.values() == dict(enumerate(means))
    again = open_ledger()
    assert again.next_points() == []
    assert again.tuning == ledger.tuning == read_tuning(again.results)


@pytest.mark.slow
def test_a_tuner_may_be_killed_before_a_write(open_ledger: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    search = SEARCH.model_copy(update={"points": 4, "seeds": 1})
    whole = open_ledger("whole", search)
    spend(whole)
    expected = asked(whole.tuning), whole.points.values()
    for number in range(0, 1000, 3):
        ledger = open_ledger(f"killed {number}", search)
        with monkeypatch.context() as patch:
            made = kill_at_write(ledger.points.storage, number, patch)
            with contextlib.suppress(Killed):
                spend(ledger)
                break
        ledger = open_ledger(f"killed {number}", search)
        spend(ledger)
        assert (asked(ledger.tuning), ledger.points.values()) == expected
    assert set(made) == {"create_new_trial", "set_trial_user_attr", "set_trial_state_values"}
    assert number > 14


def as_older_versions_left_it(ledger: Ledger, *, own_file: bool) -> None:
    """Integers drawn evenly in the number; and the folder's file is the search, and Optuna's a copy of it."""
    study = ledger.points.study
    trials, attributes, directions = study.get_trials(), study.user_attrs, study.directions
    ledger.points.storage.delete_study(study._study_id)
    copy = optuna.create_study(study_name=NAME, storage=ledger.points.storage, directions=directions)
    for trial in trials:
        trial.distributions["batch_size"] = IntDistribution(8, 512)
        trial.user_attrs = {} if own_file else trial.user_attrs
    copy.add_trials(trials)
    for name, value in ({} if own_file else attributes).items():
        copy.set_user_attr(name, value)
    if own_file:
        path = ledger.results.root / "tuning" / "tuning.json"
        path.write_text(json.dumps({**json.loads(path.read_bytes())["content"], "attributes": {"qmc:": 3}}))


@pytest.mark.parametrize("open_ledger", ["alone"], indirect=True)  # on a server they had another form
@pytest.mark.parametrize(("sampler", "own_file"), [("tpe", False), ("quasi_random", True), ("nsga2", True)])
@pytest.mark.slow
def test_a_search_of_an_older_version_goes_on(open_ledger: Open, sampler: Any, own_file: bool) -> None:
    log = {"lr": Range(low=0.01, high=1.0, log=True, levels=9)}
    space = {**SEARCH.space, **log, "batch_size": Range(low=8, high=512, log=True, levels=7)}
    objective = ("accuracy", "ece") if sampler == "nsga2" else ("accuracy",)
    search = Search(space=space, objective=objective, points=10, seeds=1, sampler=sampler)
    whole = open_ledger("whole", search)
    spend(whole)
    part = open_ledger("part", search)
    spend(part, 6)
    as_older_versions_left_it(part, own_file=own_file)
    part = open_ledger("part", search)
    assert asked(part.tuning) == asked(whole.tuning)[:6]
    assert spend(part) == [6, 7, 8, 9]
    assert asked(part.tuning) == asked(whole.tuning)


def test_values_are_the_records_and_lost_ones_new(open_ledger: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = open_ledger()
    spend(ledger, 4)
    folder, objective = tuning_folder(ledger.results), SEARCH.objective
    other, lost = (folder.record_path(ledger.tuning.points[number].trial_ids[0]) for number in (1, 2))
    trial = read_record(other).trial
    for path in (other, lost):
        path.unlink()
    record(ledger.results, trial, luck=1)
    was, add = ledger.points.values(), Points.add

    def dying(points: Points, point: Point, values: tuple[float, ...]) -> None:
        if point.number == 3:
            raise Killed
        add(points, point, values)

    with monkeypatch.context() as patch:
        patch.setattr(Points, "add", dying)
        with pytest.raises(Killed):  # while it writes them anew
            open_ledger()
    again = open_ledger()
    assert [point.state for point in again.tuning.points] == ["complete", "complete", "running", "complete"]
    values = again.points.values()
    assert values[1] == point_means(again.results, again.tuning.points[1], objective) != was[1]
    assert (values[0], values[3]) == (was[0], was[3])
    assert spend(again) == [2, 4, 5]


def test_without_the_database_the_folders_copy_is_gone_on_with(open_ledger: Open) -> None:
    ledger = open_ledger()
    spend(ledger, 2)
    (first, _) = ledger.next_points()
    train(ledger, first, 1)
    if ledger.storage.shared:
        ledger.points.storage.delete_study(ledger.points.study._study_id)
    else:
        ledger.storage.close()
        database = ledger.results.root / "tuning" / "optuna.sqlite3"
        database.write_bytes(b"no database" * 100)
        with pytest.raises(ResultsError, match=r"optuna.sqlite3: cannot be used \(.*not a database.*remove"):
            open_ledger()
        database.unlink()
    again = open_ledger()
    assert again.tuning == ledger.tuning
    assert [point.number for point in again.next_points()] == [2, 3]
    assert [point.number for point in again.next_points()] == [4, 5]
