"""Code of the user's in the identity: which files count, what of them, and what a run makes of a change."""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
import sys
from collections.abc import Iterator
from modulefinder import ModuleFinder
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_main import HERE, ablate

from ablate.errors import StudyError
from ablate.stats import effect
from ablate.store.records import read_records
from ablate.store.results import ResultsFolder, read_plan
from ablate.study.sources import read_source

TEXT = Path(effect.__file__).read_text(encoding="utf-8")
"""A real module, of many kinds of statement."""
NET = """
from torch import nn
from layers import hidden

def net(*, num_classes, image_size):
    return nn.Sequential(nn.Flatten(), *hidden(3 * image_size**2, 4), nn.Linear(4, num_classes))
"""
LAYERS = """
from torch import nn

def hidden(width, to):
    return nn.Linear(width, to), nn.ReLU()
"""
STUDY = """
from ablate import Range, Search, Study
fields = {"data": "synthetic", "image_size": 8, "epochs": 1, "arch": "own_net:net"}
"""
GRID = "study = Study(question='?', base=fields, seeds=1)"
SEARCH = """
space = Search(space={"lr": Range(low=0.01, high=0.1, step=0.01)}, points=2, seeds=1, tuning_part=0.25)
study = Study(question="?", base=fields, search=space, baseline={"lr": 0.01}, seeds=1)
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's folder, whose modules no other test has."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("own", "own_net", "other", "pack", "layers", "a"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(tmp_path) in str(getattr(module, "__file__", "")):
            del sys.modules[name]


def write(folder: Path, files: dict[str, str]) -> None:
    for file, text in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text, encoding="utf-8")
    importlib.invalidate_caches()


def test_a_file_on_its_own_has_the_digest_of_its_bytes(here: Path) -> None:
    text = '"""Words."""\nimport torch.nn, ablate, json.nothing\nfrom ablate import Study  # words\n'
    write(here, dict.fromkeys(["own.py", "stranger.py", "ablate.py", "pack/own.py"], text))
    write(here, {"pack/__init__.py": '"""Words alone."""\n'})
    for name in ("own", "pack.own"):
        source = read_source(f"{name}:net")
        assert source.digest == hashlib.sha256(text.encode()).hexdigest()
        assert [*source.files] == [f"{name.replace('.', '/')}.py"]
    installed = Path(sys.modules["torch.nn"].__file__ or "")  # what it imports is another's affair
    assert read_source("torch.nn:Linear").digest == hashlib.sha256(installed.read_bytes()).hexdigest()


MODULES = ["own.py", "a.py", "p/__init__.py", "p/b.py", "p/q/__init__.py", "p/q/d.py"]
STYLES = [
    "import {}",
    "import {} as x",
    "from {} import x",
    "def f():\n  from {} import x, y",
    "if x: import {}",
]


@given(st.lists(st.tuples(st.sampled_from(MODULES), st.sampled_from(MODULES), st.sampled_from(STYLES))))
def test_the_files_are_those_that_pythons_finder_of_modules_finds(edges: list[tuple[str, str, str]]) -> None:
    folder, texts = Path(sys.path[0]), dict.fromkeys(MODULES, "x = 1\n")
    for start, end, style in edges:  # cycles too
        name = end.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        texts[start] += f"{style.format(name)}\n"
    write(folder, texts)
    finder = ModuleFinder(path=[str(folder)])
    finder.import_hook("own")
    found = {Path(vars(module)["__file__"]) for module in finder.modules.values()}
    assert read_source("own:net").files.keys() == {path.relative_to(folder).as_posix() for path in found}


PACKAGE = {
    "own.py": "from pack import net\n", "pack/__init__.py": "from .first import *\n",
    "pack/first.py": "from . import second\nfrom ... import nowhere\n", "pack/stranger.py": "x = 1\n",
    "pack/second.py": "def f():\n    import pack.third\n", "pack/fourth.py": "import own\n",
    "pack/third.py": "from . import fourth\nimport random\n", "random.py": "x = 1\n",
    "stranger.py": "x = 1\n",
}  # fmt: skip
STRANGERS = {"stranger.py", "pack/stranger.py"}


def test_a_change_counts_of_any_file_that_is_brought_in_and_of_no_other(here: Path) -> None:
    """A file beside the study is the user's, even one that is called as one of Python's own."""
    write(here, PACKAGE)
    before = read_source("own:net")
    for file, text in PACKAGE.items():
        write(here, {file: f"{text}y = 1\n"})
        after = read_source("own:net")
        assert {one for one, _ in before.files.items() ^ after.files.items()} == {file} - STRANGERS
        assert (after.digest == before.digest) == (file in STRANGERS)
        write(here, {file: f"# Words.\n{text}"})
        assert read_source("own:net") == before


def of(text: str) -> str:
    """The digest of a module's text."""
    write(Path(sys.path[0]), {"own.py": "import other", "other.py": text})
    return read_source("own:net").files["other.py"]


def test_words_and_layout_do_not_matter() -> None:
    docstrings = TEXT.replace(':\n    """', ':\n    """Other words. ')
    spread = TEXT.replace("\n\n", "\n# Words.\n\n\n").replace(") -> ", ")  -> ")
    for other in (ast.unparse(ast.parse(TEXT)), docstrings, spread, f'\ufeff"""A"""\n"""B"""\n{TEXT}'):
        assert other != TEXT
        assert of(other) == of(TEXT)
    # By whatever version of Python.
    assert of("def f(a: int = 2):\n    return f'{a!r:>4}'") == FIXED


FIXED = "708226e47703a6f6bc23ca87c939fd8c495246b21b4c616444e40df88d1b4d65"
NEARLY = {
    "x = 1": "x = True", "x = None": "x = ...", "x = 'a'": "x = b'a'", "x = ''": "x = ' '",
    "x = f(a, b)": "x = f(a)(b)", "x = (a, b)": "x = [a, b]", "x = a - b - c": "x = a - (b - c)",
    "if a:\n  b\n  c": "if a:\n  b\nc", "if a:\n  b\nelse:\n  c": "if a:\n  b\n  c", "x = a + b": "x = a * b",
    "x = {**a}": "x = {None: a}", "def f(a, /): 0": "def f(a): 0", "x = a < b": "x = a <= b",
}  # fmt: skip


def test_what_computes_something_else_matters() -> None:
    for one, other in NEARLY.items():
        assert of(one) != of(other), one
    names: dict[type[ast.AST], str] = {ast.Name: "id", ast.arg: "arg", ast.Attribute: "attr"}
    for at in range(0, 240, 40):  # one name changed
        tree = ast.parse(TEXT)
        node = [node for node in ast.walk(tree) if type(node) in names][at]
        setattr(node, names[type(node)], "another")
        assert of(ast.unparse(tree)) != of(TEXT)


def test_another_question_is_no_other_code_of_a_study_file(here: Path) -> None:
    text = "from ablate import Study\nSCALE = 2\nstudy = Study(question='?')\nstudy = study.replace(seeds=2)"
    changes = {"?": "?", "'?'": "'!', seeds=3", "= Study": "= ablate.Study", "SCALE = 2": "SCALE = 3"}
    digests = []
    for old, new in changes.items():
        write(here, {"own.py": text.replace(old, new)})
        digests.append(read_source("own:net").digest)
    assert digests[0] == digests[1] == digests[2] != digests[3]


@pytest.mark.parametrize("content", [b"def f(:\n", b"x = '\xe9'\n", b"x = \x00\n"])
def test_a_file_that_is_no_python_gives_one_message(here: Path, content: bytes) -> None:
    write(here, {"own.py": "def f():\n    import broken\n"})
    (here / "broken.py").write_bytes(content)
    with pytest.raises(StudyError, match=r"^own:net: expected Python in broken.py, .*; mend the file, or"):
        read_source("own:net")


def run(folder: Path, *more: str, command: str = "run") -> tuple[int, str]:
    """How many trials a command trained, in this process, or -1, and what it said."""
    for name in ("own_net", "layers"):
        sys.modules.pop(name, None)
    ended = ablate(folder, command, "own_study.py", *HERE, *more)
    return (-1, ended.err) if ended.status == 1 else (int(ended.out.split(" trials run")[0].split()[-1]), "")


@pytest.fixture
def folder(here: Path, no_figures: None) -> ResultsFolder:
    write(here, {"own_study.py": STUDY + GRID, "own_net.py": NET, "layers.py": LAYERS})
    return ResultsFolder(here / "results" / "own_study" / "default")


OTHER = LAYERS.replace("ReLU()", "Sequential(nn.Linear(4, 4), nn.ReLU())")


@pytest.mark.slow
def test_a_run_stops_at_changed_code_and_goes_on_as_it_is_told(here: Path, folder: ResultsFolder) -> None:
    assert run(here)[0] == 1
    (first,) = read_records(folder).values()
    write(here, {"layers.py": LAYERS.replace("ReLU()", "ReLU(  )  # words")})
    assert run(here)[0] == 0
    write(here, {"layers.py": OTHER})
    ran, said = run(here)
    assert ran == -1
    assert "error: layers.py: changed since 1 of this study's trials were recorded" in said
    assert run(here, "--set", "epochs=2")[0] == 1  # of which none is recorded
    # Said to be the same: recorded trials are used, and new ones have the recorded code's name.
    assert run(here, "--same-code", "it <is> wider")[0] == 0
    assert run(here, "--seeds", "2")[0] == 1  # nothing needs to be said again
    own = ResultsFolder(folder.root / "variations" / "seeds=2")
    report = here / "report" / "own_study" / "default" / "variations" / "seeds=2"
    assert "it &lt;is&gt; wider" in (report / "index.html").read_text()
    (second,) = [record for record in read_records(folder).values() if record.trial.seed == 1]
    code = second.trial.sources["arch"]
    assert (code.digest, code.same_code) == (first.trial.sources["arch"].digest, "it <is> wider")
    assert {name for name, _ in code.files.items() ^ code.ran.items()} == {"layers.py"}
    assert second.parameters == (first.parameters or 0) + 20
    write(here, {"layers.py": LAYERS})  # one trial ran from other code still
    assert run(here, "--seeds", "2")[0] == 0
    assert read_plan(own).same_code == ("it <is> wider",)
    # To train with anew; it is the study's code then.
    write(here, {"layers.py": OTHER})
    assert run(here, "--retrain")[0] == 1
    assert (run(here, "--seeds", "2")[0], read_plan(own).same_code) == (1, ())
    assert "retrain: expected without same_code" in run(here, "--retrain", "--same-code", "no")[1]


@pytest.mark.soak
def test_a_search_stops_at_changed_code_too(here: Path, folder: ResultsFolder) -> None:
    write(here, {"own_study.py": STUDY + SEARCH})

    def tune(*more: str) -> tuple[int, list[str]]:
        ran, _ = run(here, *more, command="tune")
        points = json.loads((folder.root / "tuning" / "tuning.json").read_text())["content"]["points"]
        return ran, [trial_id for point in points for trial_id in point["trial_ids"]]

    first = tune()[1]
    write(here, {"layers.py": OTHER})
    assert tune() == (-1, first)
    assert tune("--same-code", "about") == (0, first)
    assert set(first).isdisjoint(tune("--retrain")[1])
