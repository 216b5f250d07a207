"""The gate: how conditions are read, what they make of a study, and its exit status as a command."""

import dataclasses
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from recorded_study import FAILED, MISSING, Recorded, counts, printed, unsealed
from test_main import ablate

from ablate.analysis.effects import effects_table
from ablate.errors import StudyError
from ablate.gate.check import Result, check_study, show_result
from ablate.gate.condition import LONGEST, Joined, Leaf, parse
from ablate.tables.build import build_tables
from ablate.tables.files import write_tables

ARMS = counts(e0=[600, 620, 590, 610], e1=[540, 561, 531, 549], e2=[601, 622, 590, 612])
"""epsilon=0.1 is surely worse than 0.0 (by 6 points), and 0.2 is equivalent to it."""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded(tmp_path_factory.mktemp("study"), ARMS)


def result(study: Recorded, *conditions: str, **changes: Any) -> Result:
    return check_study(study.run, conditions, **changes)


def holds(study: Recorded, condition: str, **changes: Any) -> bool | None:
    return result(study, condition, **changes).findings[0].holds


def shown(found: Result) -> str:
    return printed(show_result, found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("accuracy < 0.55", Leaf("accuracy", None, "mean", False, "<", 0.55)),
        ("high( nll ) >= 1e-1", Leaf("nll", None, "high", False, ">=", 0.1)),
        ("difference(nll) != -2", Leaf("nll", None, "mean", True, "!=", -2.0)),
        ("low(difference(nll)) < −2%", Leaf("nll", None, "low", True, "<", -0.02, True)),
        ("accuracy worse", Leaf("accuracy", None, "verdict", True, "==", "worse")),
        ("verdict(nll(all)) != equivalent", Leaf("nll", "all", "verdict", True, "!=", "equivalent")),
        ("nll(ε=0.1, arch=a) better", Leaf("nll", "ε=0.1, arch=a", "verdict", True, "==", "better")),
        ("nll(data=folder:x (1)) > 1", Leaf("nll", "data=folder:x (1)", "mean", False, ">", 1.0)),
        ("nll('a) or b') > 1", Leaf("nll", "a) or b", "mean", False, ">", 1.0)),
        ('verdict(nll) == "worse"', Leaf("nll", None, "verdict", True, "==", "worse")),
        ("nll (it's  worse − 5%\n) > 1", Leaf("nll", "it's  worse − 5%", "mean", False, ">", 1.0)),
    ],
)  # fmt: skip
def test_single_conditions(text: str, expected: Leaf) -> None:
    assert parse(text) == expected


def test_and_binds_closer_than_or_and_brackets_closest() -> None:
    a, b, c = (parse(f"{name} > 0") for name in ("nll", "ece", "brier"))
    assert parse("nll > 0 or ece > 0 and brier > 0") == Joined("or", (a, Joined("and", (b, c))))
    assert parse("(nll > 0 or ece > 0) and brier > 0") == Joined("and", (Joined("or", (a, b)), c))
    assert parse("nll>0 and ece>0 and((brier>0))") == Joined("and", (a, b, c))
    many = LONGEST // 11 - 1
    assert parse("nll > 0" + " or ece > 0" * many) == Joined("or", (a, *[b] * many))


GOES_ON = "a condition that ends or goes on with 'and' or 'or'"
COMPARES = "one of < <= > >= == != or a verdict (worse, better"


@pytest.mark.parametrize(
    ("text", "expected", "came"),
    [
        ("", "a metric", "which is not there"),
        ("accuracy < 1e999", "a finite number", "got '1e999'"),
        ("low(low(accuracy)) < 0.5", "a metric", "got 'low(accuracy)) < 0.5'"),
        ("accuracy(x < 0.5", "')'", "which is not there"),
        ("verdict(accuracy) < worse", "'==' or '!=' after a verdict", "got '< worse'"),
        ("verdict(accuracy) == wors", "a verdict (worse, better", "Did you mean 'worse'?"),
        ("accuracy < ５５%", "a finite number", "got '５５%'"),
    ],
)
def test_a_malformed_condition_is_refused_with_the_part_that_is(text: str, expected: str, came: str) -> None:
    with pytest.raises(StudyError, match=rf"expected {re.escape(expected)}.*{re.escape(came)}"):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        'exec(\'open("pwned", "w")\') < 1',
        # what is out of all proportion
        "(" * 5000,
        "(" * (LONGEST // 2 - 10) + "accuracy < 0" + ")" * (LONGEST // 2 - 10),
        "accuracy < " + "-" * (LONGEST - 20) + "1",
    ],
)
def test_nothing_is_run(study: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError, match=r"^--fail-if"):
        result(study, text)
    assert list(tmp_path.iterdir()) == []


SIGNS = st.sampled_from(
    [*"()<>=!%.,'\"-\\#\n", "accuracy", "low", "verdict", "worse", "and", "or", " ", "0.5", "ε", "\x1b"]
)


@given(st.lists(SIGNS, max_size=12).map("".join))
@example("accuracy(\x1b[31m) < 0.5\x07")
def test_whatever_is_written_is_read_or_refused_on_one_clean_line(text: str) -> None:
    try:
        parse(text)
        return
    except StudyError as error:
        said = str(error)
    assert said.startswith("--fail-if")
    assert "\x1b" not in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("accuracy < 55%", True),  # epsilon=0.1 has a mean of 54.525 %
        *((f"accuracy(epsilon=0.1) {sign} 0.54525", True) for sign in ("<=", ">=", "==")),
        *((f"accuracy(epsilon=0.1) {sign} 0.54525", False) for sign in ("<", ">", "!=")),
        ("accuracy(ε=0.1) < 55%", True),  # as the report writes it
        ("accuracy < 55% and accuracy > 60%", False),  # no one arm is both
        ("accuracy(epsilon=0.1) < 55% and accuracy(epsilon=0.0) > 60%", True),
        ("failed == 0 and missing == 0", True),
        ("accuracy worse", True),
        ("verdict(accuracy(epsilon=0.2)) == equivalent", True),
        ("verdict(accuracy) != worse", True),  # 0.2 is equivalent
        ("high(difference(accuracy)) < -5%", True),
        ("low(accuracy(epsilon=0.1)) < 52.5% and high(accuracy(epsilon=0.1)) > 56.5%", True),
        ("low(accuracy(epsilon=0.1)) < 52.4% or high(accuracy(epsilon=0.1)) > 56.6%", False),  # ± 2.04 %
    ],
)
def test_conditions_on_a_study(study: Recorded, text: str, expected: bool) -> None:
    assert holds(study, text) is expected
    assert result(study, text).passes is not expected


def test_verdicts_and_intervals_in_the_family_are_the_reports(tmp_path: Path) -> None:
    study = Recorded(tmp_path, ARMS, study={"family": ["accuracy", "nll"]})
    effects = effects_table({"trials": study.run.trials}, study.plan)
    known = dict(result(study, "accuracy worse or nll worse").comparison.rows)
    compared = effects[effects["metric"].isin(["accuracy", "nll"]) & (effects["kind"] == "arm")]
    for row in compared.itertuples():
        item = known.pop((str(row.term), str(row.metric)))
        assert (item.verdict, item.low, item.high) == (row.verdict, row.low, row.high)
    assert not known


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("acuracy < 0.5", "acuracy: unknown metric; known are accuracy, .*Did you mean 'accuracy'?"),
        ("nll(epsilon=0.3) < 0.5", "arm 'epsilon=0.3': is not of this study, whose arms are .*Did you mean"),
        ("accuracy < 55", "accuracy: lies between 0 and 1, but 55 came; .*write 55% if that is meant"),
        ("difference(accuracy) < -5", "a difference of accuracy: lies between -1 and 1, but -5 came"),
        ("nll < 50%", "nll: is no fraction; write the number without %, in nats"),
        ("accuracy higher", "accuracy: is never higher; its verdicts are worse, better"),
        ("failed worse", "failed: counts the study's trials; write for example 'failed > 0'"),
        ("accuracy(epsilon=0.0) worse", "arm 'epsilon=0.0': is the baseline itself"),
        ("acuracy < 0.5 or accuracy < 55 or nll(epsilon=9) < 1", "acuracy.*\\n.*but 55 came.*\\n.*epsilon=9"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_of_the_study_is_refused(study: Recorded, text: str, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        result(study, text)


def test_what_cannot_be_told_fails(tmp_path: Path) -> None:
    study = Recorded(tmp_path, counts(e0=[600], e1=[600]))
    for text in ("low(accuracy) < 10%", "accuracy < 10% or high(accuracy) > 90%", "low(difference(nll)) > 1"):
        found = result(study, text)
        assert (found.findings[0].holds, found.passes) == (None, False)
        assert f"cannot be told, and fails: {text}" in shown(found)
    # A part that cannot be told does not matter where another decides.
    assert holds(study, "accuracy < 70% or low(accuracy) < 10%") is True
    assert holds(study, "accuracy < 10% and low(accuracy) < 10%") is False


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ([590, 610], None),  # both 10 images worse: no spread to judge by
        ([600, 620], False),  # the same on every seed
    ],
)
def test_a_difference_no_test_can_judge(tmp_path: Path, second: list[int], expected: bool | None) -> None:
    study = Recorded(tmp_path, counts(e0=[600, 620], e1=second), study={"margins": {"accuracy": 1e-9}})
    assert holds(study, "accuracy worse") is expected
    # Without digests, equal values on every seed are undecided, and yet not worse.
    unknown = dataclasses.replace(study.run, trials=study.run.trials.assign(predictions_sha256=""))
    found = check_study(unknown, ["accuracy worse", "accuracy undecided"]).findings
    assert [finding.holds for finding in found] == [expected, True]


def test_an_undefined_value_closes_the_gate_by_its_name(study: Recorded) -> None:
    trials = study.run.trials.copy()
    trials.loc[(trials["arm"] == "epsilon=0.1") & (trials["seed"] == 1), "ece"] = math.nan
    undefined = dataclasses.replace(study.run, trials=trials)
    for text in ("ece(epsilon=0.1) > 99%", "ece worse", "low(difference(ece)) > 90%"):
        for other in (None,) if text.startswith("ece(") else (None, study.run):
            found = check_study(undefined, [text], other=other, allow_incomplete=True)
            assert (found.findings[0].holds, found.passes) == (None, False)
            assert "it is undefined in 1 complete trials" in shown(found)
    assert not check_study(study.run, ["ece worse"], other=undefined).passes
    found = check_study(undefined, ["ece worse"])
    assert found.comparison.rows["epsilon=0.1", "ece"].reason == "undefined"


@pytest.fixture
def incomplete(tmp_path: Path) -> Recorded:
    lost = {(0.0, 3): FAILED, (0.1, 2): MISSING, (0.2, 0): FAILED, (0.2, 1): MISSING, (0.2, 2): MISSING}
    return Recorded(tmp_path, {**ARMS, **lost, (0.2, 3): MISSING})


def test_a_study_that_lacks_results_fails_unless_that_is_allowed(incomplete: Recorded) -> None:
    told = "the study is incomplete: 6 of 12 trials have no result (4 missing, 2 oom)"
    found, allowed = result(incomplete), result(incomplete, allow_incomplete=True)
    assert (found.passes, allowed.passes) == (False, True)
    assert f"{told}; --allow-incomplete judges by the others\nthe check fails\n" in shown(found)
    assert f"{told}; judged by the others\nthe check passes\n" in shown(allowed)
    lost = shown(result(incomplete, "missing > 0", "failed > 0"))
    assert "missing is 4 of 12 trials" in lost
    assert "failed is 2 of 12 trials" in lost
    worse = result(incomplete, "accuracy worse", allow_incomplete=True)
    assert worse.findings[0].holds is False
    assert "epsilon=0.1: accuracy is undecided: trials have no result" in shown(worse)


def test_an_arm_without_results_is_left_out_where_allowed(incomplete: Recorded, tmp_path: Path) -> None:
    assert holds(incomplete, "accuracy < 10%") is None
    (found,) = result(incomplete, "accuracy < 10%", allow_incomplete=True).findings
    assert (found.holds, found.arms) == (False, 2)
    assert holds(incomplete, "accuracy(epsilon=0.2) < 10%", allow_incomplete=True) is None
    none = result(Recorded(tmp_path / "none", {(0.0, 0): MISSING}), "accuracy < 10%", allow_incomplete=True)
    assert (none.passes, "no arm has a complete trial" in shown(none)) == (False, True)


BEFORE = {(level, seed): count + seed + 60 * (level == 0.0) for (level, seed), count in ARMS.items()}
"""Against this the arm epsilon=0.0 is worse by about 6 points, and the others are the same."""


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded(tmp_path_factory.mktemp("before"), BEFORE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("accuracy worse", True),
        ("accuracy(epsilon=0.0) worse", True),  # against a run, the baseline arm is compared too
        ("verdict(accuracy(epsilon=0.2)) == equivalent", True),
        ("difference(accuracy(epsilon=0.0)) < -6%", True),
        ("accuracy < 50% and accuracy worse", False),
    ],
)
def test_conditions_against_another_run(study: Recorded, before: Recorded, text: str, expected: bool) -> None:
    assert holds(study, text, other=before.run) is expected
    one_family = result(study, text, "nll worse or accuracy worse", other=before.run).comparison.rows.values()
    assert {(row.comparisons, row.method) for row in one_family} == {(6, "paired")}


def test_an_incomplete_baseline_run_fails_too(study: Recorded, tmp_path: Path) -> None:
    other = Recorded(tmp_path, {**BEFORE, (0.0, 0): FAILED})
    found = result(study, "accuracy better", other=other.run)
    assert not found.passes
    assert "the --baseline run is incomplete: 1 of 12 trials have no result (1 oom)" in shown(found)
    assert result(study, "accuracy better", other=other.run, allow_incomplete=True).passes


def test_a_baseline_run_that_nothing_uses_or_fits_is_refused(study: Recorded, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="nothing is compared with --baseline; add for example"):
        result(study, "accuracy < 10%", other=study.run)
    bare = Recorded(tmp_path / "bare", ARMS, study={"baseline": {}})
    with pytest.raises(StudyError, match="accuracy: no arm has one to compare it with; name a recorded run"):
        result(bare, "accuracy worse")
    other = Recorded(tmp_path, counts(e5=[1, 2]))
    with pytest.raises(StudyError, match="accuracy: no arm has one to compare it with"):
        result(study, "accuracy worse", other=other.run)
    other = Recorded(tmp_path / "two", counts(e0=[1, 2], e5=[1, 2]))
    found = result(study, "accuracy worse", other=other.run, allow_incomplete=True)
    assert "not compared, because only this run has them: epsilon=0.1" in shown(found)
    assert "not compared, because only the --baseline run has them: epsilon=0.5" in shown(found)
    with pytest.raises(StudyError, match=r"'epsilon=0.2': is not in the --baseline run"):
        result(study, "accuracy(epsilon=0.2) worse", other=other.run)


def test_the_exit_status_and_what_is_printed(study: Recorded, tmp_path: Path) -> None:
    shutil.copytree(study.folder.root, tmp_path / "results" / "tiny" / "quick")
    check = ("check", "tiny", "--profile", "quick", "--fail-if", "accuracy < 50%")
    passed, failed = ablate(tmp_path, *check), ablate(tmp_path, *check, "--fail-if", "accuracy < 55%")
    assert (passed.status, passed.err, failed.status, failed.err) == (0, "", 2, "")
    assert "does not hold: accuracy < 50% (in any of 3 arms)" in passed.out
    assert passed.out.endswith("the check passes\n")
    evidence = failed.out.split("holds, and fails: accuracy < 55%\n")[1]
    assert evidence.startswith("  epsilon=0.1: accuracy is 54.525 %: Accuracy (%) 54.52 (")
    assert "epsilon=0.0" not in evidence
    assert evidence.endswith("the check fails\n")


HOSTILE = "folder:\x1b]0;title\x07\x1b[31m\u202e[bold]x[/bold]\n::error::forged"


def test_a_hostile_name_is_printed_inertly(tmp_path: Path) -> None:
    correct = {(name, seed): 600 + seed for name in ("folder:plain", HOSTILE) for seed in (0, 1)}
    here = str(Recorded(tmp_path, correct, factor="data").folder.root)
    wrong = ablate(tmp_path, "check", here, "--fail-if", "accuracy(\x1b[31mx) < 1%")
    right = ablate(tmp_path, "check", here, "--fail-if", "accuracy < 100%")
    assert (wrong.status, right.status) == (1, 2)
    for text in (wrong.out, wrong.err, right.out, right.err):
        assert not any(sign in text for sign in "\x1b\x07\u202e")
        # a forge's log takes a line that begins so for a command
        assert not any(line.startswith("::") for line in text.splitlines())
    assert "[bold]x[/bold]" in right.out


def test_a_damaged_or_cut_study_does_not_pass(tmp_path: Path) -> None:
    study = Recorded(tmp_path / "one", counts(e0=[600, 610]))
    check = ("check", str(study.folder.root), "--fail-if", "missing > 0")
    write_tables(study.folder, build_tables(study.folder, study.plan))
    record = next(study.folder.records.iterdir())
    record.write_text(record.read_text().replace("0", "1"))
    ended = ablate(tmp_path, *check)
    assert (ended.status, "1 unreadable" in ended.out) == (2, True)
    # As published before there were seals: a table of which trials were cut has no say on them.
    shutil.rmtree(study.folder.predictions)
    unsealed(study.folder)
    assert ablate(tmp_path, *check).status == 0
    table = study.folder.root / "trials.csv"
    table.write_text(table.read_text().splitlines(keepends=True)[0])
    ended = ablate(tmp_path, *check)
    assert (ended.status, "hold other trials than study.json plans" in ended.err) == (1, True)


def test_the_help_shows_examples_that_are_read(tmp_path: Path) -> None:
    told = " ".join(ablate(tmp_path, "check", "--help").out.split())
    examples = [part.split('"')[0] for part in told.split('--fail-if "')[1:]]
    assert examples == ["accuracy < 55%", "high(ece) > 10%", "accuracy worse or nll worse"]
    assert all(parse(text) for text in examples)
