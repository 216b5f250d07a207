"""Fair arms: each is tuned on its own, all with the same budget, then trained as declared and re-tuned."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import quote

from ablate.errors import ResultsError
from ablate.execution import driver
from ablate.execution.progress import Watcher
from ablate.study.fields import Levels
from ablate.study.options import Options
from ablate.study.search import DECLARED, RETUNED, TUNING, Chosen
from ablate.study.trials import arm_name
from ablate.tables.tuning import points_table
from ablate.tuning.run import prepare_search, tune_settled


def retune_arms(
    settled: driver.Settled, options: Options, watcher: Watcher
) -> tuple[driver.Settled | None, int]:
    """The study of arms as declared and re-tuned, None where it was interrupted; and how many trials ran."""
    study, ran, chosen = settled.study, 0, list[Chosen]()
    none: dict[str, object] = {"factors": {}, "named": {}, "parts": {}, "design": "without", "baseline": {}}
    none |= {"only": (), "comparisons": (), "retune": None}
    searches = list[tuple[Levels, driver.Settled]]()
    for arm in study.arms():
        base = study.settings(study.base) | study.settings(arm)
        searches.append((arm, replace(settled, study=study.replace(base=base, search=study.retune, **none))))
        prepare_search(searches[-1][1], options, watcher)
    for arm, search in searches:
        watcher.note(f"re-tuning {arm_name(arm)}")
        tuned = tune_settled(search, options, watcher, below=f"retune/{quote(arm_name(arm), safe=' =,+')}")
        ran += tuned.ran
        if tuned.interrupted:
            return None, ran
        tuning, values = tuned.tuning, points_table(tuned.folder).set_index("number")["value"].dropna()
        if not tuning.winners:
            reasons = "; ".join(dict.fromkeys(point.reason for point in tuning.points))
            raise ResultsError(f"retune: no point of {arm_name(arm)} is complete: {reasons}")
        (best,) = tuning.winners
        complete = sum(point.state == "complete" for point in tuning.points)
        facts = {"arm": arm, "levels": tuning.points[best].levels, "complete": complete}
        facts |= tuning.model_dump(include={"tuning_images", "overlap"})
        chosen.append(Chosen(**facts, value=values[best], declared=values.get(0)))
    levels: dict[str, Levels] = {DECLARED: {}, RETUNED: {}}
    both = study.replace(
        factors={**study.factors, TUNING: tuple(levels)},
        named={**study.named, TUNING: levels},
        only=tuple({**arm, TUNING: level} for arm in study.only for level in levels),
        chosen=tuple(chosen),
    )
    return replace(settled, study=both), ran
