"""Arms that were each tuned on their own: what each was given, and which is best as declared and re-tuned."""

from __future__ import annotations

from collections.abc import Iterator

from ablate.analysis import arms
from ablate.analysis.arms import arm_label, factor_label, level_label
from ablate.report.cells import Column, Json, amount, cell, column, of_quantity, view, worded
from ablate.report.pages import words
from ablate.study.search import DECLARED, RETUNED, TUNING, Chosen
from ablate.study.trials import Plan, arm_name
from ablate.tables.files import Tables
from ablate.tables.quantities import ABSENT, quantity, shown


def retune_view(tables: Tables, plan: Plan) -> Json | None:
    """A row per arm, and in a sentence the budget and the best arm of both kinds; None without re-tuning."""
    study, what, search = plan.study, quantity(plan.study.primary), plan.study.retune
    if search is None or not study.chosen:
        return None
    score = quantity(search.objective[0])

    def columns(one: Chosen) -> Iterator[Column]:
        declared = study.fields({**one.arm, TUNING: DECLARED}).model_dump()
        yield worded("Arm", cell(arm_label(one.arm), float(study.chosen.index(one))))
        for name in search.space:
            before, after = (level_label(own.get(name, ABSENT)) for own in (declared, one.levels))
            yield worded(factor_label(name), cell(after, notes=[f"declared {before}"]))
        yield column("Points", cell(f"{one.complete}/{search.points}", float(one.complete)))
        notes = [] if one.declared is None else [f"as declared {shown(one.declared, score)}"]
        yield of_quantity(score, amount(one.value, score, notes), f"{score.label} while tuning")

    complete = arms.complete_trials(tables["trials"])
    found = arms.arm_means(complete, arms.planned_arms(plan).values(), what.name)
    means, best = found.set_index("arm")["mean"], list[str]()
    for level in (DECLARED, RETUNED):
        labels = {arm_name({**one.arm, TUNING: level}): arm_label(one.arm) for one in study.chosen}
        best.append(labels.get(arms.best_of(means.reindex(list(labels)).dropna(), what) or "", ""))
    images = " or ".join(f"{many:,}" for many in sorted({one.tuning_images for one in study.chosen}))
    overlap = max(one.overlap for one in study.chosen)
    summary = words("retune", search=search, images=images, overlap=overlap, noun=what.noun, best=best)
    return {"summary": summary, "table": view(study.chosen, columns)}
