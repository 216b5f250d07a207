"""A search from left to right: settle it, spend its budget, choose the winner, have it re-tested."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from ablate.errors import ResultsError, StudyError
from ablate.execution.driver import (
    Options,
    Settled,
    Summary,
    Watcher,
    only_driver,
    ready_inputs,
    results_folder,
    run_settled,
    settle,
)
from ablate.execution.prepare import Inputs
from ablate.store.points import Tuning, read_tuning, tuning_folder, write_tuning
from ablate.store.records import put_aside, quarantine, read_records
from ablate.store.results import ResultsFolder
from ablate.study.study import Study
from ablate.tables import points_table, winners_of
from ablate.tuning.ledger import Ledger, OwnLedger
from ablate.tuning.loop import Loop
from ablate.tuning.settle import (
    begin,
    corners,
    first_points,
    point_fields,
    require_different,
    resumed,
    retest_study,
    search_of,
)

if TYPE_CHECKING:
    from ablate.tuning.storage import Storage


class TuningWatcher(Watcher, Protocol):
    """What a search shows while it goes on."""

    def searching(self, tuning: Tuning, name: str, reason: str) -> None:
        """A search begins, or goes on."""


@dataclass(frozen=True)
class Tuned:
    """What became of a search.

    Attributes:
        folder: the study's results, those of the re-test.
        tuning: the search as far as it is.
        ran: trials trained now, those of the re-test aside.
        retest: what became of the re-test; None where it did not come to that, or another tuner does it.
        interrupted: whether the user stopped it.
    """

    folder: ResultsFolder
    tuning: Tuning
    ran: int
    retest: Summary | None
    interrupted: bool


def tune_study(
    study: Study,
    options: Options,
    watcher: TuningWatcher,
    *,
    points: int | None = None,
    storage: str | None = None,
) -> Tuned:
    """Spend a search's budget on the tuning split, then re-test its winner with fresh seeds.

    Everything that a user can have got wrong is found before any training.

    Args:
        study: a study with a search.
        options: how its trials run; `seeds` are those of the re-test.
        watcher: told what happens.
        points: the budget, instead of the search's.
        storage: PostgreSQL URL of a search that several tuners work on; each has a results folder of its own.

    Raises:
        AblateError: of the kind that says what is wrong.
    """
    search_of(study)
    if storage is not None and options.retry_failed:
        raise StudyError(
            "--retry-failed: not with --storage, where a point that failed stays so for all tuners"
        )
    settled = settle(study, options)
    if points is not None:
        search = search_of(settled.study).model_dump() | {"points": points}
        settled = replace(settled, study=settled.study.replace(search=search))
    folder = results_folder(options.results, study.name, settled.profile)
    with contextlib.ExitStack() as session:
        shared = _session(storage, settled, session) if storage is not None else None
        tuning, ran, interrupted = _search(settled, folder, options, watcher, shared)
        if interrupted or not tuning.is_spent:
            return Tuned(folder, tuning, ran, None, interrupted=interrupted)
        if shared is not None and not shared.claim_retest():
            watcher.note("the budget is spent; another tuner re-tests the winner now")
            return Tuned(folder, tuning, ran, None, interrupted=False)
        chosen = [tuning.points[number].levels for number in (*tuning.winners, *tuning.retested)]
        judged = replace(settled, study=retest_study(settled.study, chosen))
        retest = run_settled(judged, options, watcher)
    return Tuned(folder, tuning, ran, retest, interrupted=retest.interrupted)


def budget_in_words(study: Study, options: Options) -> str:
    """What tuning a study trains: the search's points, then the re-test."""
    search_of(study)
    settled = settle(study, options)
    search, seeds = search_of(settled.study), len(settled.study.seed_list())
    arms = len(first_points(settled.study)) + len(search.objective)
    space = "; ".join(f"{name}: {dimension.in_words()}" for name, dimension in search.space.items())
    return (
        f"{settled.study.name}: {settled.reason}\n"
        f"searched: {space}\n"
        f"{search.points} points x {search.seeds} seeds = up to {search.points * search.seeds} trainings, "
        f"judged on {search.tuning_part:.1%} of the training images\n"
        f"then a re-test of up to {arms} arms x {seeds} fresh seeds = {arms * seeds} trainings, "
        "judged on the reported images"
    )


def _session(url: str, settled: Settled, until: contextlib.ExitStack) -> Storage:
    """A session with the storage, until the stack is left."""
    try:
        from ablate.tuning.storage import Storage
    except ImportError as error:
        raise ResultsError(
            f"--storage: {error.name} is missing; install it with `pip install 'ablate[postgres]'`"
        ) from None
    storage = Storage(url, _name(settled))
    until.callback(storage.close)
    return storage


def _search(
    settled: Settled, folder: ResultsFolder, options: Options, watcher: TuningWatcher, shared: Storage | None
) -> tuple[Tuning, int, bool]:
    """The search as far as it came, how many trials it trained, and whether it was interrupted."""
    study = settled.study
    tried = corners(study)
    arms = [point_fields(study, levels) for levels in tried] + [study.fields(levels) for levels in tried]
    inputs = ready_inputs(settled, arms, options, watcher)
    require_different(study, inputs)
    own = tuning_folder(folder)
    folder.create()
    own.create()
    with only_driver(folder):
        own.remove_left_overs()
        for line in quarantine(own)[1]:
            watcher.note(f"put aside as damaged, to run again: {line}")
        ledger = _ledger(settled, folder, inputs, options, shared)
        watcher.searching(ledger.tuning, study.name, settled.reason)
        loop = Loop(folder, study, inputs, ledger, options, watcher)
        interrupted = False
        try:
            loop.run()
        except KeyboardInterrupt:
            interrupted = True
        tuning = _concluded(folder, ledger)
        ledger.sampler.export(own.root / "optuna.sqlite3")
    return tuning, loop.ran, interrupted


def _ledger(
    settled: Settled, folder: ResultsFolder, inputs: Inputs, options: Options, shared: Storage | None
) -> Ledger:
    """The points as far as they are, of the same search as this one."""
    study, own = settled.study, tuning_folder(folder)
    known = read_tuning(folder)
    tuning = begin(study, inputs) if known is None else resumed(known, study, inputs, str(own.root))
    if shared is not None:
        from ablate.tuning.shared import SharedLedger

        there = f"--storage {shared.words}: study {shared.name!r}"
        return SharedLedger(
            shared,
            folder,
            tuning,
            first_points(study),
            lambda stored: _same_points(tuning, resumed(stored, study, inputs, there), str(own.root)),
        )
    if options.retry_failed:
        tuning = _with_failed_again(own, tuning)
    return OwnLedger(folder, _with_records(own, tuning), first_points(study), _name(settled))


def _same_points(here: Tuning, there: Tuning, folder: str) -> Tuning:
    """The search in the storage, unless this machine's holds points that are not of it."""
    known = {trial_id for point in there.points for trial_id in point.trial_ids}
    strange = [point.number for point in here.points if not known.issuperset(point.trial_ids)]
    if strange:
        raise ResultsError(
            f"{folder}: holds {len(strange)} points of a search of its own, which --storage does not have; "
            "choose another folder with --results"
        )
    return there


def _concluded(folder: ResultsFolder, ledger: Ledger) -> Tuning:
    """The search with its importances and, once the budget is spent, its winners; stored."""
    tuning = ledger.tuning.model_copy(update={"importances": ledger.sampler.importances()})
    write_tuning(folder, tuning)
    if tuning.is_spent:
        winners = winners_of(points_table(folder))
        earlier = (*tuning.retested, *tuning.winners)
        retested = tuple(dict.fromkeys(number for number in earlier if number not in winners))
        tuning = tuning.model_copy(update={"winners": winners, "retested": retested})
        write_tuning(folder, tuning)
    return tuning


def _name(settled: Settled) -> str:
    return f"{settled.study.name}/{settled.profile}"


def _with_failed_again(own: ResultsFolder, tuning: Tuning) -> Tuning:
    """The search with its failed points to be trained again, their failed records put aside."""
    records = read_records(own)
    points = []
    for point in tuning.points:
        if point.state == "failed":
            for trial_id in point.trial_ids:
                if trial_id in records and records[trial_id].status != "complete":
                    put_aside(own, trial_id, "attempts")
            point = point.model_copy(update={"state": "running", "reason": ""})
        points.append(point)
    return tuning.model_copy(update={"points": tuple(points)})


def _with_records(own: ResultsFolder, tuning: Tuning) -> Tuning:
    """The search with complete points to be trained again that lack a record, as after a damaged one."""
    complete = {name for name, record in read_records(own).items() if record.status == "complete"}
    points = [
        point.model_copy(update={"state": "running"})
        if point.state == "complete" and not complete.issuperset(point.trial_ids)
        else point
        for point in tuning.points
    ]
    return tuning.model_copy(update={"points": tuple(points)})
