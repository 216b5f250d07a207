"""A study run from Python: it does what the command does, and says in Python's terms what is wrong."""

import html
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import ablate
from ablate.errors import AblateError, StudyError
from ablate.notebook import in_notebook

BASE = {"data": "synthetic", "image_size": 16, "epochs": 1, "batch_size": 32, "lr": 0.05}
STUDY = f'''"""Tiny."""
from ablate import Study
study = Study(question="?", base={BASE}, factors={{"epsilon": (0.0, 0.1)}}, seeds=2)
'''
CALL = "study.run(device='cpu')"
NET = """
from torch import nn

def net(num_classes, image_size):
    {}
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * image_size**2, num_classes))
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))
    return tmp_path


def declare(**changes: Any) -> ablate.Study:
    return ablate.Study(**{"name": "tiny", "question": "?", "base": BASE, "seeds": 1, **changes})


def command(*arguments: str) -> str:
    words = [sys.executable, "-m", "ablate", *arguments]
    environment = {**os.environ, "COLUMNS": "200"}
    result = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_python_and_the_command_do_the_same(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "tiny.py").write_text(STUDY)
    study = ablate.load_study("tiny.py")
    run = study.run(device="cpu", workers=2)
    assert (run.ran, run.failed, run.interrupted) == (4, 0, False)
    assert "2 arms x 2 seeds = 4 trials: 0 done, 4 to run" in capsys.readouterr().out
    assert run.report == Path("report/tiny/default/index.html")
    assert run.folder == Path("results/tiny/default")

    by_python = run.report.read_bytes()
    assert run.page.encode() == by_python
    assert "4 done, 0 to run" in command("run", "tiny.py", "--device", "cpu")
    by_command = run.report.read_text().replace("python -m ablate run tiny.py --device cpu", CALL)
    assert html.unescape(by_command) == html.unescape(by_python.decode())
    read = ablate.load_tables("tiny")
    assert set(read) == set(run.tables)
    for name, table in read.items():
        pd.testing.assert_frame_equal(table, run.tables[name])

    more = study.run(device="cpu", settings={"epsilon": [0.0, 0.1, 0.2]}, seeds=1)
    assert (more.ran, len(more.tables["trials"]), len(run.tables["trials"])) == (1, 3, 4)
    assert more.page == more.report.read_text() != run.page
    swept = ("--set", "epsilon=0.0,0.1,0.2", "--seeds", "1", "--device", "cpu")
    assert "3 done, 0 to run" in command("run", "tiny.py", *swept)


def test_a_setting_of_one_value_fixes_and_of_several_sweeps() -> None:
    settings = {"epochs": 2, "reduction": "none", "epsilon": np.array([0.0, 0.5])}
    run = declare().run(device="cpu", settings=settings, seeds=np.int64(1))  # type: ignore[arg-type]
    trials = run.tables["trials"]
    assert set(zip(trials["epochs"], trials["reduction"], trials["epsilon"], strict=True)) == {
        (2, "none", 0.0),
        (2, "none", 0.5),
    }
    again = (
        "study.run(settings={'epochs': 2, 'reduction': 'none', 'epsilon': [0.0, 0.5]}, seeds=1, device='cpu')"
    )
    assert again in html.unescape(run.page)


class Tags(HTMLParser):
    """The tags of a page in order, with their attributes, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_failed_trials_are_counted_and_can_be_run_again() -> None:
    study = declare(name="<b>&x", base={**BASE, "lr": 1e30})
    run = study.run(device="cpu")
    assert (run.ran, run.failed) == (1, 1)
    assert repr(run) == (
        "<b>&x (default): 0 of 1 trials complete; 1 run just now\n"
        "1 trials have no result; the report says why; retry_failed=True runs them again\n"
        f"report: {run.report}"
    )
    assert study.run(device="cpu").ran == 0
    assert study.run(device="cpu", retry_failed=True).ran == 1

    shown = Tags(run._repr_html_())
    assert [tag for tag, _ in shown.tags] == ["div", "br", "br", "iframe"]
    assert shown.text.replace("\n", "").startswith("<b>&x (default)")
    frame = shown.tags[-1][1]
    assert set((frame["sandbox"] or "").split()) == {"allow-scripts", "allow-downloads"}
    page = frame["srcdoc"] or ""
    assert page.replace("about:srcdoc#", "#") == run.page
    links = [attributes["href"] or "" for tag, attributes in Tags(page).tags if tag == "a"]
    assert links
    assert all(link.startswith(("about:srcdoc#", "data:")) for link in links)


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({"name": ""}, {}, r'has no name, .*give it one: Study\(name="my_study"'),
        ({"name": "a/b"}, {}, r"name: expected a plain folder name .*'a/b' came"),
        ({"name": ".."}, {}, r"name: expected a plain folder name .*'..' came"),
        ({}, {"device": "gpu"}, r"device: expected 'auto', 'cpu' or 'cuda', but 'gpu' \(str\) came"),
        ({}, {"device": ["cpu"]}, r"device: expected 'auto', .*, but \['cpu'\] \(list\) came"),
        ({}, {"profile": 3}, r"profile: expected None or a profile's name, but 3 \(int\) came"),
        ({}, {"settings": "epsilon=1"}, r"settings: expected None or fields by name, .*'epsilon=1' \(str\)"),
        ({}, {"settings": {3: 1}}, r"settings: expected None or fields by name, .*\{3: 1\} \(dict\) came"),
        ({}, {"workers": 0}, r"workers: expected None or a whole number, at least 1, but 0 \(int\) came"),
        ({}, {"workers": "two"}, r"workers: .* but 'two' \(str\) came"),
        ({}, {"workers": 1.5}, r"workers: .* but 1.5 \(float\) came"),
        ({}, {"workers": True}, r"workers: .* but True \(bool\) came"),
        ({}, {"threads": 0}, r"threads: expected a whole number, at least 1, but 0 \(int\) came"),
        ({}, {"threads": None}, r"threads: .* but None \(NoneType\) came"),
        ({}, {"threads": 9999}, r"--threads 9999: expected at most"),
        ({}, {"timeout": 0}, r"timeout: expected None or minutes above 0, but 0 \(int\) came"),
        ({}, {"timeout": "5"}, r"timeout: .* but '5' \(str\) came"),
        ({}, {"timeout": float("nan")}, r"timeout: .* but nan \(float\) came"),
        ({}, {"results": None}, r"results: expected a folder's path, but None \(NoneType\) came"),
        ({}, {"data_dir": 3}, r"data_dir: expected None or a folder's path, but 3 \(int\) came"),
        ({}, {"retry_failed": "no"}, r"retry_failed: expected True or False, but 'no' \(str\) came"),
        (
            {},
            {"seeds": 2.5},
            r"^seeds: expected None or how many seeds, a whole number, but 2.5 \(float\) came$",
        ),
        ({}, {"seeds": (1, 1)}, r"seeds: each seed once, but \[1, 1\] came"),
        ({}, {"seeds": "2"}, r"seeds: .* but '2' \(str\) came"),
        ({}, {"seeds": 0}, r"at least one seed is needed, but 0 came"),
        ({}, {"settings": {"epsilom": 0.1}}, r"epsilom: unknown field.*Did you mean 'epsilon'"),
        ({}, {"report": "file"}, r"file: the report cannot be written there"),
        ({"primary": "accurracy"}, {}, r"primary: accurracy: unknown metric"),
        ({"base": {**BASE, "arch": "__main__:Net"}}, {}, r"worker processes cannot import.*'my_module:Net'"),
        ({}, {"settings": {"loss": "__main__:mine"}}, r"worker processes cannot import.*'my_module:mine'"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_trained(
    here: Path, changes: dict[str, Any], arguments: dict[str, Any], message: str
) -> None:
    (here / "file").touch()
    with pytest.raises(AblateError, match=message):
        declare(**changes).run(**{"device": "cpu", **arguments})
    assert not (here / "results").exists()


def test_the_users_own_module_is_taken_as_it_is_now(here: Path) -> None:
    study = declare(base={**BASE, "arch": "own_net:net"})
    with pytest.raises(StudyError, match=r"own_net:net: module 'own_net' cannot be found|No module named"):
        study.run(device="cpu")
    (here / "own_net.py").write_text(NET.format("raise ValueError('not yet')"))
    with pytest.raises(StudyError, match="not yet"):
        study.run(device="cpu")
    (here / "own_net.py").write_text(NET.format(""))
    first = study.run(device="cpu")
    assert (first.ran, first.failed) == (1, 0)
    (here / "own_net.py").write_text(NET.format("image_size = image_size + 0"))
    second = study.run(device="cpu")
    assert second.ran == 1
    assert set(first.tables["trials"]["trial_id"]) != set(second.tables["trials"]["trial_id"])


def test_importing_ablate_imports_nothing_heavy() -> None:
    code = """
import sys, ablate
heavy = {"torch", "numpy", "pandas", "pydantic", "matplotlib", "rich", "typer"} & set(sys.modules)
assert not heavy, heavy
assert {"Study", "Profile", "load_study", "load_tables"} <= set(dir(ablate))
from ablate import Profile, Study
from ablate.study import study
assert (ablate.Study, Profile) == (study.Study, study.Profile) and Study is ablate.Study
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="'ablate' has no attribute 'Studdy'"):
        _ = ablate.Studdy


def test_a_plain_process_is_no_notebook() -> None:
    assert not in_notebook()
