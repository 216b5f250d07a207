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

ANY, TUNED = "any arm", "an arm of the search"


def settled_sources(
    arms: Sequence[Fields], results: ResultsFolder, options: Options
) -> Callable[[Fields], Sources]:
    """What finds the code of a trial's fields: as it is now, or as recorded where the two are the same.

    Raises:
        StudyError: files changed since such trials were recorded, and the options do not say what follows.
    """
    read = functools.cache(read_source)
    asked = {(_alike(fields), name) for fields in arms for name in code_names(fields).values()}
    if options.retrain or not asked:
        return functools.partial(sources_now, read=read)
    recorded = [trial for folder in (tuning_folder(results), results) for trial in _recorded(folder)]
    planned: Sequence[Trial] = ()
    with contextlib.suppress(RecordError):  # none, or a damaged one
        planned = read_plan(results).trials
    known = defaultdict[tuple[str, str], list[Source]](list)  # the latest last
    for trial in [*recorded, *planned]:
        for slot, source in trial.sources.items():
            for which in (_alike(trial.fields), ANY):
                known[which, str(getattr(trial.fields, slot))].append(source)
    kept, files = dict[tuple[str, str], Source](), set[str]()
    changed = set[tuple[str, str]]()
    for arm, name in asked:
        now, before = read(name), known[arm, name] or known[ANY, name]
        digests = {source.digest for source in before}
        said = [source for source in known[ANY, name] if source.same_code and source.digest in digests]
        # A comment alone changes the digest of a single file, and not its code.
        same = [one for one in (*said, *before) if one.digest == now.digest or one.now == now.files]
        if same:
            kept[arm, name] = now if same[-1].digest == now.digest else same[-1]
        elif before and options.same_code:
            reason = "; ".join(filter(None, [before[-1].same_code, options.same_code]))
            kept[arm, name] = before[-1].model_copy(update={"ran": now.files, "same_code": reason})
        elif before:
            changed.add((arm, name))
            files |= {file for file, _ in before[-1].now.items() ^ now.files.items()}
    stale = sum(
        any((_alike(trial.fields), name) in changed for name in code_names(trial.fields).values())
        for trial in recorded
    )
    if stale:
        raise StudyError(
            f"{', '.join(sorted(files))}: changed since trials of this study were recorded ({stale} in "
            f"{results.root}); give --retrain to train them anew, their records stay, or --same-code "
            '"why it computes the same" to go on with them'
        )

    def find(fields: Fields) -> Sources:
        return sources_now(fields, lambda name: kept.get((_alike(fields), name)) or read(name))

    return find


def _alike(fields: Fields) -> str:
    """What trials of one arm share; those of a search do, as its points are not known beforehand."""
    return TUNED if fields.tuning_part else fields.model_dump_json(exclude=NOT_IDENTITY)


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
