"""The user's code since a study was last run: the same, said to compute the same, or to train with anew."""

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ablate.errors import RecordError, StudyError
from ablate.store.points import tuning_folder
from ablate.store.records import read_available
from ablate.store.results import VARIATIONS, ResultsFolder, read_plan
from ablate.study.options import Options
from ablate.study.sources import Source, read_source
from ablate.study.trials import NOT_IDENTITY, AnyFields, Sources, Trial, code_names, sources_now


def settled_sources(
    arms: Sequence[AnyFields], results: ResultsFolder, options: Options, folder: Path
) -> Callable[[AnyFields], Sources]:
    """What finds the code of a trial's fields: as it is now, or as recorded where the two are the same.

    `folder` is the study's. Where files changed since, and no option says what follows, it is a StudyError.
    """
    read = functools.cache(functools.partial(read_source, folder=folder))
    asked = {(_arm(fields), name) for fields in arms for name in code_names(fields).values()}
    current = {(arm, name): read(name) for arm, name in asked}
    if options.retrain or not asked:
        return functools.partial(_sources, current, folder)
    recorded = [*_recorded(tuning_folder(results)), *_recorded(results)]
    trials = [*recorded]
    plans = [results.shared / "study.json", *results.shared.glob(f"{VARIATIONS}/*/study.json")]
    for path in sorted(filter(Path.exists, plans), key=lambda path: path.stat().st_mtime):
        with contextlib.suppress(RecordError):  # a damaged one
            trials += read_plan(ResultsFolder(path.parent)).trials
    of_arms, of_names = dict[tuple[str, str], list[Source]](), dict[str, dict[str, Source]]()
    for trial in trials:
        for slot, source in trial.sources.items():
            arm, name = _arm(trial.fields), str(getattr(trial.fields, slot))
            of_arms.setdefault((arm, name), []).append(source)
            anywhere, key = of_names.setdefault(name, {}), source.model_dump_json()
            anywhere.pop(key, None)
            anywhere[key] = source  # each once, the latest last
    kept, files, stale = dict[tuple[str, str], Source](), set[str](), set[tuple[str, str]]()
    for (arm, name), now in current.items():
        sources = [*of_names.get(name, {}).values()]
        own = of_arms.get((arm, name), sources)
        digests = {source.digest for source in own}
        for source in sources:
            if source.digest in digests and now.digest == source.digest:
                kept[arm, name] = now
            elif source.digest in digests and now.files == source.now:  # but for comments, or as was said
                kept[arm, name] = source
        if (arm, name) in kept or not own:
            continue
        last = own[-1]
        if options.same_code:
            reason = "; ".join(filter(None, [last.same_code, options.same_code]))
            kept[arm, name] = last.model_copy(update={"ran": now.files, "same_code": reason})
        elif (arm, name) in of_arms:
            files |= {file for file, _ in last.now.items() ^ now.files.items()}
            stale.add((arm, name))
    if stale:
        changed = sum(
            any((_arm(trial.fields), name) in stale for name in code_names(trial.fields).values())
            for trial in recorded
        )
        raise StudyError(
            f"{', '.join(sorted(files))}: changed since {changed} of this study's trials were recorded; "
            'give --retrain to train them anew (their records stay), or --same-code "why it computes the '
            'same" to go on with them'
        )
    return functools.partial(_sources, current | kept, folder)


def _sources(known: Mapping[tuple[str, str], Source], folder: Path, fields: AnyFields) -> Sources:
    """The code of a trial's fields; that of a search's point may not have been asked for before."""
    return sources_now(fields, lambda name: known.get((_arm(fields), name)) or read_source(name, folder))


def _arm(fields: AnyFields) -> str:
    """What trials of one arm share; those of a search do, as its points are not known beforehand."""
    left_out = NOT_IDENTITY | {"defaults"}  # which follow from the code
    return "search" if fields.tuning_part else fields.model_dump_json(exclude=left_out)


def _recorded(folder: ResultsFolder) -> list[Trial]:
    """The complete trials of a folder's sound records by age; others may well fail for the code's sake."""
    complete = [record for record in read_available(folder)[0].values() if record.status == "complete"]
    complete.sort(key=lambda record: folder.record_path(record.trial_id).stat().st_mtime)
    return [record.trial for record in complete]
