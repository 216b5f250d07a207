"""The loop of a search: points asked for in batches, a trial for each of their seeds, what came told back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ablate.errors import AblateError
from ablate.execution import Event, Job, Told
from ablate.execution.driver import (
    Options,
    Watcher,
    record_event,
    trial_executor,
    trial_job,
    trials_at_a_time,
)
from ablate.execution.prepare import Inputs
from ablate.execution.trial import Heartbeat
from ablate.store.points import Point, State, tuning_folder
from ablate.store.records import Record, read_records
from ablate.store.results import ResultsFolder
from ablate.study.search import Search
from ablate.study.study import Study
from ablate.study.trials import Trial, arm_name
from ablate.tables import objective_values
from ablate.tuning.ledger import Ledger, means_of
from ablate.tuning.settle import point_fields

WHILE_TRAINING = {"accuracy": "valid_accuracy", "nll": "valid_nll"}
"""What a heartbeat calls the objectives that are known after each epoch."""


@dataclass
class _Training:
    """A point that is being trained: its trials by seed, those without a record, those begun or recorded."""

    point: Point
    trials: dict[int, Trial] = field(default_factory=dict)
    missing: list[int] = field(default_factory=list)
    begun: set[int] = field(default_factory=set)


@dataclass(eq=False)
class Loop:
    """A search that goes on until its budget is spent; `ran` counts the trials trained."""

    results: ResultsFolder
    study: Study
    inputs: Inputs
    ledger: Ledger
    options: Options
    watcher: Watcher
    ran: int = 0
    _training: dict[int, _Training] = field(default_factory=dict)
    _point_of: dict[str, tuple[int, int]] = field(default_factory=dict)
    _records: dict[str, Record] = field(default_factory=dict)

    @property
    def folder(self) -> ResultsFolder:
        """Where the points' records are."""
        return tuning_folder(self.results)

    @property
    def search(self) -> Search:
        """What is searched; another tuner may enlarge its budget."""
        return self.ledger.tuning.search

    def run(self) -> None:
        """Train what the budget allows. Interrupted, it leaves all that ended recorded."""
        while self.ledger.goes_on():
            self._records = read_records(self.folder)
            executor = trial_executor(self.inputs.device, self.options)
            left = [job for point in self.ledger.take_over() for job in self._begin(point)]
            for event in executor.run([*left, *self._go_on()]):
                for name in self._heard(event):
                    executor.cancel(name)
                    self.folder.checkpoint_path(name).unlink(missing_ok=True)
                for job in self._go_on():
                    executor.submit(job)

    def _heard(self, event: Event) -> Iterable[str]:
        """Take in what happened; the names of jobs that are not needed any more."""
        number, seed = self._point_of[event.name]
        training = self._training.get(number)
        if training is None:
            return []
        trial = training.trials[seed]
        record = record_event(self.folder, trial, event)
        self.watcher.happened(trial, event, record)
        if isinstance(event, Told):
            return self._heard_of_epoch(training, event.message)
        if record is None:
            return []
        self.ran += 1
        self._records[trial.trial_id] = record
        training.missing.remove(seed)
        return self._judge(training)

    def _heard_of_epoch(self, training: _Training, message: Heartbeat) -> Iterable[str]:
        """Let the pruner see how far a point's first seed is, which alone is watched."""
        value = getattr(message, WHILE_TRAINING.get(self.search.objective[0], ""), None)
        if self.search.pruning not in ("hyperband", "median") or value is None or len(training.begun) > 1:
            return []
        reason = self.ledger.report(training.point.number, round(message.done), float(value))
        return self._end(training, "pruned", reason) if reason else []

    def _judge(self, training: _Training) -> Iterable[str]:
        """A trial of the point ended: fail it, prune it, complete it, or let it go on."""
        point, objective = training.point, self.search.objective
        for seed, trial in training.trials.items():
            record = self._records.get(trial.trial_id)
            if record is not None and record.status != "complete":
                why = record.failure.message if record.failure else "no reason is recorded"
                return self._end(training, "failed", f"seed {seed}: {record.status}: {why}")
        if training.missing and self.search.pruning != "seeds":
            return []
        values = objective_values(self.results, point, objective)
        if not training.missing:
            lacking = [seed for seed in point.seeds if seed not in values]
            if not lacking:
                return self._end(training, "complete", "", means_of(values))
            why = f"{' and '.join(objective)} cannot be told from its predictions"
            return self._end(training, "failed", f"seed {lacking[0]}: {why}")
        for seed, (value, *_) in values.items():
            if reason := self.ledger.report(point.number, seed, value):
                return self._end(training, "pruned", reason)
        return []

    def _end(
        self, training: _Training, state: State, reason: str, values: tuple[float, ...] = ()
    ) -> Iterable[str]:
        """The point is over. Returns the jobs of its that still wait or run."""
        point = training.point
        self._training.pop(point.number, None)
        self.ledger.end(point.number, state, reason, values)
        scored = ", ".join(
            f"{name} {value:.4f}" for name, value in zip(self.search.objective, values, strict=False)
        )
        self.watcher.note(
            f"point {point.number} (of {self.search.points}): {arm_name(point.levels)}: "
            f"{scored or f'{state}: {reason}'}"
        )
        return [training.trials[seed].trial_id for seed in training.missing if seed in training.begun]

    def _go_on(self) -> Iterator[Job]:
        """The jobs that can start now: more seeds of points that go on, then new points."""
        for training in list(self._training.values()):
            yield from self._next_seeds(training)
        while not self._training:
            points = self.ledger.begin()
            if not points:
                return
            for point in points:
                yield from self._begin(point)

    def _begin(self, point: Point) -> Iterator[Job]:
        """Name the point's trials, and start those that are not recorded."""
        try:
            fields = point_fields(self.study, point.levels)
            self.inputs.check([fields])
            trials = {seed: self.inputs.trial(point.levels, fields, seed) for seed in point.seeds}
        except AblateError as error:
            self._end(_Training(point), "failed", f"its fields cannot be trained: {error}")
            return
        ids = tuple(trial.trial_id for trial in trials.values())
        others = {name: other.number for other in self.ledger.tuning.points for name in other.trial_ids}
        same = {others[name] for name in ids if name in others} - {point.number}
        if same:
            self._end(
                _Training(point),
                "failed",
                f"it trains the same as point {min(same)}: a level changes nothing",
            )
            return
        if ids != point.trial_ids:
            self.ledger.name_trials(point.number, ids)
            point = point.model_copy(update={"trial_ids": ids})
        missing = [seed for seed, trial in trials.items() if trial.trial_id not in self._records]
        recorded = set(point.seeds) - set(missing)
        self._training[point.number] = training = _Training(point, trials, missing, recorded)
        self._point_of |= {trial.trial_id: (point.number, seed) for seed, trial in trials.items()}
        if recorded:
            self._judge(training)
        if point.number in self._training:
            yield from self._next_seeds(training)

    def _next_seeds(self, training: _Training) -> Iterator[Job]:
        """Jobs of seeds that may start: all; with pruning one at a time, or the first before the rest."""
        waiting = [seed for seed in training.missing if seed not in training.begun]
        runs = len(waiting) < len(training.missing)
        if self.search.pruning != "none":
            one_by_one = self.search.pruning == "seeds" or waiting[:1] == [min(training.trials)]
            waiting = [] if runs else waiting[:1] if one_by_one else waiting
        workers = trials_at_a_time(self.inputs.device, self.options)
        for seed in waiting:
            training.begun.add(seed)
            trial = training.trials[seed]
            data = self.inputs.folders()[trial.fingerprint]
            yield trial_job(self.folder, trial, data, workers=workers, engine=self.options.engine)
