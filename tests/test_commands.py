"""Commands that look and tell: as JSON, without data, of fields and runs; and the study to start from."""

import json
import math
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from recorded_study import FAILED, MISSING, Recorded, counts
from scipy import stats
from test_main import HERE, STUDY, Ended, ablate

from ablate.data import DATASETS, find_originals
from ablate.study.fields import FIELD_NAMES, RECIPES, describe_fields, resolve
from ablate.study.study import load_study

pytestmark = pytest.mark.usefixtures("no_figures")

CORRECT = counts(e0=[600, 620, 590, 611], e1=[540, 561, 531, 549]) | {(0.0, 4): FAILED, (0.1, 4): MISSING}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    Recorded(tmp_path / "results" / "tiny" / "quick", CORRECT)
    return tmp_path


def as_json(ended: Ended, status: int = 0) -> Any:
    """What is on standard output, which must be one JSON object without NaN."""
    assert ended.status == status, ended.err

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    return json.loads(ended.out, parse_constant=refuse)


def test_status_is_the_same_in_words_and_as_json(here: Path) -> None:
    found = as_json(ablate(here, "status", "tiny", "--json"))
    assert found["search"] is None
    trials = found["trials"]
    assert (trials["planned"], trials["statuses"]) == (10, {"complete": 8, "oom": 1, "missing": 1})
    (lost,) = trials["without_result"]
    assert lost == {"arm": "epsilon=0.0", "seed": 4, "status": "oom", "reason": "too large"}
    words = ablate(here, "status", "tiny").out
    for arm in trials["arms"]:
        assert re.search(rf"{arm['arm']} +{arm['complete']} +{arm['failed']} +0 +{arm['missing']} +–", words)


def test_check_and_compare_give_their_numbers_unrounded_and_keep_their_status(here: Path) -> None:
    asked = ("--fail-if", "low(difference(accuracy)) < -20%", "--fail-if", "difference(accuracy) < -1%")
    gate = ("check", "tiny", "--allow-incomplete", *asked)
    found = as_json(ablate(here, *gate, "--json"), status=2)
    assert found["passes"] is False
    assert [one["holds"] for one in found["conditions"]] == [False, True]
    values = np.array([0.540, 0.561, 0.531, 0.549]) - [0.600, 0.620, 0.590, 0.611]
    low = stats.t.interval(0.95, 3, values.mean(), stats.sem(values))[0]
    told = [one for part in found["conditions"] for one in part["evidence"]]
    assert [(one["arm"], one["of"], one["value"]) for one in told] == [
        ("epsilon=0.1", "low(difference(accuracy))", pytest.approx(low, rel=1e-12)),
        ("epsilon=0.1", "difference(accuracy)", pytest.approx(values.mean(), rel=1e-12)),
    ]
    assert found["b"]["statuses"] == {"complete": 8, "oom": 1, "missing": 1}
    assert ablate(here, *gate).status == 2

    pair = ("compare", "tiny", "tiny/quick", "--metric", "accuracy", "--csv", "out.csv")
    found = as_json(ablate(here, *pair, "--markdown", "out.md", "--json"))
    assert "Accuracy" in (here / "out.md").read_text()
    table = pd.read_csv(here / "out.csv")
    assert [row["arm"] for row in found["differences"]] == list(table["arm"])
    for own, row in zip(found["differences"], table.to_dict("records"), strict=True):
        for name, value in row.items():
            same = own[name] is None if isinstance(value, float) and math.isnan(value) else own[name] == value
            assert same or (name == "reason" and not own[name]), (name, own[name], value)


@pytest.fixture
def offline(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def refuse(*arguments: Any) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    numbers: dict[str, Any] = {"data": "imagenette-160", "precision": "float32"}
    Recorded(here / "results" / "far" / "quick", CORRECT, study={"name": "far"}, **numbers)
    base = {"image_size": 16, "epochs": 4, **numbers}
    text = re.sub(r"base=\{.*\}", f"base={base}", STUDY).replace("seeds=2", "seeds=5")
    (here / "far.py").write_text(text)
    return here


def test_a_plan_needs_neither_data_nor_network(offline: Path) -> None:
    plan = ("plan", "far.py", "--workers", "1")
    words = ablate(offline, *plan)
    assert words.status == 0, words.err
    assert "2 arms x 5 seeds = 10 trials: 8 done, 1 failed, 1 missing" in words.out
    assert "time: about 2 s for 1 of the missing trials" in words.out
    assert "data: imagenette-160: not at hand, a run downloads 99 MB from https://" in words.out
    found = as_json(ablate(offline, *plan, "--json"))
    assert (found["done"], found["failed"], found["missing"], found["seconds"]) == (8, 1, 1, 2.0)
    (data,) = found["data"]
    assert (data["data"], data["at_hand"], data["download_bytes"]) == ("imagenette-160", False, 99_003_388)
    # Another image size is other data, of which nothing is recorded.
    assert "0 done" in ablate(offline, *plan, "--set", "image_size=32").out
    nowhere = ablate(offline, *plan, "--data-dir", "nowhere").out
    assert "8 done" in nowhere
    assert "not at hand, as neither nowhere nor imagenette2-160 in it is" in nowhere
    assert not (offline / "cache").exists()
    assert ablate(offline, *plan, "--set", "arch=seed_cn").status == 1


def test_the_doctor_looks_for_the_data_of_a_study(offline: Path) -> None:
    far = ablate(offline, "doctor", "far.py")
    assert (far.status, "imagenette-160: not at hand, a run downloads 99 MB" in far.out) == (0, True)
    lost = ablate(offline, "doctor", "far.py", "--set", "data=folder:/nowhere")
    assert (lost.status, "broken: data: give the folder that holds it" in lost.out) == (1, True)
    none = ablate(offline, "doctor").out
    assert all(f"{name}: " in none for name in DATASETS)


def test_originals_are_found_where_a_run_takes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))
    assert all(find_originals(name).at_hand for name in ("digits", f"folder:{tmp_path}"))
    copy = tmp_path / "copy" / "imagenette2-160"
    places = (copy, copy.parent)
    for part in ("train", "val"):
        assert not any(find_originals("imagenette-160", data_dir=place).at_hand for place in places)
        (copy / part).mkdir(parents=True)
    assert all(find_originals("imagenette-160", data_dir=place).at_hand for place in places)
    assert not find_originals("imagenette-160").at_hand
    (tmp_path / "cache" / "sources").mkdir(parents=True)
    copy.rename(tmp_path / "cache" / "sources" / copy.name)
    assert find_originals("imagenette-160").at_hand


def test_every_field_is_told_with_what_it_may_be(tmp_path: Path) -> None:
    described = as_json(ablate(tmp_path, "fields", "--json"))
    assert list(described) == list(FIELD_NAMES)
    plain = resolve({"data": "digits", "image_size": 8}).model_dump()
    assert {name: facts["default"] for name, facts in described.items() if "default" in facts} == {
        name: value for name, value in plain.items() if name not in ("data", "image_size")
    }
    told = ablate(tmp_path, "fields").out
    assert re.search(r"^label_noise +number, ≥ 0, < 1 +0.0 +part of", told, flags=re.MULTILINE)
    lr = ablate(tmp_path, "fields", "lr").out.splitlines()
    assert lr[2:] == [f"recipe {name}: {recipe.lr}" for name, recipe in RECIPES.items()]
    assert "Did you mean 'epsilon'?" in ablate(tmp_path, "fields", "epsilom").err


@pytest.mark.parametrize("name", [name for name, facts in describe_fields().items() if facts["bounds"]])
def test_the_range_that_is_told_is_the_one_that_is_kept(name: str) -> None:
    facts = describe_fields()[name]
    given = {"data": "digits", "image_size": 8}
    for sign, end in facts["bounds"].items():
        outside = end - 1 if sign in "≥>" else end + 1
        with pytest.raises(Exception, match=name):
            resolve({**given, name: type(end)(outside)})
        if sign in "<>":
            with pytest.raises(Exception, match=name):
                resolve({**given, name: end})
        elif not (name == "image_size" and sign == "≤"):
            resolve({**given, name: end})


def test_what_was_run_is_listed_and_named_as_other_commands_take_it(here: Path) -> None:
    page = here / "report" / "tiny" / "quick" / "index.html"
    page.parent.mkdir(parents=True)
    page.touch()
    Recorded(here / "results" / "reference" / "tiny" / "main", counts(e0=[600]))
    damaged = Recorded(here / "results" / "broken" / "quick", counts(e0=[600])).folder.plan
    damaged.write_text("{")
    for age, name in enumerate(("broken/quick", "reference/tiny/main", "tiny/quick")):
        os.utime(here / "results" / name / "study.json", (1e9 + age, 1e9 + age))
    runs = as_json(ablate(here, "list", "--json"))["runs"]
    assert [run["study"] for run in runs] == ["broken/quick", "reference/tiny/main", "tiny/quick"]
    assert "damaged" in runs[0]["fault"]
    assert [(run["complete"], run["planned"]) for run in runs[1:]] == [(1, 1), (8, 10)]
    assert [run["report"] for run in runs] == [None, None, "report/tiny/quick/index.html"]
    assert re.search(r"^tiny/quick +8 of 10 +2001-09-\d\d", ablate(here, "list").out, flags=re.MULTILINE)
    for run in runs[1:]:
        assert ablate(here, "status", run["study"]).status == 0


def test_a_study_of_ones_own_network_lists_what_it_takes(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n"
        "def net(num_classes, image_size, width=8, residual=True):\n"
        "    if image_size < 16: raise ValueError('too small')\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3 * image_size**2, num_classes))\n"
    )
    assert ablate(tmp_path, "init", "own.py", "--from", "nets:net").status == 0
    written = (tmp_path / "own.py").read_text()
    assert '"arch.width": 8, "arch.residual": True.' in written
    study = load_study(tmp_path / "own.py")
    assert study.base == {**study.base, "arch": "nets:net", "image_size": 16}
    assert (study.factors, study.baseline) == ({"arch.width": (8, 16)}, {"arch.width": 8})
    assert "Did you mean 'net'?" in ablate(tmp_path, "init", "other.py", "--from", "nets:nett").err


@pytest.mark.slow
def test_the_study_to_start_from_runs_and_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "mine.py: written" in ablate(tmp_path, "init", "mine.py").out
    text = (tmp_path / "mine.py").read_text()
    assert ablate(tmp_path, "init", "mine.py").status == 1
    assert (tmp_path / "mine.py").read_text() == text
    assert ablate(tmp_path, "init", "mine").status == 1
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", f"{browser} %s")
    ended = ablate(tmp_path, "run", "mine.py", "--set", "epochs=1", "--seeds", "2", "--open", *HERE)
    assert ended.status == 0, ended.err
    page = tmp_path / "report" / "mine" / "default" / "variations" / "epochs=1+seeds=2" / "index.html"
    link = page.as_uri()
    assert (tmp_path / "opened").read_text().strip() == link == ended.out.splitlines()[-1]


def test_a_variable_that_is_no_number_is_one_message(here: Path) -> None:
    (here / "tiny.py").write_text(STUDY)
    command, own = [sys.executable, "-m", "ablate", "run", "tiny.py"], {"ABLATE_CHECKPOINT_SECONDS": "soon"}
    ended = subprocess.run(command, cwd=here, env={**os.environ, **own}, capture_output=True, text=True)
    message = "error: ABLATE_CHECKPOINT_SECONDS: expected a number of seconds, but 'soon' came\n"
    assert (ended.returncode, ended.stderr) == (1, message)
