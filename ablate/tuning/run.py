"""A search from left to right: settle it, spend its budget, choose the winner, have it re-tested."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace

from ablate.errors import StudyError
from ablate.execution.driver import (
    Options,
    Settled,
    Summary,
    Watcher,
    only_driver,
    run_settled,
    settle,
)
from ablate.store.points import Tuning, tuning_folder
from ablate.store.records import quarantine
from ablate.store.results import ResultsFolder
from ablate.study.study import Study
from ablate.tuning.ledger import Ledger
from ablate.tuning.loop import Loop
from ablate.tuning.settle import check_same, first_points, prepare_search, retest_study, search_of
from ablate.tuning.storage import RETEST, SharedStorage, Storage


@dataclass(frozen=True)
class Tuned:
    """What became of a search.

    `ran` counts trials trained now, those of the re-test aside. `retest` is None where it did not come to
    that, or where another tuner does it.
    """

    folder: ResultsFolder
    tuning: Tuning
    ran: int
    retest: Summary | None
    interrupted: bool


def tune_study(
    study: Study,
    options: Options,
    watcher: Watcher,
    *,
    points: int | None = None,
    storage: str | None = None,
) -> Tuned:
    """Spend a search's budget on the tuning split, then re-test its winner with fresh seeds.

    Everything that a user can have got wrong is found before any training.

    Args:
        study: has a search.
        options: how its trials run; its `seeds` are those of the re-test.
        watcher: told what happens.
        points: the budget, instead of the search's.
        storage: PostgreSQL URL of a search that several tuners work on, in one results folder.

    Raises:
        AblateError: of the kind that says what is wrong.
    """
    if storage is not None and options.retry_failed:
        raise StudyError(
            "--retry-failed: not with --storage, where a point that failed stays so for all tuners"
        )
    settled = settle(study, options)
    if points is not None:
        search = search_of(settled.study).model_dump() | {"points": points}
        settled = replace(settled, study=settled.study.replace(search=search))
    folder = ResultsFolder(options.results / study.name / settled.profile)
    with contextlib.ExitStack() as session:
        shared = None
        if storage is not None:
            shared = session.enter_context(contextlib.closing(SharedStorage(storage, _name(settled))))
        tuning, ran, interrupted = _search(settled, folder, options, watcher, shared)
        if interrupted or not tuning.is_spent:
            return Tuned(folder, tuning, ran, None, interrupted=interrupted)
        if shared is not None and not shared.claim(RETEST):
            watcher.note("the budget is spent; another tuner re-tests the winner now")
            return Tuned(folder, tuning, ran, None, interrupted=False)
        chosen = [tuning.points[number].levels for number in (*tuning.winners, *tuning.retested)]
        judged = replace(settled, study=retest_study(settled.study, chosen))
        retest = run_settled(judged, options, watcher)
    return Tuned(folder, tuning, ran, retest, interrupted=retest.interrupted)


def budget_in_words(study: Study, options: Options) -> str:
    """What tuning a study trains: the search's points, then the re-test."""
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


def _search(
    settled: Settled,
    results: ResultsFolder,
    options: Options,
    watcher: Watcher,
    shared: SharedStorage | None,
) -> tuple[Tuning, int, bool]:
    """The search as far as it came, how many trials it trained, and whether it was interrupted."""
    study, folder, name = settled.study, tuning_folder(results), _name(settled)
    inputs, declared = prepare_search(settled, options, watcher)
    results.create()
    folder.create()
    with contextlib.ExitStack() as until:
        if shared is None:
            until.enter_context(only_driver(results))
            folder.remove_left_overs()
        # The database is for optuna-dashboard too.
        storage = shared or until.enter_context(contextlib.closing(Storage(folder.root / "optuna.sqlite3")))
        if storage.is_alone():
            for line in quarantine(folder)[1]:
                watcher.note(f"put aside as damaged, to run again: {line}")
        ledger = Ledger(
            results,
            storage,
            name,
            declared,
            first_points(study),
            lambda known: check_same(known, study, inputs, f"{storage.words}: study {name!r}"),
            retry_failed=options.retry_failed,
        )
        watcher.searching(ledger.tuning, study.name, settled.reason)
        loop = Loop(study, inputs, ledger, options, watcher)
        interrupted = False
        try:
            loop.run()
        except KeyboardInterrupt:
            interrupted = True
        ledger.conclude()
    return ledger.tuning, loop.ran, interrupted


def _name(settled: Settled) -> str:
    return f"{settled.study.name}/{settled.profile}"
