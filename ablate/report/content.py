"""The report as JSON values, everything that its pages show, and as files. The pages compute nothing."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from ablate.analysis.arms import as_recorded, complete_trials, identical_arms, labels_of, level_label, of_plan
from ablate.analysis.effects import effects_table
from ablate.analysis.timing import timing_pass, timing_table
from ablate.analysis.tuning import read_search, retested
from ablate.figures import Figure, draw_figures
from ablate.report import views
from ablate.report.answer import answer, retune_view, tuning_answer
from ablate.report.cautions import banners
from ablate.report.cells import Json, as_json
from ablate.report.pages import method, render_html, render_markdown
from ablate.report.paper import methods_paragraph
from ablate.store.results import ResultsFolder, make_writable, write_atomically
from ablate.study.study import ExternalStudy
from ablate.study.trials import Plan
from ablate.tables.columns import RECORDED, open_plan
from ablate.tables.files import Tables, read_tables, write_tables
from ablate.terminal import optional

FORMAT = 2  # raised when report.json changes in a way that its readers must know of
LARGEST_CARRIED = 250_000  # bytes up to which a table but that of trials travels in the page


def write_report(results: ResultsFolder, report_dir: Path, *, pdf: bool = False) -> Path:
    """Render a study's report from its plan and its tables; the path of its index.html.

    RecordError: these are missing, damaged or not of one study. StudyError: it is about an unknown metric.
    """
    make_writable(report_dir, [report_dir / "figures"], "the report cannot be written", "--report")
    plan = open_plan(results)
    tables = of_plan(read_tables(results, names=RECORDED), plan)
    return write_pages(tables, plan, results, report_dir, pdf=pdf)


def write_pages(
    tables: Tables, plan: Plan, results: ResultsFolder, report_dir: Path, *, pdf: bool = False
) -> Path:
    """Write what follows from tables, beside them, then report.json, index.html, report.md and figures.

    The same tables give the same bytes; records are not read.
    """
    plan = as_recorded(plan, tables["trials"])
    derived = derived_tables(tables, plan)
    write_tables(results, derived)
    figures = draw_figures({**tables, **derived}, plan, pdf=pdf)
    report = build_report({**tables, **derived}, plan, figures)
    files = {file["name"]: results.read(file["name"]) for file in report["downloads"]}
    carried = {k: csv for k, csv in files.items() if k == "trials.csv" or len(csv) <= LARGEST_CARRIED}
    content = {
        "report.json": f"{json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False)}\n".encode(),
        "index.html": render_html(report, figures, carried).encode(),
        "report.md": render_markdown(report).encode(),
    }
    for name, data in content.items():
        write_atomically(report_dir / name, data)
    with optional():
        drawn = dict[str, bytes]()
        for figure, paths in zip(figures, report["figures"], strict=True):
            drawn |= {paths[kind]: getattr(figure, kind) for kind in ("light", "dark", "pdf") if paths[kind]}
        for name, data in drawn.items():
            write_atomically(report_dir / name, data)
        for old in (report_dir / "figures").iterdir():  # of an earlier report
            if old.suffix in (".svg", ".pdf") and f"figures/{old.name}" not in drawn:
                old.unlink()
    return report_dir / "index.html"


def derived_tables(tables: Tables, plan: Plan) -> Tables:
    """The tables that follow from the others: effects and timing."""
    derived = {"effects": effects_table(tables, plan)}
    return derived | ({"timing": timing_table(tables["step_times"])} if "step_times" in tables else {})


def build_report(tables: Tables, plan: Plan, figures: Sequence[Figure]) -> Json:
    """Everything the report says, numbers unrounded, from the tables, those derived among them."""
    study, trials, effects, epochs = plan.study, tables["trials"], tables["effects"], tables["epochs"]
    epochs = epochs[epochs["trial_id"].isin(complete_trials(trials)["trial_id"])]
    labels, timing, tuned = labels_of(plan), timing_pass(tables.get("step_times")), read_search(tables, plan)
    first_screen, published = answer(tables, plan, timing), views.published_view(epochs, plan)
    retuned, said = retune_view(tables, plan), first_screen["sentences"]
    before, after = (
        [{"metric": "", "word": "", "text": own["summary"]}] if own else [] for own in (published, retuned)
    )
    first_screen["sentences"] = [*before, *said, *after]
    drawn: list[Json] = []
    for figure in figures:  # all but the images, in whose place stand their paths
        light, dark = ("" if figure.error else f"figures/{figure.name}{end}.svg" for end in ("", "-dark"))
        pdf = f"figures/{figure.name}.pdf" if figure.pdf else ""
        drawn.append({**asdict(figure), "light": light, "dark": dark, "pdf": pdf})
    report = {
        "format": FORMAT,
        "study": study.name,
        "profile": plan.profile,
        "question": study.question,
        "description": study.description,
        "answer": first_screen,
        "banners": banners(tables, plan, tuned),
        "arms": views.arms_view(tables, plan),
        "more_metrics": views.arms_view(tables, plan, more=True),
        "components": views.components_view(tables, effects, plan),
        "retune": retuned,
        "identical": [[labels[arm] for arm in group] for group in identical_arms(trials, plan)],
        "effects": views.effects_view(effects, plan, "arm", "pair"),
        "sensitivity": views.sensitivity_view(effects, plan),
        "trends": views.effects_view(effects, plan, "trend"),
        "contrasts": views.effects_view(effects, plan, "main", "interaction"),
        "timing": views.timing_view(timing, plan),
        "figures": drawn,
        "published": published,
        "methods_paragraph": methods_paragraph(tables, plan),
        "method": method(plan, tuned=tuned is not None),
        "provenance": _provenance(trials, plan),
        "reproduce": _reproduce(trials, plan),
        "failures": views.trials_view(trials, plan, failed=True),
        "trials": views.trials_view(trials, plan),
        "downloads": [{"name": f"{k}.csv", "rows": len(rows)} for k, rows in tables.items() if len(rows)],
    }
    if tuned:
        retests = retested(tuned, trials, effects, plan)
        first_screen["tuning"] = tuning_answer(tuned, retests, trials)
        report["tuning"] = views.tuning_view(tuned, retests)
    cleaned: Json = as_json(report)
    return cleaned


def _provenance(trials: pd.DataFrame, plan: Plan) -> list[Json]:
    complete, counts = trials[trials["status"] == "complete"], trials["status"].value_counts()
    states = ", ".join(f"{number} {status}" for status, number in counts.sort_index().items())
    if isinstance(plan.study, ExternalStudy):
        return [{"name": "Runs", "value": plan.reason}, {"name": "Of these", "value": states}]
    kinds, names = _values(trials, "device"), _values(trials, "device_name")
    own = bool(plan.study.trained_by)
    first, *others = (
        trial.fields.model_dump(exclude={"defaults", "code"}, exclude_defaults=own) for trial in plan.trials
    )
    common = {name: value for name, value in first.items() if all(own[name] == value for own in others)}
    facts = {
        "Study": plan.study.name,
        "Profile": f"{plan.profile} ({plan.reason})",
        "Trials": f"{len(plan.trials)} planned: {states}",
        "Arms": str(len(labels_of(plan))),
        "Seeds": ", ".join(map(str, plan.study.seed_list())),
        "Device": f"{kinds} ({names})" if names else kinds,
        "Precision": _values(complete, "resolved_precision"),
        "CPU threads per trial": _values(complete, "threads"),
        "Engine": _values(complete, "engine"),
        "torch": _values(complete, "torch_version"),
        "Commit of ablate": _values(complete, "commit"),
        "Data fingerprint": ", ".join(dict.fromkeys(trial.fingerprint for trial in plan.trials)),
        "Trainable parameters": _values(complete, "parameters"),
        "Fields common to all arms": ", ".join(f"{k}={level_label(v)}" for k, v in common.items()),
    }
    return [{"name": name, "value": value or "not recorded"} for name, value in facts.items()]


def _values(trials: pd.DataFrame, name: str) -> str:
    return ", ".join(sorted(map(str, trials[name].dropna().unique())))


def _reproduce(trials: pd.DataFrame, plan: Plan) -> Json:
    if isinstance(plan.study, ExternalStudy):
        return {"command": plan.command, "note": "It reads the runs again, and trains nothing."}
    commits = _values(trials, "commit")
    at = f" at commit {commits}" if commits else ""
    profile = f" --profile {shlex.quote(plan.profile)}" if plan.study.profiles else ""
    # What ran, unless it was not run from the command line.
    command = plan.command or f"python -m ablate run {shlex.quote(f'{plan.study.name}.py')}{profile}"
    note = f"Run it{at}. It trains what the results folder lacks; with a new folder for --results, all."
    return {"command": command, "note": note}
