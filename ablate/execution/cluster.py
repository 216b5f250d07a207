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

import torch

import ablate
from ablate.data import default_cache_dir
from ablate.errors import StoppedError, StudyError, bounded
from ablate.execution import executors
from ablate.execution.executors import (
    KEPT,
    POLL_SECONDS,
    Done,
    Event,
    Job,
    LocalExecutor,
    Lost,
    Started,
    Told,
)
from ablate.execution.own import OwnTask
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

    def answer(self, tell: Callable[[Heartbeat], None]) -> tuple[dict[str, str], Path]:
        """The facts that must be as planned, and the folder of the decoded data."""
        fields = self.trial.fields
        inputs = Inputs("cpu", self.data_dir, lambda label, *_: tell(Heartbeat(0, 0, note=label)))
        facts = {**own_facts(), "data": inputs.fingerprint(fields), "identity": identity_of(self.trial)}
        for name in code_names(fields).values():
            facts |= read_source(name, Path.cwd()).files
        return facts, inputs.folders()[facts["data"]]


def own_facts() -> dict[str, str]:
    """Versions of what trains, and the digests of ablate's own files."""
    facts = {name: version_of(name) for name in ("ablate", "torch", "torchvision", "numpy")}
    facts["Python"], root = platform.python_version().rpartition(".")[0], Path(ablate.__file__).parents[1]
    for path in root.glob("ablate/**/*.py"):
        facts[path.relative_to(root).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return facts


def do_on_node(task: Question | Task | TimingTask, slot: int, tell: Callable[[Any], None]) -> Any:
    """What the process of a node's worker does."""
    return task.answer(tell) if isinstance(task, Question) else do_task(task, slot, tell)


class Slot(LocalExecutor):
    """A Ray actor, which has one GPU, or the CPU cores of a trial, and does a driver's jobs on them."""

    def __init__(
        self, driver: str, shared: Path, number: int, planned: dict[str, str], device: torch.device,
        options: Options, limits: Mapping[str, float | None],
    ) -> None:  # fmt: skip
        key, here = hashlib.sha256(f"{driver}:{shared}".encode()).hexdigest()[:16], Path.cwd()
        self.shared, self.home = shared, default_cache_dir().absolute() / "ray" / key
        logs, imports = self.home / "logs" / str(number), ("torch._dynamo", OwnTask.__module__)
        super().__init__(do_on_node, imports=imports, apart=here, logs=logs, stall=limits["stall"])
        add_import_folder(here)  # where Ray has put the study's folder
        self.planned, self.options, self.limit = planned, options, limits["timeout"]
        self.folders: dict[tuple[str, ...], Path] = {}
        self.kind = device_name(device)
        self.warm_up(1)
        self.events = self.run(())  # goes on from job to job, so that its worker stays

    def alive(self) -> str:
        """Answer, with the device's model."""
        return self.kind

    def do(self, job: Job, attempt: int, workers: int) -> Iterator[tuple[Event | str | StoppedError, bytes]]:
        """The events of a job, with the last one its files, packed; or why it cannot be done as planned."""
        task, root = job.task, self.home / job.name  # which holds its files as the results would
        cases: Any = task.cases if isinstance(task, TimingTask) else {"": (task.trial, None)}
        try:
            for trial, _ in cases.values():
                for said in self._ask(job.name, trial):
                    yield said, b""
                    if isinstance(said, str):
                        return
            if isinstance(task, TimingTask):
                of = {case: (trial, self.folders[_key(trial)]) for case, (trial, _) in cases.items()}
                task = replace(task, cases=of)
            else:
                paths = {name: getattr(task, name, None) for name in ("checkpoint", "weights", "out")}
                moved = {name: root / path.relative_to(self.shared) for name, path in paths.items() if path}
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
        except StoppedError as error:
            yield error, b""

    def _ask(self, name: str, trial: Trial) -> Iterator[Told | str]:
        """Have a trial's data and code made ready, where they are not; what is not as planned is a text."""
        if _key(trial) in self.folders:
            return
        self.timeout = None
        self.submit(Job(name, Question(trial, self.options.data_dir), fresh=True))
        for event in self.events:
            if isinstance(event, Lost):
                yield event.reason
            if isinstance(event, Told):
                yield event
            if isinstance(event, Done):
                came, folder = event.outcome
                planned = {**self.planned, "data": trial.fingerprint, "identity": trial.trial_id}
                for source in trial.sources.values():
                    planned |= source.now
                for fact in {**planned, **came}:
                    one, other = (facts.get(fact, "none")[:16] for facts in (planned, came))
                    if one != other:
                        yield f"{fact}: expected {one}, but {other} came"
                self.folders[_key(trial)] = folder
                return


def _key(trial: Trial) -> tuple[str, ...]:
    """What a node must have for a trial: data, the code, weights to begin with."""
    code = [source.digest for source in trial.sources.values()]
    return (trial.fingerprint, *code, str(getattr(trial.fields, "weights", "")))


@dataclass
class _Actor(executors._Worker):
    """An actor, which is its `process`, and the events of its job, its `channel`."""

    node: dict[str, Any] = field(default_factory=dict)
    kind: str = ""
    """Its device's model; "" before it has answered."""
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
        self.limits, self.on_gpu, self._ray = limits, device == "cuda", cast(Any, None)
        self._nodes: dict[str, dict[str, Any]] = {}
        self._kinds: dict[int | None, str] = {}
        self._started, self._looked = 0, 0.0
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
        settings = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
        handler = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(self.options.address, runtime_env=environment, **settings)
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
        """See which nodes and actors live, and start actors where there is room; none is a StoppedError."""
        self._looked, free = time.monotonic(), list[tuple[int, str]]()
        resource, amount = ("GPU", 1) if self.on_gpu else ("CPU", self.options.threads)
        for found in self._ray.nodes():
            name, room = f"{found['NodeManagerHostname']}/{found['NodeID'][:6]}", 0
            if found["Alive"]:
                room = int(found["Resources"].get(resource, 0) // amount)
            node = {"node": name, "device": "", "state": "working", "trials": 0, "failed": 0}
            if room or found["NodeID"] in self._nodes:
                node = self._nodes.setdefault(found["NodeID"], node)
            if node["state"] in ("working", "lost"):
                node["state"] = "working" if found["Alive"] else "lost"
                there = sum(actor.node is node for actor in self._actors)
                free += [(taken, found["NodeID"]) for taken in range(there, room)]
        for actor in cast(list[_Actor], [*self._idle]):
            try:
                self._pulse(actor)
            except self._ray.exceptions.RayError as error:
                self._lost(actor, error)
        wanted = len(self._waiting) + len(self._busy)
        wanted = min(wanted, self.options.workers or wanted) - len(self._actors)
        self._idle += [self._start(node) for _, node in sorted(free)[: max(wanted, 0)]]
        self._save()
        if self._waiting and not self._actors:
            states = "; ".join(f"{node['node']}: {node['state']}" for node in self._nodes.values())
            raise StoppedError(f"no node can train ({states or f'none has {amount} {resource}'}): {KEPT}")

    def _start(self, node: str) -> _Actor:
        """An actor on a node; Ray neither starts it again nor repeats what it does."""
        self._started += 1
        affinity = importlib.import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
        needs = {"num_gpus": int(self.on_gpu), "num_cpus": self.options.threads}
        needs |= {"scheduling_strategy": affinity(node, soft=False)}
        once = {"max_restarts": 0, "max_task_retries": 0, "concurrency_groups": {"pulse": 1}}
        device = torch.device("cuda" if self.on_gpu else "cpu")
        process = self._ray.remote(**once)(Slot).options(**needs).remote(
            platform.node(), self.folder.shared.absolute(), self._started, own_facts(), device,
            self.options, self.limits,
        )  # fmt: skip
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
            if found := self._next_for(actor):
                self._waiting.remove(found)
                self._idle.remove(actor)
                self._busy.append(actor)
                actor.job, actor.attempt, actor.begun = *found, inf
                self._kinds[found[0].block] = actor.node["device"] = actor.kind
                beside = sum(one.node is actor.node for one in self._actors)
                do = cast(Any, actor.process).do.options(num_returns="streaming")
                actor.channel = do.remote(*found, beside)
        yield from ()

    def _next_for(self, actor: _Actor) -> tuple[Job, int] | None:
        """The first job whose block was begun on its kind of device, or on one that there is no more."""
        now, kinds = time.monotonic(), {one.kind for one in self._actors}
        coming = any(not one.kind and now - one.heard < SILENT_SECONDS for one in self._actors)
        for job, attempt in self._waiting if actor.kind else ():
            kind = self._kinds.get(job.block, "") if job.block is not None else ""
            if kind in ("", actor.kind) or not (kind in kinds or coming):
                return job, attempt
        return None

    def _wait(self) -> None:
        if streams := [worker.channel for worker in self._busy]:
            self._ray.wait(streams, timeout=POLL_SECONDS)
        else:
            time.sleep(POLL_SECONDS)

    def _look_at(self, worker: Any) -> Iterator[Event]:
        ray, actor, job = self._ray, cast(_Actor, worker), cast(Job, worker.job)
        try:
            while actor.job and actor.job is job and ray.wait([actor.channel], timeout=0)[0]:
                event, files = ray.get(next(cast(Any, actor.channel)), timeout=SILENT_SECONDS)
                if isinstance(event, StoppedError):
                    raise event
                if isinstance(event, str):
                    return self._refuse(actor.node, event)
                if isinstance(event, Started):
                    actor.begun = time.monotonic()
                if isinstance(event, Done | Lost):
                    self._release(actor, keep=True)
                    actor.node["trials"] += 1
                    self._unpack(job, files)
                yield event
            if actor.job and actor.job is job:
                self._pulse(actor)
        except ray.exceptions.RayTaskError as error:
            raise StoppedError(f"a worker failed ({bounded(str(error))}): {KEPT}") from None
        except (ray.exceptions.RayError, StopIteration) as error:
            if lost := self._lost(actor, error):
                yield lost

    def _pulse(self, actor: _Actor) -> None:
        """Hear whether an actor lives; where it has ended, or does not answer any more, it is a RayError."""
        now, ray = time.monotonic(), self._ray
        if now - actor.heard < POLL_SECONDS:
            return
        if ray.wait([actor.pulse], timeout=0)[0]:
            actor.kind, actor.heard, actor.pulse = ray.get(actor.pulse), now, _beat(actor.process)
        elif actor.kind and now - actor.heard > SILENT_SECONDS:
            ray.kill(actor.process)
            time.sleep(KILL_SECONDS)  # so that no two processes do one job
            raise ray.exceptions.GetTimeoutError(f"it did not answer for {SILENT_SECONDS:g} s")

    def _lost(self, actor: _Actor, error: Exception) -> Lost | None:
        """An actor has ended: a job that it did is done again, as often as any; its node, if it did none."""
        job, begun = actor.job, actor.begun < inf
        self._drop(actor)
        if job is not None and begun:
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
        for actor in [one for one in self._actors if one.node is node]:
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
            node["workers"] = sum(actor.node is node for actor in self._actors)
        self.folder.logs.mkdir(exist_ok=True)
        write_atomically(self.folder.nodes, json.dumps([*self._nodes.values()], indent=1).encode())


def _beat(actor: Any) -> Any:
    """What is ready when an actor has answered."""
    return actor.alive.options(concurrency_group="pulse").remote()
