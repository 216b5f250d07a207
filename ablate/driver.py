"""A study from left to right: settle it, find what is missing, have it trained, record it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import filelock
import torch

from ablate.data import Dataset, default_cache_dir, prepare, takes_data_dir
from ablate.errors import DeviceError, RecordError, ResultsError, StudyError
from ablate.executors import Done, Event, Job, LocalExecutor, Lost, Told
from ablate.fields import Fields
from ablate.losses import build_loss
from ablate.models import build_model, find_factory
from ablate.records import Failure, Record, put_aside, quarantine, read_records, write_record
from ablate.results import ResultsFolder, write_plan
from ablate.run import Outcome, Task, run_trial
from ablate.study import Study
from ablate.timing import Case, cases_of, read_timing, write_timing
from ablate.timing.measure import TimingTask, time_cases
from ablate.train import cpu_has_bfloat16
from ablate.trials import Numerics, Plan, Trial, expand


@dataclass(frozen=True)
class Options:
    """How a study is run, as far as the study file does not say.

    Attributes:
        profile: name of the profile; None lets the hardware decide.
        device: "auto", "cpu" or "cuda".
        workers: trials at a time; None is one per GPU, or one per CPU core.
        data_dir: folder with the dataset's own files, instead of downloading them.
        results: folder that results/<study>/<profile>/ is made in.
        settings: field name to its values: one fixes the field, several sweep it.
        seeds: how many seeds, instead of the study's.
        timeout: seconds that one trial may take; None is no limit.
        retry_failed: run failed trials again; their records are put aside.
        timing: time the training steps at the end, with nothing else running.
        command: the command line that this is, for the report.
    """

    profile: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: int | None = None
    data_dir: Path | None = None
    results: Path = Path("results")
    settings: Mapping[str, Sequence[Any]] | None = None
    seeds: int | None = None
    timeout: float | None = None
    retry_failed: bool = False
    timing: bool = True
    command: str = ""


class Watcher(Protocol):
    """What a run shows while it goes on."""

    def preparing(self, label: str, done: int, total: int) -> None:
        """Data is being downloaded, checked or decoded."""

    def note(self, line: str) -> None:
        """Something to know, in one line."""

    def planned(self, plan: Plan, waiting: Sequence[Trial]) -> None:
        """The plan stands; these of its trials will run."""

    def happened(self, trial: Trial, event: Event, record: Record | None) -> None:
        """A trial started, told how far it is, or ended with a record."""


@dataclass(frozen=True)
class Summary:
    """What became of a study's trials."""

    plan: Plan
    folder: ResultsFolder
    ran: int
    failed: int
    interrupted: bool


def run_study(study: Study, options: Options, watcher: Watcher) -> Summary:
    """Train what is missing of a study, and record it.

    Everything that a user can have got wrong is found before any training.

    Raises:
        AblateError: of the kind that says what is wrong.
    """
    plan, data_folders = plan_study(study, options, watcher)
    folder = results_folder(options.results, plan)
    folder.create()
    with _only_driver(folder):
        folder.remove_left_overs()
        for line in quarantine(folder):
            watcher.note(f"put aside as damaged, to run again: {line}")
        write_plan(folder, plan)
        waiting = _waiting(folder, plan, retry_failed=options.retry_failed)
        watcher.planned(plan, waiting)
        interrupted = False
        try:
            _run_trials(folder, plan, waiting, data_folders, options, watcher)
            if options.timing:
                _time_steps(folder, plan, data_folders, options, watcher)
        except KeyboardInterrupt:
            interrupted = True
        records = read_records(folder)
    ended = [records[trial.trial_id] for trial in plan.trials if trial.trial_id in records]
    failed = sum(record.status != "complete" for record in ended)
    ran = sum(trial.trial_id in records for trial in waiting)
    return Summary(plan, folder, ran, failed, interrupted)


def results_folder(results: Path, plan: Plan) -> ResultsFolder:
    """Where a plan's records are: results/<study>/<profile>/."""
    return ResultsFolder(results / plan.study.name / plan.profile)


def plan_study(study: Study, options: Options, watcher: Watcher) -> tuple[Plan, dict[str, Path]]:
    """Settle the profile, the device and the data, check everything, and name every trial.

    Returns:
        The plan, and the folder of decoded data for each of its fingerprints.
    """
    study.find_own_modules()
    device = resolve_device(options.device)
    profile, reason = choose_profile(study, options.profile, device)
    study = _overridden(study, profile, options)
    arms = [study.fields(levels) for levels in study.arms()]
    for fields in arms:
        _check_loss(fields)
        find_factory(fields.arch)  # built below, when the number of classes is known
    if options.data_dir and not any(takes_data_dir(fields.data) for fields in arms):
        used = ", ".join(dict.fromkeys(fields.data for fields in arms))
        watcher.note(f"--data-dir is not used: profile {profile} takes its images from {used}")
    datasets = {key: _prepare(*key, options, watcher) for key in dict.fromkeys(map(_data_key, arms))}
    fingerprints = {
        key: datasets[key[:-1]].fingerprint_with(key[-1]) for key in dict.fromkeys(map(_labels_key, arms))
    }
    _check_networks(arms, {fields: datasets[_data_key(fields)] for fields in arms})
    trials = expand(
        study,
        fingerprint_of=lambda fields: fingerprints[_labels_key(fields)],
        numerics_of=lambda fields: resolve_numerics(fields, device),
    )
    plan = Plan(study=study, profile=profile, reason=reason, command=options.command, trials=tuple(trials))
    return plan, {fingerprint: datasets[key[:-1]].folder for key, fingerprint in fingerprints.items()}


def resolve_device(asked: str) -> str:
    """The device kind to train on: cpu or cuda.

    Raises:
        DeviceError: CUDA was asked for and is not there.
    """
    available = torch.cuda.is_available()
    if asked == "cuda" and not available:
        raise DeviceError(
            "--device cuda: expected a CUDA device, but torch sees none; check the driver and that torch is "
            "a CUDA build (`python -m torch.utils.collect_env`), or leave --device out to train on the CPU"
        )
    return "cuda" if available and asked != "cpu" else "cpu"


def choose_profile(study: Study, asked: str | None, device: str) -> tuple[str, str]:
    """The profile to run, and why. The network never decides: only the hardware, or the user.

    Raises:
        StudyError: the study lacks the profile that the hardware calls for.
    """
    if asked is not None:
        return asked, f"--profile {asked} was given"
    if not study.profiles:
        return "default", "the study has no profiles"
    name = "full" if device == "cuda" else "quick"
    if name not in study.profiles:
        raise StudyError(
            f"on {device} the profile {name!r} would run, but the study has only "
            f"{', '.join(study.profiles)}; choose one with --profile"
        )
    if device == "cuda":
        return name, f"CUDA is present, so profile {name} runs"
    missing = "the CPU was asked for" if torch.cuda.is_available() else "no CUDA is present"
    return name, f"{missing}, so profile {name} runs"


def _overridden(study: Study, profile: str, options: Options) -> Study:
    if study.profiles or options.profile:
        study = study.with_profile(profile)
    if options.settings:
        study = study.with_settings(options.settings)
    if options.seeds is not None:
        study = study.replace(seeds=options.seeds)
    if study.published and study.base.get("data") != study.published.data:
        study = study.replace(published=None)  # another task's numbers would only mislead
    return study


def resolve_numerics(fields: Fields, device: str) -> Numerics:
    """The arithmetic that a trial's fields come to on a device. A CPU is deterministic in any case."""
    precision = fields.precision
    if precision == "auto":
        precision = "bfloat16" if _has_bfloat16(device) else "float32"
    deterministic = fields.deterministic or device == "cpu"
    return Numerics(device=device, precision=precision, deterministic=deterministic)


def _has_bfloat16(device: str) -> bool:
    if device == "cpu":
        return cpu_has_bfloat16()
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _data_key(fields: Fields) -> tuple[str, int, str]:
    return fields.data, fields.decoded_size, fields.resize


def _labels_key(fields: Fields) -> tuple[str, int, str, float]:
    return *_data_key(fields), fields.label_noise


def _prepare(name: str, image_size: int, resize: str, options: Options, watcher: Watcher) -> Dataset:
    return prepare(
        name,
        image_size=image_size,
        resize=resize,
        cache_dir=default_cache_dir(),
        data_dir=options.data_dir,
        progress=watcher.preparing,
    )


def _check_loss(fields: Fields) -> None:
    """Call the loss once with the arm's ε and reduction, so that it can refuse them before training."""
    loss, logits = build_loss(fields.loss), torch.zeros(2, 3)
    try:
        loss(logits, torch.tensor([0, 1]), epsilon=fields.epsilon, reduction=fields.reduction)
    except ValueError as error:
        raise StudyError(f"loss {fields.loss!r} refuses an arm of the study: {error}") from None


def _check_networks(arms: Sequence[Fields], data_of: Mapping[Fields, Dataset]) -> None:
    """Build each distinct network once, so that a wrong one is found before any training."""
    built: set[tuple[object, ...]] = set()
    for fields in arms:
        data = data_of[fields]
        lone = not fields.drop_last and len(data.train.labels) % fields.batch_size == 1
        network = (fields.arch, fields.image_size, len(data.classes), lone)
        if network not in built:
            built.add(network)
            model = build_model(fields.arch, num_classes=len(data.classes), image_size=fields.image_size)
            if lone and fields.batch_size > 1:
                _check_lone_image(model, fields, len(data.train.labels))


def _check_lone_image(model: torch.nn.Module, fields: Fields, images: int) -> None:
    """Batch normalisation cannot train on a batch of one image where its maps are single pixels."""
    try:
        model.train()(torch.zeros(1, 3, fields.image_size, fields.image_size))
    except (ValueError, RuntimeError) as error:
        raise StudyError(
            f"batch_size: {images} training images in batches of {fields.batch_size} leave a last batch of "
            f"one image, which {fields.arch} cannot train on ({str(error).splitlines()[0]}); set drop_last "
            "to True, or another batch_size"
        ) from None


@contextlib.contextmanager
def _only_driver(folder: ResultsFolder) -> Iterator[None]:
    """Hold the results folder against every other driver."""
    lock = filelock.FileLock(folder.lock, timeout=0)
    try:
        with lock:
            yield
    except filelock.Timeout:
        raise ResultsError(
            f"{folder.root}: another run is writing here; wait for it, or choose another with --results"
        ) from None


def _waiting(folder: ResultsFolder, plan: Plan, *, retry_failed: bool) -> list[Trial]:
    """The planned trials without a record. With `retry_failed`, failed records are put aside first."""
    records = read_records(folder)
    if retry_failed:
        for trial_id in [trial.trial_id for trial in plan.trials]:
            if trial_id in records and records[trial_id].status != "complete":
                put_aside(folder, trial_id, "attempts")
                del records[trial_id]
    return [trial for trial in plan.trials if trial.trial_id not in records]


def trial_widths(plan: Plan, capacity: int, workers: int) -> dict[str, int]:
    """CPU threads of each trial by its id, a function of the plan and the machine alone.

    As many trials as fill all workers run one per worker; the few left over share all cores. What has been
    run already does not matter, so a resumed study gives the bits of an uninterrupted one.
    """
    ids = list(dict.fromkeys(trial.trial_id for trial in plan.trials))
    workers = min(workers, len(ids))
    left_over = len(ids) % workers
    filling = len(ids) - left_over
    return {
        trial_id: max(1, capacity // (workers if place < filling else left_over))
        for place, trial_id in enumerate(ids)
    }


def _run_trials(
    folder: ResultsFolder,
    plan: Plan,
    waiting: Sequence[Trial],
    data_folders: Mapping[str, Path],
    options: Options,
    watcher: Watcher,
) -> None:
    if not waiting:
        return
    on_cuda = waiting[0].numerics.device == "cuda"
    capacity = _capacity(waiting[0].numerics.device)
    workers = trials_at_a_time(waiting[0].numerics.device, options.workers)
    widths = trial_widths(plan, capacity, workers)
    tasks = {
        trial.trial_id: Task(
            trial=trial,
            data_folder=data_folders[trial.fingerprint],
            checkpoint=folder.checkpoint_path(trial.trial_id).absolute(),
            threads=1 if on_cuda else widths[trial.trial_id],
            workers=workers,
        )
        for trial in waiting
    }
    jobs = [Job(name, width=task.threads, task=task) for name, task in tasks.items()]
    capacity = workers if on_cuda else capacity
    executor = LocalExecutor(run_trial, capacity=capacity, workers=workers, timeout=options.timeout)
    for event in executor.run(jobs):
        trial = tasks[event.name].trial
        watcher.happened(trial, event, _record_event(folder, trial, event))


def _time_steps(
    folder: ResultsFolder, plan: Plan, data_folders: Mapping[str, Path], options: Options, watcher: Watcher
) -> None:
    """Measure what a step of each kind costs, alone on the machine, unless that is known already."""
    records = read_records(folder)
    complete = {id_ for id_, record in records.items() if record.status == "complete"}
    cases = cases_of(trial for trial in plan.trials if trial.trial_id in complete)
    if not cases or _is_timed(folder, cases, watcher):
        return
    on_cuda = plan.trials[0].numerics.device == "cuda"
    task = TimingTask(
        cases=tuple(cases),
        trials=tuple(cases.values()),
        data_folders=tuple(data_folders[trial.fingerprint] for trial in cases.values()),
        threads=1 if on_cuda else trials_at_a_time("cpu", options.workers),
    )
    executor = LocalExecutor(time_cases, capacity=1, timeout=options.timeout)
    for event in executor.run([Job("timing", width=1, task=task)]):
        if isinstance(event, Told):
            watcher.preparing("timing training steps", round(100 * event.message), 100)
        elif isinstance(event, Done):
            write_timing(folder, event.outcome)
        elif isinstance(event, Lost):
            watcher.note(f"the step times could not be measured: {event.reason}")


def _is_timed(folder: ResultsFolder, cases: Mapping[Case, Trial], watcher: Watcher) -> bool:
    """Whether a pass over all of these cases is kept already. A damaged one is measured again."""
    try:
        kept = read_timing(folder)
    except RecordError as error:
        watcher.note(str(error))
        return False
    return kept is not None and set(cases) <= set(kept.cases)


def _record_event(folder: ResultsFolder, trial: Trial, event: Event) -> Record | None:
    """Store what an ended trial left; the driver alone writes records."""
    predictions = None
    if isinstance(event, Done):
        outcome: Outcome = event.outcome
        record, predictions = outcome
        record = record.model_copy(update={"attempts": event.attempt})
    elif isinstance(event, Lost):
        failure = Failure(message=event.reason)
        record = Record(trial=trial, status=event.status, attempts=event.attempt, failure=failure)
    else:
        return None
    try:
        write_record(folder, record, predictions)
    except OSError as error:
        raise ResultsError(
            f"{folder.root}: a record cannot be written ({error.strerror}). What is recorded is kept; make "
            "room and run the same command, or choose another folder with --results"
        ) from None
    folder.checkpoint_path(trial.trial_id).unlink(missing_ok=True)
    return record


def trials_at_a_time(device: str, asked: int | None) -> int:
    """How many trials a run trains at once.

    Args:
        device: "cpu" or "cuda".
        asked: the number asked for; None is one per GPU or CPU core.
    """
    return min(asked or _capacity(device), _capacity(device))


def _capacity(device: str) -> int:
    return torch.cuda.device_count() if device == "cuda" else usable_cores()


def usable_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
