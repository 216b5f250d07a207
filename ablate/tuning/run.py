"""A search from left to right: settle it, spend its budget point by point, have the winner re-tested."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from urllib.parse import quote

from ablate.data import overlap, split_digest
from ablate.errors import AblateError, ResultsError, StudyError
from ablate.execution import driver
from ablate.execution.executors import Event, Job, Told
from ablate.execution.prepare import Inputs
from ablate.execution.progress import Watcher
from ablate.store.points import Point, State, Tuning, tuning_folder
from ablate.store.records import Record, quarantine, read_record
from ablate.store.results import ResultsFolder
from ablate.study.fields import Levels
from ablate.study.options import Options
from ablate.study.search import DECLARED, FIRST_TUNING_SEED, RETUNED, TUNING, Choice, Chosen, Search
from ablate.study.study import Study
from ablate.study.trials import AnyFields, Trial, arm_name
from ablate.tables.tuning import objective_values, points_table
from ablate.tuning.ledger import RETEST, Ledger, SharedStorage, Storage, point_means
from ablate.tuning.points import Points

WHILE_TRAINING = {"accuracy": "valid_accuracy", "nll": "valid_nll"}  # as heartbeats call them


def search_of(study: Study) -> Search:
    """The search of a study that has one."""
    if study.search is None:
        raise StudyError(f"{study.name}: expected a study with a search=Search(...); else use `ablate run`")
    return study.search


def first_points(study: Study) -> list[Levels]:
    """The baseline, then the anchors, each complete, once, and on the grid (with log, as it was given)."""
    search = search_of(study)
    base = {**study.fields({}).model_dump(), **study.baseline}
    baseline = {name: base.get(name) for name in search.space}
    active = search.active(baseline)
    for name, value in baseline.items():
        dimension = search.space[name]
        if name not in base or (name in active and not dimension.holds(value)):
            fault = f"{name}={value!r} is not among the values searched ({dimension.in_words()})"
            raise StudyError(f"the baseline's {fault}: set baseline={{{name!r}: ...}} to a value of it")
    points = [active, *(search.active({**baseline, **anchor}) for anchor in search.anchors)]
    for anchor, point in zip(search.anchors, points[1:], strict=True):
        for name in anchor.keys() - point.keys():
            needs = ", ".join(f"{other}={value!r}" for other, value in search.space[name].when.items())
            raise StudyError(f"anchors: {anchor}: {name} is searched only with {needs}; name that in it too")
    for point in points:
        for name, level in point.items():
            dimension = search.space[name]
            if isinstance(dimension, Choice):
                point[name] = dimension.of[dimension.of.index(level)]
            elif not dimension.log:
                point[name] = dimension.nearest(level)
    points = [point for index, point in enumerate(points) if point not in points[:index]]
    if len(points) > search.points:
        raise StudyError(f"points: baseline and anchors are {len(points)}, give more than {search.points}")
    return points


def prepare_search(settled: driver.Settled, options: Options, watcher: Watcher) -> tuple[Inputs, Tuning]:
    """What points are trained from, and the search before its first, with what it is judged on."""
    study, first = settled.study, first_points(settled.study)
    search = search_of(study)
    # All that the search may come to: every value of every choice, and both ends of every range.
    ends = [{**first[0], name: value} for name, found in search.space.items() for value in found.ends()]
    tried = [*first, *(search.active(point) for point in ends)]
    arms = [point_fields(study, levels) for levels in tried] + [study.fields(levels) for levels in tried]
    inputs = driver.ready_inputs(settled, arms, options, watcher)
    seen: dict[str, Levels] = {}
    for levels in tried:
        trial_id = inputs.trial(levels, point_fields(study, levels), FIRST_TUNING_SEED).trial_id
        if seen.setdefault(trial_id, levels) != levels:
            same = f"{arm_name(seen[trial_id])} and {arm_name(levels)} train the same network"
            raise StudyError(f"space: {same}; leave out what changes nothing")
    if not study.fields(first[0]).data:  # one's own code has its own
        return inputs, Tuning(search=search)
    held = inputs.dataset(point_fields(study, first[0]))
    reported = inputs.dataset(study.fields(first[0])).valid
    return inputs, Tuning(
        search=search,
        tuning_images=len(held.valid),
        train_images=len(held.train),
        tuning_digest=split_digest(held.valid),
        reported_digest=split_digest(reported),
        overlap=overlap(held.valid, reported),
    )


def point_fields(study: Study, levels: Levels) -> AnyFields:
    """The fields that a point is trained with: on what the tuning split leaves."""
    return study.fields({**levels, "tuning_part": search_of(study).tuning_part})


def check_same(study: Study, inputs: Inputs, where: str, known: Tuning, *, retrain: bool = False) -> None:
    """Refuse to go on with another search (ResultsError); its budget may differ, with `retrain` its code."""
    first = first_points(study)
    was, now = _words(known.search), _words(search_of(study))
    changed = [f"{name} was {was[name]}, now {now[name]}" for name in was if was[name] != now[name]]
    begun = [point.levels for point in known.points if point.source != "sampler"]
    if not changed and begun != first[: len(begun)]:
        changed = [f"baseline and anchors were {begun}, now {first}"]
    named = [point for point in known.points if point.trial_ids]  # one just asked for has no trials yet
    for point in named[:1] if not changed and not retrain else ():
        trial = inputs.trial(point.levels, point_fields(study, point.levels), point.seeds[0])
        if trial.trial_id != point.trial_ids[0]:
            changed = ["what a point trains (its fields, data, arithmetic or the training's version) differs"]
    if changed:
        fault = f"holds the points of another search: {'; '.join(changed)}"
        raise ResultsError(f"{where}: {fault}; give the study another name, or --results another folder")


def _words(search: Search) -> dict[str, str]:
    """The parts of a search that make it another one, as a reader compares them."""
    space = "; ".join(
        f"{name}: {dimension.in_words()}{f' when {dimension.when}' if dimension.when else ''}"
        for name, dimension in search.space.items()
    )
    parts = search.model_dump(exclude={"points", "batch", "space"})  # the first two may be given differently
    return {"space": space, **{name: str(value) for name, value in parts.items()}}


def budget_in_words(study: Study, options: Options) -> str:
    """What tuning a study trains: the search's points, then the re-test."""
    settled = driver.settle(study, options)
    search, seeds = search_of(settled.study), len(settled.study.seed_list())
    arms = len(first_points(settled.study)) + len(search.objective)
    return (
        f"{settled.study.name}: {settled.reason}\n"
        f"searched: {_words(search)['space']}\n"
        f"{search.points} points x {search.seeds} seeds = up to {search.points * search.seeds} trainings, "
        f"judged on {search.tuning_part:.1%} of the training images\n"
        f"then a re-test of up to {arms} arms x {seeds} fresh seeds = {arms * seeds} trainings, "
        "judged on the reported images"
    )


def retest_study(study: Study, winners: Sequence[Levels]) -> Study:
    """The study that judges winners: baseline, anchors and winners, fresh seeds, all training images."""
    search, first = search_of(study), first_points(study)
    base = {**study.baseline, **study.fields({}).model_dump()}
    chosen = [*first, *(winner for winner in winners if winner not in first)]
    arms = [{name: base[name] for name in search.space} | point for point in chosen]
    return study.replace(
        factors={name: tuple(dict.fromkeys(arm[name] for arm in arms)) for name in search.space},
        only=tuple(arms),
        baseline=arms[0],
        comparisons=(),
        primary=search.objective[0],
        family=tuple(dict.fromkeys((*search.objective, *study.family))),
    )


@dataclass(frozen=True)
class Tuned:
    """What became of a search: trials `ran` now, and the re-test where it came to that in this tuner."""

    folder: ResultsFolder
    tuning: Tuning
    ran: int
    retest: driver.Summary | None
    interrupted: bool


def tune_study(
    study: Study, options: Options, watcher: Watcher, *, points: int | None = None, storage: str | None = None
) -> Tuned:
    """Spend a search's budget, or `points`, then re-test its winner; tuners may share a URL as `storage`."""
    if storage is not None and (options.retry_failed or options.retrain):
        name = "--retrain" if options.retrain else "--retry-failed"
        raise StudyError(f"{name}: not with --storage, where a point that ended stays so for all tuners")
    if options.name is not None:
        raise StudyError("name: a search has no variations; leave it out, or choose other --results")
    settled = replace(driver.settle(study, options), variation="")
    if points is not None:
        search = search_of(settled.study).model_dump() | {"points": points}
        settled = replace(settled, study=settled.study.replace(search=search))
    return tune_settled(settled, options, watcher, storage=storage)


def tune_settled(
    settled: driver.Settled,
    options: Options,
    watcher: Watcher,
    *,
    storage: str | None = None,
    below: str = "",
) -> Tuned:
    """The same of a settled study; with a folder `below` that of its results, the search alone."""
    study, name = settled.study, str(Path(settled.study.name, settled.profile, below))
    home = settled.folder(options)  # what decides a search is no part of seeds and names
    results = ResultsFolder((home.root if options.settings else home.shared) / below)
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
                until_the_retest.enter_context(driver.only_driver(results))
                folder.remove_left_overs()
                alone = Storage(folder.root / "optuna.sqlite3")  # for optuna-dashboard too
                database = until_the_retest.enter_context(contextlib.closing(alone))
            if database.is_alone():
                for line in quarantine(folder)[1]:
                    watcher.note(f"put aside as damaged, to run again: {line}")
            first, where = first_points(study), f"{database.words}: study {name!r}"
            same = partial(check_same, study, inputs, where, retrain=options.retrain)
            ledger = Ledger(results, database, name, declared, first, same, options)
            watcher.searching(ledger.tuning, study.name, settled.reason)
            loop = _Loop(study, inputs, ledger, options, watcher)
            interrupted = loop.run()
            ledger.conclude()
        tuning = ledger.tuning
        tuned = Tuned(results, tuning, loop.ran, None, interrupted)
        if interrupted or not tuning.is_spent or below:
            return tuned
        if not database.lasting(partial(database.claim, RETEST)):
            watcher.note("the budget is spent; another tuner re-tests the winner now")
            return tuned
        chosen = [tuning.points[number].levels for number in (*tuning.winners, *tuning.retested)]
        retest = driver.run_settled(replace(settled, study=retest_study(study, chosen)), options, watcher)
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
        self._executor = driver.trial_executor(study, inputs.device, options, ledger.folder, watcher)
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
        record = driver.record_event(self.ledger.folder, trial, event)
        self.watcher.happened(trial, event, record)
        search = self.ledger.tuning.search
        if record is not None:
            self.ran += 1
            training.records[event.name] = record
            self._judge(training)
        elif isinstance(event, Told) and search.pruning in ("hyperband", "median"):
            value = getattr(event.message, WHILE_TRAINING[search.objective[0]])
            # A point's first seed alone is watched while it trains.
            if value is not None and len(training.begun) == 1:
                self._report(training.point, round(event.message.done), float(value))

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
                if self._report(point, seed, value):
                    break
            return None
        for seed in point.seeds:
            if seed not in values:
                why = f"{' and '.join(search.objective)} cannot be told from its predictions"
                return self._end(point, "failed", f"seed {seed}: {why}")
        return self._end(point, "complete", "", point_means(self.ledger.results, point, search.objective))

    def _report(self, point: Point, step: int, value: float) -> str:
        """Report a value; why the point was given up for it, or empty."""
        reason = self.ledger.change(Points.report, point.number, step, value)
        if reason:
            self._end(point, "pruned", reason)
        return reason

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
        workers = self._executor.workers
        while True:
            for training in list(self._training.values()):
                for trial_id in self._next_trials(training):
                    trial = training.trials[trial_id]
                    yield driver.trial_job(
                        self.ledger.folder, self.study, trial, self.inputs.folders(), workers, self.options
                    )
            if self._training:
                return
            points = self.ledger.next_points()
            if not points:
                return
            for point in points:
                self._begin(point)

    def _begin(self, point: Point) -> None:
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
            self.ledger.change(Points.name_trials, point.number, tuple(trials))
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


def retune_arms(
    settled: driver.Settled, options: Options, watcher: Watcher
) -> tuple[driver.Settled | None, int]:
    """The study of arms as declared and re-tuned, None where it was interrupted; and how many trials ran."""
    study, ran, chosen = settled.study, 0, list[Chosen]()
    none: dict[str, object] = {"factors": {}, "named": {}, "parts": {}, "design": "without", "baseline": {}}
    none |= {"only": (), "comparisons": (), "retune": None}
    searches = list[tuple[Levels, driver.Settled]]()
    for arm in study.arms():
        base = study.settings(study.base) | study.settings(arm)
        searches.append((arm, replace(settled, study=study.replace(base=base, search=study.retune, **none))))
        prepare_search(searches[-1][1], options, watcher)
    for arm, search in searches:
        watcher.note(f"re-tuning {arm_name(arm)}")
        tuned = tune_settled(search, options, watcher, below=f"retune/{quote(arm_name(arm), safe=' =,+')}")
        ran += tuned.ran
        if tuned.interrupted:
            return None, ran
        tuning, values = tuned.tuning, points_table(tuned.folder).set_index("number")["value"].dropna()
        if not tuning.winners:
            reasons = "; ".join(dict.fromkeys(point.reason for point in tuning.points))
            raise ResultsError(f"retune: no point of {arm_name(arm)} is complete: {reasons}")
        (best,) = tuning.winners
        complete = sum(point.state == "complete" for point in tuning.points)
        facts = {"arm": arm, "levels": tuning.points[best].levels, "complete": complete}
        facts |= tuning.model_dump(include={"tuning_images", "overlap"})
        chosen.append(Chosen(**facts, value=values[best], declared=values.get(0)))
    levels: dict[str, Levels] = {DECLARED: {}, RETUNED: {}}
    both = study.replace(
        factors={**study.factors, TUNING: tuple(levels)},
        named={**study.named, TUNING: levels},
        only=tuple({**arm, TUNING: level} for arm in study.only for level in levels),
        chosen=tuple(chosen),
    )
    return replace(settled, study=both), ran
