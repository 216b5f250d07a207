"""A search that several tuners work on at once: its points are trials of an Optuna study in PostgreSQL.

The whole budget is put there once, as waiting trials, and each is claimed under a lock. A trial carries its
point, and the records and predictions of its training runs, so every tuner ends with all of them. A tuner
that dies loses its session with the server, and others go on with what it had claimed.
"""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import optuna
import psycopg
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState, create_trial

from ablate.errors import ResultsError
from ablate.points import Point, Tuning, tuning_folder, write_tuning
from ablate.results import ResultsFolder, write_atomically
from ablate.search import Levels
from ablate.tune.ledger import Values, asked_point, restored_sampler, with_point
from ablate.tune.sampler import Sampler, quiet
from ablate.tune.settle import directions
from ablate.tune.space import distribution_of, stored_of

SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
POLL_SECONDS = 1.0
STUDY_LOCK, RETEST_LOCK, FIRST_TUNER = 0, 1, 2
"""What the second number of an advisory lock stands for; the first is the study's."""
POINT, OWNER, RECORD, PREDICTIONS, DECLARATION = "point", "owner", "record:", "predictions:", "declaration"
"""Names of what trials carry, and the study."""
ENDED = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


class Storage:
    """A session with the server that holds a search, and the locks that go with it.

    A lock is the session's: the server frees it when the process is gone, however it ended.

    Args:
        url: of a PostgreSQL database, postgresql://USER:PASSWORD@HOST:PORT/DATABASE.
        name: of the study there.

    Raises:
        ResultsError: it is no such URL, or the server cannot be reached.
    """

    def __init__(self, url: str, name: str) -> None:
        scheme, separator, rest = url.partition("://")
        if scheme not in SCHEMES or not separator:
            raise ResultsError(
                f"--storage: expected postgresql://USER:PASSWORD@HOST/DATABASE, but {_masked(url)} came; "
                "on one machine leave it out"
            )
        self.name, self.words = name, _masked(url)
        self._key = zlib.crc32(name.encode())
        self.tuner = secrets.randbelow(2**31 - FIRST_TUNER) + FIRST_TUNER
        with self.told():
            self._connection = psycopg.connect(f"postgresql://{rest}", autocommit=True, connect_timeout=10)
            self.trials = optuna.storages.RDBStorage(f"postgresql+psycopg://{rest}")
            self._lock("pg_advisory_lock", self.tuner)

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Turn what goes wrong with the server into a message."""
        try:
            with quiet():
                yield
        except (
            psycopg.Error,
            sqlalchemy.exc.SQLAlchemyError,
            optuna.exceptions.StorageInternalError,
        ) as error:
            cause = str(error.__cause__ or error).strip().splitlines()
            raise ResultsError(
                f"--storage {self.words}: cannot be used ({cause[0] if cause else type(error).__name__}). "
                "What is recorded is kept; check server, name and password, and run the same command"
            ) from None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Alone with the study's trials."""
        with self.told():
            self._lock("pg_advisory_lock", STUDY_LOCK)
            try:
                yield
            finally:
                self._lock("pg_advisory_unlock", STUDY_LOCK)

    def claim_retest(self) -> bool:
        """Whether nobody else re-tests the winner now; if so, nobody else can until this process ends."""
        with self.told():
            return self._lock("pg_try_advisory_lock", RETEST_LOCK)

    def alive(self) -> set[int]:
        """The tuners that have a session."""
        query = (
            "SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = %s::bigint::oid"
        )
        return {int(row[0]) for row in self._connection.execute(query, (self._key,))}

    def close(self) -> None:
        """End the session, and with it all its locks."""
        with contextlib.suppress(Exception):
            self.trials.remove_session()
            self.trials.engine.dispose()
        with contextlib.suppress(psycopg.Error):
            self._connection.close()

    def _lock(self, function: str, what: int) -> bool:
        signed = self._key - 2**32 if self._key >= 2**31 else self._key
        row = self._connection.execute(f"SELECT {function}(%s::int, %s::int)", (signed, what)).fetchone()
        return row is not None and row[0] is True


def _masked(url: str) -> str:
    """A URL without its password."""
    scheme, separator, rest = url.partition("://")
    user, at, place = rest.rpartition("@")
    return f"{scheme}{separator}{user.partition(':')[0]}{at}{place}" if separator else url


class SharedLedger:
    """The points of a search that several tuners work on. See `Ledger`.

    Args:
        storage: where they are.
        results: the study's results on this machine.
        tuning: the search as this tuner declares it; its points are not looked at.
        first: the baseline and the anchors.
        agree: given the search as it stands in the storage, that with this tuner's budget; raises where it is
            another search.
    """

    def __init__(
        self,
        storage: Storage,
        results: ResultsFolder,
        tuning: Tuning,
        first: Sequence[Levels],
        agree: Callable[[Tuning], Tuning],
    ) -> None:
        self.storage, self.results, self._first = storage, results, first
        self.tuning = tuning.model_copy(update={"points": (), "attributes": {}})
        self._sent: set[str] = set()
        with storage.locked():
            self._study = self._open()
            self.tuning = agree(self._stored())
            self._enqueue()
            self._sync()

    def mine(self) -> Sequence[Point]:
        """Points whose tuner died: they are this one's from now on."""
        with self.storage.locked():
            alive = self.storage.alive()
            dead = [t for t in self._all(TrialState.RUNNING) if t.user_attrs[OWNER] not in alive]
            for trial in dead:
                self.storage.trials.set_trial_user_attr(trial._trial_id, OWNER, self.storage.tuner)
            if dead:
                self._sync()
        return [self.tuning.points[trial.number] for trial in dead]

    def begin(self) -> Sequence[Point]:
        """The next batch of the budget, claimed."""
        claimed = []
        with self.storage.locked():
            self._sync()
            for trial in self._all(TrialState.WAITING)[: self.tuning.search.batch]:
                point = asked_point(self.tuning, self.sampler, self._first)
                assert point.number == trial.number  # claimed in order, one at a time
                self._claim(trial, point)
                self.tuning = self.tuning.model_copy(update={"points": (*self.tuning.points, point)})
                claimed.append(point)
            self._keep_sampler()
        return claimed

    def keep(self, point: Point) -> None:
        """Store a change of a running point, here and there."""
        self.tuning = with_point(self.tuning, point)
        write_tuning(self.results, self.tuning)
        with self.storage.told():
            if self._is_mine(point):
                self._put(point)

    def recorded(self, point: Point) -> None:
        """Have the point's trial carry the records that it has."""
        with self.storage.told():
            if self._is_mine(point):
                self._send(point)

    def end(self, point: Point, values: Values) -> None:
        """Store a point that is over, unless another tuner took it, thinking this one dead."""
        self.sampler.tell(point.number, point.state, values)
        with self.storage.locked():
            if self._is_mine(point):
                self._send(point)
                self._put(point)
                known = values if point.state == "complete" else None
                self.storage.trials.set_trial_state_values(self._id(point.number), ENDED[point.state], known)
        self.tuning = with_point(self.tuning, point)
        write_tuning(self.results, self.tuning)

    def is_over(self) -> bool:
        """Whether every point of the budget has ended; waits a moment where others are still at it."""
        with self.storage.locked():
            self._sync()
            alive = self.storage.alive()
            waiting = self._all(TrialState.WAITING)
            running = self._all(TrialState.RUNNING)
        if not waiting and not running:
            return True
        if not waiting and all(trial.user_attrs[OWNER] in alive for trial in running):
            time.sleep(POLL_SECONDS)
        return False

    def _open(self) -> int:
        """The study in the storage, made where it is not there."""
        study = optuna.create_study(
            study_name=self.storage.name,
            storage=self.storage.trials,
            directions=["maximize" if higher else "minimize" for higher in directions(self.tuning.search)],
            load_if_exists=True,
        )
        found: int = self.storage.trials.get_study_id_from_name(study.study_name)
        return found

    def _stored(self) -> Tuning:
        """The search as the storage has it; where it has none yet, as this tuner declares it."""
        known = self.storage.trials.get_study_user_attrs(self._study).get(DECLARATION)
        if known is None:
            declaration = json.loads(self.tuning.model_dump_json())
            self.storage.trials.set_study_user_attr(self._study, DECLARATION, declaration)
            return self.tuning
        return Tuning.model_validate(known).model_copy(update={"points": self._points()})

    def _points(self) -> tuple[Point, ...]:
        begun = (trial for trial in self._all() if trial.state is not TrialState.WAITING)
        return tuple(Point.model_validate(trial.user_attrs[POINT]) for trial in begun)

    def _enqueue(self) -> None:
        """Put the budget there: as many waiting trials as are lacking."""
        for _ in range(len(self._all()), self.tuning.search.points):
            template = create_trial(state=TrialState.WAITING)
            self.storage.trials.create_new_trial(self._study, template_trial=template)

    def _all(self, *states: TrialState) -> list[FrozenTrial]:
        """Trials in the order of their numbers."""
        found = self.storage.trials.get_all_trials(self._study, deepcopy=False, states=states or None)
        return sorted(found, key=lambda trial: trial.number)

    def _id(self, number: int) -> int:
        return self.storage.trials.get_trial_id_from_study_id_trial_number(self._study, number)

    def _is_mine(self, point: Point) -> bool:
        trial = self.storage.trials.get_trial(self._id(point.number))
        return trial.state is TrialState.RUNNING and trial.user_attrs[OWNER] == self.storage.tuner

    def _claim(self, trial: FrozenTrial, point: Point) -> None:
        space = self.tuning.search.space
        self._put(point)
        for name, level in point.levels.items():
            distribution = distribution_of(space[name])
            internal = distribution.to_internal_repr(stored_of(space[name], level))
            self.storage.trials.set_trial_param(trial._trial_id, name, internal, distribution)
        self.storage.trials.set_trial_user_attr(trial._trial_id, OWNER, self.storage.tuner)
        self.storage.trials.set_trial_state_values(trial._trial_id, TrialState.RUNNING)

    def _put(self, point: Point) -> None:
        content = json.loads(point.model_dump_json())
        self.storage.trials.set_trial_user_attr(self._id(point.number), POINT, content)

    def _send(self, point: Point) -> None:
        """Records and predictions of a point that its trial does not carry yet."""
        folder, trial_id = tuning_folder(self.results), self._id(point.number)
        for name in point.trial_ids:
            record, predictions = folder.record_path(name), folder.predictions_path(name)
            if name in self._sent or not record.exists():
                continue
            if predictions.exists():
                encoded = base64.b64encode(predictions.read_bytes()).decode()
                self.storage.trials.set_trial_user_attr(trial_id, PREDICTIONS + name, encoded)
            text = record.read_text(encoding="utf-8")
            self.storage.trials.set_trial_user_attr(trial_id, RECORD + name, text)
            self._sent.add(name)

    def _sync(self) -> None:
        """Take in what other tuners stored; a new sampler is told all of it."""
        for trial in self._all():
            self._take(trial.user_attrs)
        attributes = self.storage.trials.get_study_user_attrs(self._study).get("sampler", {})
        self.tuning = self.tuning.model_copy(update={"points": self._points(), "attributes": attributes})
        write_tuning(self.results, self.tuning)
        self.sampler: Sampler = restored_sampler(self.results, self.tuning, self.storage.name)

    def _keep_sampler(self) -> None:
        self.tuning = self.tuning.model_copy(update={"attributes": self.sampler.attributes})
        self.storage.trials.set_study_user_attr(self._study, "sampler", self.tuning.attributes)
        write_tuning(self.results, self.tuning)

    def _take(self, carried: dict[str, Any]) -> None:
        """Write the records that a trial carries, where they are not here; a record last, as ever."""
        folder = tuning_folder(self.results)
        for key, content in carried.items():
            name = key.removeprefix(RECORD)
            if not key.startswith(RECORD):
                continue
            self._sent.add(name)
            if folder.record_path(name).exists():
                continue
            if PREDICTIONS + name in carried:
                predictions = base64.b64decode(carried[PREDICTIONS + name])
                write_atomically(folder.predictions_path(name), predictions)
            write_atomically(folder.record_path(name), content.encode())
