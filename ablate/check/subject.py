"""What a gate judges: a recorded study, what it is compared with, and which conditions make sense of it."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ablate.analysis.arms import labels_of
from ablate.check.expression import COUNTS, WORDS, Condition, Judged, Limit, leaves
from ablate.compare import (
    Comparison,
    Difference,
    Run,
    compare_runs,
    higher_is_better,
    measured_columns,
    paired,
)
from ablate.errors import StudyError, nearest
from ablate.metrics import METRICS
from ablate.study.fields import unknown_name
from ablate.tables.quantities import quantity
from ablate.terminal import printable


@dataclass(frozen=True)
class Subject:
    """A recorded study under a gate.

    Attributes:
        run: the study.
        other: the run that its arms are compared with; None is the baseline arm of the study itself.
        asked: metrics whose differences the conditions ask for, each once.
    """

    run: Run
    other: Run | None
    asked: tuple[str, ...]

    @functools.cached_property
    def arms(self) -> Mapping[str, str]:
        """Every arm's name, and its label in the report, to its name."""
        labels = {label: arm for arm, label in labels_of(self.run.plan).items()}
        return {**labels, **{arm: arm for arm in self.run.plan.arms}}

    @functools.cached_property
    def references(self) -> Mapping[str, str]:
        """Every arm that is compared, to the arm that it is compared with."""
        if self.other is None:
            return dict(self.run.plan.comparisons)
        return {arm: arm for arm in self.run.plan.arms if arm in self.other.plan.arms}

    @functools.cached_property
    def comparison(self) -> Comparison | None:
        """The study against the other run, if there is one."""
        return None if self.other is None else compare_runs(self.other, self.run, self.asked)

    @functools.cached_property
    def differences(self) -> Mapping[tuple[str, str], Difference]:
        """Arm and metric to the difference from what it is compared with.

        Against another run all arms and all metrics asked for are one family. Within the study the families
        are the report's; a metric outside, uncorrected there, is corrected over the arms, as any of them can
        fail the gate.
        """
        if self.comparison is not None:
            return {(item.arm, item.metric): item for item in self.comparison.differences}
        return {
            (arm, metric): self._within(arm, reference, metric)
            for arm, reference in self.references.items()
            for metric in self.asked
        }

    def _within(self, arm: str, reference: str, metric: str) -> Difference:
        study = self.run.plan.study
        metrics = len(study.comparison_family) if metric in study.comparison_family else 1
        return paired(
            arm,
            metric,
            self.run.sample(reference, metric),
            self.run.sample(arm, metric),
            margin=study.all_margins.get(metric, math.nan),
            comparisons=len(self.references) * metrics,
        )


def is_compared(leaf: Limit | Judged) -> bool:
    """Whether a condition is about a difference."""
    return isinstance(leaf, Judged) or leaf.difference


def make_subject(run: Run, other: Run | None, conditions: Iterable[Condition]) -> Subject:
    """Bring conditions and a study together.

    Raises:
        StudyError: names every metric, arm, verdict or number that makes no sense of this study.
    """
    found = [leaf for condition in conditions for leaf in leaves(condition)]
    asked = dict.fromkeys(leaf.value.metric for leaf in found if is_compared(leaf))
    subject = Subject(run, other, tuple(asked))
    problems = [*(problem for leaf in found for problem in _problems(leaf, subject))]
    if other is not None and not asked:
        problems.append("nothing is compared with --baseline; add for example --fail-if 'accuracy worse'")
    if problems:
        raise StudyError("\n".join(dict.fromkeys(problems)))
    return subject


def _problems(leaf: Limit | Judged, subject: Subject) -> Iterator[str]:
    metric = leaf.value.metric
    if metric in COUNTS:
        yield from _count_problems(leaf)
        return
    measured = measured_columns()
    if metric not in measured:
        yield f"--fail-if {unknown_name('metric', printable(metric), [*measured, *COUNTS])}"
        return
    yield from _arm_problems(leaf, subject)
    yield from _limit_problems(leaf) if isinstance(leaf, Limit) else _word_problems(leaf)


def _count_problems(leaf: Limit | Judged) -> Iterator[str]:
    name = leaf.value.metric
    plain = isinstance(leaf, Limit) and not (leaf.end or leaf.difference or leaf.percent)
    if not plain or leaf.value.arm is not None:
        yield f"--fail-if {name}: counts the study's trials; write for example '{name} > 0'"


def _arm_problems(leaf: Limit | Judged, subject: Subject) -> Iterator[str]:
    arm, compared = leaf.value.arm, is_compared(leaf)
    if arm is not None and arm not in subject.arms:
        known = "; ".join(printable(name) for name in subject.run.plan.arms)
        hint = nearest(printable(arm), [printable(name) for name in subject.arms])
        yield f"--fail-if arm {printable(arm)!r}: is not of this study, whose arms are {known}.{hint}"
    elif compared and not subject.references:
        yield (
            "--fail-if: the study has no baseline arm to compare with; name a recorded run with --baseline"
            if subject.other is None
            else "--baseline: the runs have no arm in common, so nothing can be compared"
        )
    elif arm is not None and compared and subject.arms[arm] not in subject.references:
        where = "the baseline itself" if subject.other is None else "not in the --baseline run"
        yield f"--fail-if arm {printable(arm)!r}: is {where}, so there is nothing to compare it with"


def _limit_problems(leaf: Limit) -> Iterator[str]:
    metric = leaf.value.metric
    fraction = quantity(metric).unit == "%"
    if leaf.percent and not fraction:
        unit = f", in {quantity(metric).unit}" if quantity(metric).unit else ""
        yield f"--fail-if {metric}: is no fraction; write the number without %{unit}"
    if metric not in METRICS:
        return
    lower, upper = METRICS[metric].bounds
    if leaf.difference:
        lower, upper = lower - upper, upper - lower
    if not lower <= leaf.number <= upper:
        of = f"a difference of {metric}" if leaf.difference else metric
        percent = fraction and not leaf.percent and lower <= leaf.number / 100 <= upper
        hint = f"; 0.01 is 1%, so write {leaf.number:g}% if that is meant" if percent else ""
        yield f"--fail-if {of}: lies between {lower:g} and {upper:g}, but {leaf.number:g} came{hint}"


def _word_problems(leaf: Judged) -> Iterator[str]:
    directed = higher_is_better(leaf.value.metric) is not None
    never = ("higher", "lower") if directed else ("better", "worse")
    if leaf.word in never:
        known = ", ".join(word for word in WORDS if word not in never)
        yield f"--fail-if {leaf.value.metric}: is never {leaf.word}; its verdicts are {known}"
