"""A search that several tuners work on at once: its points are trials of an Optuna study in PostgreSQL.

The whole budget is put there once, as waiting trials, and each is claimed under a lock. A trial carries its
point, and the records and predictions of its training runs, so every tuner ends with all of them. A tuner
that dies loses its session with the server, and others go on with what it had claimed.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from ablate.errors import ResultsError
from ablate.store.points import Point, Tuning, tuning_folder, write_tuning
from ablate.store.results import ResultsFolder, write_atomically
from ablate.study.search import Levels
from ablate.tuning.ledger import Values, asked_point, restored_sampler, with_point
from ablate.tuning.sampler import STATES, Sampler
from ablate.tuning.settle import directions
from ablate.tuning.space import distribution_of, stored_of
from ablate.tuning.storage import Storage

POLL_SECONDS = 1.0
POINT, OWNER, RECORD, PREDICTIONS, DECLARATION = "point", "owner", "record:", "predictions:", "declaration"
"""Names of what trials carry, and the study."""


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
        self._taken: list[int] = []
        with storage.locked():
            self._study = self._open()
            self._study_id = storage.trials.get_study_id_from_name(storage.name)
            self.tuning = agree(self._stored())
            self._enqueue()
            self._take_over()
            self._sync()

    def mine(self) -> Sequence[Point]:
        """Points whose tuner died, taken over when last looked; their records so far are here."""
        taken, self._taken = self._taken, []
        return [self.tuning.points[number] for number in taken]

    def begin(self) -> Sequence[Point]:
        """The next batch of the budget, claimed."""
        claimed = []
        with self.storage.locked():
            waiting = self._all(TrialState.WAITING)[: self.tuning.search.batch]
            if not waiting:
                return []
            self._sync()
            for trial in waiting:
                point = asked_point(self.tuning, self.sampler, self._first)
                assert point.number == trial.number  # claimed in order, one at a time
                self._claim(trial, point)
                self.tuning = self.tuning.model_copy(update={"points": (*self.tuning.points, point)})
                claimed.append(point)
            self._keep_sampler()
        return claimed

    def keep(self, point: Point) -> None:
        """Store a change of a running point, here and there."""
        with self.storage.locked():
            if self._is_mine(point):
                self._put(point)
        self.tuning = with_point(self.tuning, point)
        write_tuning(self.results, self.tuning)

    def recorded(self, point: Point) -> None:
        """Have the point's trial carry the records that it has."""
        with self.storage.locked():
            if self._is_mine(point):
                self._send(point)

    def end(self, point: Point, values: Values) -> None:
        """Store a point that is over, unless another tuner took it, thinking this one dead."""
        self.sampler.tell(point.number, point.state, values)
        point = point.model_copy(update={"attributes": self.sampler.attributes_of(point.number)})
        with self.storage.locked():
            if self._is_mine(point):
                self._send(point)
                self._put(point)
                self._show(point)
                known = values if point.state == "complete" else None
                self.storage.trials.set_trial_state_values(self._id(point.number), STATES[point.state], known)
        self.tuning = with_point(self.tuning, point)
        write_tuning(self.results, self.tuning)

    def is_over(self) -> bool:
        """Whether every point of the budget has ended; waits a moment where others are still at it."""
        with self.storage.locked():
            self._take_over()
            left = bool(self._all(TrialState.WAITING, TrialState.RUNNING))
            if self._taken or not left:
                self._sync()
            waits = not self._taken and not self._all(TrialState.WAITING)
        if left and waits:
            time.sleep(POLL_SECONDS)
        return not left

    def _take_over(self) -> None:
        """Claim the points whose tuners died."""
        alive = self.storage.alive()
        for trial in self._all(TrialState.RUNNING):
            if trial.user_attrs[OWNER] not in alive:
                self.storage.trials.set_trial_user_attr(trial._trial_id, OWNER, self.storage.tuner)
                self._taken.append(trial.number)

    def _open(self) -> optuna.Study:
        """The study in the storage, made where it is not there."""
        return optuna.create_study(
            study_name=self.storage.name,
            storage=self.storage.trials,
            directions=["maximize" if higher else "minimize" for higher in directions(self.tuning.search)],
            load_if_exists=True,
        )

    def _stored(self) -> Tuning:
        """The search as the storage has it; where it has none yet, as this tuner declares it."""
        known = self.storage.trials.get_study_user_attrs(self._study_id).get(DECLARATION)
        if known is None and not self._all():
            declaration = json.loads(self.tuning.model_dump_json())
            self.storage.trials.set_study_user_attr(self._study_id, DECLARATION, declaration)
            return self.tuning
        try:
            tuning = Tuning.model_validate(known)
            # A point just claimed has no trials yet, by which to tell whether it is of the same search.
            points = tuple(point for point in self._points() if point.trial_ids)
        except (KeyError, ValueError):
            raise ResultsError(
                f"--storage {self.storage.words}: study {self.storage.name!r} there is not one that this "
                "version of ablate can read; take another database, or give the study another name"
            ) from None
        return tuning.model_copy(update={"points": points})

    def _points(self) -> tuple[Point, ...]:
        return tuple(_point_of(trial) for trial in self._all() if trial.state is not TrialState.WAITING)

    def _enqueue(self) -> None:
        """Put the budget there: as many waiting trials as are lacking."""
        for _ in range(len(self._all()), self.tuning.search.points):
            template = create_trial(state=TrialState.WAITING)
            self.storage.trials.create_new_trial(self._study_id, template_trial=template)

    def _all(self, *states: TrialState) -> list[FrozenTrial]:
        """Trials in the order of their numbers. Optuna's study reads those that ended only once."""
        found = self._study.get_trials(deepcopy=False, states=states or None)
        return sorted(found, key=lambda trial: trial.number)

    def _id(self, number: int) -> int:
        return self.storage.trials.get_trial_id_from_study_id_trial_number(self._study_id, number)

    def _is_mine(self, point: Point) -> bool:
        trial = self.storage.trials.get_trial(self._id(point.number))
        return trial.state is TrialState.RUNNING and trial.user_attrs[OWNER] == self.storage.tuner

    def _claim(self, trial: FrozenTrial, point: Point) -> None:
        """Make a waiting trial this tuner's. One that dies within leaves it waiting, or to be taken over."""
        self._put(point)
        self.storage.trials.set_trial_user_attr(trial._trial_id, OWNER, self.storage.tuner)
        self.storage.trials.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
        self._show(point)

    def _show(self, point: Point) -> None:
        """Have the trial show the point's values to Optuna, which takes each only once."""
        space, trial_id = self.tuning.search.space, self._id(point.number)
        shown = self.storage.trials.get_trial(trial_id).params
        for name, level in point.levels.items():
            if name not in shown:
                distribution = distribution_of(space[name])
                internal = distribution.to_internal_repr(stored_of(space[name], level))
                self.storage.trials.set_trial_param(trial_id, name, internal, distribution)

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
        trials = self._all()
        for trial in trials:
            self._take(trial.user_attrs)
        attributes = self.storage.trials.get_study_user_attrs(self._study_id).get("sampler", {})
        # The budget is the largest that any tuner came with.
        search = self.tuning.search.model_copy(update={"points": len(trials)})
        changes = {"search": search, "points": self._points(), "attributes": attributes}
        self.tuning = self.tuning.model_copy(update=changes)
        write_tuning(self.results, self.tuning)
        self.sampler: Sampler = restored_sampler(self.results, self.tuning, self.storage.name)

    def _keep_sampler(self) -> None:
        self.tuning = self.tuning.model_copy(update={"attributes": self.sampler.attributes})
        self.storage.trials.set_study_user_attr(self._study_id, "sampler", self.tuning.attributes)
        write_tuning(self.results, self.tuning)

    def _take(self, carried: dict[str, Any]) -> None:
        """Write the records that a trial carries, once; a record last, as ever.

        A training run that two tuners did, one of them thought dead, is what the trial carries of it.
        """
        folder = tuning_folder(self.results)
        for key, content in carried.items():
            name = key.removeprefix(RECORD)
            if not key.startswith(RECORD) or name in self._sent:
                continue
            self._sent.add(name)
            path = folder.record_path(name)
            if path.exists() and path.read_bytes() == content.encode():
                continue
            path.unlink(missing_ok=True)
            if PREDICTIONS + name in carried:
                predictions = base64.b64decode(carried[PREDICTIONS + name])
                write_atomically(folder.predictions_path(name), predictions)
            write_atomically(folder.record_path(name), content.encode())


def _point_of(trial: FrozenTrial) -> Point:
    """The point that a trial carries; a tuner that died while it ended one left its trial running."""
    point = Point.model_validate(trial.user_attrs[POINT])
    if trial.state is not TrialState.RUNNING:
        return point
    return point.model_copy(update={"state": "running", "reason": "", "pruned_at": None})
