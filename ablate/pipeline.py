"""A study from its declaration to its report; heavy libraries are imported when they are needed."""

from __future__ import annotations

import contextlib
import html
import importlib
import itertools
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate.errors import FOREIGN_FAULTS, ResultsError, StudyError
from ablate.metrics import METRICS
from ablate.plugins import is_users
from ablate.store.results import VARIATIONS, ResultsFolder, below, find_study
from ablate.study.fields import unknown_name
from ablate.study.options import Options
from ablate.study.sources import read_source
from ablate.study.study import ExternalStudy, Profile, Study, load_study
from ablate.study.trials import Plan

if TYPE_CHECKING:
    from ablate.execution.driver import Summary
    from ablate.execution.progress import Watcher
    from ablate.tables.files import Tables

REPORT_HEIGHT = "44rem"


@dataclass(frozen=True, repr=False)
class Run:
    """What a run came to, shown as its report by a notebook; a search that goes on has no tables yet."""

    folder: Path  # where the study's records and tables are
    ran: int  # trials that were run; those recorded before are not counted
    failed: int  # trials of the study that ended without a result
    interrupted: bool
    tables: Tables = field(default_factory=dict)
    report: Path | None = None  # its page, index.html
    page: str = field(default="", compare=False)  # as it was after this run; a later one overwrites the file
    answer: tuple[str, ...] = ()  # the report's first screen, in lines of text

    def remarks(self, what: str, retry: str) -> list[str]:
        """That it was stopped, or lacks results; and what goes on with it: the same call, an option."""
        lines, partial = [], "the report is partial; " if self.report else ""
        if self.interrupted:
            lines.append(f"interrupted: {partial}the same {what} goes on")
        if self.failed:
            planned = f" of {len(self.tables['trials'])}" if self.tables else ""
            lost = f"{self.failed}{planned} trials have no result"
            own = not self.report or self.report.parent != self.folder  # not of another tool
            lines.append(f"{lost}; the report says why{f'; {retry} runs them again' if own else ''}")
        return lines

    def __repr__(self) -> str:
        done = "no report yet"
        if self.report:
            states = self.tables["trials"]["status"]
            done = f"{(states == 'complete').sum()} of {len(states)} trials complete"
        study, *ran_as = ResultsFolder(self.folder).names
        lines = [f"{study} ({', '.join(ran_as)}): {done}; {self.ran} run just now"]
        lines += [*self.remarks("call", "retry_failed=True"), *self.answer]
        return "\n".join([*lines, *([f"report: {self.report}"] if self.report else [])])

    def _repr_html_(self) -> str:
        """The report in a frame of its own, sealed off from the notebook; above it the same in words."""
        words = "<br>".join(html.escape(line) for line in repr(self).splitlines())
        if not self.report:
            return f"<div>{words}</div>"
        # A frame's `#arms` would lead to the notebook's own address, so its links name the frame itself.
        page = self.page.replace('href="#', 'href="about:srcdoc#')
        style = f"width:100%;height:{REPORT_HEIGHT};border:1px solid #8888;border-radius:4px;resize:vertical"
        return (
            f"<div>{words}</div>\n"
            f'<iframe title="Report" sandbox="allow-scripts allow-downloads" style="{style}" '
            f'srcdoc="{html.escape(page)}"></iframe>'
        )


def run(study: Study | str | Path, **options: Any) -> Run:
    """Train what is missing of a study, write its tables and render its report: `python -m ablate run`.

    Interrupted, as by a notebook's stop button, it ends with a partial report, and the same call goes on.
    An AblateError says what is wrong, before anything is trained. A path is of a file that defines the study.
    Options are profile, settings (such as {"epsilon": [0.0, 0.1], "epochs": 5}: a list sweeps its field),
    seeds, name, device, workers, executor, address, threads, data_dir, results, report, engine, timeout,
    stall, retry_failed, retrain, same_code, keep_weights, timing.
    """
    return run_study(*_from_python("run", study, options))


def tune(
    study: Study | str | Path, *, points: int | None = None, storage: str | None = None, **options: Any
) -> Run:
    """Search for the best setting, then re-test it with fresh seeds: `python -m ablate tune`.

    `points` is the budget, instead of the study's; `storage` the PostgreSQL URL of a search that tuners
    share; options are those of `run`, whose `seeds` are the re-test's.
    """
    return tune_study(*_from_python("tune", study, options), points=points, storage=storage)


def load_tables(study: str, *, profile: str | None = None, results: str | Path = "results") -> Tables:
    """Read the tables of a study that was run: DataFrames by name, their columns as in results/README.md.

    `study` is STUDY[/PROFILE[/VARIATION]]; what was run alone need not be named. A ResultsError says what was
    run instead, and a RecordError which table is missing or damaged.
    """
    from ablate.tables.columns import open_plan
    from ablate.tables.files import read_tables

    folder = find_study(Path(results), study, profile)
    open_plan(folder)
    return read_tables(folder)


def run_study(study: Study, options: Options) -> Run:
    """Train what is missing of a study, write its tables and render its report."""
    from ablate.execution import driver

    require_sound(study, options)
    settled, searched = driver.settle(study, options), 0
    with _view(options) as view:
        if settled.study.retune:
            from ablate.tuning.run import retune_arms

            both, searched = retune_arms(settled, options, view)
            if both is None:
                return Run(settled.folder(options).root, searched, 0, True)
            settled = both
        summary = driver.run_settled(settled, options, view)
        if options.shard:
            joins = f"python -m ablate report {'/'.join(summary.folder.names)}"
            view.note(f"shard {options.shard} is over; after the last one, `{joins}` makes the report")
            return Run(summary.folder.root, summary.ran, summary.failed, summary.interrupted)
    return _reported(replace(summary, ran=summary.ran + searched), options)


def tune_study(study: Study, options: Options, *, points: int | None, storage: str | None) -> Run:
    """Spend a search's budget, re-test its winner, write the tables and render the report."""
    from ablate.tuning import run as tuning

    require_sound(study, options)
    with _view(options) as view:
        tuned = tuning.tune_study(study, options, view, points=points, storage=storage)
        view.note(f"{tuned.ran} trials run for {len(tuned.tuning.points)} points")
    if tuned.retest is None:
        return Run(tuned.folder.root, tuned.ran, 0, tuned.interrupted)
    return _reported(tuned.retest, options)


def write_results(folder: ResultsFolder, report_dir: Path, *, pdf: bool = False) -> Path:
    """Tables from records, then the report from the tables; returns the report's page."""
    from ablate.report import write_report

    plan = rebuild_tables(folder)
    place = folder.root.resolve().relative_to(folder.shared.resolve().parent).parts
    return write_report(folder, below(report_dir, plan.study.name, *place), pdf=pdf)


def rebuild_tables(folder: ResultsFolder) -> Plan:
    """Tables from records; published results without predictions keep the tables they have."""
    from ablate.tables.build import build_tables
    from ablate.tables.columns import open_plan
    from ablate.tables.files import write_tables

    plan = open_plan(folder)
    if folder.predictions.exists():
        write_tables(folder, build_tables(folder, plan))
    return plan


def require_metrics(study: Study) -> None:
    """Have a study's own metrics known; one that no table has, or has already, is refused before training."""
    from ablate.tables.columns import COLUMNS, declare
    from ablate.tables.quantities import quantity

    declare(study)
    search = study.search or study.retune
    objective = search.objective if search else ()
    parts = {"primary": [study.primary], "family": study.family, "margins": study.margins}
    known, faults = study.usual(*METRICS), list[str]()
    for part, names in {**parts, "objective": objective}.items():
        faults += [f"{part}: {unknown_name('metric', name, known)}" for name in names if name not in known]
    for name in objective:
        if name in known and not quantity(name).better:
            faults.append(f"objective: {name} has no better direction; take another, as accuracy or ece")
    for name in () if isinstance(study, ExternalStudy) else study.metrics:
        if not name.isidentifier() or name in {column.name for column in COLUMNS["trials"]}:
            faults.append(f"metrics.{name}: is no plain name, or is taken; write another, as worst_class")
    if faults:
        raise StudyError("\n".join(faults))


def require_sound(study: Study, options: Options) -> None:
    """Find before any training what would only be found after it: metrics, names, the report's folder."""
    require_metrics(study)
    below(options.report, study.name)
    if VARIATIONS in (study.name, options.name):  # which could not be told from the folder's own
        raise StudyError(f"name: {VARIATIONS} is the folder of a study's variations; choose another name")
    there = next(path for path in [options.report, *options.report.absolute().parents] if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ResultsError(f"{options.report}: the report cannot be written there; give another --report")


def _reported(summary: Summary, options: Options) -> Run:
    from ablate.tables.files import read_tables

    folder, page = summary.folder, write_results(summary.folder, options.report)
    ended = {"ran": summary.ran, "failed": summary.failed, "interrupted": summary.interrupted}
    return with_report(page, read_tables(folder), folder=folder.root, **ended)


def with_report(page: Path, tables: Tables, **ended: Any) -> Run:
    """What a run came to, with its tables and its report as it is now."""
    from ablate.report.answer import answer_lines

    told = answer_lines(json.loads((page.parent / "report.json").read_text(encoding="utf-8")))
    text = page.read_text(encoding="utf-8")
    return Run(**ended, tables=tables, report=page, page=text, answer=tuple(told))


def _view(options: Options) -> Watcher:
    """Lines or a bar, or one output of a notebook cell. A bar would overwrite the prompt of a debugger."""
    from rich.console import Console

    from ablate.execution.progress import NotebookView, Watcher, in_notebook

    if in_notebook():
        return NotebookView()
    return Watcher(Console(force_terminal=False if options.workers == 0 else None))


def _from_python(command: str, study: Study | str | Path, given: dict[str, Any]) -> tuple[Study, Options]:
    """The study and the options of a call, checked, with the call itself for the report."""
    options = Options(**given)
    study = study if isinstance(study, Study) else load_study(study)
    importlib.invalidate_caches()  # a module written a moment ago is otherwise not seen
    declared: list[Study | Profile] = [study, *study.profiles.values()]
    levels = [*options.settings.values(), *(some for part in declared for some in part.factors.values())]
    codes = [study.train, *(metric.code for metric in study.metrics.values())]
    for value in itertools.chain(codes, *levels, *(part.base.values() for part in declared)):
        _ready_own_module(str(value))
    values = options.repeated()
    swept = {name: many[0] if len(many) == 1 else list(many) for name, many in options.settings.items()}
    values |= {"settings": swept} if swept else {}
    words = ["study", *(f"{name}={value!r}" for name, value in values.items())]
    return study, options.model_copy(update={"command": f"ablate.{command}({', '.join(words)})"})


def _ready_own_module(text: str) -> None:
    """See that the user's modules, edited between a notebook's runs, are imported as they are now."""
    module_name, _, attribute = text.partition(":")
    if module_name == "__main__":
        raise StudyError(
            f"{text}: is defined in this notebook or script itself, which workers cannot import; put it in a "
            f"file beside it (%%writefile my_module.py does that), and name it 'my_module:{attribute}'"
        )
    files: Iterable[str] = ()
    with contextlib.suppress(*FOREIGN_FAULTS):  # told before training, with all other faults
        files = read_source(text).files if attribute else ()
    for file in files:
        module_name = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        origin = getattr(sys.modules.get(module_name), "__file__", None)
        if origin and is_users(Path(origin)):
            del sys.modules[module_name]
