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
from ablate.execution.executors import (
    ATTEMPTS,
    KEPT,
    POLL_SECONDS,
    Done,
    Event,
    Job,
    LocalExecutor,
    Lost,
    Started,
    Told,
    _Worker,
)  # fmt: skip
from ablate.execution.own import OwnTask
from ablate.execution.prepare import Inputs
from ablate.execution.trial import Heartbeat, Task, TimingTask, do_task, ready_device
from ablate.store.provenance import version_of
from ablate.store.records import read_available
from ablate.store.results import ResultsFolder, write_atomically
from ablate.study.options import Options
from ablate.study.sources import read_source
from ablate.study.study import add_import_folder
from ablate.study.trials import TRAINING_VERSION, Trial, code_names, identity_of
from ablate.train.device import device_name

SILENT_SECONDS = 60.0  # after which an actor that does not answer is killed
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
        data = inputs.fingerprint(fields)
        code = [read_source(name, Path.cwd()).files for name in code_names(fields).values()]
        return facts_of(data, identity_of(self.trial), *code), device_name(device), inputs.folders()[data]


def facts_of(data: str, identity: str, *code: Mapping[str, str]) -> dict[str, str]:
    """What decides a trial's numbers; files of ablate's own, and of the user's `code`, by their digests."""
    facts = {name: version_of(name) for name in ("ablate", "torch", "torchvision", "numpy")}
    facts |= {"Python": platform.python_version().rpartition(".")[0], "data": data}
    facts |= {"training version": str(TRAINING_VERSION), "identity of a trial": identity}
    root = Path(ablate.__file__).parents[1]
    for path in root.glob("ablate/**/*.py"):
        facts[path.relative_to(root).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return {**facts, **{file: digest for files in code for file, digest in files.items()}}


def do_on_node(task: Question | Task | TimingTask, slot: int, tell: Callable[[Any], None]) -> Any:
    """What the process of a node's worker does."""
    return task.answer(slot, tell) if isinstance(task, Question) else do_task(task, slot, tell)


class Slot:
    """A Ray actor with a GPU, or the CPU cores of a trial, and a local executor that does jobs there.

    Its folder `root` belongs to the driver's results, `shared`, and is laid out as they are.
    """

    def __init__(
        self, shared: Path, driver: str, number: int, timeout: float | None, stall: float | None
    ) -> None:
        add_import_folder(Path.cwd())  # where Ray has put the study's folder
        key = hashlib.sha256(f"{driver}:{shared}".encode()).hexdigest()[:16]
        self.shared, self.root, self.timeout = shared, default_cache_dir().absolute() / "ray" / key, timeout
        for name in ("checkpoints", "weights", "artefacts"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        imports, logs = ("torch._dynamo", OwnTask.__module__), self.root / "logs" / str(number)
        self.executor = LocalExecutor(do_on_node, stall=stall, imports=imports, apart=Path.cwd(), logs=logs)
        self.executor.warm_up(1)
        self.events = self.executor.run(())  # goes on from job to job, so that its worker stays

    def alive(self) -> None:
        """Answer."""

    def do(
        self, job: Job, attempt: int, folders: Mapping[str, Path], workers: int
    ) -> Iterator[tuple[Event | StoppedError, bytes]]:
        """The events of a job; with the last one what it left, packed."""
        task, moved = job.task, dict[str, Any]()
        if isinstance(task, TimingTask):
            cases = {case: (trial, folders[trial.fingerprint]) for case, (trial, _) in task.cases.items()}
            task = replace(task, cases=cases)
        elif isinstance(task, Task):
            paths = {name: getattr(task, name, None) for name in ("checkpoint", "weights", "out")}
            moved = {name: self.root / path.relative_to(self.shared) for name, path in paths.items() if path}
            task = replace(task, data_folder=folders[task.trial.fingerprint], workers=workers, **moved)
        if isinstance(task, OwnTask):
            task.study._folder = Path.cwd()
            moved["log"] = task.out.with_name(f"{task.out.name}.log")
        self.executor.timeout = None if isinstance(task, Question) else self.timeout
        self.executor.submit(replace(job, task=task), attempt)
        try:
            for event in self.events:
                ended = isinstance(event, Done | Lost)
                yield event, self._packed(moved) if ended else b""
                if ended:
                    return
        except StoppedError as error:
            yield error, b""

    def _packed(self, moved: Mapping[str, Path]) -> bytes:
        """What a job left, plain files and folders, which are removed here."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, path in moved.items():
                if name != "checkpoint" and path.exists():
                    tar.add(path, path.relative_to(self.root), filter=_plain)
                shutil.rmtree(path, ignore_errors=True)
                path.unlink(missing_ok=True)
        return buffer.getvalue()


@dataclass
class _Actor(_Worker):
    """An actor, which is its `process`, and the events of its job, its `channel`."""

    node: dict[str, Any] = field(default_factory=dict)
    kind: str = ""
    """Its device's model; "" before it has answered a question."""
    known: set[tuple[str, ...]] = field(default_factory=set)
    folders: dict[str, Path] = field(default_factory=dict)
    """Of decoded data on the node, by fingerprint."""
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
        once: Any = {"max_restarts": 0, "max_task_retries": 0, "concurrency_groups": {"pulse": 1}}
        gpus, cpus = (1, 1) if self.resource == "GPU" else (0, self.amount)
        options = {"num_gpus": gpus, "num_cpus": cpus, "scheduling_strategy": affinity(node, soft=False)}
        given = self.folder.shared.absolute(), platform.node(), self._started, self.timeout, self.stall
        actor = self._ray.remote(**once)(Slot).options(**options).remote(*given)
        known: Any = {"heard": time.monotonic(), "node": self._nodes[node], "pulse": _beat(actor)}
        return _Actor(self._started, actor, cast(Any, None), b"", **known)

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
            job, actor.attempt = found
            actor.job, actor.begun = job, inf
            cases = job.task.cases.values() if isinstance(job.task, TimingTask) else [(job.task.trial,)]
            actor.asked = next((trial for trial, *_ in cases if _key(trial) not in actor.known), None)
            if actor.asked is not None:
                job = Job(job.name, Question(actor.asked, self.options.data_dir), fresh=True)
            else:
                self._kinds[job.block] = actor.kind
            beside = sum(one.node is actor.node for one in self._actors)
            do = cast(Any, actor.process).do.options(num_returns="streaming")
            actor.channel = do.remote(job, actor.attempt, actor.folders, beside)
        yield from ()

    def _next_for(self, actor: _Actor) -> tuple[Job, int] | None:
        """The first job whose block was begun on its kind of device, or on one that there is no more."""
        now = time.monotonic()
        kinds = {one.kind for one in self._actors}
        coming = any(not one.kind and now - one.heard < SILENT_SECONDS for one in self._actors)
        for job, attempt in self._waiting:
            kind = self._kinds.get(job.block, "") if job.block is not None else ""
            if not actor.kind or kind in ("", actor.kind) or not (kind in kinds or coming):
                return job, attempt
        return None

    def _wait(self) -> None:
        streams = [worker.channel for worker in self._busy]
        if streams:
            self._ray.wait(streams, num_returns=1, timeout=POLL_SECONDS)
        else:
            time.sleep(POLL_SECONDS)

    def _look_at(self, worker: Any) -> Iterator[Event]:
        ray, actor, job, now = self._ray, cast(_Actor, worker), cast(Job, worker.job), time.monotonic()
        if job is None:
            return
        try:
            while actor.job is job and ray.wait([actor.channel], timeout=0)[0]:
                event, left = ray.get(next(cast(Any, actor.channel)), timeout=SILENT_SECONDS)
                yield from self._hear(actor, job, event, left)
            if actor.job is not job or now - actor.heard < POLL_SECONDS:
                return
            if ray.wait([actor.pulse], timeout=0)[0]:
                ray.get(actor.pulse)
                actor.heard, actor.pulse = now, _beat(actor.process)
            elif now - actor.heard > SILENT_SECONDS and (actor.kind or actor.begun < inf):
                raise ray.exceptions.GetTimeoutError(f"no answer for {SILENT_SECONDS:g} s")
        except ray.exceptions.RayTaskError as error:
            raise StoppedError(f"a worker failed ({bounded(str(error))}): {KEPT}") from None
        except (ray.exceptions.RayError, StopIteration) as error:
            self._release(actor, keep=False)
            if actor.asked is None and actor.begun < inf:
                if lost := self._ended(job, actor.attempt, -signal.SIGKILL):
                    yield lost
                return
            self._waiting.appendleft((job, actor.attempt))
            actor.node["failed"] += 1
            if actor.node["failed"] == ATTEMPTS:
                self._refuse(actor.node, str(error).strip().rpartition("\n")[2])

    def _hear(self, actor: _Actor, job: Job, event: Event | StoppedError, left: bytes) -> Iterator[Event]:
        """Hand on what is told of a job, and take what it left; or compare what a node has with the plan."""
        if isinstance(event, StoppedError):
            raise event
        if isinstance(event, Started):
            actor.begun = time.monotonic()
        if isinstance(event, Told) or actor.asked is None:
            if isinstance(event, Done | Lost):
                self._release(actor, keep=True)
                actor.node["trials"] += 1
                self._unpack(job, left)
            yield event
        elif isinstance(event, Lost):
            self._refuse(actor.node, event.reason)
        elif isinstance(event, Done):
            trial, (came, kind, folder) = actor.asked, event.outcome
            code = [source.now for source in trial.sources.values()]
            planned = facts_of(trial.fingerprint, trial.trial_id, *code)
            if differ := [name for name in {**planned, **came} if planned.get(name) != came.get(name)]:
                name, more = differ[0], f"; and {len(differ) - 1} more" if differ[1:] else ""
                expected, other = (facts.get(name, "none")[:16] for facts in (planned, came))
                return self._refuse(actor.node, f"{name}: expected {expected}, but {other} came{more}")
            actor.kind = actor.node["device"] = kind
            actor.folders[trial.fingerprint] = folder
            actor.known.add(_key(trial))
            self._waiting.appendleft((job, actor.attempt))
            self._release(actor, keep=True)

    def _refuse(self, node: dict[str, Any], why: str) -> None:
        """Use a node no more."""
        node["state"] = f"refused: {why}"
        self.note(f"{node['node']} is not used: {why}")
        for actor in [one for one in self._actors if one.node is node]:
            if actor.job is None:
                self._idle.remove(actor)
                self._kill(actor)
            else:
                self._waiting.appendleft((actor.job, actor.attempt))
                self._release(actor, keep=False)

    def _kill(self, worker: _Worker) -> None:
        self._ray.kill(worker.process)

    def _unpack(self, job: Job, left: bytes) -> None:
        """Put what a job left where it would lie, had it run here."""
        try:
            if isinstance(job.task, OwnTask):
                shutil.rmtree(job.task.out, ignore_errors=True)
            with tarfile.open(fileobj=io.BytesIO(left)) as tar:
                tar.extractall(self.folder.shared, filter="data")
        except (OSError, tarfile.TarError) as error:
            raise StoppedError(f"what a trial left cannot be kept ({error}): {KEPT}") from None

    def _save(self) -> None:
        """Keep what `status` says of the nodes."""
        rows = [
            node | {"workers": sum(one.node is node for one in self._actors)} for node in self._nodes.values()
        ]
        self.folder.logs.mkdir(exist_ok=True)
        write_atomically(self.folder.nodes, json.dumps(rows, indent=1).encode())


def _beat(actor: Any) -> Any:
    """What is ready when an actor has answered."""
    return actor.alive.options(concurrency_group="pulse").remote()


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return member if member.isfile() or member.isdir() else None


def _key(trial: Trial) -> tuple[str, ...]:
    """What a node must have for a trial: data, weights to begin with, and code."""
    code = sorted(source.digest for source in trial.sources.values())
    return (trial.fingerprint, str(getattr(trial.fields, "weights", "")), *code)
