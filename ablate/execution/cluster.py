"""Jobs on the nodes of a Ray cluster, by supervised workers as on this machine; this process alone records.

Ray starts processes, hands over jobs and brings events back. It repeats nothing and keeps no results.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import io
import json
import os
import platform
import shutil
import signal
import socket
import tarfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ablate
from ablate.data import default_cache_dir
from ablate.errors import StoppedError, StudyError, first_line
from ablate.execution.executors import (
    ATTEMPTS,
    KEPT,
    POLL_SECONDS,
    Done,
    Event,
    Job,
    LocalExecutor,
    Lost,
    Told,
)
from ablate.execution.own import OwnTask
from ablate.execution.prepare import Inputs
from ablate.execution.trial import Heartbeat, Task, TimingTask, do_task, ready_device
from ablate.store.provenance import version_of
from ablate.store.results import ResultsFolder, write_atomically
from ablate.study.options import Options
from ablate.study.sources import read_source
from ablate.study.study import add_import_folder
from ablate.study.trials import TRAINING_VERSION, Trial, code_names, identity_of
from ablate.train.device import device_name

SILENT_SECONDS = 60.0  # after which a node's process that does not answer is killed
REACH_SECONDS = 10.0
DIFFERENCES_SHOWN = 3
NOT_SENT = (".git", ".venv", "__pycache__", "results", "report")


@dataclass(frozen=True)
class Question:
    """What a worker is asked before its first trial on some data and code: what there is of them."""

    trial: Trial
    data_dir: Path | None

    def answer(self, slot: int, tell: Callable[[Heartbeat], None]) -> Answer:
        """Prepare the data and read the code, in a process of its own, as trials find them."""
        device, fields = ready_device(self.trial.numerics, slot), self.trial.fields
        inputs = Inputs("cpu", self.data_dir, lambda label, *_: tell(Heartbeat(0, 0, note=label)))
        fingerprint = inputs.fingerprint(fields)
        code = [read_source(name, Path.cwd()).files for name in code_names(fields).values()]
        facts = facts_of(fingerprint, identity_of(self.trial), *code)
        return Answer(facts, device_name(device), inputs.folders()[fingerprint])


@dataclass(frozen=True)
class Answer:
    """What decides a trial's numbers, by name, the device's model, and the folder of the decoded data."""

    facts: dict[str, str]
    kind: str
    folder: Path


def facts_of(fingerprint: str, identity: str, *code: Mapping[str, str]) -> dict[str, str]:
    """What must be the same on all machines; ablate's own files and the user's by their digests."""
    root = Path(ablate.__file__).parent
    facts = {name: version_of(name) for name in ("ablate", "torch", "torchvision", "numpy")}
    facts |= {"Python": ".".join(platform.python_version_tuple()[:2]), "data": fingerprint}
    facts |= {"training version": str(TRAINING_VERSION), "identity of a trial": identity}
    for path in root.rglob("*.py"):
        facts[f"ablate/{path.relative_to(root)}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return {**facts, **{file: digest for files in code for file, digest in files.items()}}


def differences(expected: Mapping[str, str], came: Mapping[str, str]) -> str:
    """What a node has otherwise, in words; "" if nothing."""
    names = sorted(name for name in expected.keys() | came.keys() if expected.get(name) != came.get(name))
    shown = [
        f"{name}: expected {expected.get(name, '')[:16] or 'none'}, but {came.get(name, '')[:16] or 'none'} came"
        for name in names[:DIFFERENCES_SHOWN]
    ]
    more = len(names) - len(shown)
    return "; ".join(shown + ([f"and {more} more"] if more > 0 else []))


def do_on_node(task: Question | Task | TimingTask, slot: int, tell: Callable[[Any], None]) -> Any:
    """What the process of a node's worker does."""
    return task.answer(slot, tell) if isinstance(task, Question) else do_task(task, slot, tell)


class Slot:
    """A Ray actor, which has one GPU, or the CPU cores of a trial, and a local executor that does jobs on it.

    Its folder `root`, named after the driver's results, is laid out as these are.
    """

    def __init__(self, key: str, shared: Path, number: int, stall: float | None) -> None:
        add_import_folder(Path.cwd())  # where Ray has put the study's folder
        self.shared, self.root = shared, default_cache_dir().absolute() / "ray" / key
        for name in ("checkpoints", "weights", "artefacts"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        self.executor = LocalExecutor(
            do_on_node,
            stall=stall,
            imports=("torch._dynamo", OwnTask.__module__),
            apart=Path.cwd(),
            logs=self.root / "logs" / str(number),
        )
        self.executor.warm_up(1)
        self.events = self.executor.run(())  # goes on from job to job, so that the worker stays

    def alive(self) -> None:
        """Answer."""

    def do(
        self, job: Job, attempt: int, timeout: float | None, workers: int, folders: Mapping[str, Path]
    ) -> Iterator[tuple[Event | StoppedError, bytes]]:
        """The events of a job, and with the last one what it left, packed."""
        task, left = job.task, list[Path]()
        if isinstance(task, TimingTask):
            cases = {case: (trial, folders[trial.fingerprint]) for case, (trial, _) in task.cases.items()}
            task = replace(task, cases=cases)
        elif isinstance(task, Task):
            here = {name: getattr(task, name, None) for name in ("checkpoint", "weights", "out")}
            moved: dict[str, Any] = {
                name: self.root / path.relative_to(self.shared) for name, path in here.items() if path
            }
            left = [*moved.values()]
            if isinstance(task, OwnTask):
                left.append(moved["out"].with_name(f"{moved['out'].name}.log"))
                task.study._folder = Path.cwd()
            task = replace(task, data_folder=folders[task.trial.fingerprint], workers=workers, **moved)
        self.executor.timeout = timeout
        self.executor.submit(replace(job, task=task), attempt)
        try:
            for event in self.events:
                if isinstance(event, Done | Lost):
                    yield event, self._packed(left)
                    return
                yield event, b""
        except StoppedError as error:
            yield error, b""

    def _packed(self, paths: Sequence[Path]) -> bytes:
        """What a job left, which is taken away; its checkpoint, the first, is of no more use."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for path in filter(Path.exists, paths[1:]):
                tar.add(path, path.relative_to(self.root))
        for path in paths:
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        return buffer.getvalue() if paths else b""


def unpack(packed: bytes, folder: Path) -> None:
    """Take what a job left into the results; what would lie elsewhere, or is no file, is left out."""

    def safe(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
        with contextlib.suppress(tarfile.FilterError):
            return tarfile.data_filter(member, path)
        return None

    try:
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            tar.extractall(folder, filter=safe)
    except OSError as error:
        raise StoppedError(f"what a trial left cannot be kept ({error}): {KEPT}") from None


@dataclass
class _Node:
    """A machine of the cluster as the driver knows it."""

    name: str
    room: int = 0
    """How many trials it can train at a time."""
    state: str = "working"
    done: int = 0
    failed_starts: int = 0
    kind: str = ""


@dataclass
class _Worker:
    """An actor, and what the driver knows of it."""

    node: _Node
    actor: Any
    since: float
    kind: str = ""
    """Its device's model; "" before it has answered a question."""
    known: set[tuple[str, ...]] = field(default_factory=set)
    folders: dict[str, Path] = field(default_factory=dict)
    """Of decoded data there, by fingerprint."""
    job: Job | None = None
    attempt: int = 0
    asked: Trial | None = None
    stream: Any = None
    pulse: Any = None
    """A sign of life that is waited for since `sent`."""
    sent: float = 0.0


class RayExecutor:
    """Runs jobs on the nodes of a Ray cluster: those of a block on one kind of device, where it can be.

    A node whose versions, code or data differ from what was planned is not used, which `note` is told.
    """

    def __init__(
        self,
        folder: ResultsFolder,
        study_folder: Path,
        device: str,
        options: Options,
        *,
        timeout: float | None = None,
        stall: float | None = None,
        note: Callable[[str], None],
    ) -> None:
        self.folder, self.study_folder, self.options = folder, study_folder.absolute(), options
        self.timeout, self.stall, self.note = timeout, stall, note
        self.workers = options.workers or 1
        self._needs = {"GPU": 1} if device == "cuda" else {"CPU": options.threads}
        self._waiting: deque[tuple[Job, int]] = deque()
        self._nodes: dict[str, _Node] = {}
        self._workers: list[_Worker] = []
        self._kinds: dict[int, str] = {}
        self._started, self._looked = 0, 0.0
        self._ray: Any = None
        if importlib.util.find_spec("ray") is None:
            raise StudyError("--executor ray: Ray is not installed; pip install 'ablate[ray]' brings it")
        address = options.address or os.environ.get("RAY_ADDRESS", "")
        if address.startswith("ray://"):
            raise StudyError(f"--address {address}: expected HOST:PORT of the cluster's head, without ray://")
        host, _, port = address.rpartition(":")
        if host and port.isdecimal():  # Ray itself would try for minutes
            try:
                socket.create_connection((host, int(port)), REACH_SECONDS).close()
            except OSError as error:
                raise StudyError(
                    f"--address {address}: no Ray cluster answers there ({error}); `ray start --head` starts "
                    "one and says its address"
                ) from None

    def warm_up(self, workers: int) -> None:
        """Nothing: this process forks while it plans, which Ray's threads would not survive."""

    def submit(self, job: Job) -> None:
        """Add a job behind those that wait."""
        self._waiting.append((job, 1))

    def cancel(self, name: str) -> None:
        """Drop a job: one that waits, or one that runs, with its worker."""
        self._waiting = deque((job, attempt) for job, attempt in self._waiting if job.name != name)
        for worker in list(self._workers):
            if worker.job is not None and worker.job.name == name:
                self._end(worker)

    def run(self, jobs: Sequence[Job]) -> Iterator[Event]:
        """Do all jobs, and those submitted meanwhile; closed, it kills. May be a StoppedError."""
        self._waiting.extend((job, 1) for job in jobs)
        try:
            while self._waiting or any(worker.job for worker in self._workers):
                self._join()
                self._look_around()
                self._hand_out()
                yield from self._listen()
        finally:
            self.close()

    def close(self) -> None:
        """Kill every worker and leave the cluster."""
        for worker in list(self._workers):
            self._end(worker)
        self._waiting.clear()
        if self._ray is not None:
            self._save()
            self._ray.shutdown()
            self._ray = None

    def _join(self) -> None:
        """Connect to the cluster, and have the study's folder sent to its nodes."""
        if self._ray is not None:
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray: Any = importlib.import_module("ray")
        if ray.is_initialized():
            raise StudyError(
                "--executor ray: Ray is in use in this process already; ray.shutdown() ends that"
            )
        own = [self.options.results, self.options.report]
        inside = [
            path.absolute().relative_to(self.study_folder).as_posix()
            for path in own
            if path.absolute().is_relative_to(self.study_folder)
        ]
        sent = {
            "working_dir": str(self.study_folder),
            "excludes": [*NOT_SENT, *(f"/{path}" for path in inside)],
        }
        handler = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(
                address=self.options.address,
                runtime_env=sent,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="error",
            )
        except Exception as error:
            ray.shutdown()
            raise StudyError(
                f"--executor ray: {str(error).strip() or type(error).__name__}\n"
                f"The study's folder {self.study_folder} is sent to every node; if it is too large, keep data "
                "elsewhere or name in a file .rayignore what is not to be sent"
            ) from None
        finally:
            with contextlib.suppress(ValueError):  # in another thread than the first
                signal.signal(signal.SIGTERM, handler)  # Ray puts one of its own
        self._ray = ray

    def _look_around(self) -> None:
        """See which nodes there are, and start workers where there is room; none is a StoppedError."""
        if time.monotonic() - self._looked < POLL_SECONDS:
            return
        self._looked = time.monotonic()
        ((resource, amount),) = self._needs.items()
        ids = {}
        for found in self._ray.nodes():
            name = f"{found['NodeManagerHostname']}/{found['NodeID'][:6]}"
            node = self._nodes.setdefault(found["NodeID"], _Node(name))
            ids[id(node)] = found["NodeID"]
            node.room = int(found["Resources"].get(resource, 0) // amount) if found["Alive"] else 0
            if node.state in ("working", "lost"):
                node.state = "working" if found["Alive"] else "lost"
        wanted = len(self._waiting) + sum(worker.job is not None for worker in self._workers)
        while len(self._workers) < min(wanted, self.options.workers or wanted):
            beside = {
                id(node): sum(worker.node is node for worker in self._workers)
                for node in self._nodes.values()
            }
            free = [
                one for one in self._nodes.values() if one.state == "working" and beside[id(one)] < one.room
            ]
            if not free:
                break
            node = min(free, key=lambda one: beside[id(one)])
            self._workers.append(self._start(node, ids[id(node)]))
        self._save()
        if wanted and not self._workers:
            states = "; ".join(
                f"{one.name}: {one.state}" for one in self._nodes.values() if one.state != "working"
            )
            raise StoppedError(
                f"no node of the cluster can train ({states or f'none has {amount} {resource}'}): {KEPT}"
            )

    def _start(self, node: _Node, node_id: str) -> _Worker:
        """An actor on a node; Ray neither starts it again nor repeats what it does."""
        self._started += 1
        affinity = importlib.import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
        key = hashlib.sha256(f"{platform.node()}:{self.folder.shared.absolute()}".encode()).hexdigest()[:16]
        actor = self._ray.remote(concurrency_groups={"pulse": 1}, max_restarts=0, max_task_retries=0)(Slot).options(
            num_gpus=self._needs.get("GPU", 0), num_cpus=self._needs.get("CPU", 1),
            scheduling_strategy=affinity(node_id, soft=False),
        ).remote(key, self.folder.shared.absolute(), self._started, self.stall)  # fmt: skip
        return _Worker(node, actor, time.monotonic())

    def _hand_out(self) -> None:
        for worker in self._workers:
            found = self._next_for(worker) if worker.job is None else None
            if found is None:
                continue
            self._waiting.remove(found)
            worker.job, worker.attempt = job, attempt = found
            cases = job.task.cases.values() if isinstance(job.task, TimingTask) else ((job.task.trial, None),)
            unknown = [trial for trial, _ in cases if _key(trial) not in worker.known]
            worker.asked, timeout = next(iter(unknown), None), self.timeout
            if worker.asked is not None:
                job, timeout = Job(job.name, Question(worker.asked, self.options.data_dir), fresh=True), None
            elif job.block is not None:
                self._kinds[job.block] = worker.kind
            beside = sum(one.node is worker.node for one in self._workers)
            worker.stream = worker.actor.do.options(num_returns="streaming").remote(
                job, attempt, timeout, beside, worker.folders
            )

    def _next_for(self, worker: _Worker) -> tuple[Job, int] | None:
        """The first job that waits for such a worker: its block was begun on its kind, or on one that is gone."""
        now = time.monotonic()
        kinds = {one.kind for one in self._workers}
        coming = any(not one.kind and now - one.since < SILENT_SECONDS for one in self._workers)
        for job, attempt in self._waiting:
            kind = self._kinds.get(job.block, job.kind) if job.block is not None else ""
            if not worker.kind or kind in ("", worker.kind) or not (kind in kinds or coming):
                return job, attempt
        return None

    def _listen(self) -> Iterator[Event]:
        """Wait for something to be heard, and end workers that died, or do not answer."""
        errors, now = self._ray.exceptions, time.monotonic()
        for worker in self._workers:
            if worker.pulse is None and now - worker.sent > POLL_SECONDS:
                worker.pulse, worker.sent = (
                    worker.actor.alive.options(concurrency_group="pulse").remote(),
                    now,
                )
        streams = {worker.stream: worker for worker in self._workers if worker.stream is not None}
        pulses = {worker.pulse: worker for worker in self._workers if worker.pulse is not None}
        heard = self._ray.wait([*streams, *pulses], num_returns=1, timeout=POLL_SECONDS)[0]
        alive = self._ray.wait([*pulses], num_returns=len(pulses), timeout=0)[0] if pulses else []
        for ref in {*heard, *alive}:
            worker = streams.get(ref) or pulses[ref]
            if worker not in self._workers:
                continue
            try:
                if ref is worker.pulse:
                    self._ray.get(ref)
                    worker.pulse = None
                    continue
                event, left = self._ray.get(next(ref), timeout=SILENT_SECONDS)
            except (errors.RayError, StopIteration) as error:
                if isinstance(error, errors.RayTaskError):
                    raise StoppedError(f"a worker failed ({first_line(error)}): {KEPT}") from error
                yield from self._lost(worker, str(error).strip().rpartition("\n")[2])
            else:
                yield from self._hear(worker, event, left)
        for worker in list(self._workers):
            started = worker.kind or worker.node.kind
            if started and worker.pulse is not None and time.monotonic() - worker.sent > SILENT_SECONDS:
                yield from self._lost(worker, f"it did not answer for {SILENT_SECONDS:g} s")

    def _hear(self, worker: _Worker, event: Event | StoppedError, left: bytes) -> Iterator[Event]:
        """Hand on what a worker says, where it was asked to do a job; or see what it has."""
        if isinstance(event, StoppedError):
            raise event
        job, asked = worker.job, worker.asked
        assert job is not None
        if isinstance(event, Done | Lost):
            worker.stream = None
        if asked is None:
            if isinstance(event, Done | Lost):
                worker.job, worker.node.done = None, worker.node.done + 1
                if isinstance(job.task, OwnTask):
                    shutil.rmtree(job.task.out, ignore_errors=True)
                if left:
                    unpack(left, self.folder.shared)
            yield event
        elif isinstance(event, Told):
            yield event
        elif isinstance(event, Lost):
            self._refuse(worker.node, event.reason)
        elif isinstance(event, Done):
            answer: Answer = event.outcome
            code = [source.now for source in asked.sources.values()]
            if differs := differences(facts_of(asked.fingerprint, asked.trial_id, *code), answer.facts):
                return self._refuse(worker.node, differs)
            worker.kind = worker.node.kind = answer.kind
            worker.folders[asked.fingerprint] = answer.folder
            worker.known.add(_key(asked))
            self._put_back(worker)

    def _put_back(self, worker: _Worker) -> None:
        if worker.job is not None:
            self._waiting.appendleft((worker.job, worker.attempt))
        worker.job = worker.asked = None

    def _refuse(self, node: _Node, why: str) -> None:
        """Use a node no more."""
        node.state = f"refused: {why}"
        self.note(f"{node.name} is not used: {why}")
        for worker in [one for one in self._workers if one.node is node]:
            self._put_back(worker)
            self._end(worker)
        self._looked = 0.0

    def _lost(self, worker: _Worker, why: str) -> Iterator[Event]:
        """A worker ended, or is as good as that: its job is done again, as often as any is."""
        job, trains = worker.job, worker.job is not None and worker.asked is None
        self._looked = 0.0
        if not worker.kind or worker.asked is not None:
            worker.node.failed_starts += 1
        if trains and job is not None and worker.attempt == ATTEMPTS:
            reason = "the machine that it ran on, or its process there, ended or did not answer"
            yield Lost(job.name, "killed", reason, worker.attempt)
        else:
            worker.attempt += trains
            self._put_back(worker)
        self._end(worker)
        if worker.node.failed_starts == ATTEMPTS:
            self._refuse(worker.node, f"its workers end before they can train ({why})")

    def _end(self, worker: _Worker) -> None:
        """Kill an actor, with all that it started."""
        self._workers.remove(worker)
        self._ray.kill(worker.actor)

    def _save(self) -> None:
        """Keep what `status` says of the nodes."""
        used = [node for node in self._nodes.values() if node.room or node.done or node.state != "working"]
        rows = [
            {
                "node": node.name, "device": node.kind, "state": node.state, "trials": node.done,
                "workers": sum(worker.node is node for worker in self._workers),
            }
            for node in used
        ]  # fmt: skip
        text = json.dumps(rows, indent=1).encode()
        if not self.folder.nodes.exists() or self.folder.nodes.read_bytes() != text:
            self.folder.nodes.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.folder.nodes, text)


def _key(trial: Trial) -> tuple[str, ...]:
    """What a worker must have for a trial: data, weights to begin with, and code."""
    code = sorted(source.digest for source in trial.sources.values())
    return (trial.fingerprint, str(getattr(trial.fields, "weights", "")), *code)
