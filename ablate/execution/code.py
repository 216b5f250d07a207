"""The user's code since a study was last run: the same, said to compute the same, or to train with anew."""

from __future__ import annotations

import contextlib
import functools
import os
from collections import defaultdict
from collections.abc import Callable, Sequence

from ablate.errors import RecordError, StudyError
from ablate.store.points import tuning_folder
from ablate.store.records import read_record
from ablate.store.results import ResultsFolder, read_plan
from ablate.study.fields import Fields
from ablate.study.options import Options
from ablate.study.sources import Source, read_source
from ablate.study.trials import NOT_IDENTITY, Sources, Trial, code_names, identity_of, sources_now


def settled_sources(
    arms: Sequence[Fields], results: ResultsFolder, options: Options
) -> Callable[[Fields], Sources]:
    """What finds the code of a trial's fields: as it is now, or as recorded where the two are the same.

    Raises:
        StudyError: files changed since such trials were recorded, and the options do not say what follows.
    """
    read = functools.cache(read_source)
    names = {name for fields in arms for name in code_names(fields).values()}
    if options.retrain or not names:
        return functools.partial(sources_now, read=read)
    recorded = [trial for folder in (tuning_folder(results), results) for trial in _recorded(folder)]
    planned: Sequence[Trial] = ()
    with contextlib.suppress(RecordError):  # none, or a damaged one
        planned = read_plan(results).trials
    known = defaultdict[str, list[Source]](list)  # the latest last
    for trial in [*recorded, *planned]:
        for slot, source in trial.sources.items():
            known[str(getattr(trial.fields, slot))].append(source)
    kept, files, changed = dict[str, Source](), set[str](), set[str]()
    for name in sorted(names):
        now, before = read(name), known[name]
        if not before or any(source.digest == now.digest for source in before):
            continue
        for source in before:
            if source.now == now.files:  # but for comments of a single file, or as was said before
                kept[name] = source
        if name not in kept:
            last = before[-1]
            changed.add(name)
            files |= {file for file, _ in last.now.items() ^ now.files.items()}
            if options.same_code:
                reason = "; ".join(filter(None, [last.same_code, options.same_code]))
                kept[name] = last.model_copy(update={"ran": now.files, "same_code": reason})
    alike = {fields.model_dump_json(exclude=NOT_IDENTITY) for fields in arms}
    stale = [
        trial
        for trial in recorded
        if changed.intersection(code_names(trial.fields).values())
        # The points of a search are not known beforehand.
        and (trial.fields.tuning_part or trial.fields.model_dump_json(exclude=NOT_IDENTITY) in alike)
    ]
    if stale and not options.same_code:
        raise StudyError(
            f"{', '.join(sorted(files))}: changed since {len(stale)} trials of this study were recorded; "
            'give --retrain to train them anew (their records stay), or --same-code "why it computes the '
            'same" to go on with them'
        )
    return functools.partial(sources_now, read=lambda name: kept.get(name) or read(name))


def _recorded(folder: ResultsFolder) -> list[Trial]:
    """The trials of a folder's sound records by age, each with its code."""
    trials = []
    for path in sorted(folder.records.glob("*.json"), key=os.path.getmtime):
        with contextlib.suppress(RecordError):
            trial = read_record(path).trial
            if not trial.sources:  # from before records had them: then it was the module alone
                alone = functools.partial(read_source, follow=False)
                was = trial.model_copy(update={"sources": sources_now(trial.fields, alone)})
                trial = was if identity_of(was) == trial.trial_id else trial
            trials.append(trial)
    return trials
