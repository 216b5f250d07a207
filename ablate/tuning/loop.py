"""The loop of a search: points asked for in batches, a trial for each of their seeds, what came told back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ablate.errors import AblateError
from ablate.execution import Event, Job, Told
from ablate.execution.driver import Options, Watcher, record_event, trial_executor, trial_job
from ablate.execution.prepare import Inputs
from ablate.store.points import Point, State
from ablate.store.records import Record, read_record
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
    """A point that is being trained: its trials, its records, and the seeds begun or recorded."""

    point: Point
    trials: dict[int, Trial]
    records: dict[int, Record]
    begun: set[int]

    @property
    def missing(self) -> list[int]:
        """Seeds without a record."""
        return [seed for seed in self.trials if seed not in self.records]


@dataclass(eq=False)
class Loop:
    """A search that goes on until its budget is spent; `ran` counts the trials trained."""

    study: Study
    inputs: Inputs
    ledger: Ledger
    options: Options
    watcher: Watcher
    ran: int = 0
    _training: dict[int, _Training] = field(default_factory=dict)
    _seed_of: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def search(self) -> Search:
        """What is searched; another tuner may enlarge its budget."""
        return self.ledger.tuning.search

    def run(self) -> None:
        """Train what the budget allows. Interrupted, it leaves all that ended recorded."""
        executor = trial_executor(self.inputs.device, self.options)
        for event in executor.run(list(self._jobs(executor.workers))):
            for name in self._heard(event):
                executor.cancel(name)
                self.ledger.folder.checkpoint_path(name).unlink(missing_ok=True)
            for job in self._jobs(executor.workers):
                executor.submit(job)

    def _heard(self, event: Event) -> list[str]:
        """Take in what happened; the names of jobs that are not needed any more."""
        number, seed = self._seed_of[event.name]
        training = self._training.get(number)
        if training is None:
            return []
        trial = training.trials[seed]
        record = record_event(self.ledger.folder, trial, event)
        self.watcher.happened(trial, event, record)
        if record is not None:
            self.ran += 1
            training.records[seed] = record
            return self._judge(training)
        # A point's first seed alone is watched while it trains.
        watched = self.search.pruning in ("hyperband", "median") and len(training.begun) == 1
        if watched and isinstance(event, Told):
            value = getattr(event.message, WHILE_TRAINING[self.search.objective[0]])
            if value is not None:
                epochs = round(event.message.done)
                if reason := self.ledger.report(number, epochs, float(value)):
                    return self._end(training.point, "pruned", reason)
        return []

    def _judge(self, training: _Training) -> list[str]:
        """A trial of the point ended: fail it, prune it, complete it, or let it go on."""
        point, objective = training.point, self.search.objective
        for seed, record in sorted(training.records.items()):
            if record.status != "complete":
                why = record.failure.message if record.failure else "no reason is recorded"
                return self._end(point, "failed", f"seed {seed}: {record.status}: {why}")
        if training.missing and self.search.pruning != "seeds":
            return []
        values = objective_values(self.ledger.results, point, objective)
        if training.missing:
            for seed, (value, *_) in values.items():
                if reason := self.ledger.report(point.number, seed, value):
                    return self._end(point, "pruned", reason)
            return []
        for seed in point.seeds:
            if seed not in values:
                why = f"{' and '.join(objective)} cannot be told from its predictions"
                return self._end(point, "failed", f"seed {seed}: {why}")
        return self._end(point, "complete", "", means_of(values))

    def _end(self, point: Point, state: State, reason: str, values: tuple[float, ...] = ()) -> list[str]:
        """The point is over. Returns the jobs of its that still wait or run."""
        self.ledger.end(point.number, state, reason, values)
        scored = [f"{name} {value:.4f}" for name, value in zip(self.search.objective, values, strict=False)]
        self.watcher.note(
            f"point {point.number} (of {self.search.points}): {arm_name(point.levels)}: "
            f"{', '.join(scored) or f'{state}: {reason}'}"
        )
        training = self._training.pop(point.number, None)
        if training is None:
            return []
        return [training.trials[seed].trial_id for seed in training.missing if seed in training.begun]

    def _jobs(self, workers: int) -> Iterator[Job]:
        """The jobs that can start now: more seeds of points that go on, then new points."""
        while True:
            for training in list(self._training.values()):
                for trial in self._next_seeds(training):
                    data, folder = self.inputs.folders(), self.ledger.folder
                    yield trial_job(folder, trial, data, workers, self.options.engine)
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
            trials = {seed: self.inputs.trial(point.levels, fields, seed) for seed in point.seeds}
        except AblateError as error:
            self._end(point, "failed", f"its fields cannot be trained: {error}")
            return
        ids = tuple(trial.trial_id for trial in trials.values())
        for other in self.ledger.tuning.points:
            if other.number != point.number and not set(ids).isdisjoint(other.trial_ids):
                reason = f"it trains the same as point {other.number}: a level changes nothing"
                self._end(point, "failed", reason)
                return
        if ids != point.trial_ids:
            self.ledger.name_trials(point.number, ids)
            point = point.model_copy(update={"trial_ids": ids})
        paths = {seed: self.ledger.folder.record_path(trial.trial_id) for seed, trial in trials.items()}
        records = {seed: read_record(path) for seed, path in paths.items() if path.exists()}
        self._training[point.number] = training = _Training(point, trials, records, set(records))
        self._seed_of |= {trial.trial_id: (point.number, seed) for seed, trial in trials.items()}
        if records:
            self._judge(training)

    def _next_seeds(self, training: _Training) -> list[Trial]:
        """Trials that may start: all; with pruning one at a time, or the first before the rest."""
        missing = training.missing
        waiting = [seed for seed in missing if seed not in training.begun]
        if self.search.pruning != "none":
            if len(waiting) < len(missing):  # one runs
                return []
            if self.search.pruning == "seeds" or waiting[:1] == [min(training.trials)]:
                waiting = waiting[:1]
        training.begun |= set(waiting)
        return [training.trials[seed] for seed in waiting]
