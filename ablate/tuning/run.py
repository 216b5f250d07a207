"""A search from left to right: settle it, spend its budget point by point, have the winner re-tested."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ablate.errors import AblateError, StudyError
from ablate.execution import Event, Job, Told
from ablate.execution.driver import (
    Options,
    Summary,
    Watcher,
    only_driver,
    record_event,
    run_settled,
    settle,
    trial_executor,
    trial_job,
)
from ablate.execution.prepare import Inputs
from ablate.store.points import Point, State, Tuning, tuning_folder
from ablate.store.records import Record, quarantine, read_record
from ablate.store.results import ResultsFolder
from ablate.study.study import Study
from ablate.study.trials import Trial, arm_name
from ablate.tables import objective_values
from ablate.tuning.ledger import Ledger, means_of
from ablate.tuning.settle import (
    check_same,
    first_points,
    point_fields,
    prepare_search,
    retest_study,
    search_of,
)
from ablate.tuning.storage import RETEST, SharedStorage, Storage

WHILE_TRAINING = {"accuracy": "valid_accuracy", "nll": "valid_nll"}
"""What a heartbeat calls the objectives that are known after each epoch."""


@dataclass(frozen=True)
class Tuned:
    """What became of a search: trials `ran` now, and the re-test where it came to that in this tuner."""

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

    Everything that a user can have got wrong is found before any training. `points` is the budget instead of
    the search's; `storage` the PostgreSQL URL of a search that several tuners share, as they do the folder.
    """
    if storage is not None and options.retry_failed:
        raise StudyError(
            "--retry-failed: not with --storage, where a point that failed stays so for all tuners"
        )
    settled = settle(study, options)
    if points is not None:
        search = search_of(settled.study).model_dump() | {"points": points}
        settled = replace(settled, study=settled.study.replace(search=search))
    study, name = settled.study, f"{settled.study.name}/{settled.profile}"
    results = ResultsFolder(options.results / name)
    folder = tuning_folder(results)
    with contextlib.ExitStack() as session:
        database: Storage | None = None
        if storage is not None:
            database = session.enter_context(contextlib.closing(SharedStorage(storage, name)))
        inputs, declared = prepare_search(settled, options, watcher)
        results.create()
        folder.create()
        with contextlib.ExitStack() as until_the_retest:
            if database is None:
                until_the_retest.enter_context(only_driver(results))
                folder.remove_left_overs()
                alone = Storage(folder.root / "optuna.sqlite3")  # for optuna-dashboard too
                database = until_the_retest.enter_context(contextlib.closing(alone))
            if database.is_alone():
                for line in quarantine(folder)[1]:
                    watcher.note(f"put aside as damaged, to run again: {line}")
            where = f"{database.words}: study {name!r}"
            ledger = Ledger(
                results,
                database,
                name,
                declared,
                first_points(study),
                lambda known: check_same(known, study, inputs, where),
                retry_failed=options.retry_failed,
            )
            watcher.searching(ledger.tuning, study.name, settled.reason)
            loop = _Loop(study, inputs, ledger, options, watcher)
            interrupted = loop.run()
            ledger.conclude()
        tuning = ledger.tuning
        tuned = Tuned(results, tuning, loop.ran, None, interrupted)
        if interrupted or not tuning.is_spent:
            return tuned
        if not database.claim(RETEST):
            watcher.note("the budget is spent; another tuner re-tests the winner now")
            return tuned
        chosen = [tuning.points[number].levels for number in (*tuning.winners, *tuning.retested)]
        retest = run_settled(replace(settled, study=retest_study(study, chosen)), options, watcher)
    return replace(tuned, retest=retest, interrupted=retest.interrupted)


@dataclass
class _Training:
    """A point that is being trained: its trials in the order of its seeds, records, what was begun; by id."""

    point: Point
    trials: dict[str, Trial]
    records: dict[str, Record]
    begun: set[str]

    @property
    def missing(self) -> list[str]:
        """Trials without a record."""
        return [trial_id for trial_id in self.trials if trial_id not in self.records]


class _Loop:
    """Points asked for in batches, a trial for each of their seeds, and what came told back."""

    def __init__(
        self, study: Study, inputs: Inputs, ledger: Ledger, options: Options, watcher: Watcher
    ) -> None:
        self.study, self.inputs, self.ledger = study, inputs, ledger
        self.options, self.watcher, self.ran = options, watcher, 0
        self._executor = trial_executor(inputs.device, options)
        self._training: dict[int, _Training] = {}

    def run(self) -> bool:
        """Train what the budget allows; whether it was interrupted, with all that ended recorded."""
        try:
            for event in self._executor.run(list(self._jobs())):
                self._hear(event)
                for job in self._jobs():
                    self._executor.submit(job)
        except KeyboardInterrupt:
            return True
        return False

    def _hear(self, event: Event) -> None:
        training = next((one for one in self._training.values() if event.name in one.trials), None)
        if training is None:  # its point is over
            return
        trial = training.trials[event.name]
        record = record_event(self.ledger.folder, trial, event)
        self.watcher.happened(trial, event, record)
        search = self.ledger.tuning.search
        if record is not None:
            self.ran += 1
            training.records[event.name] = record
            self._judge(training)
        # A point's first seed alone is watched while it trains.
        elif (
            isinstance(event, Told) and search.pruning in ("hyperband", "median") and len(training.begun) == 1
        ):
            value = getattr(event.message, WHILE_TRAINING[search.objective[0]])
            if value is not None:
                epochs, number = round(event.message.done), training.point.number
                if reason := self.ledger.report(number, epochs, float(value)):
                    self._end(training.point, "pruned", reason)

    def _judge(self, training: _Training) -> None:
        """A trial of the point ended: fail it, prune it, complete it, or let it go on."""
        point, search = training.point, self.ledger.tuning.search
        for trial_id, trial in training.trials.items():
            record = training.records.get(trial_id)
            if record is not None and record.status != "complete":
                why = record.failure.message if record.failure else "no reason is recorded"
                return self._end(point, "failed", f"seed {trial.seed}: {record.status}: {why}")
        if training.missing and search.pruning != "seeds":
            return None
        values = objective_values(self.ledger.results, point, search.objective)
        if training.missing:
            for seed, (value, *_) in values.items():
                if reason := self.ledger.report(point.number, seed, value):
                    return self._end(point, "pruned", reason)
            return None
        for seed in point.seeds:
            if seed not in values:
                why = f"{' and '.join(search.objective)} cannot be told from its predictions"
                return self._end(point, "failed", f"seed {seed}: {why}")
        return self._end(point, "complete", "", means_of(values))

    def _end(self, point: Point, state: State, reason: str, values: tuple[float, ...] = ()) -> None:
        """The point is over; so are its trials that still wait or run."""
        self.ledger.end(point.number, state, reason, values)
        search = self.ledger.tuning.search
        scored = [f"{name} {value:.4f}" for name, value in zip(search.objective, values, strict=False)]
        self.watcher.note(
            f"point {point.number} (of {search.points}): {arm_name(point.levels)}: "
            f"{', '.join(scored) or f'{state}: {reason}'}"
        )
        training = self._training.pop(point.number, None)
        for trial_id in training.begun.intersection(training.missing) if training else ():
            self._executor.cancel(trial_id)
            self.ledger.folder.checkpoint_path(trial_id).unlink(missing_ok=True)

    def _jobs(self) -> Iterator[Job]:
        """The jobs that can start now: more seeds of points that go on, then new points."""
        workers, engine = self._executor.workers, self.options.engine
        while True:
            for training in list(self._training.values()):
                for trial_id in self._next_trials(training):
                    trial = training.trials[trial_id]
                    data = self.inputs.folders()[trial.fingerprint]
                    yield trial_job(self.ledger.folder, trial, data, workers=workers, engine=engine)
            if self._training:
                return
            points = self.ledger.next_points()
            if not points:
                return
            for point in points:
                self._begin(point)

    def _begin(self, point: Point) -> None:
        """Name the point's trials, and judge it by those that are recorded."""
        try:
            fields = point_fields(self.study, point.levels)
            self.inputs.check([fields])
            made = [self.inputs.trial(point.levels, fields, seed) for seed in point.seeds]
        except AblateError as error:
            return self._end(point, "failed", f"its fields cannot be trained: {error}")
        trials = {trial.trial_id: trial for trial in made}
        for other in self.ledger.tuning.points:
            if other.number != point.number and not trials.keys().isdisjoint(other.trial_ids):
                reason = f"it trains the same as point {other.number}: a level changes nothing"
                return self._end(point, "failed", reason)
        if tuple(trials) != point.trial_ids:
            self.ledger.name_trials(point.number, tuple(trials))
            point = point.model_copy(update={"trial_ids": tuple(trials)})
        paths = {trial_id: self.ledger.folder.record_path(trial_id) for trial_id in trials}
        records = {trial_id: read_record(path) for trial_id, path in paths.items() if path.exists()}
        training = self._training[point.number] = _Training(point, trials, records, set(records))
        if records:
            self._judge(training)

    def _next_trials(self, training: _Training) -> list[str]:
        """Trials that may start: all; with pruning one at a time, or the first before the rest."""
        missing, pruning = training.missing, self.ledger.tuning.search.pruning
        waiting = [trial_id for trial_id in missing if trial_id not in training.begun]
        if pruning != "none":
            if len(waiting) < len(missing):  # one runs
                return []
            if pruning == "seeds" or waiting[:1] == list(training.trials)[:1]:
                waiting = waiting[:1]
        training.begun |= set(waiting)
        return waiting
