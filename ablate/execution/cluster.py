"""Jobs on nodes of a Ray cluster, by supervised workers as on this machine; this process alone records.

Ray starts processes, hands jobs over and brings events back. It repeats nothing and keeps no results.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Any

import torch

import ablate
from ablate.data import default_cache_dir
from ablate.errors import StoppedError, StudyError, bounded
from ablate.execution import executors
from ablate.execution.executors import KEPT, POLL_SECONDS, Done, Event, Job, LocalExecutor, Lost, Started
from ablate.execution.own import IMPORTS, OwnTask
from ablate.execution.prepare import Inputs
from ablate.execution.trial import Heartbeat, Task, TimingTask, do_task
from ablate.store.provenance import version_of
from ablate.store.records import read_available
from ablate.store.results import ResultsFolder, write_atomically
from ablate.study.options import Options
from ablate.study.sources import read_source
from ablate.study.study import add_import_folder
from ablate.study.trials import Trial, code_names, identity_of
from ablate.train.device import device_name

SILENT_SECONDS = 300.0  # after which an actor that says nothing, or sends a file for so long, is killed
ALIVE_SECONDS = 2.0  # after which one that has nothing to tell says that
KILL_SECONDS = 6.0  # within which Ray has killed a process that hangs
REACH_SECONDS = 10.0
NOT_SENT = (".git", ".venv", "__pycache__", "results", "report")


@functools.cache
def own_facts() -> dict[str, str]:
    """Versions of what trains, and the digests of ablate's own files."""
    facts = {name: version_of(name) for name in ("ablate", "torch", "torchvision", "numpy")}
    facts["Python"], root = platform.python_version().rpartition(".")[0], Path(ablate.__file__).parents[1]
    for path in root.glob("ablate/**/*.py"):
        facts[path.relative_to(root).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return facts


def facts_of(trial: Trial, data_dir: Path | None, tell: Callable[[Any], None]) -> tuple[dict[str, str], Path]:
    """Prepare a trial's data here; what must be as planned, and the folder of what is decoded."""
    inputs = Inputs("cpu", data_dir, lambda label, *_: tell(Heartbeat(0, 0, note=label)))
    facts = {**own_facts(), "data": inputs.fingerprint(trial.fields), "identity": identity_of(trial)}
    for name in code_names(trial.fields).values():
        facts |= read_source(name, Path.cwd()).files
    return facts, inputs.folders()[facts["data"]]


def do_on_node(task: Any, slot: int, tell: Callable[[Any], None]) -> Any:
    """What the process of a node's worker does: a task, or tell the facts of a (trial, data_dir)."""
    return facts_of(task[0], task[1], tell) if isinstance(task, tuple) else do_task(task, slot, tell)


class Slot(LocalExecutor):
    """A Ray actor, which has one GPU, or the CPU cores of a trial, and does a driver's jobs on them."""

    def __init__(
        self, home: str, number: int, planned: dict[str, str], data_dir: Path | None, **limits: Any
    ) -> None:
        self.home, self.planned = default_cache_dir().absolute() / "ray" / home, planned
        logs = self.home / "logs" / str(number)
        super().__init__(do_on_node, imports=IMPORTS, apart=Path.cwd(), logs=logs, **limits)
        add_import_folder(Path.cwd())  # where Ray has put the study's folder
        self.data_dir, self.limit, self.said = data_dir, self.timeout, 0.0
        self.folders: dict[tuple[str, ...], Path] = {}
        self.warm_up(1)
        self.events = self.run(())  # goes on from job to job, so that its worker stays

    def kind(self, device: str) -> str:
        """The model of its device."""
        return device_name(torch.device(device))

    def _look_at(self, worker: Any) -> Iterator[Event]:
        job = worker.job
        for event in super()._look_at(worker):
            self.said = time.monotonic()
            yield event
        if worker.job is job and time.monotonic() - self.said > ALIVE_SECONDS:
            self.said = time.monotonic()
            yield executors.Told(job.name, None)

    def do(self, job: Job, attempt: int, shared: Path, workers: int) -> Iterator[tuple[Event, bytes]]:
        """A job's events, with the last one its files, packed; a StudyError where all is not as planned."""
        task, root = job.task, self.home / job.name  # which holds its files as the results would
        cases: Any = task.cases if isinstance(task, TimingTask) else {"": (task.trial, None)}
        for trial, _ in cases.values():
            if _key(trial) not in self.folders:
                yield from self._ask(Job(job.name, (trial, self.data_dir), fresh=True))
        if isinstance(task, TimingTask):
            of = {case: (trial, self.folders[_key(trial)]) for case, (trial, _) in cases.items()}
            task = replace(task, cases=of)
        else:
            paths = {name: getattr(task, name, None) for name in ("checkpoint", "weights", "out")}
            moved = {name: root / path.relative_to(shared) for name, path in paths.items() if path}
            for path in moved.values():
                path.parent.mkdir(parents=True, exist_ok=True)
            task = replace(task, data_folder=self.folders[_key(task.trial)], workers=workers, **moved)
        if isinstance(task, OwnTask):
            task.study._folder = Path.cwd()
        self.timeout = self.limit
        self.submit(replace(job, task=task), attempt)
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

    def _ask(self, job: Job) -> Iterator[tuple[Event, bytes]]:
        """See that data and code are as planned for a trial; what is made ready meanwhile is told."""
        trial, self.timeout = job.task[0], None
        self.submit(job)
        for event in self.events:
            if isinstance(event, executors.Told):
                yield event, b""
            if isinstance(event, Lost):
                raise StudyError(event.reason)
            if isinstance(event, Done):
                came, folder = event.outcome
                planned = {**self.planned, "data": trial.fingerprint, "identity": trial.trial_id}
                for source in trial.sources.values():
                    planned |= source.now
                for fact, _ in sorted(planned.items() ^ came.items()):
                    one, other = (facts.get(fact, "none")[:16] for facts in (planned, came))
                    raise StudyError(f"{fact}: expected {one}, but {other} came")
                self.folders[_key(trial)] = folder
                return


def _key(trial: Trial) -> tuple[str, ...]:
    """What a node must have for a trial: data, the code, weights to begin with."""
    code = [source.digest for source in trial.sources.values()]
    return (trial.fingerprint, *code, str(getattr(trial.fields, "weights", "")))


@dataclass
class _Actor(executors._Worker):
    """An actor, and the events of its job."""

    process: Any
    channel: Any
    node: dict[str, Any] = field(default_factory=dict)
    answer: Any = None
    kind: str = ""
    """Its device's model; "" before it has answered."""


class RayExecutor(LocalExecutor):
    """Runs jobs on the nodes of a Ray cluster: those of a block on one kind of device, where it can be.

    A node that has other versions, code or data than was planned is not used, which `note` is told.
    """

    _idle: list[Any]
    _busy: list[Any]

    def __init__(
        self, folder: ResultsFolder, sent: Path, device: str, options: Options, note: Callable[[str], None],
        **limits: Any,
    ) -> None:  # fmt: skip
        super().__init__(do_on_node, workers=options.workers or 1, **limits)
        self.folder, self.sent, self.options, self.note = folder, sent.absolute(), options, note
        self.device, self._started, self._looked, self._saved = device, 0, 0.0, b""
        self._ray: Any = None
        self._nodes: dict[str, dict[str, Any]] = {}
        self._kinds: dict[int | None, str] = {}
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
            fault = f"no cluster answers there ({error}); `ray start --head` starts one"
            raise StudyError(f"--address {address}: {fault}") from None

    def warm_up(self, workers: int) -> None:
        """Nothing: this process forks while it plans, which does not go with Ray's threads."""

    def close(self) -> None:
        """Kill every actor, with what it started, and leave the cluster."""
        for actor in [*self._idle, *self._busy]:
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
        self._ray, records = ray, read_available(self.folder)[0].values()
        self._kinds = {one.trial.seed: one.environment.device_name for one in records if one.environment}
        own = [f"/{os.path.relpath(one, self.sent)}" for one in (self.options.results, self.options.report)]
        environment = {"working_dir": str(self.sent), "excludes": [*NOT_SENT, *own]}
        settings = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
        handler = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(self.options.address, runtime_env=environment, **settings)
        except Exception as error:
            raise StudyError(
                f"--executor ray: {bounded(str(error)).strip()}\nThe study's folder {self.sent} is sent to "
                "the nodes; where it is too large, name what is not needed in a file .rayignore there"
            ) from None
        finally:
            with contextlib.suppress(ValueError):  # in a thread
                signal.signal(signal.SIGTERM, handler)  # Ray has put its own there

    def _look_around(self) -> None:
        """See which nodes there are, and start actors where there is room; none is a StoppedError."""
        self._looked, free = time.monotonic(), list[tuple[int, str]]()
        resource, amount = ("GPU", 1) if self.device == "cuda" else ("CPU", self.options.threads)
        for found in self._ray.nodes():
            name, room = f"{found['NodeManagerHostname']}/{found['NodeID'][:6]}", 0
            if found["Alive"]:
                room = int(found["Resources"].get(resource, 0) // amount)
            node: dict[str, Any] = {"node": name, "device": "", "state": "working", "trials": 0, "failed": 0}
            if room or found["NodeID"] in self._nodes:
                node = self._nodes.setdefault(found["NodeID"], node)
            there = sum(actor.node is node for actor in [*self._idle, *self._busy])
            if not found["Alive"]:
                node["state"] = "lost"
            elif node["state"] == "working":
                free += [(taken, found["NodeID"]) for taken in range(there, room)]
        wanted = len(self._waiting) + len(self._busy)
        wanted = min(wanted, self.options.workers or wanted) - len(self._idle) - len(self._busy)
        self._idle += [self._start(node) for _, node in sorted(free)[: max(wanted, 0)]]
        self._save()
        if self._waiting and not self._idle and not self._busy:
            states = "; ".join(f"{node['node']}: {node['state']}" for node in self._nodes.values())
            raise StoppedError(f"no node can train ({states or f'none has {amount} {resource}'}): {KEPT}")

    def _start(self, node: str) -> _Actor:
        """An actor on a node; Ray neither starts it again nor repeats what it does."""
        self._started += 1
        affinity = importlib.import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
        needs = {"num_gpus": int(self.device == "cuda"), "num_cpus": self.options.threads}
        needs |= {"scheduling_strategy": affinity(node, soft=False), "max_restarts": 0, "max_task_retries": 0}
        home = hashlib.sha256(f"{platform.node()}:{self.folder.shared.absolute()}".encode()).hexdigest()[:16]
        given = home, self._started, own_facts(), self.options.data_dir
        process = self._ray.remote(**needs)(Slot).remote(*given, timeout=self.timeout, stall=self.stall)
        actor = _Actor(self._started, process, None, b"", heard=time.monotonic(), node=self._nodes[node])
        actor.answer = process.kind.remote(self.device)
        return actor

    def _start_waiting(self) -> Iterator[Started]:
        """Hand out jobs; that one started is heard from its node."""
        if self._ray is None:
            self._join()
        if time.monotonic() - self._looked > POLL_SECONDS:
            self._look_around()
        for actor in [*self._idle]:
            if not actor.kind and self._ray.wait([actor.answer], timeout=0)[0]:
                try:
                    actor.kind = actor.node["device"] = self._ray.get(actor.answer)
                except self._ray.exceptions.RayError as error:
                    self._lost(actor, error)
            if actor.kind and (found := self._next_for(actor)):
                self._waiting.remove(found)
                self._idle.remove(actor)
                beside = 1 + sum(one.node is actor.node for one in self._busy)
                self._busy.append(actor)
                actor.job, actor.attempt, actor.begun, actor.heard = *found, inf, time.monotonic()
                self._kinds[found[0].block] = actor.kind
                do = actor.process.do.options(num_returns="streaming")
                actor.channel = do.remote(*found, self.folder.shared.absolute(), beside)
        yield from ()

    def _next_for(self, actor: _Actor) -> tuple[Job, int] | None:
        """The first job whose block was begun on its kind of device, or on one that there is no more."""
        now, others = time.monotonic(), [*self._idle, *self._busy]
        coming = any(not one.kind and now - one.heard < SILENT_SECONDS for one in others)
        for job, attempt in self._waiting:
            kind = self._kinds.get(job.block, actor.kind) if job.block is not None else actor.kind
            if kind == actor.kind or not (coming or any(one.kind == kind for one in others)):
                return job, attempt
        return None

    def _wait(self) -> None:
        if self._busy:
            self._ray.wait([actor.channel for actor in self._busy], timeout=POLL_SECONDS)
        else:
            time.sleep(POLL_SECONDS)

    def _look_at(self, worker: Any) -> Iterator[Event]:
        ray, job, actor = self._ray, worker.job, worker
        try:
            while job and actor.job is job and ray.wait([actor.channel], timeout=0)[0]:
                event, files = ray.get(next(actor.channel), timeout=SILENT_SECONDS)
                actor.heard = time.monotonic()
                if isinstance(event, executors.Told) and event.message is None:
                    continue
                if isinstance(event, Started):
                    actor.begun = actor.heard
                if isinstance(event, Done | Lost):
                    self._release(actor, keep=True)
                    actor.node["trials"] += 1
                    self._unpack(job, files)
                yield event
            if job and actor.job is job and time.monotonic() - actor.heard > SILENT_SECONDS:
                ray.kill(actor.process)
                time.sleep(KILL_SECONDS)  # so that no two processes do one job
                raise ray.exceptions.GetTimeoutError(f"it said nothing for {SILENT_SECONDS:g} s")
        except (ray.exceptions.RayError, StopIteration) as error:
            cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else None
            if isinstance(cause, StoppedError):
                raise cause from None
            if cause is not None:
                self._refuse(actor.node, bounded(str(cause)))
            elif lost := self._lost(actor, error):
                yield lost

    def _lost(self, actor: _Actor, error: Exception) -> Lost | None:
        """An actor has ended: a job that it did is done again, as often as any; or its node is at fault."""
        job = actor.job
        self._drop(actor)
        if job is not None and actor.begun < inf:
            self._waiting.popleft()
            return self._ended(job, actor.attempt, -signal.SIGKILL)
        actor.node["failed"] += 1
        if actor.node["failed"] == executors.ATTEMPTS:
            self._refuse(actor.node, str(error).strip().rpartition("\n")[2])
        return None

    def _refuse(self, node: dict[str, Any], why: str) -> None:
        """Use a node no more."""
        node["state"] = f"refused: {why}"
        self.note(f"{node['node']} is not used: {why}")
        for actor in [one for one in [*self._idle, *self._busy] if one.node is node]:
            self._drop(actor)

    def _drop(self, actor: _Actor) -> None:
        """Kill an actor; its job waits again."""
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
            if files:
                with tarfile.open(fileobj=io.BytesIO(files)) as tar:
                    tar.extractall(self.folder.shared, filter="data")
        except (OSError, tarfile.TarError) as error:
            raise StoppedError(f"what a trial left cannot be kept ({error}): {KEPT}") from None

    def _save(self) -> None:
        """Keep what `status` says of the nodes."""
        for node in self._nodes.values():
            node["workers"] = sum(actor.node is node for actor in [*self._idle, *self._busy])
        content = json.dumps([*self._nodes.values()], indent=1).encode()
        if content != self._saved:  # it is looked around twice a second
            self.folder.logs.mkdir(exist_ok=True)
            write_atomically(self.folder.nodes, content)
            self._saved = content
