"""What a study declares of its own: metrics, arguments of code, which are columns; and code that is wrong."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from recorded_study import BASE as SMALL
from recorded_study import CPU, environment, printed
from scipy import stats
from sklearn.metrics import f1_score
from test_records import EPOCH

import ablate
from ablate import Metric
from ablate.errors import RecordError, StudyError
from ablate.execution.prepare import check_metrics, check_names
from ablate.gate.check import check_study
from ablate.gate.compare import compare_runs, read_run, show_comparison
from ablate.pipeline import rebuild_tables, require_metrics, write_results
from ablate.store.records import Predictions, Record, read_record, write_record
from ablate.store.results import ResultsFolder, write_sealed
from ablate.study.fields import resolve
from ablate.study.study import Study
from ablate.study.trials import Plan, expand
from ablate.tables.build import build_tables
from ablate.tables.columns import declare, open_plan
from ablate.tables.files import read_tables, write_tables


def macro_f1(logits: Any, labels: Any) -> Any:
    assert (logits.dtype, labels.dtype) == (np.float64, np.int64)
    return f1_score(labels, logits.argmax(axis=1), average="macro")


def undefined(logits: Any, labels: Any) -> float:
    return float("nan")


F1 = Metric(macro_f1, better="higher", unit="fraction", margin=0.02)
METRICS = {
    "f1": F1,
    "wer": Metric(better="lower", label="WER", unit="words"),
    "none": Metric(undefined, better="neither"),
}
"""One that is computed, one that trials report, one that is never defined."""
ARGUMENTS = {"arch.width": (8, 16), "arch.act": ("relu", "-gelu")}
BASE = {
    "data": "digits", "image_size": 8, "arch": "test_own_metrics:undefined",
    "arch.rate": 0.1 + 0.2, "arch.sizes": [3, 4], "arch.on": True,
}  # fmt: skip


def recorded(
    results: Path, metrics: dict[str, Metric] = METRICS, command: str = "", **declared: Any
) -> ResultsFolder:
    """A study of arguments of its network, whose trials report a number, as a run leaves it."""
    about = {"question": "?", "name": "s", "seeds": 3, "base": BASE, "factors": ARGUMENTS, "metrics": metrics}
    study = Study(**{**about, "baseline": {"arch.width": 8}, **declared})
    trials = expand(study, lambda fields: "f", lambda fields: CPU)
    folder = ResultsFolder(results / "s" / "p")
    folder.create()
    write_sealed(
        folder.plan, Plan(study=study, profile="p", reason="r", command=command, trials=tuple(trials))
    )
    for number, trial in enumerate(trials):
        rng = np.random.default_rng(number)
        labels = rng.integers(0, 4, 60)
        logits = rng.normal(size=(60, 4)) + (1 + number % 2) * np.eye(4)[labels]
        facts: dict[str, Any] = {"history": (EPOCH,), "environment": environment(commit=None)}
        facts |= {"metrics": {"wer": number**2 / 7}} if "wer" in metrics else {}
        record = Record(trial=trial, status="complete", class_names=("a", "b", "c", "d"), **facts)
        write_record(folder, record, Predictions(logits.astype(np.float32), labels))
    return folder


def scored(folder: ResultsFolder) -> list[float]:
    """The F1 of each trial by scikit-learn, from the files."""
    scores = []
    for trial in open_plan(folder).trials:
        arrays = np.load(folder.predictions_path(trial.trial_id))
        predicted = arrays["logits"].argmax(axis=1)
        scores.append(f1_score(arrays["labels"], predicted, average="macro"))
    return scores


def test_arguments_and_metrics_are_columns_that_come_back_to_the_last_bit(tmp_path: Path) -> None:
    folder = recorded(tmp_path)
    rebuild_tables(folder)
    trials: Any = read_tables(folder, names=["trials"])["trials"]
    names = [name for name in trials if "." in name]
    assert names == ["arch.rate", "arch.sizes", "arch.on", "arch.width", "arch.act"]
    assert trials.columns.get_loc("arch.rate") == trials.columns.get_loc("deterministic") + 1
    assert trials.dtypes.map(str)[names].tolist() == ["float64", "string", "string", "Int64", "string"]
    assert trials["arch.width"].tolist()[:4] == [8, 8, 16, 16]
    assert trials["arch.act"].tolist()[:2] == ["relu", "-gelu"]
    assert set(trials["arch.sizes"]) == {"(3, 4)"}
    assert trials["f1"].tolist() == scored(folder)
    assert trials["wer"].tolist() == [number**2 / 7 for number in range(12)]
    assert trials["none"].isna().all()
    pd.testing.assert_frame_equal(read_run(folder).trials, trials, check_exact=True)
    before = (folder.root / "trials.csv").read_bytes()
    write_tables(folder, {"trials": trials})
    assert (folder.root / "trials.csv").read_bytes() == before
    declare()  # as a version that knows neither reads it: what is in the file is not guessed
    with pytest.raises(RecordError, match="other columns"):
        read_tables(folder, names=["trials"])


def test_a_page_about_own_metrics_says_what_scipy_says(tmp_path: Path) -> None:
    folder = recorded(tmp_path, primary="f1", family=("f1", "wer"), margins={"wer": 0.5})
    page = write_results(folder, tmp_path / "report")
    scores = np.array(scored(folder)).reshape(3, 2, 2)  # seed, width, act
    effects: Any = ablate.load_tables("s", results=tmp_path)["effects"]
    effects = effects[effects["kind"] == "arm"].set_index(["metric", "term"]).sort_index()
    for place, act in enumerate(("relu", "-gelu")):
        test = stats.ttest_rel(scores[:, 1, place], scores[:, 0, place])
        low, high = test.confidence_interval(1 - 0.05 / 4)  # two arms, two metrics
        row = effects.loc["f1"].loc[f"arch.width=16, arch.act={act}"]
        assert row[["effect", "low", "high", "p"]].tolist() == pytest.approx(
            [np.diff(scores[:, :, place]).mean(), low, high, test.pvalue]
        )
        assert row["margin"] == 0.02
        assert row["verdict"] != "exploratory"
    assert set(effects.loc["accuracy"]["verdict"]) == {"exploratory"}
    report = json.loads((page.parent / "report.json").read_text())
    heads = [f"{head['label']} {head['unit']}".strip() for head in report["arms"]["columns"]]
    assert heads[2:5] == ["F1 %", "WER words", "None"]
    for mean, row in zip(scores.mean(axis=0).ravel(), report["arms"]["rows"], strict=True):
        assert row[2]["text"] == f"{100 * mean:.2f}"
    assert "f1" in {figure["name"] for figure in report["figures"]}


def test_conditions_and_comparisons_know_own_metrics_and_arguments(tmp_path: Path) -> None:
    a, b = recorded(tmp_path / "a"), recorded(tmp_path / "b", base={**BASE, "arch.rate": 0.5, "arch.more": 1})
    plain = recorded(tmp_path / "c", metrics={})
    mean = np.mean(np.array(scored(a)).reshape(3, 4)[:, 0])
    arm = "arch.width=8, arch.act=relu"
    found = check_study(read_run(a), [f"f1({arm}) < {100 * mean + 0.01:.2f}%", "wer worse", "none > 0"])
    assert [finding.holds for finding in found.findings] == [True, False, None]
    run, other, without = map(read_run, (a, b, plain))
    shown = printed(show_comparison, compare_runs(run, other, ("f1", "wer")))
    assert "field arch.rate 0.3 0.5" in " ".join(shown.split())
    assert "field arch.more none 1" in " ".join(shown.split())
    assert "F1 (%); B - A in points; margin 2.00" in shown
    for act in (
        lambda: compare_runs(run, without, ("f1",)),
        lambda: check_study(run, ["f1 worse"], other=without),
    ):
        with pytest.raises(StudyError, match="f1: unknown metric"):
            act()


def test_records_without_metrics_are_written_as_before(tmp_path: Path) -> None:
    folder = recorded(tmp_path, metrics={"f1": F1})
    path = next(folder.records.glob("*.json"))
    assert "metrics" not in json.loads(path.read_text())["record"]
    assert read_record(path).metrics == {}
    reported = recorded(tmp_path / "with").record_path(path.stem)  # metrics are no part of an identity
    assert "wer" in read_record(reported).metrics


MODULE = """
def raises(logits, labels): return labels[99]
def images(logits, labels): return labels == 1
def nothing(logits, labels): pass
def four(logits, labels): return logits @ [1, 2, 3, 4] @ labels
def writes(logits, labels):
    logits[:] = 0
    return 1
"""


def test_metrics_that_are_none_are_told_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wrong_metrics.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, fault in {
        "raises": "IndexError: index 99 is out of bounds",
        "images": "TypeError: only",
        "nothing": "TypeError: float() argument must be",
        "four": "ValueError: matmul",
        "absent": "has no such name",
    }.items():
        declared = {"mine": Metric(f"wrong_metrics:{name}", better="higher")}
        with pytest.raises(StudyError) as caught:
            check_metrics(declared, classes=3)
        assert fault in str(caught.value)
        assert f"'wrong_metrics:{name}'" in str(caught.value)
    check_metrics({"mine": Metric("wrong_metrics:four", better="higher")}, classes=4)
    logits = np.ones((4, 2))
    assert Metric("wrong_metrics:writes", better="lower").score("mine", logits, np.zeros(4, int)) == 1
    assert logits.all()


def test_what_is_no_metric_and_a_name_that_is_taken_or_unknown_are_one_line() -> None:
    def made(**declared: Any) -> Any:
        study = {"question": "?", "base": BASE, **declared}
        return require_metrics(Study(**study)) if "metrics" in declared else Metric(**declared)

    taken = {f"{of}: is no plain name, or is taken": {"metrics": {of: F1}} for of in ("ece", "lr", "a-1")}
    refused: list[tuple[dict[str, Any], str]] = [
        ({}, "better: no value is set; give it one"),
        ({"better": "up"}, "better: input should be 'higher', 'lower' or 'neither', but 'up'"),
        ({"better": "lower", "margin": -1.0}, "margin: input should be greater than 0"),
        ({"better": "lower", "code": lambda logits, labels: 0}, "at the top level of a file"),
        ({"better": "lower", "smaller": True}, "smaller: unknown part of a Metric"),
        *((study, message) for message, study in taken.items()),
        ({"metrics": {"f1": F1}, "primary": "f2"}, "primary: f2: unknown metric; known are f1, accuracy"),
        ({"metrics": {"f1": F1}, "margins": {"g1": 1}}, "margins: g1: unknown metric"),
    ]
    for declared, message in refused:
        with pytest.raises(StudyError) as caught:
            made(**declared)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_code_is_found_beside_the_study_file_that_the_command_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my studies").mkdir()
    (tmp_path / "my studies/s.py").write_text("")
    (tmp_path / "my studies/later_metrics.py").write_text("def one(logits, labels): return 1")
    metrics = {"one": Metric("later_metrics:one", better="higher")}
    folder = recorded(tmp_path, metrics, command="python -m ablate run 'my studies/s.py' --seeds 3")
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(StudyError, match=r"'later_metrics:one': .*beside the study file or on PYTHONPATH"):
        read_run(folder)
    monkeypatch.chdir(tmp_path)
    made = build_tables(folder, open_plan(folder))
    assert set(made["trials"]["one"]) == {1.0}
    (tmp_path / "my studies/later_metrics.py").write_text("def one(logits, labels): return 22")
    del sys.modules["later_metrics"]
    made = build_tables(folder, open_plan(folder))  # other code of a metric needs no training
    assert set(made["trials"]["one"]) == {22.0}
    write_tables(folder, made)  # published without predictions, it needs no code
    shutil.rmtree(folder.predictions)
    (tmp_path / "my studies/later_metrics.py").unlink()
    del sys.modules["later_metrics"]
    assert set(read_run(folder).trials["one"]) == {22.0}


OWN = "test_own_metrics:"
NOISE = f"{OWN}noise"
V2 = "torchvision.transforms.v2."


def noise(images: Any, strength: float = 0.1) -> Any:
    return images + strength * torch.randn_like(images)


def of_batch(images: Any, *, draws: Any) -> Any:
    return images - images.mean()


class Forgets(torch.optim.SGD):
    """Warms up by a counter that its state does not hold."""

    steps = 0

    def step(self, closure: Any = None) -> Any:
        self.steps += 1
        for group in self.param_groups:
            group["lr"] *= self.steps
        return super().step(closure)


class Keeps(torch.optim.SGD):
    """Saves what torch.load does not take."""

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "kept": Path()}


class Still(torch.optim.SGD):
    def step(self, closure: Any = None) -> Any: ...


def no_optimizer(params: Any, lr: float) -> Any:
    return lr


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ({"augmentation": "noise"}, r"augmentation: expected none, or an import path .*'noise' .* came"),
        ({"augmentation": NOISE, "augmentation.stren": 1}, r"^augmentation.stren: .* mean 'strength'\?"),
        (
            [{"augmentation": of, "augmentation.strength": 0.1} for of in ("none", NOISE)],
            r"^augmentation.strength: 'none' takes no .* named levels: factors={'variant': {'a': {'augment",
        ),
        (
            {"augmentation": f"{OWN}of_batch"},
            r"alike in any batch, but .* an image became another in another",
        ),
        ({"augmentation": "torch.acosh"}, r"of 0 to 1 to give finite ones .* nan"),
        ({"augmentation": "torch.flatten"}, r"\[3, 3, 16, 16\] .*, but this .* torch.float32 \[2304\] came"),
        (
            {"augmentation": f"{V2}RandomCrop", "augmentation.size": 99},
            r"this raised ValueError: Required cr",
        ),
        ({"augmentation": f"{V2}Resize"}, r"^augmentation.size: .*cannot do without"),
        ({"optimizer": "adam"}, r"optimizer: expected sgd, adamw, .* import path .*Did you mean 'adamw'\?"),
        ({"optimizer": "sgd", "optimizer.lr": 1.0}, r"^optimizer.lr: ablate sets it .* or set the field lr"),
        ({"optimizer": "sgd", "optimizer.nesterov": True}, r"^optimizer 'sgd'.* Nesterov .* a momentum"),
        ({"optimizer": "torch.optim.LBFGS"}, r"missing 1 required positional argument: 'closure'"),
        ([{"optimizer": "torch.optim.NAdam", "beta2": of} for of in (0.9, 0.99)], r"^beta2: is 0.9 and 0.99"),
        ({"optimizer": f"{OWN}Still"}, r"expected a step to change weights"),
        ({"optimizer": f"{OWN}no_optimizer"}, r"TypeError: expected a torch.optim.Optimizer, but a float"),
        ({"optimizer": f"{OWN}Forgets"}, r"from its state_dict\(\) it goes on otherwise"),
        ({"optimizer": f"{OWN}Keeps"}, r"UnpicklingError: Weights only load failed"),
        ({"schedule": "cosine"}, r"schedule: expected constant, .*'flat_cosine'\?"),
        ({"schedule": "math:log1p", "schedule.base": 2}, r"^schedule.base: 'math:log1p' takes no such"),
        ({"schedule": "math:log"}, r"of progress 0, but this raised ValueError"),
    ],
)
def test_wrong_code_is_found_before_any_training(arms: Any, message: str) -> None:
    state = torch.get_rng_state()
    with pytest.raises(StudyError, match=message) as caught:
        check_names([resolve(SMALL, arm) for arm in (arms if isinstance(arms, list) else [arms])])
    assert "\n" not in str(caught.value)
    assert torch.equal(torch.get_rng_state(), state)
