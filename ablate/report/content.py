"""The report as JSON values: everything that its pages show. The pages compute nothing."""

from __future__ import annotations

from collections.abc import Sequence

from ablate.analysis.arms import complete_trials, identical_arms, labels_of, of_plan
from ablate.analysis.effects import effects_table, terms
from ablate.analysis.timing import timing_pass, timing_table
from ablate.analysis.tuning import read_search, retested
from ablate.figures import Figure, draw_figures
from ablate.report.cautions import banners
from ablate.report.headline import headline
from ablate.report.method import method
from ablate.report.provenance import device_text, provenance, reproduce
from ablate.report.run_list import failures_table, trials_table
from ablate.report.sentences_of_averages import averaged_sentences
from ablate.report.tuning import tuning_headline, tuning_view
from ablate.report.views import (
    arms_view,
    certainty_view,
    contrasts_view,
    effects_view,
    more_metrics_view,
    published_view,
    timing_note,
    timing_view,
    trends_view,
)
from ablate.study.trials import Plan
from ablate.tables import Tables
from ablate.tables.cells import Json, clean

FORMAT = 1
"""Raised when report.json changes in a way that its readers must know of."""


def build_report(
    tables: Tables, plan: Plan, figures: Sequence[Figure] | None = None, derived: Tables | None = None
) -> Json:
    """Everything the report says, from the tables and the plan alone.

    Args:
        tables: the trials, epochs and reliability tables.
        plan: the study as it was run.
        figures: the study's figures where they are drawn already.
        derived: what `derived_tables` gives, where it is computed already.

    Returns:
        JSON values; numbers are unrounded, beside them the text that shows them.

    Raises:
        StudyError: the study is about a metric that the trials table does not have.
        RecordError: the tables are of other trials than the plan's.
    """
    tables = of_plan(tables, plan)
    trials, complete = tables["trials"], complete_trials(tables["trials"])
    derived = derived_tables(tables, plan) if derived is None else derived
    effects = derived["effects"]
    averaged = averaged_sentences(effects, plan)
    epochs = tables["epochs"][tables["epochs"]["trial_id"].isin(complete["trial_id"])]
    labels, timing = labels_of(plan), timing_pass(tables.get("step_times"))
    published, tuned = published_view(epochs, plan), read_search(tables, plan)
    answer = headline(trials, effects, plan, timing, averaged)
    if published:
        answer["summary"] = f"{published['summary']} {answer['summary']}".lstrip()
    report = {
        "format": FORMAT,
        "study": plan.study.name,
        "profile": plan.profile,
        "first_line": f"Profile {plan.profile} on {device_text(trials)}: {plan.reason}.",
        "question": plan.study.question,
        "description": plan.study.description,
        "headline": answer,
        "banners": banners(trials, plan, tables.get("floors"), tuned),
        "arms": arms_view(trials, plan),
        "more_metrics": more_metrics_view(trials, plan),
        "identical": [[labels[arm] for arm in group] for group in identical_arms(trials, plan)],
        "effects": effects_view(effects, plan),
        "certainty": certainty_view(effects, plan),
        "trends": trends_view(effects, plan),
        "contrasts": contrasts_view(effects, plan),
        "timing": {"note": timing_note(timing), "table": timing_view(tables.get("step_times"), plan)},
        "figures": [
            _figure(figure)
            for figure in (draw_figures({**tables, **derived}, plan) if figures is None else figures)
        ],
        "published": published,
        "method": method(
            plan,
            averages=any(term.kind != "arm" for term in terms(plan)),
            tuned=len(tuned.objectives) if tuned else 0,
        ),
        "provenance": provenance(trials, plan),
        "reproduce": reproduce(trials, plan),
        "failures": failures_table(trials, plan),
        "trials": trials_table(trials, plan),
        "downloads": [
            {"name": f"{name}.csv", "rows": len(rows)}
            for name, rows in {**tables, **derived}.items()
            if len(rows)
        ],
    }
    if tuned:
        retests = retested(tuned, trials, effects, plan)
        answer["tuning"] = tuning_headline(tuned, retests, trials, plan)
        report["tuning"] = tuning_view(tuned, retests, plan.study)
    cleaned: Json = clean(report)
    return cleaned


def derived_tables(tables: Tables, plan: Plan) -> Tables:
    """The tables that follow from the others: effects and timing."""
    return {
        "effects": effects_table(tables, plan),
        "timing": timing_table(tables.get("step_times")),
    }


def _figure(figure: Figure) -> Json:
    return {
        "name": figure.name,
        "title": figure.title,
        "caption": figure.caption,
        "alt": figure.alt,
        "wide": figure.wide,
        "light": "" if figure.error else f"figures/{figure.name}.svg",
        "dark": "" if figure.error else f"figures/{figure.name}-dark.svg",
        "error": figure.error,
    }
