"""A study from left to right: settle it, find what is missing, have it trained, record it."""

import contextlib
import dataclasses
import functools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import torch

from ablate.data import ARCHIVES, Originals, Progress, find_originals
from ablate.errors import DeviceError, RecordError, ResultsError, StudyError
from ablate.execution.code import settled_sources
from ablate.execution.executors import Done, Event, Executor, InlineExecutor, Job, LocalExecutor, Lost, Told
from ablate.execution.own import IMPORTS, OwnTask, with_own_knobs
from ablate.execution.prepare import Inputs, check_metrics, check_names, resolve_device, resolve_numerics
from ablate.execution.progress import Watcher as Watcher
from ablate.execution.trial import Task, TimingTask, do_task
from ablate.guarded import guarded
from ablate.store.records import Failure, Record, put_aside, quarantine, read_available, write_record
from ablate.store.results import VARIATIONS, ResultsFolder, below, read_plan, write_sealed
from ablate.store.timing import cases_of, read_timing
from ablate.study.fields import DataFields
from ablate.study.options import Options as Options
from ablate.study.own import seconds_of
from ablate.study.settings import variation_name
from ablate.study.study import Study
from ablate.study.trials import AnyFields, Plan, Trial, code_names, expand
from ablate.terminal import optional

STALL_MINUTES = 10.0
TIMING = "timing"
"""Name of the job that times the steps; trials have hashes for names."""


@dataclass(frozen=True)
class Summary:
    """What became of a study's trials."""

    folder: ResultsFolder
    ran: int
    failed: int
    interrupted: bool


@dataclass(frozen=True)
class Settled:
    """A study with its profile and the command line's changes made, and where it trains."""

    study: Study
    profile: str
    reason: str
    device: str
    variation: str = ""

    def folder(self, options: Options) -> ResultsFolder:
        """Where its results are."""
        own = (VARIATIONS, self.variation) if self.variation else ()
        return ResultsFolder(below(options.results, self.study.name, self.profile, *own))

    def arms(self) -> list[AnyFields]:
        """The fields of every arm."""
        return [self.study.fields(levels) for levels in self.study.arms()]

    def plan(self, options: Options, *found_by: Callable[[AnyFields], Any]) -> Plan:
        """Every trial, by what finds fingerprint, numerics and sources of an arm's fields."""
        facts = {"profile": self.profile, "reason": self.reason, "command": options.command}
        return Plan(study=self.study, trials=tuple(expand(self.study, *found_by)), **facts)


def run_settled(settled: Settled, options: Options, watcher: Watcher) -> Summary:
    """Train what is missing of a study, and record it; what a user can have got wrong is found before."""
    folder = settled.folder(options)
    executor = trial_executor(settled.study, settled.device, options, folder, watcher)
    with contextlib.closing(executor):
        # About how many trials lack a record, from counts alone: which they are follows from the data.
        planned = len(settled.study.arms()) * len(settled.study.seed_list()) // options.part[1]
        executor.warm_up(max(0, planned - sum(1 for _ in folder.records.glob("*.json"))))
        plan, inputs = plan_settled(settled, options, watcher)
        folder.create()
        with only_driver(folder, *options.part):
            return _Drive(folder, plan, inputs.folders(), options, watcher).run(executor)


@dataclass(frozen=True)
class _Drive:
    """A planned study on its way through, for the only driver of its folder."""

    folder: ResultsFolder
    plan: Plan
    data_folders: Mapping[str, Path]
    options: Options
    watcher: Watcher

    def run(self, executor: Executor) -> Summary:
        """Have the trials without a record trained and recorded; after the last one, have the steps timed."""
        mine = {trial.trial_id: trial for trial in part_of(self.plan.trials, *self.options.part)}
        if self.options.part[1] > 1:
            self._check_siblings()
        else:
            self.folder.remove_left_overs()
        records, damaged = quarantine(self.folder, mine if self.options.shard else None)
        for line in damaged:
            self.watcher.note(f"put aside as damaged, to run again: {line}")
        # Of recorded trials, whose driver was killed before it could.
        for path in set(map(self.folder.checkpoint_path, records)) & {*self.folder.checkpoints.glob("*.pt")}:
            path.unlink()
        recorded = [records[trial_id].trial for trial_id in mine.keys() & records.keys()]
        code = [source for trial in (*recorded, *self.plan.trials) for source in trial.sources.values()]
        reasons = sorted({source.same_code for source in code} - {""})
        write_sealed(self.folder.plan, self.plan.model_copy(update={"same_code": tuple(reasons)}))
        for trial_id in mine.keys() & records.keys() if self.options.retry_failed else ():
            if records[trial_id].status != "complete":
                put_aside(self.folder, trial_id, "attempts")
                del records[trial_id]
        waiting = [trial for trial in mine.values() if trial.trial_id not in records]
        if self.options.keep_weights:
            self.folder.weights.mkdir(exist_ok=True)
            kept = {path.stem for path in self.folder.weights.glob("*.safetensors")}
            if without := len(mine.keys() & records.keys() - kept):
                self.watcher.note(f"{without} recorded trials keep no weights; only those run now do")
        self.watcher.planned(self.plan, len(mine), waiting)
        if line := idle_cores(len(waiting), self.plan.trials[0].numerics.device, self.options):
            self.watcher.note(line)
        jobs = [
            trial_job(self.folder, self.plan.study, trial, self.data_folders, executor.workers, self.options)
            for trial in waiting
        ]
        missing, interrupted = {trial.trial_id for trial in waiting}, False
        try:
            for event in executor.run(jobs or self._timing_jobs(records)):
                if event.name == TIMING:
                    if isinstance(event, Told):
                        self.watcher.preparing("timing training steps", round(100 * event.message), 100)
                    elif isinstance(event, Done):
                        with optional():
                            write_sealed(self.folder.timing, event.outcome)
                    elif isinstance(event, Lost):
                        self.watcher.note(f"the step times could not be measured: {event.reason}")
                    continue
                trial = mine[event.name]
                record = record_event(self.folder, trial, event)
                if record is not None:
                    records[trial.trial_id] = record
                    missing.discard(trial.trial_id)
                self.watcher.happened(trial, event, record)
                if record is not None and not missing:
                    for last in self._timing_jobs(records):
                        executor.submit(last)
        except KeyboardInterrupt:
            interrupted = True
            records, _ = read_available(self.folder, mine)
        failed = sum(records[trial_id].status != "complete" for trial_id in mine.keys() & records.keys())
        ran = sum(trial.trial_id in records for trial in waiting)
        return Summary(self.folder, ran, failed, interrupted)

    def _check_siblings(self) -> None:
        """Refuse a shard whose machine plans other trials of the study than that of an earlier shard."""
        with contextlib.suppress(RecordError):  # none was there, or its plan is damaged
            there = read_plan(self.folder)
            if there.study.model_dump_json() == self.plan.study.model_dump_json():
                for ours, theirs in zip(self.plan.trials, there.trials, strict=True):
                    if (here := (ours.numerics, ours.fingerprint)) != (theirs.numerics, theirs.fingerprint):
                        raise StudyError(
                            f"--shard {self.options.shard}: expected the arithmetic and data of the shards "
                            f"before it, {theirs.numerics}, data {theirs.fingerprint[:16]}, but here it is "
                            f"{here[0]}, data {here[1][:16]}; run all shards on machines of one kind, or set "
                            "precision in the study's base"
                        )

    def _timing_jobs(self, records: Mapping[str, Record]) -> list[Job]:
        """The pass that times the steps, unless they are known or not asked for; it has the machine alone."""
        if self.plan.study.trained_by or not self.options.timing or self.options.shard:
            return []
        complete = {id_ for id_, record in records.items() if record.status == "complete"}
        cases = cases_of(trial for trial in self.plan.trials if trial.trial_id in complete)
        try:
            kept = read_timing(self.folder)
        except RecordError as error:
            self.watcher.note(str(error))
            kept = None
        threads = {trial.numerics.threads for trial in cases.values()}
        known = kept is not None and {*cases} <= {*kept.cases} and threads == {kept.environment.threads}
        if known or not cases:
            return []
        turns = {case: (trial, self.data_folders[trial.fingerprint]) for case, trial in cases.items()}
        fresh = any(code_names(trial.fields) for trial in cases.values())
        return [Job(TIMING, TimingTask(turns, self.options.engine), fresh)]


def settle(study: Study, options: Options) -> Settled:
    """The study with its profile and overrides, on the device that it will train on."""
    if options.shard and (study.search or study.retune):
        raise StudyError(
            f"--shard {options.shard}: expected a study whose trials are known beforehand, but {study.name} "
            "has a search; leave --shard out (tuners share a search by --storage)"
        )
    study.find_own_modules()
    device = resolve_device(options.device) if study.gpus else "cpu"
    if options.engine == "graph" and device != "cuda":
        raise DeviceError(
            "--engine graph: expected a GPU, whose steps can be captured, but the trials would train on "
            f"{device}; leave --engine out"
        )
    if options.threads > (most := 1 if device == "cuda" else usable_cores()):
        raise StudyError(
            f"--threads {options.threads}: expected at most {most} on {device}: one per CPU core that may be "
            "used here, and on CUDA, where the GPU computes, 1; give fewer, or leave --threads out"
        )
    profile, reason = choose_profile(study, options.profile, device)
    if study.profiles or options.profile:
        study = study.with_profile(profile)
    if options.settings:
        study = study.with_settings(options.settings)
    if options.seeds is not None:
        study = study.replace(seeds=options.seeds)
    if study.published and study.base.get("data") != study.published.data:
        study = study.replace(published=None)  # another task's numbers would only mislead
    if study.train:
        study = guarded(with_own_knobs, study, what=f"train {study.train!r}")
    if variation := variation_name(options):
        reason += f"; variation {variation}"
    return Settled(study, profile, reason, device, variation)


def data_needed(settled: Settled, options: Options) -> list[Originals]:
    """The datasets that a study's trials need, and whether they are here."""
    study = settled.study
    names = dict.fromkeys({**study.base, **study.settings(arm)}.get("data") for arm in study.arms())
    return [find_originals(str(name), data_dir=options.data_dir) for name in names if name is not None]


def plan_settled(settled: Settled, options: Options, watcher: Watcher) -> tuple[Plan, Inputs]:
    """Check everything of a settled study, prepare its data, and name every trial."""
    study = settled.study
    if study.search is not None and not study.only:
        raise StudyError(
            f"{study.name}: has a search, whose arms are known when it is tuned; use `python -m ablate tune`"
        )
    inputs = ready_inputs(settled, arms := settled.arms(), options, watcher)
    for name, data in {fields.data: inputs.dataset(fields) for fields in arms if fields.data}.items():
        split = f"{len(data.train):,} training images, {len(data.valid):,} reported ones"
        watcher.note(f"{name}: {split}, {len(data.classes)} classes")
    return settled.plan(options, inputs.fingerprint, inputs.numerics, inputs.sources), inputs


def plan_without_data(settled: Settled, options: Options, recorded: Iterable[Trial]) -> Plan:
    """The plan where data is not here; `recorded` trials on the same data are found again in it."""
    check_names(arms := settled.arms())

    def images(fields: AnyFields) -> str:
        return json.dumps([fields.model_dump(include={*DataFields.model_fields}), fields.arguments("data")])

    known = {images(trial.fields): trial.fingerprint for trial in recorded}
    numerics = functools.partial(resolve_numerics, device=settled.device, threads=options.threads)
    sources = settled_sources(arms, settled.folder(options), options, settled.study.folder)
    return settled.plan(options, lambda one: known.get(images(one), images(one)), numerics, sources)


def ready_inputs(settled: Settled, arms: Sequence[AnyFields], options: Options, watcher: Watcher) -> Inputs:
    """The arms' data, networks and losses, checked and prepared; the user's code in a child."""
    if options.data_dir and not any(fields.data in ARCHIVES for fields in arms):
        used = ", ".join(dict.fromkeys(fields.data or "its own code" for fields in arms))
        watcher.note(f"--data-dir is not used: profile {settled.profile} takes its images from {used}")
    named = {name for fields in arms for name in (fields.data, *code_names(fields).values()) if ":" in name}
    what = f"trying {', '.join(sorted(named)) or 'data and networks'}"
    return guarded(_ready, settled, arms, options, watcher.preparing, what=what)


def _ready(settled: Settled, arms: Sequence[AnyFields], options: Options, preparing: Progress) -> Inputs:
    inputs = Inputs(settled.device, options.data_dir, preparing, threads=options.threads)
    inputs.check(arms)
    for classes in {len(inputs.dataset(fields).classes) for fields in arms if fields.data}:
        check_metrics(settled.study.metrics, classes)
    inputs.sources = settled_sources(arms, settled.folder(options), options, settled.study.folder)
    inputs.preparing = None  # all is prepared
    return inputs


def choose_profile(study: Study, asked: str | None, device: str) -> tuple[str, str]:
    """The profile to run, and why. The network never decides: only the hardware, or the user."""
    if asked is not None:
        return asked, f"--profile {asked} was given"
    if not study.profiles:
        return "default", "the study has no profiles"
    name, reason = "quick", "the CPU was asked for" if torch.cuda.is_available() else "no CUDA is present"
    if device == "cuda":
        name, reason = "full", "CUDA is present"
    if name not in study.profiles:
        raise StudyError(
            f"on {device} the profile {name!r} would run, but the study has only "
            f"{', '.join(study.profiles)}; choose one with --profile"
        )
    return name, f"{reason}, so profile {name} runs"


def part_of(trials: Sequence[Trial], part: int, parts: int) -> Sequence[Trial]:
    """A shard's trials: neighbours in the plan, and so the arms of a seed, as far as that comes out even."""
    return trials[len(trials) * (part - 1) // parts : len(trials) * part // parts]


@contextlib.contextmanager
def only_driver(folder: ResultsFolder, part: int = 1, parts: int = 1) -> Iterator[None]:
    """Hold the results folder against every other driver, or a shard of it against all but its siblings."""
    own = folder.shard_lock(part, parts)
    siblings = {folder.shard_lock(other, parts) for other in range(1, parts + 1)}
    try:
        with filelock.FileLock(own, timeout=1):  # `status` tries it for an instant
            for other in {*folder.locks()} - siblings:
                with filelock.FileLock(other, timeout=1):
                    pass
            yield
    except filelock.Timeout:
        raise ResultsError(
            f"{folder.root}: another run is writing here; wait for it, or choose another with --results"
        ) from None


def trial_job(
    folder: ResultsFolder,
    study: Study,
    trial: Trial,
    data_folders: Mapping[str, Path],
    workers: int,
    options: Options,
) -> Job:
    """A trial as an executor takes it; how many `workers` train beside each other is for its record."""
    checkpoint = folder.checkpoint_path(trial.trial_id).absolute()
    data_folder, foreign = data_folders[trial.fingerprint], bool(code_names(trial.fields))
    task = Task(trial, data_folder, checkpoint, workers, options.engine, warm=foreign and study.warm)
    if study.trained_by:
        out = folder.artefacts.absolute() / trial.trial_id
        task = OwnTask(trial, data_folder, checkpoint, workers, warm=study.warm, study=study, out=out)
    elif options.keep_weights:
        weights = (folder.weights / f"{trial.trial_id}.safetensors").absolute()
        task = dataclasses.replace(task, weights=weights)
    block = None if trial.fields.tuning_part else trial.seed  # points of a search are not paired
    return Job(trial.trial_id, task, fresh=foreign and not study.warm, block=block)


def trial_executor(
    study: Study, device: str, options: Options, folder: ResultsFolder, watcher: Watcher
) -> Executor:
    """What trains a study's trials on a device: workers, here or elsewhere; with `workers=0` this process."""
    if options.workers == 0:
        return InlineExecutor(do_task)
    stall = options.stall if options.stall is not None or study.trained_by else STALL_MINUTES
    limits = {
        "timeout": seconds_of(study.timeout) if options.timeout is None else 60 * options.timeout,
        "stall": 60 * stall if stall else None,
    }
    if options.executor == "ray":
        from ablate.execution.cluster import RayExecutor

        return RayExecutor(folder, study.folder, device, options, watcher.note, **limits)
    return LocalExecutor(
        do_task,
        workers=trials_at_a_time(device, options),
        imports=IMPORTS,
        apart=study.folder,
        logs=folder.logs.absolute() / (options.shard or "").replace("/", "-of-"),
        **limits,
    )


def record_event(folder: ResultsFolder, trial: Trial, event: Event) -> Record | None:
    """Store what an ended trial left, and return it; the driver alone writes records."""
    record: Record
    predictions = None
    if isinstance(event, Done):
        record, predictions = event.outcome
    elif isinstance(event, Lost):
        record = Record(trial=trial, status=event.status, failure=Failure(message=event.reason))
    else:
        return None
    record = record.model_copy(update={"attempts": event.attempt})
    try:
        write_record(folder, record, predictions)
    except (ValueError, TypeError) as error:  # what it holds cannot be stored
        failure = Failure(message=f"its outcome cannot be stored: {error}")
        record = Record(trial=trial, status="error", attempts=event.attempt, failure=failure)
        write_record(folder, record)
    folder.checkpoint_path(trial.trial_id).unlink(missing_ok=True)
    return record


def trials_at_a_time(device: str, options: Options) -> int:
    """How many trials a run trains at once: as asked for, as far as GPUs or cores are there."""
    room = (torch.cuda.device_count() if device == "cuda" else usable_cores()) // options.threads
    return room if options.workers is None else min(max(options.workers, 1), room)


def idle_cores(trials: int, device: str, options: Options) -> str:
    """How many CPU cores would do nothing, and with how many threads a trial would use them; "" if none."""
    if device == "cuda" or not trials or options.executor == "ray":
        return ""
    cores, now = usable_cores(), options.threads

    def busy(threads: int) -> int:
        other = options.model_copy(update={"threads": threads})
        return threads * min(trials, trials_at_a_time(device, other))

    more = cores // (busy(now) // now)  # as many trials at a time as now, if that gives each a thread more
    better = more if more > now else max(range(1, cores + 1), key=busy)
    if busy(better) <= busy(now):
        return ""
    return (
        f"idle CPU cores: {cores - busy(now)} of {cores}; --threads {better} would keep {busy(better)} busy, "
        "with trials and records of their own"
    )


def usable_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
