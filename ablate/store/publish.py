"""Results that the project publishes: records and tables copied to where they are tracked."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from ablate.errors import ResultsError
from ablate.store.records import read_predictions, read_records
from ablate.store.results import ResultsFolder, read_plan


def publish_results(folder: ResultsFolder, target: Path, *, predictions: bool) -> ResultsFolder:
    """Copy a study's plan, its planned trials' records and its tables to a new folder.

    Args:
        folder: a study that was run, its tables written.
        target: the folder to make; it must not exist.
        predictions: copy the predictions too. Without them, their digests stay in the records.

    Raises:
        ResultsError: the target exists, or a planned trial has no record.
        RecordError: a record or its predictions are damaged.
    """
    if target.exists():
        raise ResultsError(f"{target}: exists already; choose another name with --as, or remove it first")
    planned = {trial.trial_id for trial in read_plan(folder).trials}
    records = {name: record for name, record in read_records(folder).items() if name in planned}
    if missing := len(planned) - len(records):
        raise ResultsError(f"{folder.root}: {missing} planned trials have not run; run the study to its end")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        made = ResultsFolder(Path(scratch) / target.name)
        made.records.mkdir(parents=True)
        for trial_id, record in records.items():
            shutil.copyfile(folder.record_path(trial_id), made.record_path(trial_id))
            if record.status == "complete":
                read_predictions(folder, record)  # checks them
                if predictions:
                    made.predictions.mkdir(exist_ok=True)
                    shutil.copyfile(folder.predictions_path(trial_id), made.predictions_path(trial_id))
        for path in [folder.plan, *folder.root.glob("*.csv")]:
            shutil.copyfile(path, made.root / path.name)
        made.root.rename(target)
    return ResultsFolder(target)
