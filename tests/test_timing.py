"""The exclusive timing pass: which cases it has, what it keeps, and the ratios made of it."""

import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from recorded_study import BASE, CPU, trial

from ablate.analysis.timing import timing_pass
from ablate.data import prepare
from ablate.errors import RecordError
from ablate.execution.trial import FEWEST_ROUNDS, TimingTask, time_cases
from ablate.report.views import timing_note, timing_view
from ablate.store.results import ResultsFolder
from ablate.store.timing import case_of, cases_of, plain_case, read_timing, write_timing
from ablate.study.study import Study
from ablate.study.trials import Plan, expand
from ablate.tables import frame
from ablate.tables.build import step_time_rows


def test_a_case_is_what_changes_the_work() -> None:
    same: list[dict[str, Any]] = [{"epsilon": 0.3}, {"lr": 0.2}, {"label_noise": 0.1}, {"lr_rule": "matched"}]
    other: list[dict[str, Any]] = [
        {"reduction": "sum"}, {"arch": "xresnet18"}, {"batch_size": 8}, {"optimizer": "adamw"},
        {"flip": True}, {"crop_area": 0.5}, {"mixup": 0.2}, {"clip_norm": 1.0}, {"decode_size": 20},
        {"loss": "cross_entropy", "epsilon": 0.0},
    ]  # fmt: skip
    assert {case_of(trial(**changes)) for changes in same} == {case_of(trial())}
    assert len({case_of(trial(**changes)) for changes in other}) == len(other)
    # The plain step is always among the cases.
    summed = trial(reduction="sum")
    found = cases_of([summed, trial(), trial(epsilon=0.4)])
    assert [(case.loss, case.reduction) for case in found] == [
        ("label_smoothing", "sum"), ("label_smoothing", "mean"), ("cross_entropy", "mean"),
    ]  # fmt: skip
    plain = trial(loss="cross_entropy", epsilon=0.0)
    assert list(cases_of([plain])) == [case_of(plain)]
    assert plain_case(case_of(summed)) == case_of(plain)


@pytest.mark.slow
def test_every_case_is_timed_in_every_round_and_the_pass_is_kept_and_read_back(tmp_path: Path) -> None:
    data = prepare("synthetic", image_size=16, cache_dir=tmp_path / "cache")
    cases = cases_of([trial(), trial(reduction="sum", mixup=0.2, crop_area=0.5, optimizer="adamw")])
    told: list[float] = []
    began = time.monotonic()
    timed = time_cases(TimingTask({case: (of, data.folder) for case, of in cases.items()}), 0, told.append)
    assert told == sorted(told)
    assert told[-1] <= 1
    assert timed.cases == tuple(cases)
    assert len(cases) == 4
    assert {len(times) for times in timed.step_ms} == {len(told)}
    assert len(told) >= FEWEST_ROUNDS
    seconds = sum(n * sum(times) for n, times in zip(timed.steps, timed.step_ms, strict=True)) / 1000
    assert 0.1 < seconds / (time.monotonic() - began) < 1
    assert timed.others is None or 0 <= timed.others <= 1

    folder = ResultsFolder(tmp_path)
    assert (read_timing(folder), step_time_rows(folder)) == (None, [])
    write_timing(folder, timed)
    assert read_timing(folder) == timed
    found = timing_pass(frame("step_times", step_time_rows(folder)))
    assert found is not None
    of_each = zip(timed.cases, timed.step_ms, strict=True)
    assert {case: tuple(times) for case, times in found.times.items()} == dict(of_each)
    folder.timing.write_text("{")
    with pytest.raises(RecordError, match=r"timing.json: is damaged; delete it"):
        read_timing(folder)
    assert step_time_rows(folder) == []


CASES = {
    "plain": case_of(trial(loss="cross_entropy", epsilon=0.0)), "mean": case_of(trial()),
    "sum": case_of(trial(reduction="sum")),
}  # fmt: skip


def step_times(others: float | None = 0.0, **times: Any) -> pd.DataFrame:
    rows = [
        {**CASES[name].model_dump(), "round": place, "step_ms": value, "others": others}
        for name, values in times.items()
        for place, value in enumerate(values)
    ]
    return frame("step_times", rows)


def test_company_on_the_machine_is_said() -> None:
    for others, said in (
        (0.02, "nothing else used the machine much"),
        (0.71, "other processes used 71% of its cores, so the times are not exclusive"),
        (None, "whether other processes ran is not known"),
    ):
        assert said in timing_note(timing_pass(step_times(others, plain=[1.0] * 8)))
    assert "not measured apart" in timing_note(None)


def test_arms_that_do_the_same_work_are_called_the_same() -> None:
    factors = {"reduction": ("mean", "sum"), "epsilon": (0.0, 0.1)}
    study = Study(question="?", base=BASE, seeds=1, factors=factors, baseline={"epsilon": 0.0})
    trials = tuple(expand(study, lambda fields: "f", lambda fields: CPU))
    plan = Plan(study=study, profile="p", reason="r", trials=trials)
    view = timing_view(step_times(plain=[10.0] * 20, mean=[10.0] * 20, sum=[12.0] * 20), plan)
    assert view is not None
    assert [row[3]["text"] for row in view["rows"]] == ["–", "same step", "–", "same step"]
    assert [row[2]["text"] for row in view["rows"]] == ["1.000", "1.000", "1.200", "1.200"]
    assert timing_view(None, plan) is None
