"""What is read back is what was written; a record is believed before a plan; a variation has its place."""

import io
import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from recorded_study import Recorded, counts, environment, trial
from test_main import HERE, STUDY, ablate

from ablate.errors import RecordError
from ablate.pipeline import load_tables
from ablate.store.points import Point, Tuning, read_tuning
from ablate.store.results import ResultsFolder, find_study, read_plan, write_sealed
from ablate.store.timing import TimingPass, case_of, read_timing
from ablate.study.options import Options
from ablate.study.search import Range, Search
from ablate.study.settings import parse_settings, variation_name
from ablate.study.trials import Plan
from ablate.tables.build import build_tables
from ablate.tables.files import read_tables, write_tables

pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture
def tiny(tmp_path: Path) -> Recorded:
    return Recorded(tmp_path / "results" / "tiny" / "quick", counts(e0=[600, 610, 590], e1=[500, 520, 510]))


def test_no_flipped_bit_of_a_sealed_file_is_another_value(tiny: Recorded) -> None:
    folder = tiny.folder
    search = Search(space={"epsilon": Range(low=0.0, high=0.5, step=0.005)}, points=8, seeds=2)
    point = Point(number=0, levels={"epsilon": 0.25}, source="anchor", seeds=(5, 6), intermediate={0: 0.125})
    ran: dict[str, Any] = {"environment": environment(), "others": 0.5}
    timing = TimingPass(cases=(case_of(trial()),), step_ms=((1.5, 2.5),), steps=(7,), **ran)
    (folder.root / "tuning").mkdir()
    write_sealed(folder.tuning, Tuning(search=search, points=(point,)))
    write_sealed(folder.timing, timing)
    write_tables(folder, build_tables(folder, tiny.plan))

    def tables(of: ResultsFolder) -> dict[str, Any]:
        return {name: table.to_csv() for name, table in read_tables(of, names=["trials", "floors"]).items()}

    readers: dict[str, Callable[[ResultsFolder], Any]] = {
        "study.json": read_plan, "timing.json": read_timing, "tuning/tuning.json": read_tuning,
        "tables.json": tables, "trials.csv": tables, "floors.csv": tables,
    }  # fmt: skip
    for name, read in readers.items():
        path, expected, refused = folder.root / name, read(folder), 0
        content = path.read_bytes()
        places = [zlib.crc32(f"{name} {n}".encode()) % len(content) for n in range(60)]
        for place in places:
            bit = 1 << place % 7
            path.write_bytes(content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :])
            try:
                assert read(folder) == expected, (name, place)  # a blank became another
            except RecordError:
                refused += 1
        assert refused > len(places) / 2, name
        path.write_bytes(content)


@pytest.mark.slow
def test_a_record_is_believed_before_the_plan(tiny: Recorded, tmp_path: Path) -> None:
    trials, half = tiny.plan.trials, len(tiny.plan.trials) // 2
    study, gate = str(tiny.folder.root), ("--fail-if", "accuracy < 1%")
    assert ablate(tmp_path, "check", study, *gate).status == 0

    def with_trials(changed: list[dict[str, Any]]) -> Plan:
        of = [one.model_copy(update=change) for one, change in zip(trials, changed, strict=True)]
        return tiny.plan.model_copy(update={"trials": tuple(of)})

    by_key = {(one.arm, one.seed): one for one in trials}
    (first, second), names = tiny.plan.arms, ("trial_id", "fields")
    others = [by_key[second if one.arm == first else first, one.seed] for one in trials]
    swapped = {
        "ids": with_trials([{"trial_id": other.trial_id} for other in others]),
        "ids and fields": with_trials([{name: getattr(other, name) for name in names} for other in others]),
        "fields": with_trials([{"fields": other.fields} for other in others]),
        "arms": with_trials([{"arm": other.arm, "levels": other.levels} for other in others]),
        "seeds": with_trials([{"seed": one.seed + 4} for one in trials]),
        "data": with_trials([{"fingerprint": "0"} for _ in trials]),
    }
    for name, plan in swapped.items():
        write_sealed(tiny.folder.plan, plan)
        table = build_tables(tiny.folder, read_plan(tiny.folder))["trials"]
        assert set(table["status"]) == {"unreadable"}, name
        assert table["accuracy"].isna().all()
        assert table["failure"].str.startswith("plan and record disagree: the plan has ").all()
        assert "6 unreadable" in ablate(tmp_path, "status", study).out
    ended = ablate(tmp_path, "check", study, *gate)
    assert (ended.status, "6 unreadable" in ended.out) == (2, True)
    again = [*trials, *(one.model_copy(update={"seed": one.seed + 3}) for one in trials[:half])]
    misnamed = with_trials([{"arm": "epsilon=0.3"} for _ in trials]).trials
    for listed in ((), (*trials, trials[0]), again, misnamed):
        write_sealed(tiny.folder.plan, tiny.plan.model_copy(update={"trials": tuple(listed)}))
        for command in (("check", study, *gate), ("status", study), ("report", study)):
            ended = ablate(tmp_path, *command)
            assert (ended.status, "study.json: damaged or altered" in ended.err) == (1, True)


@pytest.mark.slow
def test_a_published_run_has_only_the_tables_that_were_published(tiny: Recorded, tmp_path: Path) -> None:
    assert ablate(tmp_path, "report", "tiny").status == 0
    assert ablate(tmp_path, "publish", "tiny", "--as", "main").status == 0
    published = tmp_path / "results" / "reference" / "tiny" / "main"
    check = ("check", str(published), "--fail-if", "accuracy < 1%")
    assert ablate(tmp_path, *check).status == 0
    table, listed = published / "trials.csv", published / "tables.json"
    whole, header = table.read_bytes(), table.read_bytes().splitlines(keepends=True)[0]
    for damaged in (
        whole.replace(b"0.6", b"0.9", 1),
        header,
        whole[:-9],
        whole + whole.replace(header, b""),
        b"\xff",
    ):
        table.write_bytes(damaged)
        for command in (check, ("report", str(published))):
            ended = ablate(tmp_path, *command)
            assert (ended.status, "does not match its digest" in ended.err) == (1, True)
    table.write_bytes(whole)
    assert ablate(tmp_path, "report", str(published)).status == 0
    listed.unlink()
    assert "tables.json: is missing" in ablate(tmp_path, *check).err
    plan = published / "study.json"
    plan.write_text(json.dumps(json.loads(plan.read_bytes())["content"]))  # as of an earlier version
    assert ablate(tmp_path, *check).status == 0
    for column, value in {"arm": "e2", "seed": "7", "status": ""}.items():
        pd.read_csv(io.BytesIO(whole), dtype=str).assign(**{column: value}).to_csv(table, index=False)
        assert "the tables hold other trials than study.json plans" in ablate(tmp_path, *check).err
    table.write_bytes(whole)
    shutil.rmtree(published / "records")
    assert "records: is missing" in ablate(tmp_path, *check).err


@pytest.mark.slow
def test_a_variation_stands_beside_its_study_and_trains_nothing_twice(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(STUDY)
    on_cpu = ("run", "tiny.py", "--profile", "quick", *HERE)
    assert "4 trials run" in ablate(tmp_path, *on_cpu).out
    places = [tmp_path / "results" / "tiny" / "quick", tmp_path / "report" / "tiny" / "quick"]

    def of_study() -> dict[Path, bytes]:
        files = [path for place in places for path in place.rglob("*") if path.is_file()]
        return {path: path.read_bytes() for path in files if "variations" not in path.parts}

    before = of_study()
    for record in (places[0] / "records").iterdir():  # as by drivers killed right after they recorded a trial
        ResultsFolder(places[0]).checkpoint_path(record.stem).touch()
    ended = ablate(tmp_path, *on_cpu, "--seeds", "1")
    assert "0 trials run" in ended.out
    own = [place / "variations" / "seeds=1" for place in places]
    assert str(own[1].relative_to(tmp_path)) in ended.out
    assert before == of_study()
    (tmp_path / "link").symlink_to(own[0])
    assert "2 planned trials: 2 complete" in ablate(tmp_path, "status", "link").out
    assert "name: variations is" in ablate(tmp_path, *on_cpu, "--seeds", "1", "--name", "variations").err
    named = ablate(tmp_path, *on_cpu, "--set", "epsilon=0.0,0.2", "--name", "strong")
    assert "2 trials run" in named.out
    after = of_study()
    assert before == {path: content for path, content in after.items() if path in before}
    assert {path.parent.name for path in after.keys() - before.keys()} == {"records", "predictions"}

    listed = ablate(tmp_path, "list").out
    for name, trials in (("tiny/quick", 4), ("tiny/quick/seeds=1", 2), ("tiny/quick/strong", 4)):
        assert f"{name} " in listed
        assert len(load_tables(name, results=tmp_path / "results")["trials"]) == trials
        assert f"{trials} planned trials: {trials} complete" in ablate(tmp_path, "status", name).out
        assert ablate(tmp_path, "check", name, "--fail-if", "accuracy < 1%").status == 0
    assert ablate(tmp_path, "report", "tiny/quick/strong").status == 0
    assert ablate(tmp_path, "compare", "tiny", "tiny/quick/strong").status == 0
    assert ablate(tmp_path, "publish", "tiny/quick/strong", "--as", "s").status == 0
    assert of_study() == after
    wrong = ablate(tmp_path, "status", "tiny/quick/stron").err
    assert "was run as quick, quick/seeds=1, quick/strong, but quick/stron was asked for" in wrong
    assert "Did you mean 'quick/strong'?" in wrong
    # Without the study itself, what was run alone need not be named.
    (places[0] / "study.json").unlink()
    assert "choose one, as tiny/quick/seeds=1" in ablate(tmp_path, "status", "tiny").err
    shutil.rmtree(own[0])
    assert find_study(tmp_path / "results", "tiny").root.name == "strong"
    for refused in ("../x", "", ".x", "a/b"):
        assert ablate(tmp_path, *on_cpu, "--name", refused).status == 1
    (tmp_path / "variations.py").write_text(STUDY)
    assert "choose another name" in ablate(tmp_path, "run", "variations.py", *HERE).err


def test_a_variations_name_is_short_and_another_for_other_settings() -> None:
    def name(*settings: str, **others: Any) -> str:
        return variation_name(Options(settings=parse_settings(settings), **others))

    assert name() == ""
    assert name("lr=0.1,0.2", "epochs=5", seeds=3) == name("epochs=5", "lr=0.1,0.2", seeds=3)
    assert name("lr=0.1,0.2", "epochs=5", seeds=3) == "epochs=5+lr=0.1,0.2+seeds=3"
    assert name("epochs=5", name="short") == "short"
    odd = [("data=folder:/a/b",), ("data=folder:/a_b",), ("arch.kind=1",), ("arch.kind='1'",)]
    odd += [("data=folder:/" + "x" * n,) for n in (90, 91)]
    names = {name(*settings) for settings in odd}
    assert len(names) == len(odd)
    assert max(map(len, names)) < 80
    assert all(set(one) <= {*"abcdefghijklmnopqrstuvwxyz0123456789_.,=+-"} for one in names)
