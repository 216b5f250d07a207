"""Parts as arms: against the same study written as named levels, and each design against its definition."""

import re
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded_study import planned

from ablate.analysis.effects import effects_table
from ablate.errors import StudyError
from ablate.report.answer import answer
from ablate.report.views import components_view
from ablate.study.comparisons import terms
from ablate.study.fields import Levels
from ablate.study.study import Profile, Study
from ablate.study.trials import Plan, Trial
from ablate.tables.files import frame

ON = {"mixup": 0.2, "flip": True, "momentum": 0.9, "crop_area": 0.5}
OFF = {"mixup": 0.0, "flip": False, "momentum": 0.0, "crop_area": 1.0}
DESIGNS = ("without", "only", "both")
PAIR = {"mixup+flip": {"mixup": 0.0, "flip": False}}


def declare(**changes: Any) -> Study:
    base = {"data": "digits", "image_size": 8, "epochs": 1, **ON}
    return Study(**{"question": "What does each part do?", "base": base, "seeds": 4, **changes})


def test_parts_train_what_the_same_factor_written_by_hand_trains() -> None:
    by_hand = {
        "all parts": {}, "without mixup": {"mixup": 0.0}, "without flip": {"flip": False},
        "without mixup+flip": {"mixup": 0.0, "flip": False},
    }  # fmt: skip
    parts = {"mixup": 0.0, "flip": False, **PAIR}
    ours = planned(declare(parts=parts))
    theirs = planned(declare(factors={"part": by_hand}, baseline={"part": "all parts"}))
    assert [trial.trial_id for trial in ours.trials] == [trial.trial_id for trial in theirs.trials]
    assert (ours.arms, ours.comparisons) == (theirs.arms, theirs.comparisons)
    assert planned(Study.model_validate_json(ours.study.model_dump_json())) == ours


@given(st.permutations([*OFF]), st.integers(1, 4), st.booleans(), st.sampled_from(DESIGNS))
def test_each_arm_has_on_what_its_name_says(names: list[str], count: int, paired: bool, design: str) -> None:
    chosen = names[:count]
    parts: dict[str, Any] = {name: OFF[name] for name in chosen}
    parts |= {"pair": {name: OFF[name] for name in chosen[:2]}} if paired and count > 1 else {}
    fields_of = {part: {part} if part in ON else set(chosen[:2]) for part in parts}
    plan = planned(declare(parts=parts, design=design))
    expected = dict[str, set[str]]()
    if design != "only":
        expected |= {"all parts": set(chosen)}
        expected |= {f"without {part}": set(chosen) - fields_of[part] for part in parts}
    if design != "without":
        expected |= {"no parts": set()} | {f"only {part}": fields_of[part] for part in parts}
    on = {
        trial.levels["part"]: {f for f in chosen if getattr(trial.fields, f) == ON[f]}
        for trial in plan.trials
    }
    trained = [frozenset(arm) for arm in on.values()]
    assert set(trained) == set(map(frozenset, expected.values()))
    assert len(set(trained)) == len(trained)
    for arm, fields in on.items():
        for name in re.split(r" \((.*)\)", arm):
            assert not name or expected[name] == fields
    # Compared: all of both families with their ends, but arms with themselves.
    found = {tuple(frozenset(on[arm.removeprefix("part=")]) for arm in pair) for pair in plan.comparisons}
    every, none = frozenset(chosen), frozenset[str]()
    wanted = {(frozenset(own), every if name[0] in "wan" else none) for name, own in expected.items()}
    wanted |= {(frozenset(own), none) for name, own in expected.items() if name.startswith("only")}
    wanted -= {(every, none)} if design == "both" else {(none, every)} if design == "only" else set()
    assert found == {(own, end) for own, end in wanted if own != end}


def measured(plan: Plan, worth: dict[str, float]) -> dict[str, pd.DataFrame]:
    """Trials whose accuracy is the sum of what their parts are worth, with a little luck for each seed."""

    def row(trial: Trial) -> dict[str, Any]:
        on = [part for part in worth if getattr(trial.fields, part) == ON[part]]
        luck = ((7 * trial.seed + len(on)) % 5 - 2) * 1e-4
        known = {name: getattr(trial, name) for name in ("trial_id", "arm", "seed")}
        score = 0.5 + sum(worth[part] for part in on) + luck
        return {**known, "repeat": 0, "status": "complete", "accuracy": score}

    tables = {"trials": frame("trials", map(row, plan.trials))}
    return tables | {"effects": effects_table(tables, plan)}


def test_the_page_says_what_each_part_contributes() -> None:
    worth = {"mixup": 0.02, "flip": 0.05, "momentum": -0.03}
    parts = {**{name: OFF[name] for name in worth}, **PAIR}
    plan = planned(declare(parts=parts, design="both"))
    tables = measured(plan, worth)
    table = components_view(tables, tables["effects"], plan)
    assert table is not None
    heads = [head["label"] for head in table["columns"]]
    ends = ["Δ Accuracy against all parts", "Δ Accuracy against no parts"]
    assert heads == ["part", *worth, "Accuracy", *ends]
    rows = {row[0]["text"]: dict(zip(heads, row, strict=True)) for row in table["rows"]}
    total = sum(worth.values())
    for row in rows.values():
        on = sum(value for part, value in worth.items() if row[part]["text"] == "✓")
        assert all(row[part]["text"] in "✓–" for part in worth)
        assert row["Accuracy"]["value"] == pytest.approx(0.5 + on, abs=2e-4)
        for head, end in zip(ends, (total, 0.0), strict=True):
            if row[head]["text"] not in ("–", "baseline"):
                assert row[head]["value"] == pytest.approx(on - end, abs=4e-4)
    assert [rows["without momentum (only mixup+flip)"][end]["notes"][-1] for end in ends] == 2 * ["better"]
    screen = answer(tables, plan)
    assert screen["recommendation"].startswith("Take without momentum (only mixup+flip): it is better")
    shown = {row[0]["text"]: row[1]["notes"] for row in screen["arms"]["rows"]}
    assert shown["without flip"] == ["−5.00 worse", "against all parts"]
    assert shown["only mixup"][-1] == "against no parts"


def test_settings_profiles_and_other_factors_meet_parts() -> None:
    small = Profile(base={"mixup": 0.4}, seeds=2)
    study = declare(parts={"mixup": 0.0, "flip": False}, profiles={"small": small})
    assert study.with_profile("small").fields({"part": "without flip"}).mixup == 0.4
    fixed = study.with_settings({"part": ("without flip",)})
    assert (fixed.arms(), fixed.fields({}).flip) == ([{}], False)
    grid = planned(study.with_settings({"epsilon": (0.0, 0.1)}))
    assert len(grid.arms) == 6
    assert all(arm.split(", ")[1] == other.split(", ")[1] for arm, other in grid.comparisons)
    asked = study.replace(comparisons=({"part": "without flip"},))
    assert [term.term for term in terms(planned(asked)) if term.asked] == ["part=without flip"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parts": {"mixup": 0.2}}, r"'part=all parts' and 'part=without mixup' train the same network"),
        ({"parts": {"mixup": 0.0, "x": {"mixup": 1.0, "flip": False}}}, r"parts.x: mixup is off at 0.0 el"),
        ({"parts": {"nothing": {}}}, r"parts.nothing: .*at least 1 item"),
        ({"parts": {"flip": False}, "factors": {"part": (1, 2)}}, r"factors.part: parts make a factor"),
        ({"parts": {"flip": False}, "factors": {"flip": (True, False)}}, r"flip is set by flip and by part"),
        ({"design": "both"}, r"design: is that of parts; name them"),
    ],
)  # fmt: skip
def test_a_wrong_part_is_one_line_that_says_what_to_write(changes: Levels, message: str) -> None:
    with pytest.raises(StudyError, match=message) as caught:
        planned(declare(**changes))
    assert "\n" not in str(caught.value)
