"""A study's declaration and every message for a wrong one; a trial's identity; streams of a seed."""

import functools
import hashlib
import json
import math
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded_study import BASE, CPU, planned, trial

from ablate.errors import StudyError
from ablate.store.records import read_records
from ablate.store.results import ResultsFolder
from ablate.study.fields import RECIPES, Fields, canonical
from ablate.study.options import Options
from ablate.study.settings import command_line, parse_settings
from ablate.study.study import Profile, Study, load_study
from ablate.study.trials import NOT_IDENTITY, Plan, _identity, arm_name, stream_seed


def declare(**changes: Any) -> Study:
    return Study(**{"question": "Which ε?", "base": BASE, "factors": {"epsilon": (0.0, 0.1)}, **changes})


def test_fields_come_from_recipe_then_base_then_profile_then_arm() -> None:
    margins = {"accuracy": 0.01, "ece": 0.02}
    quick = Profile(
        base={"epochs": 2}, factors={"arch": ("seed_cnn", "xresnet18")}, margins={"ece": 0.04}, seeds=3
    )
    base = {**BASE, "epochs": 3, "epsilon": 0.4}
    study = declare(base=base, margins=margins, profiles={"quick": quick})
    fields = study.fields({"epsilon": 0.1})
    assert (fields.epochs, fields.epsilon, fields.lr) == (3, 0.1, RECIPES["source"].lr)
    profiled = study.with_profile("quick")
    assert profiled.base == {**BASE, "epochs": 2, "epsilon": 0.4}
    assert profiled.factors == {"epsilon": (0.0, 0.1), "arch": ("seed_cnn", "xresnet18")}
    assert profiled.margins == {"accuracy": 0.01, "ece": 0.04}
    assert (profiled.seed_list(), study.seed_list()) == ((0, 1, 2), (0, 1, 2, 3, 4))
    # Settings fix a field or sweep it.
    study = declare(baseline={"epsilon": 0.0})
    fixed = study.with_settings({"epsilon": (0.2,)})
    assert (fixed.factors, fixed.base["epsilon"], fixed.baseline) == ({}, 0.2, {})
    assert study.with_settings({"epochs": (1, 2)}).factors["epochs"] == (1, 2)


def test_equal_levels_have_one_form() -> None:
    forms = [(0.1 + 0.2, 0.3), (-0.0, 0.0), (np.float64(0.25), 0.25), (np.int64(3), 3), ("1", "1")]
    for value, expected in forms:
        assert repr(canonical(value)) == repr(expected)
    study = declare(factors={"epsilon": np.array([0.0, 0.1 * 3])}, baseline={"epsilon": 0.1 * 3})
    assert (study.factors, study.baseline) == ({"epsilon": (0.0, 0.3)}, {"epsilon": 0.3})


class Net: ...


def loaded(text: str, folder: Path) -> Study:
    (folder / "my_study.py").write_text(text, encoding="utf-8")
    return load_study(folder / "my_study.py")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": {**BASE, "epsilom": 1}}, r"epsilom: unknown field. Did you mean 'epsilon'\?.* Known are"),
        ({"factors": {"epsilon": (0.0, 1.5)}}, r"epsilon: .*less than or equal to 1, but 1.5"),
        ({"factors": {"epsilon": (0.3, 0.1 + 0.2)}}, r"level 0.3 is given twice"),
        ({"factors": {"epsilon": 0.1}}, r"^factors.epsilon: .* list of levels, but 0.1 .* write \(0.1,\)$"),
        ({"base": {"data": "digits"}}, r"image_size: no value is set"),
        ({"base": {**BASE, "recipe": "modem"}}, r"recipe: .*'modem' \(str\) came\. Did you mean 'modern'\?$"),
        ({"base": {**BASE, "arch": lambda: 0}}, r"base.arch: .* top level of a file, .*'my_module:name'"),
        ({"base": {**BASE, "arch": functools.partial(Net)}}, r"base.arch: .*'arch.dropout': 0.1"),
        ({"base": {**BASE, "dropout": 0.1}}, r"^dropout: unknown field.*'arch.dropout': VALUE"),
        ({"base": {**BASE, "arch.depth": {}}}, r"arch.depth: expected None, a truth value, .* or a tuple"),
        ({"base": {**BASE, "arch.gain": math.nan}}, r"arch.gain: .* a finite number"),
        ({"factors": {"arch": {"a": {"lr": 1.0}}}}, r"factors.arch: is a field; .* a name of its own"),
        ({"factors": {"net": {"a": {"lr": 1.0}}, "lr": (1.0, 2.0)}}, r"lr is set by lr and by net"),
        ({"factors": {"net": {"a": {}}}, "base": {**BASE, "net": "b"}}, r"^b: unknown level of net; known"),
        ({"factors": {"net": {"a": {"lr": -1.0}}}}, r"^lr: .*greater than 0, but -1.0"),
        ({"base": {**BASE, "arch_args": {"n": 3}}}, r"^arch_args: unknown.*'arch.NAME': VALUE \(slots"),
        ({"seeds": 0}, r"seeds: expected at least one, .* but 0 came"),
        ({"seeds": (1, 1)}, r"seeds: .* each once .* \(1, 1\) came"),
        ({"seeds": (2**63,)}, r"seeds: .* within 0 to 2\*\*63 - 1, but"),
        ({"baseline": {"arch": "seed_cnn"}}, r"baseline.arch: is not a factor"),
        ({"baseline": {"epsilon": 0.2}}, r"baseline.epsilon: 0.2 is not among its levels \[0.0, 0.1\]"),
        ({"margins": {"accuracy": 0.0}}, r"margins.accuracy: .* greater than 0"),
        ({"questions": "?"}, r"questions: unknown part of a Study; .*Did you mean 'question'\?"),
        ({"only": ({"epsilon": 0.3},)}, r"only: expected a level for each of epsilon, but"),
        ({"only": ({"epsilon": 0.1},) * 2}, r"only: an arm is named twice"),
    ],
)
def test_a_wrong_declaration_says_what_is_wrong(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message) as caught:
        declare(**changes)
    assert "https://" not in str(caught.value)


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(StudyError) as caught:
        declare(base={**BASE, "lrr": 1.0, "epochs": 0}, factors={"epsilon": (2.0,)}, seeds=0)
    named = {line.split(":")[0] for line in str(caught.value).splitlines()}
    assert named == {"epsilon", "epochs", "lrr", "seeds"}


def test_a_wrong_part_is_told_in_our_words() -> None:
    with pytest.raises(StudyError, match=r"^question: no value is set; give it one$"):
        Study(base=BASE)  # type: ignore[call-arg]
    with pytest.raises(StudyError, match=r"^bas: unknown part of a Profile; .*Did you mean 'base'\?$"):
        Profile(bas={})  # type: ignore[call-arg]
    with pytest.raises(StudyError, match=r"quik: .*Did you mean 'quick'"):
        declare(profiles={"quick": Profile()}).with_profile("quik")


GOOD = """'''Which ε?

Cheap.
'''
from ablate.study.study import Study
study = Study(question="Which ε?", base={"data": "digits", "image_size": 8}, factors={"epsilon": [0, 0.1]})
"""


def test_a_study_file_gives_its_name_and_docstring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = loaded(GOOD, tmp_path)
    assert (study.name, study.description) == ("my_study", "Which ε?\n\nCheap.")
    assert study.arms() == [{"epsilon": 0}, {"epsilon": 0.1}]
    with pytest.raises(StudyError, match=r"no such study file; .* Did you mean '.*my_study.py'\?"):
        load_study(tmp_path / "my_stdy.py")
    monkeypatch.chdir(tmp_path)
    assert load_study("eps_sweep").description.startswith("What does label smoothing do")
    with pytest.raises(StudyError, match=r"comes with ablate: architectures, eps_sweep, .*mean 'eps_tune'\?"):
        load_study("eps_tun")
    Path("eps_sweep.py").write_text(GOOD)
    assert load_study("eps_sweep").description.startswith("Which ε?")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("study = Study(", r"my_study.py: running the study file fails: SyntaxError: .*line 1"),
        ("x = 1", r"expected `study = Study\(\.\.\.\)` at the top level, but nothing of that name came"),
        ("study = {}", r"but a dict came"),
        ("x = 1\n1 / 0", r"my_study.py, line 2: running the study file fails: ZeroDivisionError"),
        (GOOD.replace("epsilon", "epsilom"), r"(?s)the study is not valid:.*Did you mean 'epsilon'"),
    ],
)
def test_a_wrong_study_file_gives_one_message(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        loaded(text, tmp_path)


ROOT = Path(__file__).parent.parent
CHANGES: list[dict[str, Any]] = [
    {"epsilon": 0.2}, {"reduction": "sum"}, {"lr_rule": "matched"}, {"arch": "xresnet18"}, {"epochs": 12},
    {"batch_size": 64}, {"lr": 0.1}, {"momentum": 0.9}, {"weight_decay": 0.1}, {"drop_last": True},
    {"image_size": 8}, {"loss": "cross_entropy", "epsilon": 0.0}, {"seed": 1}, {"repeat": 1},
    {"fingerprint": "g"}, {"optimizer": "adamw"}, {"beta2": 0.9}, {"adam_epsilon": 1e-6},
    {"decay_norms": False}, {"clip_norm": 1.0}, {"schedule": "one_cycle"}, {"anneal_from": 0.5},
    {"crop_area": 0.5}, {"flip": True}, {"mixup": 0.2}, {"label_noise": 0.05},
    {"weights": "pretrained"}, {"freeze": "body"}, {"head_lr": 2.0}, {"arch.depth": 3}, {"arch.depth": "3"},
    {"augmentation": "torch.sqrt"}, {"ema": 0.9}, {"schedule": "torch.sqrt"}, {"optimizer": "torch.Lion"},
    *({"numerics": CPU.model_copy(update=change)}
      for change in ({"device": "cuda"}, {"precision": "bfloat16"}, {"deterministic": False})),
]  # fmt: skip


def test_whatever_decides_the_numbers_decides_the_identity() -> None:
    assert len({trial().trial_id, *(trial(**change).trial_id for change in CHANGES)}) == len(CHANGES) + 1


def test_what_does_not_decide_the_numbers_does_not() -> None:
    neither: dict[str, Any] = {
        "data": "folder:/elsewhere", "precision": "float32", "eval_batch_size": 7, "deterministic": True,
        "recipe": "modern", "decode_size": 20, "resize": "center_crop", "tuning_part": 0.5, "split": 0.2,
    }  # fmt: skip
    fields = RECIPES["source"].model_dump() | {"epsilon": 0.1 + 1e-17, "epochs": BASE["epochs"]}
    assert {trial(**fields | {name: value}).trial_id for name, value in neither.items()} == {trial().trial_id}
    own: dict[str, Any] = {"data": "my_data:load", "data.n": 3}
    assert trial(**own).trial_id == trial().trial_id
    # A new field must be named here as deciding the numbers, or as not.
    other = {"seed", "repeat", "fingerprint", "numerics", "arch.depth"}
    decide = {name for change in CHANGES for name in change} - other
    assert neither.keys() == NOT_IDENTITY == Fields.model_fields.keys() - decide


@pytest.mark.parametrize(
    ("published", "version"), [("recipes/cpu-64px", 1), ("seed_notebook/cpu-float32", 2)]
)
def test_a_trial_from_before_a_field_keeps_its_identity(published: str, version: int) -> None:
    """The published runs were recorded before the later fields; version 1 had no threads in it."""
    records = read_records(ResultsFolder(ROOT / "results" / "reference" / published))
    assert records
    for trial_id, record in records.items():
        own = record.trial
        identity = _identity(own)
        identity["training_version"] = version
        if version == 1:
            del identity["numerics"]["threads"]
        text = json.dumps(identity, sort_keys=True)
        assert hashlib.sha256(text.encode()).hexdigest()[:16] == trial_id


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1), st.sampled_from(["init", "order", "noise"]))
def test_streams_differ_by_seed_and_by_name(seed: int, other: int, stream: str) -> None:
    assert 0 <= stream_seed(seed, stream) < 2**63
    assert (stream_seed(seed, stream) == stream_seed(other, stream)) == (seed == other)
    assert stream_seed(seed, stream) != stream_seed(seed, stream + "x")


def test_a_plan_is_seeds_of_all_combinations_first_factor_slowest() -> None:
    plan = planned(declare(factors={"epsilon": (0.0, 0.1), "arch": ("seed_cnn", "xresnet18")}, seeds=(3, 5)))
    arms = [f"epsilon={epsilon}, arch={arch}" for epsilon in (0.0, 0.1) for arch in ("seed_cnn", "xresnet18")]
    expected = [(seed, arm) for seed in (3, 5) for arm in arms]
    assert [(trial.seed, trial.arm) for trial in plan.trials] == expected
    assert (plan.arms, arm_name({}), declare(factors={}).arms()) == (tuple(arms), "all", [{}])
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


def test_settings_are_python_literals_words_of_yaml_or_text_and_are_typed_again_as_they_were() -> None:
    texts = ["epsilon=0,0.1", "arch=seed_cnn,'x:f(a,b)',it's", "flip=true,False", "loss='None'", "mixup=1,"]
    parsed = parse_settings(texts)
    assert parsed == {
        "epsilon": (0, 0.1), "arch": ("seed_cnn", "x:f(a,b)", "it's"), "flip": (True, False),
        "loss": ("None",), "mixup": (1, ""),
    }  # fmt: skip
    settings = {name: parsed[name] for name in ("epsilon", "flip", "loss")}
    options = Options(profile="main", settings=settings, seeds=3, device="cpu", threads=2)
    assert command_line("tune", Path("b.py"), options, 4) == (
        "python -m ablate tune b.py --points 4 --profile main --set epsilon=0,0.1 --set flip=True,False "
        "--set 'loss='\"'\"'None'\"'\"'' --seeds 3 --device cpu --threads 2"
    )
    with pytest.raises(StudyError, match="each field once"):
        parse_settings(["lr=1", "lr=2"])


TEXTS = st.text("a1'.,-\\é ", min_size=1)


@given(st.lists(TEXTS | st.booleans() | st.integers() | st.floats(-1e9, 1e9), min_size=1).map(tuple))
def test_a_command_line_sets_what_was_set(values: tuple[Any, ...]) -> None:
    options = Options(settings={"arch": values})
    *_, sign, typed = shlex.split(command_line("run", Path("b.py"), options))
    assert (sign, parse_settings([typed])) == ("--set", options.settings)
