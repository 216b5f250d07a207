"""What goes into a paper: the table of arms in LaTeX or Markdown, and a paragraph on methods."""

import math
import re
from collections.abc import Iterator, Sequence

import pandas as pd
from markupsafe import Markup

from ablate.analysis import arms
from ablate.analysis.arms import Arm, arm_interval, complete_trials, factor_label, level_label, planned_arms
from ablate.analysis.effects import claims, contrast_label, effects_table
from ablate.errors import StudyError
from ablate.report import cells
from ablate.report.cells import Column, Json
from ablate.report.pages import environment, escaped, words
from ablate.study.comparisons import family_size, terms
from ablate.study.fields import unknown_name
from ablate.study.trials import Plan
from ablate.tables.files import Tables
from ablate.tables.quantities import number_columns, quantity, shown

TEX = str.maketrans({
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "ε": r"$\varepsilon$", "±": r"$\pm$", "−": "$-$",
    "†": r"$^{\dagger}$", "‡": r"$^{\ddagger}$", "–": r"\textendash{}",
    "`": r"\textasciigrave{}", **{mark: f"\\{mark}" for mark in "&%$#_{}"},
})  # fmt: skip
MARKS = {"undecided": "", "equivalent": "‡", **dict.fromkeys(("better", "worse", "higher", "lower"), "†")}


def arms_table(trials: pd.DataFrame, plan: Plan, metrics: Sequence[str], spread: str, *, latex: bool) -> str:
    """A row per arm, a column per metric: the best means bold, claims against the baseline marked.

    Without `metrics` the primary one, the family's, accuracy and ECE; `spread` is ci, sd, se or none.
    """
    study, known = plan.study, number_columns()
    metrics = tuple(dict.fromkeys(metrics or (study.primary, *study.comparison_family, "accuracy", "ece")))
    if unknown := [unknown_name("metric", name, known) for name in metrics if name not in known]:
        raise StudyError("\n".join(f"--metric {line}" for line in unknown))
    complete, claimed = complete_trials(trials), claims(effects_table({"trials": trials}, plan), plan)
    runs = complete["arm"].value_counts().reindex(list(plan.arms), fill_value=0)
    signs = {(one.term.term, one.metric.name): MARKS[one.word] for one in claimed if one.term.kind == "arm"}

    def columns(arm: Arm) -> Iterator[Column]:
        for factor, level in arm.levels.items():
            yield cells.worded(factor_label(factor), cells.cell(level_label(level)))
        if runs.nunique() > 1:
            yield cells.column("n", cells.count(runs[arm.name]))
        for what in map(quantity, metrics):
            own, sign = arm_interval(complete, arm.name, what.name), signs.get((arm.name, what.name), "")
            width = shown(own.sd / math.sqrt(max(own.n, 1)) if spread == "se" else own.sd, what)
            between = {"ci": f"[{shown(own.low, what)}, {shown(own.high, what)}]", "none": ""}
            reach = between.get(spread, f"± {width}") if own.sd > 0 else ""
            head, mean = cells.of_quantity(what, cells.amount(own.mean, what, [Markup(reach)], mark=sign))
            yield {**head, "pair": spread != "none"}, mean

    shown_signs = {sign for (_, name), sign in signs.items() if sign and name in metrics}
    facts: Json = {"least": runs.min(), "most": runs.max(), "spread": spread, "signs": shown_signs}
    name, finalize = ("table.tex.j2", _tex) if latex else ("arms.md.j2", escaped)
    template = environment(finalize=finalize).get_template(name)
    return template.render(
        table=cells.view(planned_arms(plan).values(), columns, best=True),
        note=words("table.note", claims=family_size(plan), arms=len(plan.arms), **facts),
        label=re.sub(r"[^A-Za-z0-9]+", "-", study.name),
    )


def _tex(value: object) -> object:
    """Text that LaTeX shows as it is; two hyphens would be a dash, and a [ or * belong to the row before."""
    if not isinstance(value, str):
        return value
    own = isinstance(value, Markup) or not value.startswith(("[", "*"))
    return f"{'' if own else '{}'}{re.sub('-(?=-)', '-{}', value.translate(TEX))}"


def methods_paragraph(tables: Tables, plan: Plan) -> Json:
    """How the study was done, as a paper says it: `text`, and the `references` that it names."""
    facts: Json = {
        "plan": plan, "study": plan.study, "complete": complete_trials(tables["trials"]),
        "images": arms.split_sizes(tables)[0],
        "asked": [contrast_label(term) for term in terms(plan) if term.asked], "claims": family_size(plan),
        "quantity": quantity, "shown": shown, "factor": factor_label, "level": level_label,
    }  # fmt: skip
    text, _, sources = environment().get_template("methods.md").render(facts).partition("## References")
    paragraph = " ".join(text.split())
    named = [line for line in sources.splitlines() if line and line.partition(",")[0] in paragraph]
    return {"text": paragraph, "references": named}
