"""A gate for automated tests: conditions put to a recorded study, which hold, and on what evidence."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from ablate.analysis.arms import finite_numbers, labels_of
from ablate.errors import StudyError, nearest
from ablate.gate import compare
from ablate.gate.compare import Comparison, Run, compare_runs, measured_columns
from ablate.gate.condition import COUNTS, OPERATORS, WORDS, Condition, Joined, Leaf, leaves, parse
from ablate.stats.intervals import mean_interval
from ablate.study.fields import unknown_name
from ablate.tables.columns import declare
from ablate.tables.quantities import quantity
from ablate.terminal import print_line, printable


@dataclass(frozen=True)
class Evidence:
    """A value that decides, unrounded: of which arm and what, and in words with all that belongs to it."""

    arm: str
    of: str
    value: float | str
    words: str


Reading = tuple[bool | None, tuple[Evidence, ...]]  # whether it holds (None: cannot be told), what shows it


@dataclass(frozen=True)
class Finding:
    """What became of one condition in so many `arms`; None, "cannot be told", fails the gate too."""

    condition: str
    holds: bool | None
    arms: int
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True)
class Result:
    """What became of a gate; `incomplete` has a line for each run that lacks results."""

    comparison: Comparison
    findings: tuple[Finding, ...]
    incomplete: tuple[str, ...]
    allow_incomplete: bool

    @property
    def passes(self) -> bool:
        """Whether no condition holds, every one can be told, and no trial lacks a result unless allowed."""
        told = all(finding.holds is False for finding in self.findings)
        return told and (self.allow_incomplete or not self.incomplete)


def check_study(
    run: Run, texts: Sequence[str], *, other: Run | None = None, allow_incomplete: bool = False
) -> Result:
    """Put conditions to a recorded study, compared with `other`, arm by arm, or with its own baseline arm.

    A condition holds where it does for any one arm. With `allow_incomplete` an arm without any result is left
    out. A StudyError tells all that is malformed, or that the study does not have.
    """
    declare(run.plan.study, (other or run).plan.study)
    conditions = [parse(text) for text in texts]
    asked = [leaf for condition in conditions for leaf in leaves(condition)]
    arms = {label: arm for arm, label in labels_of(run.plan).items()} | {arm: arm for arm in run.plan.arms}
    problems = [problem for leaf in asked for problem in _problems(leaf, run, other, arms)]
    compared = tuple(dict.fromkeys(leaf.metric for leaf in asked if leaf.difference))
    if other is not None and not compared:
        problems.append("nothing is compared with --baseline; add for example --fail-if 'accuracy worse'")
    if problems:
        raise StudyError("\n".join(dict.fromkeys(problems)))
    comparison = compare_runs(other or run, run, compared, None if other else run.plan.comparisons)
    complete = set(run.trials.loc[run.trials["status"] == "complete", "arm"])
    judged = [arm for arm in run.plan.arms if arm in complete or not allow_incomplete]
    findings, incomplete = [], []
    for text, condition in zip(texts, conditions, strict=True):
        free = any(leaf.arm is None and leaf.metric not in COUNTS for leaf in leaves(condition))
        readings = [_read(condition, arm, comparison, arms) for arm in (judged if free else [""])]
        nothing = Evidence("", "", math.nan, "no arm has a complete trial")
        holds, evidence = _joined(readings or [(None, (nothing,))], "or")
        findings.append(Finding(text, holds, len(readings), tuple(dict.fromkeys(evidence))))
    for name, of in (("the study", run), ("the --baseline run", other)):
        counts = of.statuses() if of is not None else Counter()
        if lost := {status: count for status, count in sorted(counts.items()) if status != "complete"}:
            words = ", ".join(f"{count} {status}" for status, count in lost.items())
            numbers = f"{sum(lost.values())} of {counts.total()} trials"
            incomplete.append(f"{name} is incomplete: {numbers} have no result ({words})")
    return Result(comparison, tuple(findings), tuple(incomplete), allow_incomplete)


def _problems(leaf: Leaf, run: Run, other: Run | None, arms: Mapping[str, str]) -> Iterator[str]:
    """Why a comparison makes no sense of the study; `arms` are its names and labels to names."""
    metric, arm, value = leaf.metric, leaf.arm, leaf.value
    if metric in COUNTS:
        if leaf.asked != "mean" or leaf.difference or leaf.percent or arm is not None:
            yield f"--fail-if {metric}: counts the study's trials; write for example '{metric} > 0'"
        return
    measured = measured_columns(run, other or run)
    if metric not in measured:
        yield f"--fail-if {unknown_name('metric', printable(metric), [*measured, *COUNTS])}"
        return
    references = dict(run.plan.comparisons) if other is None else {*run.plan.arms} & {*other.plan.arms}
    if arm is not None and arm not in arms:
        known = "; ".join(printable(name) for name in run.plan.arms)
        hint = nearest(printable(arm), map(printable, arms))
        yield f"--fail-if arm {printable(arm)!r}: is not of this study, whose arms are {known}.{hint}"
    elif leaf.difference and not references:
        yield f"{metric}: no arm has one to compare it with; name a recorded run of these arms by --baseline"
    elif arm is not None and leaf.difference and arms[arm] not in references:
        where = "the baseline itself" if other is None else "not in the --baseline run"
        yield f"--fail-if arm {printable(arm)!r}: is {where}, so there is nothing to compare it with"
    what = quantity(metric)
    if leaf.asked == "verdict":
        never = ("higher", "lower") if what.better else ("better", "worse")
        if value in never:
            known = ", ".join(word for word in WORDS if word not in never)
            yield f"--fail-if {metric}: is never {value}; its verdicts are {known}"
        return
    unit, of, (lower, upper) = what.unit, metric, what.bounds
    if leaf.percent and unit != "%":
        yield f"--fail-if {metric}: is no fraction; write the number without %{unit and f', in {unit}'}"
    if leaf.difference:
        of, lower, upper = f"a difference of {metric}", lower - upper, upper - lower
    if not lower <= value <= upper:
        meant = unit == "%" and not leaf.percent and lower <= value / 100 <= upper
        hint = f"; 0.01 is 1%, so write {value:g}% if that is meant" if meant else ""
        yield f"--fail-if {of}: lies between {lower:g} and {upper:g}, but {value:g} came{hint}"


def _joined(readings: Sequence[Reading], word: str) -> Reading:
    """Whether any ("or") or all ("and") hold, with the lines of all readings that have this outcome."""
    holds = (max if word == "or" else min)((held for held, _ in readings), key=(False, None, True).index)
    return holds, tuple(line for held, lines in readings if held is holds for line in lines)


def _read(condition: Condition, arm: str, comparison: Comparison, arms: Mapping[str, str]) -> Reading:
    """A condition for one arm; what names an arm or counts trials is the same for all."""
    if isinstance(condition, Joined):
        return _joined([_read(part, arm, comparison, arms) for part in condition.parts], condition.word)
    leaf, run, compares = condition, comparison.b, OPERATORS[condition.operator]
    if leaf.metric in COUNTS:
        counts = run.statuses()
        failed = counts.total() - counts["complete"] - counts["missing"]
        number = {"failed": failed, "missing": counts["missing"]}[leaf.metric]
        words = f"{leaf.metric} is {number} of {counts.total()} trials"
        return bool(compares(number, leaf.value)), (Evidence("", leaf.metric, number, words),)
    arm, shown, what = arm if leaf.arm is None else arms[leaf.arm], quantity(leaf.metric), leaf.metric
    row = comparison.rows.get((arm, what)) if leaf.difference else None
    lost = run.undefined(arm, what) + (comparison.a.undefined(row.against, what) if row else 0)
    if lost:
        words = f"{arm}: {what} cannot be told: it is undefined in {lost} complete trials"
        return None, (Evidence(arm, what, math.nan, words),)
    if leaf.difference:
        if row is None:
            return False, ()  # the baseline arm itself, or an arm of this run alone
        what = f"difference({leaf.metric})"
        unit = f" ({shown.difference_unit})" if shown.difference_unit else ""
        against = row.against if comparison.a is run else "the --baseline run"
        context = f"{shown.label}{unit} {compare.difference_text(row)} against {against}"
        context += f", {compare.method_text(row)}"
        if leaf.asked == "verdict":
            words = f"{arm}: {leaf.metric} is {compare.verdict_text(row)}: {context}"
            evidence = (Evidence(arm, f"verdict({leaf.metric})", row.verdict, words),)
            if compares(row.verdict, leaf.value):
                return True, evidence
            # A difference that no test can judge would let the gate pass whatever its size.
            untold = row.reason in ("too_few_seeds", "no_spread") and row.verdict == "undecided"
            return None if untold and row.effect != 0 else False, evidence
        value = {"mean": row.effect, "low": row.low, "high": row.high}[leaf.asked]
    else:
        mean = mean_interval(finite_numbers(run.by_seed(arm)[leaf.metric]), bounds=shown.bounds)
        context = f"{shown.axis} {compare.mean_text(shown, mean.mean, mean.low, mean.high, mean.n)}"
        value = float(getattr(mean, leaf.asked))
    operand = what if leaf.asked == "mean" else f"{leaf.asked}({what})"
    measured = f"is {100 * value:.6g} %" if leaf.percent else f"is {value:.6g}"
    told = math.isfinite(value)
    words = f"{arm}: {operand} {measured if told else 'cannot be told'}: {context}"
    return bool(compares(value, leaf.value)) if told else None, (Evidence(arm, operand, value, words),)


def show_result(console: Console, result: Result) -> dict[str, Any]:
    """Print every condition with what it holds on, then whether the gate passes; the same as facts."""
    comparison = result.comparison
    lines = [str(comparison.b), *filter(None, [comparison.caution])]
    for where, arms in zip(("the --baseline", "this"), comparison.alone, strict=True):
        lines += [f"not compared, because only {where} run has them: {'; '.join(arms)}"] if arms else []
    judged = "judged" if result.allow_incomplete else "--allow-incomplete judges"
    lines += [f"{line}; {judged} by the others" for line in result.incomplete]
    outcome = {None: "cannot be told, and fails", True: "holds, and fails", False: "does not hold"}
    for finding in result.findings:
        asked = f" (in any of {finding.arms} arms)" if finding.holds is False and finding.arms > 1 else ""
        lines.append(f"{outcome[finding.holds]}: {finding.condition}{asked}")
        lines += [f"  {one.words}" for one in finding.evidence]
    print_line(console, *lines, f"the check {'passes' if result.passes else 'fails'}")
    facts = {"passes": result.passes, "incomplete": result.incomplete, "conditions": result.findings}
    return facts | compare.facts_of(comparison)
