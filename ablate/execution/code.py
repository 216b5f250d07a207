"""The user's code since a study was last run: the same, said to compute the same, or to train with anew."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from ablate.errors import RecordError, StudyError
from ablate.store.points import tuning_folder
from ablate.store.records import read_record
from ablate.store.results import ResultsFolder, read_plan
from ablate.study.options import Options
from ablate.study.sources import Source, read_source
from ablate.study.trials import NOT_IDENTITY, AnyFields, Sources, Trial, code_names, identity_of, sources_now


def settled_sources(
    arms: Sequence[AnyFields], results: ResultsFolder, options: Options, folder: Path
) -> Callable[[AnyFields], Sources]:
    """What finds the code of a trial's fields: as it is now, or as recorded where the two are the same.

    `folder` is the study's, in which files of a command's code are.

    Raises:
        StudyError: files changed since such trials were recorded, and the options do not say what follows.
    """
    read = functools.cache(functools.partial(read_source, folder=folder))
    asked = {(_arm(fields), name) for fields in arms for name in code_names(fields).values()}
    if options.retrain or not asked:
        return functools.partial(sources_now, read=read)
    recorded = [trial for folder in (tuning_folder(results), results) for trial in _recorded(folder)]
    planned: Sequence[Trial] = ()
    with contextlib.suppress(RecordError):  # none, or a damaged one
        planned = read_plan(results).trials
    known = [
        (_arm(trial.fields), str(getattr(trial.fields, slot)), source)
        for trial in (*recorded, *planned)  # the latest last
        for slot, source in trial.sources.items()
    ]
    kept, changed, files = dict[tuple[str, str], Source](), set[tuple[str, str]](), set[str]()
    for arm, name in asked:
        now, anywhere = read(name), [source for _, of, source in known if of == name]
        own = [source for of_arm, of, source in known if (of_arm, of) == (arm, name)]
        digests = {source.digest for source in own or anywhere}
        for source in (*anywhere, *own):
            if source.digest in digests and source.now == now.files:  # but for comments, or as was said
                kept[arm, name] = source
            if source.digest in digests and source.digest == now.digest:
                kept[arm, name] = now
        if (arm, name) in kept or not digests:
            continue
        last = (own or anywhere)[-1]
        if options.same_code:
            reason = "; ".join(filter(None, [last.same_code, options.same_code]))
            kept[arm, name] = last.model_copy(update={"ran": now.files, "same_code": reason})
        elif own:
            changed.add((arm, name))
            files |= {file for file, _ in last.now.items() ^ now.files.items()}
    stale = {
        trial.trial_id
        for trial in recorded
        for name in code_names(trial.fields).values()
        if (_arm(trial.fields), name) in changed
    }
    if stale:
        raise StudyError(
            f"{', '.join(sorted(files))}: changed since {len(stale)} of this study's trials were recorded; "
            'give --retrain to train them anew (their records stay), or --same-code "why it computes the '
            'same" to go on with them'
        )
    return lambda fields: sources_now(fields, lambda name: kept.get((_arm(fields), name)) or read(name))


def _arm(fields: AnyFields) -> str:
    """What trials of one arm share; those of a search do, as its points are not known beforehand."""
    left_out = NOT_IDENTITY | {"defaults"}  # which follow from the code
    return "search" if fields.tuning_part else fields.model_dump_json(exclude=left_out)


def _recorded(folder: ResultsFolder) -> list[Trial]:
    """The trials of a folder's sound records by age, each with its code."""
    trials = []
    for path in sorted(folder.records.glob("*.json"), key=os.path.getmtime):
        with contextlib.suppress(RecordError):
            trial = read_record(path).trial
            if not trial.sources:  # from before records had them
                alone = functools.partial(read_source, follow=False)
                was = trial.model_copy(update={"sources": sources_now(trial.fields, alone)})
                trial = was if identity_of(was) == trial.trial_id else trial
            trials.append(trial)
    return trials
