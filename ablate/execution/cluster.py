"""Jobs on nodes of a Ray cluster, by supervised workers as on this machine; this process alone records.

Ray starts processes, hands jobs over and brings events back. It repeats nothing and keeps no results.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import os
import platform
import shutil
import signal
import socket
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Any, cast

import ablate
from ablate.data import default_cache_dir
from ablate.errors import StoppedError, StudyError, bounded
from ablate.execution import executors
from ablate.execution.executors import KEPT, POLL_SECONDS, Done, Event, Job, LocalExecutor, Lost, Started
from ablate.execution.own import OwnTask
from ablate.execution.prepare import Inputs
from ablate.execution.trial import Heartbeat, Task, TimingTask, do_task, ready_device
from ablate.store.provenance import version_of
from ablate.store.records import read_available
from ablate.store.results import ResultsFolder, write_atomically
from ablate.study.options import Options
from ablate.study.sources import read_source
from ablate.study.study import add_import_folder
from ablate.study.trials import Trial, code_names, identity_of
from ablate.train.device import device_name

SILENT_SECONDS = 60.0
"""After which an actor that does not answer is killed."""
KILL_SECONDS = 6.0  # within which Ray has killed a process that hangs
REACH_SECONDS = 10.0
NOT_SENT = (".git", ".venv", "__pycache__", "results", "report")


@dataclass(frozen=True)
class Question:
    """What a node is asked before its first trial on some data and code: what it has of them."""

    trial: Trial
    data_dir: Path | None

    def answer(self, slot: int, tell: Callable[[Heartbeat], None]) -> tuple[dict[str, str], str, Path]:
        """The facts that must be as planned, the device's model, and the folder of the decoded data."""
        device, fields = ready_device(self.trial.numerics, slot), self.trial.fields
        inputs = Inputs("cpu", self.data_dir, lambda label, *_: tell(Heartbeat(0, 0, note=label)))
        data, folder = inputs.fingerprint(fields), Path.cwd()
        code = [read_source(name, folder).files for name in code_names(fields).values()]
        return facts_of(data, identity_of(self.trial), *code), device_name(device), inputs.folders()[data]


def facts_of(data: str, identity: str, *code: Mapping[str, str]) -> dict[str, str]:
    """What decides a trial's numbers; files of ablate's own, and of the user's `code`, by their digests."""
    facts = {name: version_of(name) for name in ("ablate", "torch", "torchvision", "numpy")}
    facts |= {"Python": platform.python_version().rpartition(".")[0], "data": data, "identity": identity}
    root = Path(ablate.__file__).parents[1]
    for path in root.glob("ablate/**/*.py"):
        facts[path.relative_to(root).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return {**facts, **{file: digest for files in code for file, digest in files.items()}}


def do_on_node(task: Question | Task | TimingTask, slot: int, tell: Callable[[Any], None]) -> Any:
    """What the process of a node's worker does."""
    return task.answer(slot, tell) if isinstance(task, Question) else do_task(task, slot, tell)


class Slot(LocalExecutor):
    """A Ray actor, which has one GPU, or the CPU cores of a trial, and does a driver's jobs on them."""

    def __init__(self, shared: Path, driver: str, number: int, **limits: float | None) -> None:
        home = (
            default_cache_dir().absolute() / "ray" / hashlib.sha256(f"{driver}:{shared}".encode()).hexdigest()
        )
        super().__init__(
            do_on_node, imports=("torch._dynamo", OwnTask.__module__), apart=Path.cwd(),
            logs=home / "logs" / str(number), stall=limits["stall"],
        )  # fmt: skip
        add_import_folder(Path.cwd())  # where Ray has put the study's folder
        self.shared, self.home, self.limit = shared, home, limits["timeout"]
        self.warm_up(1)
        self.events = self.run(())  # goes on from job to job, so that its worker stays

    def alive(self) -> None:
        """Answer."""

    def do(
        self, job: Job, attempt: int, folders: Mapping[str, Path], workers: int
    ) -> Iterator[tuple[Event | StoppedError, bytes]]:
        """The events of a job; with the last one its files, packed, which were in a folder of its own."""
        task, root = job.task, self.home / job.name
        if isinstance(task, TimingTask):
            cases = {case: (trial, folders[trial.fingerprint]) for case, (trial, _) in task.cases.items()}
            task = replace(task, cases=cases)
        elif isinstance(task, Task):
            paths = {name: getattr(task, name, None) for name in ("checkpoint", "weights", "out")}
            moved: dict[str, Any] = {
                name: root / path.relative_to(self.shared) for name, path in paths.items() if path
            }
            for path in moved.values():
                path.parent.mkdir(parents=True, exist_ok=True)
            task = replace(task, data_folder=folders[task.trial.fingerprint], workers=workers, **moved)
        if isinstance(task, OwnTask):
            task.study._folder = Path.cwd()
        self.timeout = None if isinstance(task, Question) else self.limit
        self.submit(replace(job, task=task), attempt)
        try:
            for event in self.events:
                files, ended = io.BytesIO(), isinstance(event, Done | Lost)
                if ended and isinstance(task, Task):
                    task.checkpoint.unlink(missing_ok=True)
                    with tarfile.open(fileobj=files, mode="w") as tar:
                        tar.add(root, ".", filter=lambda one: one if one.isfile() or one.isdir() else None)
                    shutil.rmtree(root)
                yield event, files.getvalue()
                if ended:
                    return
        except StoppedError as error:
            yield error, b""


@dataclass
class _Actor(executors._Worker):
    """An actor, which is its `process`, and the events of its job, its `channel`."""

    node: dict[str, Any] = field(default_factory=dict)
    kind: str = ""
    """Its device's model; "" before it has answered a question."""
    folders: dict[tuple[str, ...], Path] = field(default_factory=dict)
    """Of decoded data on the node, by what was asked."""
    asked: Trial | None = None
    pulse: Any = None


class RayExecutor(LocalExecutor):
    """Runs jobs on the nodes of a Ray cluster: those of a block on one kind of device, where it can be.

    A node that has other versions, code or data than was planned is not used, which `note` is told.
    """

    def __init__(
        self, folder: ResultsFolder, sent: Path, device: str, options: Options, note: Callable[[str], None],
        **limits: Any,
    ) -> None:  # fmt: skip
        super().__init__(do_on_node, workers=options.workers or 1, **limits)
        self.folder, self.sent, self.options, self.note = folder, sent.absolute(), options, note
        self.resource, self.amount = ("GPU", 1) if device == "cuda" else ("CPU", options.threads)
        self._nodes: dict[str, dict[str, Any]] = {}
        self._kinds: dict[int | None, str] = {}
        self._started, self._looked, self._ray = 0, 0.0, cast(Any, None)
        if importlib.util.find_spec("ray") is None:
            raise StudyError("--executor ray: Ray is not installed; pip install 'ablate[ray]' brings it")
        address = options.address or os.environ.get("RAY_ADDRESS", "")
        host, _, port = address.rpartition(":")
        if "://" in address:
            raise StudyError(f"--address {address}: expected HOST:PORT, as `ray start --head` says it")
        try:
            if port.isdecimal():  # Ray itself tries for minutes
                socket.create_connection((host, int(port)), REACH_SECONDS).close()
        except OSError as error:
            raise StudyError(
                f"--address {address}: no cluster answers there ({error}); `ray start --head` starts one"
            ) from None

    @property
    def _actors(self) -> list[_Actor]:
        return cast(list[_Actor], [*self._idle, *self._busy])

    def warm_up(self, workers: int) -> None:
        """Nothing: this process forks while it plans, which does not go with Ray's threads."""

    def close(self) -> None:
        """Kill every actor, with what it started, and leave the cluster."""
        for actor in self._actors:
            self._kill(actor)
        self._idle, self._busy = [], []
        self._waiting.clear()
        if self._ray is not None:
            self._save()
            self._ray.shutdown()
            self._ray = None

    def _join(self) -> None:
        """Connect to the cluster, and have the study's folder sent to its nodes."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray: Any = importlib.import_module("ray")
        if ray.is_initialized():
            raise StudyError("--executor ray: Ray is in use in this process; end that by ray.shutdown()")
        own = (self.options.results, self.options.report)
        left_out = [*NOT_SENT, *(f"/{os.path.relpath(path, self.sent)}" for path in own)]
        environment = {"working_dir": str(self.sent), "excludes": left_out}
        handler = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(
                self.options.address, runtime_env=environment, include_dashboard=False, log_to_driver=False,
                logging_level="error",
            )  # fmt: skip
        except Exception as error:
            ray.shutdown()
            raise StudyError(
                f"--executor ray: {bounded(str(error)).strip()}\nThe study's folder {self.sent} is sent to "
                "the nodes; where it is too large, name what is not needed in a file .rayignore there"
            ) from None
        finally:
            with contextlib.suppress(ValueError):  # in a thread
                signal.signal(signal.SIGTERM, handler)  # Ray has put its own there
        self._ray, records = ray, read_available(self.folder)[0].values()
        self._kinds = {one.trial.seed: one.environment.device_name for one in records if one.environment}

    def _look_around(self) -> None:
        """See which nodes there are, and start actors where there is room; without any, a StoppedError."""
        self._looked, free = time.monotonic(), list[tuple[int, str]]()
        for found in self._ray.nodes():
            name, room = f"{found['NodeManagerHostname']}/{found['NodeID'][:6]}", 0
            if found["Alive"]:
                room = int(found["Resources"].get(self.resource, 0) // self.amount)
            node = {"node": name, "device": "", "state": "working", "trials": 0, "failed": 0}
            if room or found["NodeID"] in self._nodes:
                node = self._nodes.setdefault(found["NodeID"], node)
            if node["state"] in ("working", "lost"):
                node["state"] = "working" if found["Alive"] else "lost"
                there = sum(actor.node is node for actor in self._actors)
                free += [(taken, found["NodeID"]) for taken in range(there, room)]
            self._idle = [one for one in self._idle if cast(_Actor, one).node is not node or found["Alive"]]
        wanted = len(self._waiting) + len(self._busy)
        wanted = min(wanted, self.options.workers or wanted) - len(self._actors)
        self._idle += [self._start(node) for _, node in sorted(free)[: max(wanted, 0)]]
        self._save()
        if self._waiting and not self._actors:
            states = "; ".join(f"{node['node']}: {node['state']}" for node in self._nodes.values())
            raise StoppedError(f"no node can train ({states or f'none has a {self.resource}'}): {KEPT}")

    def _start(self, node: str) -> _Actor:
        """An actor on a node; Ray neither starts it again nor repeats what it does."""
        self._started += 1
        affinity = importlib.import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
        once = {"max_restarts": 0, "max_task_retries": 0, "concurrency_groups": {"pulse": 1}}
        gpus, cpus = (1, 1) if self.resource == "GPU" else (0, self.amount)
        needs = {"num_gpus": gpus, "num_cpus": cpus, "scheduling_strategy": affinity(node, soft=False)}
        process = (
            self._ray.remote(**once)(Slot)
            .options(**needs)
            .remote(
                self.folder.shared.absolute(),
                platform.node(),
                self._started,
                timeout=self.timeout,
                stall=self.stall,
            )
        )
        actor = _Actor(self._started, process, cast(Any, None), b"", node=self._nodes[node])
        actor.heard, actor.pulse = time.monotonic(), _beat(process)
        return actor

    def _start_waiting(self) -> Iterator[Started]:
        """Hand out jobs; that one started is heard from its node."""
        if self._ray is None:
            self._join()
        if time.monotonic() - self._looked > POLL_SECONDS:
            self._look_around()
        for actor in cast(list[_Actor], [*self._idle]):
            if not (found := self._next_for(actor)):
                continue
            self._waiting.remove(found)
            self._idle.remove(actor)
            self._busy.append(actor)
            job, attempt = found
            actor.job, actor.attempt, actor.begun = job, attempt, inf
            cases = job.task.cases.values() if isinstance(job.task, TimingTask) else [(job.task.trial,)]
            actor.asked = next((trial for trial, *_ in cases if _key(trial) not in actor.folders), None)
            if actor.asked is not None:
                job = Job(job.name, Question(actor.asked, self.options.data_dir), fresh=True)
            elif job.block is not None:
                self._kinds[job.block] = actor.kind
            folders = {data: folder for (data, *_), folder in actor.folders.items()}
            do, beside = cast(Any, actor.process).do, sum(one.node is actor.node for one in self._actors)
            actor.channel = do.options(num_returns="streaming").remote(job, attempt, folders, beside)
        yield from ()

    def _next_for(self, actor: _Actor) -> tuple[Job, int] | None:
        """The first job whose block was begun on its kind of device, or on one that there is no more."""
        now, kinds = time.monotonic(), {one.kind for one in self._actors}
        coming = any(not one.kind and now - one.heard < SILENT_SECONDS for one in self._actors)
        for job, attempt in self._waiting:
            kind = self._kinds.get(job.block, "") if job.block is not None else ""
            if not actor.kind or kind in ("", actor.kind) or not (kind in kinds or coming):
                return job, attempt
        return None

    def _wait(self) -> None:
        if self._busy:
            streams = [worker.channel for worker in self._busy]
            self._ray.wait(streams, num_returns=1, timeout=POLL_SECONDS)
        else:
            time.sleep(POLL_SECONDS)

    def _look_at(self, worker: Any) -> Iterator[Event]:
        ray, actor, job, now = self._ray, cast(_Actor, worker), cast(Job, worker.job), time.monotonic()
        try:
            while job is not None and actor.job is job and ray.wait([actor.channel], timeout=0)[0]:
                event, files = ray.get(next(cast(Any, actor.channel)), timeout=SILENT_SECONDS)
                yield from self._hear(actor, job, event, files)
            if job is None or actor.job is not job or now - actor.heard < POLL_SECONDS:
                return
            if ray.wait([actor.pulse], timeout=0)[0]:
                ray.get(actor.pulse)
                actor.heard, actor.pulse = now, _beat(actor.process)
            elif now - actor.heard > SILENT_SECONDS and (actor.kind or actor.begun < inf):
                ray.kill(actor.process)
                time.sleep(KILL_SECONDS)  # so that no two processes do one job
                raise ray.exceptions.GetTimeoutError(f"it did not answer for {SILENT_SECONDS:g} s")
        except ray.exceptions.RayTaskError as error:
            raise StoppedError(f"a worker failed ({bounded(str(error))}): {KEPT}") from None
        except (ray.exceptions.RayError, StopIteration) as error:
            node, trained = actor.node, actor.asked is None and actor.begun < inf
            self._release(actor, keep=False)
            if trained:
                if lost := self._ended(job, actor.attempt, -signal.SIGKILL):
                    yield lost
                return
            self._waiting.appendleft((job, actor.attempt))
            node["failed"] += 1
            if node["failed"] == executors.ATTEMPTS:
                self._refuse(node, str(error).strip().rpartition("\n")[2])

    def _hear(self, actor: _Actor, job: Job, event: Event | StoppedError, files: bytes) -> Iterator[Event]:
        """Hand on what is told of a job, and take its files; or compare what a node has with the plan."""
        if isinstance(event, StoppedError):
            raise event
        if isinstance(event, Started):
            actor.begun = time.monotonic()
        if not isinstance(event, Done | Lost):
            yield event
        elif actor.asked is None:
            self._release(actor, keep=True)
            actor.node["trials"] += 1
            if files:
                self._unpack(job, files)
            yield event
        else:
            trial, why = actor.asked, event.reason if isinstance(event, Lost) else ""
            if isinstance(event, Done):
                came, actor.kind, actor.folders[_key(trial)] = event.outcome
                code = [source.now for source in trial.sources.values()]
                planned = facts_of(trial.fingerprint, trial.trial_id, *code)
                for name in {**planned, **came}:
                    if (one := planned.get(name, "none")) != (other := came.get(name, "none")):
                        why = why or f"{name}: expected {one[:16]}, but {other[:16]} came"
            actor.node["device"] = actor.kind
            self._waiting.appendleft((job, actor.attempt))
            self._release(actor, keep=True)
            if why:
                self._refuse(actor.node, why)

    def _refuse(self, node: dict[str, Any], why: str) -> None:
        """Use a node no more."""
        node["state"] = f"refused: {why}"
        self.note(f"{node['node']} is not used: {why}")
        for actor in [one for one in self._actors if one.node is node]:
            if actor.job is not None:
                self._waiting.appendleft((actor.job, actor.attempt))
                self._release(actor, keep=True)
            self._idle.remove(actor)
            self._kill(actor)

    def _kill(self, worker: executors._Worker) -> None:
        self._ray.kill(worker.process)

    def _unpack(self, job: Job, files: bytes) -> None:
        """Put a job's files where they would be, had it run here."""
        try:
            if isinstance(job.task, OwnTask):
                shutil.rmtree(job.task.out, ignore_errors=True)
            with tarfile.open(fileobj=io.BytesIO(files)) as tar:
                tar.extractall(self.folder.shared, filter="data")
        except (OSError, tarfile.TarError) as error:
            raise StoppedError(f"what a trial left cannot be kept ({error}): {KEPT}") from None

    def _save(self) -> None:
        """Keep what `status` says of the nodes."""
        for node in self._nodes.values():
            node["workers"] = sum(actor.node is node for actor in self._actors)
        self.folder.logs.mkdir(exist_ok=True)
        write_atomically(self.folder.nodes, json.dumps([*self._nodes.values()], indent=1).encode())


def _beat(actor: Any) -> Any:
    """What is ready when an actor has answered."""
    return actor.alive.options(concurrency_group="pulse").remote()


def _key(trial: Trial) -> tuple[str, ...]:
    """What a node must have for a trial: data, the code, weights to begin with."""
    code = [source.digest for source in trial.sources.values()]
    return (trial.fingerprint, *code, str(getattr(trial.fields, "weights", "")))
