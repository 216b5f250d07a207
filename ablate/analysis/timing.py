"""What a training step costs, from the exclusive pass: each case beside plain cross-entropy, by round."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ablate.analysis.arms import planned_arms
from ablate.stats.intervals import FloatArray, MedianInterval, median_interval
from ablate.store.timing import Case, case_of, plain_case
from ablate.study.study import ExternalStudy
from ablate.study.trials import Plan
from ablate.tables.files import frame

SHARED = 0.1  # above this part of the cores used by other processes, a pass does not count as exclusive


@dataclass(frozen=True)
class Pass:
    """The timing pass of a study: each case's milliseconds by round, and what else the machine did."""

    times: dict[Case, FloatArray]
    others: float | None

    @property
    def exclusive(self) -> bool | None:
        """Whether nothing else used the machine much; None where the system does not say."""
        return None if self.others is None else self.others < SHARED

    def ratio(self, case: Case, reference: Case) -> MedianInterval:
        """How many times as long a step of one case takes as one of another in the same round."""
        return median_interval(self.times[case] / self.times[reference])


def timing_pass(step_times: pd.DataFrame | None) -> Pass | None:
    """The pass that a step_times table holds, if any."""
    if step_times is None or step_times.empty:
        return None
    names = list(Case.model_fields)
    times = {}
    for _, rows in step_times.groupby(names, sort=False, dropna=False):
        case = Case.model_validate(rows[names].iloc[0].dropna().to_dict())  # older tables have fewer columns
        times[case] = rows.sort_values("round")["step_ms"].to_numpy(dtype=np.float64)
    others = step_times["others"].iloc[0]
    return Pass(times, None if pd.isna(others) else float(others))


def timing_table(step_times: pd.DataFrame | None) -> pd.DataFrame:
    """The `timing` table: one row per case, with its ratio to the plain step of the same rounds."""
    timed, rows = timing_pass(step_times), []
    if timed is None:
        return frame("timing", [])
    for case in timed.times:
        plain = plain_case(case)
        step, ratio = median_interval(timed.times[case]), timed.ratio(case, plain)
        row = {**case.model_dump(), **vars(step), "step_ms": step.median, "plain": case == plain}
        row |= {"ratio_to_plain": ratio.median, "ratio_low": ratio.low, "ratio_high": ratio.high}
        rows.append({**row, "exclusive": timed.exclusive})
    return frame("timing", rows)


def arm_cases(plan: Plan) -> dict[str, Case]:
    """The case that each arm's steps are; of another tool's runs, or of one's own code's, none is known."""
    if isinstance(plan.study, ExternalStudy) or plan.study.trained_by:
        return {}
    first = {trial.arm: trial for trial in reversed(plan.trials)}
    return {arm: case_of(first[arm]) for arm in planned_arms(plan)}
