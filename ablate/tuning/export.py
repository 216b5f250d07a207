"""A study in memory as a file that optuna-dashboard opens."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Container, Mapping
from datetime import datetime, timedelta
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

FIRST_TIME = datetime(2000, 1, 1)
MINUTE = timedelta(minutes=1)


def as_sqlite(study: optuna.Study, attributes: Mapping[str, Any], pruned: Container[int]) -> bytes:
    """A study as an SQLite database.

    The times in it are made up, a minute for each trial, so that equal searches give equal files.

    Args:
        study: any.
        attributes: what the sampler keeps of it.
        pruned: numbers of trials that are shown as pruned, whatever the study takes them for.
    """
    storage = optuna.storages.RDBStorage("sqlite://")  # in memory: in a file, every trial would be synced
    copy = optuna.create_study(study_name=study.study_name, storage=storage, directions=study.directions)
    study_id = storage.get_study_id_from_name(study.study_name)
    for name, value in sorted(attributes.items()):
        storage.set_study_system_attr(study_id, name, value)
    copy.add_trials([_shown(trial, pruned) for trial in study.get_trials()])
    with contextlib.closing(storage.engine.raw_connection()) as connection:
        database = connection.driver_connection
        assert isinstance(database, sqlite3.Connection)
        content = database.serialize()
    storage.remove_session()
    storage.engine.dispose()
    return content


def _shown(trial: FrozenTrial, pruned: Container[int]) -> FrozenTrial:
    trial.datetime_start = FIRST_TIME + trial.number * MINUTE
    if trial.state.is_finished():
        trial.datetime_complete = trial.datetime_start + MINUTE
    if trial.number in pruned:
        trial.state = TrialState.PRUNED
    return trial
