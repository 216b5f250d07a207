"""The loop of a search: points asked for in batches, a trial for each of their seeds, what came told back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
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
    """A point that is being trained: its trials by seed, and those without a record."""

    trials: dict[int, Trial]
    missing: list[int]
    submitted: set[int] = field(default_factory=set)


class Loop:
    """A search that goes on until its budget is spent.

    Args:
        results: the study's results; the points' records go into its tuning folder.
        study: a settled study with a search.
        inputs: what trials are made from.
        ledger: the points.
        options: how trials run.
        watcher: told what happens.
    """

    def __init__(
        self,
        results: ResultsFolder,
        study: Study,
        inputs: Inputs,
        ledger: Ledger,
        options: Options,
        watcher: Watcher,
    ) -> None:
        self.results, self.study, self.inputs, self.ledger = results, study, inputs, ledger
        self.options, self.watcher = options, watcher
        self.folder = tuning_folder(results)
        self.ran = 0
        self._training: dict[int, _Training] = {}
        self._point_of: dict[str, tuple[int, int]] = {}
        self._records: dict[str, Record] = {}

    @property
    def search(self) -> Search:
        """What is searched; another tuner may enlarge its budget."""
        return self.ledger.tuning.search

    def run(self) -> None:
        """Train what the budget allows. Interrupted, it leaves all that ended recorded."""
        while True:
            self._records = read_records(self.folder)
            executor = trial_executor(self.inputs.device, self.options)
            for event in executor.run([*self._resume(), *self._go_on()]):
                for name in self._heard(event):
                    executor.cancel(name)
                    self.folder.checkpoint_path(name).unlink(missing_ok=True)
                for job in self._go_on():
                    executor.submit(job)
            if self.ledger.is_over():
                return

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
            return self._heard_of_epoch(number, event.message)
        if record is None:
            return []
        self.ran += 1
        self._records[trial.trial_id] = record
        training.missing.remove(seed)
        self.ledger.recorded(self.ledger.tuning.points[number])
        return self._judge(number)

    def _heard_of_epoch(self, number: int, message: Heartbeat) -> Iterable[str]:
        """Let the pruner see how far a point's first seed is."""
        value = getattr(message, WHILE_TRAINING.get(self.search.objective[0], ""), None)
        if self.search.pruning not in ("hyperband", "median") or value is None:
            return []
        training = self._training[number]
        if len(training.submitted) > 1:
            return []  # only the first seed is watched
        reason = self._report(number, round(message.done), float(value))
        return self._end(number, "pruned", reason) if reason else []

    def _judge(self, number: int) -> Iterable[str]:
        """A trial of the point ended: fail it, prune it, complete it, or let it go on."""
        training, point = self._training[number], self.ledger.tuning.points[number]
        for seed, trial in training.trials.items():
            record = self._records.get(trial.trial_id)
            if record is not None and record.status != "complete":
                why = record.failure.message if record.failure else "no reason is recorded"
                return self._end(number, "failed", f"seed {seed}: {record.status}: {why}")
        if not training.missing:
            return self._complete(number)
        if self.search.pruning == "seeds":
            for seed, (value, *_) in self._values(point).items():
                reason = self._report(number, seed, value)
                if reason:
                    return self._end(number, "pruned", reason)
        return []

    def _complete(self, number: int) -> Iterable[str]:
        point = self.ledger.tuning.points[number]
        values = self._values(point)
        if len(values) < len(point.seeds):
            lacking = next(seed for seed in point.seeds if seed not in values)
            named = " and ".join(self.search.objective)
            return self._end(number, "failed", f"seed {lacking}: {named} cannot be told from its predictions")
        return self._end(number, "complete", "", means_of(values))

    def _values(self, point: Point) -> Mapping[int, tuple[float, ...]]:
        return objective_values(self.results, point, self.search.objective)

    def _report(self, number: int, step: int, value: float) -> str:
        point = self.ledger.tuning.points[number]
        if step in point.intermediate:
            return ""
        self._keep(point, intermediate={**point.intermediate, step: value})
        reason = self.ledger.sampler.report(number, step, value)
        return reason if point.source == "sampler" else ""  # the others are what the rest is compared with

    def _end(self, number: int, state: State, reason: str, values: tuple[float, ...] = ()) -> Iterable[str]:
        """The point is over. Returns the jobs of its that still wait or run."""
        training, point = self._training.pop(number), self.ledger.tuning.points[number]
        pruned_at = len(point.intermediate) if state == "pruned" else None
        changes = {"state": state, "reason": reason, "pruned_at": pruned_at}
        self.ledger.end(point.model_copy(update=changes), values)
        self.watcher.note(
            f"point {number} (of {self.search.points}): {self._in_words(point, state, reason, values)}"
        )
        return [training.trials[seed].trial_id for seed in training.missing if seed in training.submitted]

    def _in_words(self, point: Point, state: State, reason: str, values: tuple[float, ...]) -> str:
        found = ", ".join(
            f"{name} {value:.4f}" for name, value in zip(self.search.objective, values, strict=False)
        )
        return f"{arm_name(point.levels)}: {found or f'{state}: {reason}'}"

    def _keep(self, point: Point, **changes: object) -> None:
        """Store a change of a point, before anything follows from it."""
        kept = self.ledger.sampler.attributes_of(point.number)
        self.ledger.keep(point.model_copy(update={"attributes": kept, **changes}))

    def _resume(self) -> Iterator[Job]:
        """Go on with points that a stopped search left."""
        for point in self.ledger.mine():
            # What had been told of it: it went on then, so whether to prune it is asked at its next step.
            for step, value in point.intermediate.items():
                self.ledger.sampler.report(point.number, step, value)
            yield from self._begin(point)

    def _go_on(self) -> Iterator[Job]:
        """The jobs that can start now: more seeds of points that go on, then new points."""
        for number, training in list(self._training.items()):
            yield from self._next_seeds(number, training)
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
            self._training[point.number] = _Training({}, [])
            self._end(point.number, "failed", f"its fields cannot be trained: {error}")
            return
        ids = tuple(trial.trial_id for trial in trials.values())
        others = {name: other.number for other in self.ledger.tuning.points for name in other.trial_ids}
        same = {others[name] for name in ids if name in others} - {point.number}
        if same:
            self._training[point.number] = _Training({}, [])
            self._end(
                point.number, "failed", f"it trains the same as point {min(same)}: a level changes nothing"
            )
            return
        if ids != point.trial_ids:
            self._keep(point, trial_ids=ids)
        missing = [seed for seed, trial in trials.items() if trial.trial_id not in self._records]
        self._training[point.number] = training = _Training(trials, missing)
        training.submitted = set(point.seeds) - set(missing)
        self._point_of |= {trial.trial_id: (point.number, seed) for seed, trial in trials.items()}
        if training.submitted:
            self._judge(point.number)
        if point.number in self._training:
            yield from self._next_seeds(point.number, training)

    def _next_seeds(self, number: int, training: _Training) -> Iterator[Job]:
        """Jobs of seeds that may start: all; with pruning one at a time, or the first before the rest."""
        waiting = [seed for seed in training.missing if seed not in training.submitted]
        if not waiting:
            return
        running = len([seed for seed in training.missing if seed in training.submitted])
        if self.search.pruning == "seeds":
            waiting = [] if running else waiting[:1]
        elif self.search.pruning != "none" and waiting[0] == min(training.trials):
            waiting = waiting[:1]
        elif self.search.pruning != "none" and running:
            waiting = []
        for seed in waiting:
            training.submitted.add(seed)
            yield self._job(training.trials[seed])

    def _job(self, trial: Trial) -> Job:
        folder = self.inputs.folders()[trial.fingerprint]
        workers = trials_at_a_time(self.inputs.device, self.options)
        return trial_job(self.folder, trial, folder, workers=workers, engine=self.options.engine)
