"""Which points of a search there are, after stops, kills and damage, and where an older version began it."""

import contextlib
import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from made_records import NAME, SEARCH, asked, complete, opened, record, spend, train
from optuna.distributions import IntDistribution

from ablate.errors import ResultsError
from ablate.store.points import Point, read_tuning, tuning_folder
from ablate.store.records import read_record
from ablate.store.results import ResultsFolder
from ablate.study.search import Range, Search
from ablate.tables import winners_of
from ablate.tables.tuning import points_table
from ablate.tuning.ledger import Ledger, point_means
from ablate.tuning.points import Points
from ablate.tuning.storage import SharedStorage, Storage

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
        path.write_text(json.dumps({**json.loads(path.read_bytes()), "attributes": {"qmc:": 3}}))


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
