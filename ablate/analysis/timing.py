"""What a training step costs, from the exclusive pass: each case beside plain cross-entropy, by round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablate.analysis.arms import labels_of, planned_arms
from ablate.stats import MedianInterval, median_interval
from ablate.store.timing import Case, case_of, plain_case
from ablate.study.trials import Plan
from ablate.tables import frame
from ablate.tables.cells import Json, cell, column, table

SHARED = 0.1
"""Above this part of the cores used by other processes, a pass does not count as exclusive."""

FloatArray = NDArray[np.float64]


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
    for levels, rows in step_times.groupby(names, sort=False, dropna=False):
        case = Case.model_validate(dict(zip(names, levels, strict=True)))
        times[case] = rows.sort_values("round")["step_ms"].to_numpy(dtype=np.float64)
    others = step_times["others"].iloc[0]
    return Pass(times, None if pd.isna(others) else float(others))


def timing_table(step_times: pd.DataFrame | None) -> pd.DataFrame:
    """The `timing` table: one row per case, with its ratio to the plain step of the same rounds."""
    found = timing_pass(step_times)
    return frame("timing", [] if found is None else [_row(found, case) for case in found.times])


def _row(found: Pass, case: Case) -> dict[str, Any]:
    plain = plain_case(case)
    own = median_interval(found.times[case])
    ratio = found.ratio(case, plain)
    return {
        **case.model_dump(),
        "plain": case == plain,
        "step_ms": own.median,
        "low": own.low,
        "high": own.high,
        "ratio_to_plain": ratio.median,
        "ratio_low": ratio.low,
        "ratio_high": ratio.high,
        "n": own.n,
        "exclusive": found.exclusive,
    }


def arm_cases(plan: Plan) -> dict[str, Case]:
    """The case that each arm's steps are."""
    first = {trial.arm: trial for trial in reversed(plan.trials)}
    return {arm: case_of(first[arm]) for arm in planned_arms(plan)}


def timing_view(step_times: pd.DataFrame | None, plan: Plan) -> Json | None:
    """The pass as the report shows it: a row per arm that was timed; None without a pass."""
    found = timing_pass(step_times)
    if found is None:
        return None
    labels, baseline = labels_of(plan), dict(plan.comparisons)
    heads = [column("Arm", numeric=False), column("Training step", unit="ms")]
    heads += [
        column("Beside plain cross-entropy", unit="×", meaning="same network and batch, ratio by round")
    ]
    heads += [column("Beside its baseline", unit="×", meaning="1 where the arms do the same work")]
    rows, cases = [], arm_cases(plan)
    for place, (arm, case) in enumerate(cases.items()):
        if case not in found.times:
            continue
        row = [cell(labels[arm], value=float(place)), _cell(median_interval(found.times[case]), 2)]
        row.append(_cell(found.ratio(case, plain_case(case)), 3))
        other = cases.get(baseline.get(arm, ""))
        same = other == case
        against = found.ratio(case, other) if other is not None and other in found.times else None
        row.append(cell("same step", value=1.0) if same else _cell(against, 3))
        rows.append(row)
    return table(heads, rows)


def _cell(interval: MedianInterval | None, digits: int) -> Json:
    if interval is None:
        return cell("–")
    ends = f"{interval.low:.{digits}f} to {interval.high:.{digits}f}"
    notes = [ends if np.isfinite(interval.low) else "too few rounds for an interval"]
    return cell(f"{interval.median:.{digits}f}", value=interval.median, notes=notes)


def timing_note(found: Pass | None) -> str:
    """How the pass was taken, in a sentence or two."""
    if found is None:
        return (
            "Step time was not measured apart. Those of the trials come from a machine that other trials "
            "shared, and say little about what a level costs."
        )
    rounds = len(next(iter(found.times.values())))
    shared = {
        True: "nothing else used the machine much",
        False: f"other processes used {found.others or 0:.0%} of its cores, so the times are not exclusive",
        None: "whether other processes ran is not known",
    }[found.exclusive]
    return (
        f"Timed after the trials, one case after the other in {rounds} rounds; {shared}. Medians over rounds "
        "with 95 % intervals; ratios are taken within a round. ε is a tensor of the step, so arms that "
        "differ in ε alone do the same work."
    )
