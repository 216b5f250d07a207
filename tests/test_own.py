"""One's own training code, and scripts: judged as declared, resumed as if not stopped, or refused."""

import itertools
import json
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

import ablate
from ablate.data import default_cache_dir, prepare
from ablate.errors import AblateError
from ablate.gate.compare import metrics_shown, read_run
from ablate.pipeline import Run
from ablate.store.records import Record, read_predictions, read_record
from ablate.store.results import ResultsFolder

pytestmark = pytest.mark.usefixtures("no_figures")

SCRIPT = """
import argparse, json, os, subprocess, sys

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float)
parser.add_argument("--seed", type=int)
parser.add_argument("--out")
parser.add_argument("--do", default="")
asked = parser.parse_args()
if asked.do == "fail":
    print("before", "CUDA error: no such thing", sep="\\n", file=sys.stderr)
    sys.exit(3)
if asked.do == "leave":
    print(10_000_000 * "x")
    child = subprocess.Popen(["sleep", "600"])
    open(os.path.join(asked.out, "child"), "w").write(str(child.pid))
loss = asked.lr * 10 + asked.seed
print(f"epoch 0: val loss 99\\nepoch 1: val loss {loss:.4f}")
if asked.do != "nothing":
    write = lambda name, text: open(os.path.join(asked.out, name), "w").write(text)
    shown = float("nan") if asked.do == "nan" else loss
    write("m.json", json.dumps({"val": {"loss": shown}, "all": [3, loss]}))
    write("m.csv", f"epoch,loss\\n0,99\\n1,{loss}\\n")
if asked.do == "score":
    import numpy as np
    logits = np.random.default_rng(asked.seed).normal(size=(40, 3)).astype("float32")
    np.savez(os.path.join(asked.out, "p.npz"), logits=logits, labels=np.arange(40) % 3)
"""
WORDS = ["python", "script.py", "--lr={lr}", "--seed={seed}", "--out={out}"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def study_file(name: str, code: str, declared: str) -> str:
    """A study file of its own name, with training code above the study."""
    head = f'"""Own."""\nimport numpy as np\nimport torch\nfrom ablate import *\n{textwrap.dedent(code)}\n'
    Path(f"{name}.py").write_text(f'{head}\nstudy = Study(question="?", {declared})\n')
    return f"{name}.py"


def script(name: str, **declared: Any) -> str:
    """A study file of the script above."""
    Path("script.py").write_text(SCRIPT)
    given = {"command": WORDS, "code": "script.py", "base": {"lr": 0.1}, "seeds": 1, **declared}
    return study_file(name, "", ", ".join(f"{key}={value!r}" for key, value in given.items()))


def run(study: str, **options: Any) -> Run:
    """In this process, unless workers are asked for."""
    return ablate.run(study, **{"device": "cpu", "workers": 0, **options})


def reason_of(ended: Run) -> str:
    """Why the only trial of a run failed."""
    assert ended.failed == 1
    return str(ended.tables["trials"]["failure"].item())


def classify(trial: Any, *, C: float = 1.0, fit_intercept: bool = True) -> dict[str, Any]:  # noqa: N803
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(trial.seed).permutation(len(labels))
    model = LogisticRegression(C=C, max_iter=60, tol=1e-2, fit_intercept=fit_intercept)
    model.fit(images[order[:400]] / 16, labels[order[:400]])
    rest = order[400:900]
    logits = model.decision_function(images[rest] / 16)
    return {"logits": logits, "labels": labels[rest], "size": np.abs(model.coef_).mean()}


@pytest.mark.slow
def test_scikit_learn_over_a_numeric_axis_as_by_hand() -> None:
    levels = (0.01, 0.1, 1.0)
    study = ablate.Study(
        name="digits", question="?", train="test_own:classify", factors={"C": levels}, baseline={"C": 1.0},
        seeds=3, comparisons=("arms", "trend"), metrics={"size": ablate.Metric(better="neither")},
        primary="accuracy", family=("accuracy", "size"),
    )  # fmt: skip
    ended = ablate.run(study, device="cpu", workers=0)
    by_hand: dict[tuple[float, int], tuple[float, float, float]] = {}
    for strength, seed in itertools.product(levels, range(3)):
        got = classify(SimpleNamespace(seed=seed), C=strength)
        accuracy = float((got["logits"].argmax(1) == got["labels"]).mean())
        nll = log_loss(got["labels"], softmax(got["logits"], axis=1))
        by_hand[strength, seed] = accuracy, nll, float(got["size"])
    trials = ended.tables["trials"]
    for row in trials.to_dict("records"):
        accuracy, nll, weights = by_hand[row["train.C"], row["seed"]]
        assert row["accuracy"] == accuracy
        assert row["nll"] == pytest.approx(nll, rel=1e-5)
        assert row["size"] == weights
    assert list(trials["train.C"])[:3] == [0.01, 0.1, 1.0]
    report = json.loads((ended.report.parent / "report.json").read_text())  # type: ignore[union-attr]
    claims = report["answer"]["claims"]
    means = {(one["kind"], one["term"]): one["effect"] for one in claims if one["metric"] == "size"}
    for arm in (0.01, 0.1):
        by_seed = [by_hand[arm, seed][2] - by_hand[1.0, seed][2] for seed in range(3)]
        assert means["arm", f"C={arm}"] == pytest.approx(np.mean(by_seed))
    assert {kind for kind, _ in means} == {"arm", "trend"}
    assert "own training code" in report["answer"]["about"]
    assert "fit_intercept=True" in str(report["provenance"])  # the code's own default is the base


@pytest.mark.soak
def test_plain_torch_killed_in_the_middle_ends_as_if_it_had_not_been(here: Path) -> None:
    """The page's example, which draws of NumPy's too, and dies once it has saved its second epoch."""
    page = (Path(__file__).parents[1] / "docs" / "own_training.md").read_text(encoding="utf-8")
    code = page.partition("# small.py\n")[2].partition("```")[0]
    code = code.replace("(loss=loss)", "(loss=loss, noise=np.random.rand())")
    begun = "(trial.out / f'begun {os.getpid()}').touch()"
    die = "if epoch == 1 and os.path.exists('die'): os.remove('die'); os.kill(os.getpid(), 9)"
    code = code.replace("    with torch.no", f"        {begun}\n        {die}\n    with torch.no")
    Path("killed.py").write_text(f"import os\nimport numpy as np\n{code}")
    once: dict[str, Any] = {"workers": 1, "seeds": 1, "settings": {"dropout": 0.5}}
    first = record_of(run("killed.py", results="whole", **once))
    (here / "die").touch()
    killed = run("killed.py", results="killed", **once)
    again = record_of(killed)
    assert again.attempts == 2
    assert len(list(ResultsFolder(killed.folder).artefacts.glob("*/begun *"))) == 2  # the folder was kept
    assert (first.predictions_sha256, first.log) == (again.predictions_sha256, again.log)
    assert [row["epoch"] for row in again.log] == [0, 1, 2]
    assert not list(ResultsFolder(killed.folder).checkpoints.glob("*.pt"))


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ("{out}/m.json:val.loss", {"val_loss": 3.0}),
        ("{out}/m.csv:loss", {"result_loss": 3.0}),
        (
            {"a": "{out}/m.json:all.0", "b": "{out}/m.csv:epoch", "c": "log:val loss ([0-9.]+)"},
            {"a": 3.0, "b": 1.0, "c": 3.0},
        ),
    ],
)
def test_a_script_s_result_is_read(result: Any, expected: dict[str, float]) -> None:
    ended = run(script("read", seeds=(2,), result=result))
    row = ended.tables["trials"].iloc[0]
    assert {name: row[name] for name in expected} == pytest.approx(expected)
    assert ended.report is not None
    assert "Accuracy" not in (ended.report.parent / "report.md").read_text()  # nothing of what is not known
    assert metrics_shown(read_run(ResultsFolder(ended.folder))) == (next(iter(expected)),)


@pytest.mark.slow
def test_a_script_s_predictions_give_the_usual_metrics() -> None:
    scores: dict[str, Any] = {"command": [*WORDS, "--do=score"], "predictions": "{out}/p.npz"}
    ended = run(script("scored", factors={"lr": (0.1, 0.2)}, seeds=2, **scores))
    logits = np.random.default_rng(1).normal(size=(40, 3)).astype("float32")
    accuracy = float((logits.argmax(1) == np.arange(40) % 3).mean())
    trials = ended.tables["trials"]
    assert list(trials.loc[trials["seed"] == 1, "accuracy"]) == [accuracy, accuracy]
    assert "same predictions" in (ended.report.parent / "report.md").read_text()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("do", "result", "reason"),
    [
        ("fail", "{out}/m.json:val.loss", "exited with status 3; its last line: CUDA error: no such thing"),
        ("nothing", "{out}/m.json:val.loss", "ended well but left no"),
        ("nan", "{out}/m.json:val.loss", "val_loss: expected a finite number"),
        ("", "{out}/m.json:val.los", "expected a number there, but it has loss"),
        ("", "log:accuracy (.*)", "expected a number there, but it has []"),
        ("", "log:val (loss)", "but it has 'loss'"),
    ],
)
def test_a_script_that_fails_is_a_failed_trial_that_says_why(do: str, result: str, reason: str) -> None:
    assert reason in reason_of(run(script("failing", command=[*WORDS, f"--do={do}"], result=result)))


def test_a_script_that_cannot_be_started() -> None:
    ended = run(script("none", command=["pyton", *WORDS[1:]], result="log:(x)"))
    assert "command: 'pyton' cannot be started" in reason_of(ended)


@pytest.mark.slow
def test_what_a_script_prints_and_leaves_does_no_harm() -> None:
    left = run(script("leave", command=[*WORDS, "--do=leave"], result="{out}/m.json:val.loss"))
    assert left.failed == 0
    child = next(ResultsFolder(left.folder).artefacts.glob("*/child"))
    stat = Path(f"/proc/{child.read_text()}/stat")
    assert not stat.exists() or ") Z " in stat.read_text()


CODE = """
def train(trial, *, lr=0.1, wd):
    return {"x": lr + wd}

def none():
    return {"x": 1.0}

def data(trial, *, image_size=3):
    return {"x": 1.0}

X = {"x": Metric(better="lower")}
"""
OWN = "train=train, metrics=X, base={'wd': 1.0}"
COMMAND = "command=['python', 'a.py', '--lr={lr}', '--seed={seed}', '--out={out}']"
PART = "base={'lr': 1.0}, code='a.py'"
GIVEN = f"{PART}, result='{{out}}/m.json:x'"


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("train=lambda trial: {}", "train: expected code that workers can import"),
        ("train='wrong:trian'", "has no such name. Check its spelling. Did you mean 'train'?"),
        ("train=none", "expected a function train(trial, *, knobs)"),
        ("train=data", "image_size is ablate's own name; call that parameter otherwise"),
        ("train=train, metrics=X", "wd: wrong:train has no default for it; set it in the study's base"),
        (f"{OWN}, factors={{'lrr': (1.0, 2.0)}}", "lrr: unknown knob of wrong:train; known are lr, wd. Di"),
        (f"{OWN}, factors={{'image_size': (8, 16)}}", "image_size: is about ablate's datasets; set data"),
        (f"{OWN}, code='a.py'", "code: is about a command, and the study has none"),
        (f"{OWN}, timeout=2", "timeout: expected a time with its unit, as '90s', '30m' or '2h'"),
        (
            f"{COMMAND}, {GIVEN.partition(', ')[2]}, search=Search(space={{'lr': (1, 2)}}, points=2)",
            "the baseline's lr=None is not among the values searched (1, 2): set baseline={'lr': ...}",
        ),
        (f"{OWN}, {COMMAND}", "train, command: a study has one of them; leave one out"),
        ("command='python a.py --lr={lr}'", "no shell reads: ['python', 'a.py', '--lr={lr}']"),
        (f"{COMMAND}, code='a.py', result='log:(x)'", "{lr} has no value; set lr in base or factors"),
        (f"{COMMAND}, {GIVEN}, factors={{'lrr': (1, 2)}}", "lrr: unknown placeholder of the command; known"),
        (f"{COMMAND}, {GIVEN}, factors={{'seed': (1, 2)}}", "seed: is ablate's to fill in"),
        (f"{COMMAND[:40]}], {GIVEN}", "no word holds {seed}, so all seeds would be one run"),
        (f"{COMMAND}, base={{'lr': 1}}, result='log:(x)'", "code: expected the files that decide"),
        (f"{COMMAND}, {GIVEN.replace('a.py', 'b/**')}", "code: 'b/**' matches no file in"),
        (f"{COMMAND}, {PART}", "result: expected where the command leaves its number"),
        (f"{COMMAND}, {GIVEN.replace('{out}', 'here')}", "result: x: expected '{out}/metrics.json:val.loss'"),
        (f"{COMMAND}, {PART}, result='log:loss'", "a regular expression with one group, but 'log:loss' came"),
        (f"{COMMAND}, {GIVEN}, predictions='p.npz'", "predictions: expected '{out}/predictions.npz', each"),
    ],
)
def test_wrong_declarations_say_what_to_write_before_any_training(declared: str, message: str) -> None:
    Path("a.py").touch()
    study = study_file("wrong", CODE, declared)
    with pytest.raises(AblateError) as raised:
        (ablate.tune if "Search" in declared else run)(study)
    assert message in str(raised.value)
    assert not Path("results").exists()


LOGITS = "{'x': 1, 'logits': np.zeros((4, 3))"
GIVES = {
    "1.0": "expected a dict such as",
    "{'y': 1.0}": "y: came as a result, but no such metric is declared; declare it",
    "{'x': float('inf')}": "x: expected a finite number as its result, but inf came",
    "{'logits': np.zeros((4, 3)), 'labels': np.arange(4) % 3}": "x: is declared in metrics, but the co",
    LOGITS + "}": "of class ids below K, but logits float64 (4, 3)",
    LOGITS + ", 'labels': np.arange(4)}": "labels int64 (4,) [0 1 2 3]",
    LOGITS + " / 0, 'labels': np.arange(4) % 3}": "logits float64 (4, 3) [nan nan",
    "trial.log(loss=float('nan'))": "the training diverged: loss is nan",
    "trial.save(net=object())": "trial.save: expected tensors, numbers, texts",
    "trial.split('train')": "trial.split: the study names no data; set data and image_size",
    "1 / 0": "ZeroDivisionError: division by zero (in ",
}


@pytest.mark.filterwarnings("ignore:invalid value")
def test_what_code_gives_is_checked() -> None:
    code = "def train(trial, *, gives):\n    return eval(gives)"
    metrics = "metrics={'x': Metric(better='lower')}"
    study = study_file("gives", code, f"train=train, factors={{'gives': {[*GIVES]}}}, {metrics}, seeds=1")
    failure = run(study).tables["trials"].set_index("train.gives")["failure"]
    assert [given for given, message in GIVES.items() if message not in failure[given]] == []


SPLIT = """
from torch.utils.data import DataLoader, TensorDataset

def train(trial, *, scale=1.0, workers=0):
    images, labels = trial.split("train")
    reported = trial.split("report")
    if trial.tuning_part:
        assert all(map(np.array_equal, reported, trial.split("tune")))
    sums = {}
    loader = DataLoader(TensorDataset(torch.tensor(images), torch.tensor(labels)), 16, num_workers=workers)
    for batch, of in loader:
        for image, label in zip(batch, of):
            sums.setdefault(int(label), []).append(image.double().mean((0, 1)))
    means = torch.stack([torch.stack(sums[label]).mean(0) for label in sorted(sums)])
    colors = torch.tensor(reported[0]).double().mean((1, 2))
    logits = -scale * torch.cdist(colors, means) / 255
    return {"logits": logits, "labels": reported[1], "trained_on": len(labels)}
"""
DATA = """train=train, base={"data": "synthetic", "image_size": 16}, seeds=1,
    metrics={"trained_on": Metric(better="neither")}, primary="accuracy" """


@pytest.mark.slow
def test_decoded_images_and_worker_processes_of_its_own() -> None:
    study = study_file("images", SPLIT, f"{DATA}, factors={{'workers': (0, 2)}}, baseline={{'workers': 0}}")
    ended = run(study, workers=1)
    trials = ended.tables["trials"]
    assert (ended.failed, trials["predictions_sha256"].nunique()) == (0, 1)  # the same images
    inputs = prepare("synthetic", image_size=16, cache_dir=default_cache_dir())
    assert list(trials["trained_on"]) == 2 * [len(inputs.train)]
    labels = read_predictions(ResultsFolder(ended.folder), record_of(ended)).labels
    assert np.array_equal(labels, inputs.valid.labels)
    assert record_of(ended).trial.fingerprint == inputs.fingerprint


@pytest.mark.slow
def test_a_search_over_a_knob_never_looks_at_what_is_reported_on() -> None:
    space = "search=Search(space={'scale': Range(low=1, high=9, step=1)}, points=2, seeds=1)"
    ended = ablate.tune(study_file("tuned", SPLIT, f"{DATA}, {space}"), workers=0, device="cpu")
    whole = prepare("synthetic", image_size=16, cache_dir=default_cache_dir())
    tuning = ResultsFolder(ended.folder / "tuning")
    points = [read_record(path) for path in tuning.records.glob("*")]
    assert len(points) == 2
    for record in points:
        held_back = len(read_predictions(tuning, record).labels)
        assert record.metrics["trained_on"] + held_back == len(whole.train)
    assert set(ended.tables["trials"]["trained_on"]) == {len(whole.train)}


@pytest.mark.slow
def test_a_search_over_a_script_s_knob_can_hold_back_by_itself() -> None:
    words = [*WORDS[:3], "--seed={seed}", "--out={out}", "--do={tuning_part}"]
    study = script("searched", command=words, result="{out}/m.json:val.loss")
    space = "search=Search(space={'lr': Range(low=0.1, high=0.9, step=0.1)}, points=3, seeds=1, objective="
    more = f"{space}'val_loss', sampler='random'), metrics={{'val_loss': Metric(better='lower')}}, seeds=2"
    Path(study).write_text(Path(study).read_text().replace("seeds=1", more))
    ended = ablate.tune(study, workers=0, device="cpu")
    assert ended.tables["tuning"]["points_done"].item() == 3
    assert ended.tables["trials"]["val_loss"].min() == pytest.approx(1.0)  # the baseline, 0.1, at seed 0
    assert ended.failed == 0


def record_of(ended: Run) -> Record:
    """One of a run's records."""
    return read_record(next(ResultsFolder(ended.folder).records.glob("*")))


@pytest.mark.slow
def test_the_identity_follows_code_and_knobs_and_nothing_else(here: Path) -> None:
    assert run(script("same", result="log:loss ([0-9.]+)")).ran == 1
    assert run("same.py", settings={"lr": 0.1}).ran == 0
    (here / "script.py").write_text(f"{SCRIPT}\n# changed\n")
    with pytest.raises(AblateError, match=r"script\.py: changed since 1 "):
        run("same.py")
    assert run("same.py", retrain=True).ran == 1
    code = "def train(trial, *, lr=0.1, wd=0.0):\n    return {'x': lr + wd}"
    study = study_file("usual", code, "train=train, metrics={'x': Metric(better='lower')}, seeds=1")
    assert run(study).tables["trials"]["x"].item() == 0.1
    assert run(study, settings={"lr": 0.1}).ran == 0  # what the code itself would take
    swept = run(study, settings={"wd": [0.0, 0.5]})
    assert (swept.ran, list(swept.tables["trials"]["x"])) == (1, [0.1, 0.6])
