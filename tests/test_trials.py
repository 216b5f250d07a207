"""The identity of a trial: what changes it, what must not, and how seeds become streams."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded_study import BASE, CPU, trial

from ablate.store.records import read_records
from ablate.store.results import ResultsFolder
from ablate.study.fields import RECIPES, Fields
from ablate.study.study import Study
from ablate.study.trials import NOT_IDENTITY, Plan, _identity, arm_name, expand, stream_seed

ROOT = Path(__file__).parent.parent
CHANGES: list[dict[str, Any]] = [
    {"epsilon": 0.2}, {"reduction": "sum"}, {"lr_rule": "matched"}, {"arch": "xresnet18"}, {"epochs": 12},
    {"batch_size": 64}, {"lr": 0.1}, {"momentum": 0.9}, {"weight_decay": 0.1}, {"drop_last": True},
    {"image_size": 8}, {"loss": "cross_entropy", "epsilon": 0.0}, {"seed": 1}, {"repeat": 1},
    {"fingerprint": "g"}, {"optimizer": "adamw"}, {"beta2": 0.9}, {"adam_epsilon": 1e-6},
    {"decay_norms": False}, {"clip_norm": 1.0}, {"schedule": "one_cycle"}, {"anneal_from": 0.5},
    {"crop_area": 0.5}, {"flip": True}, {"mixup": 0.2}, {"label_noise": 0.05},
    *({"numerics": CPU.model_copy(update=change)}
      for change in ({"device": "cuda"}, {"precision": "bfloat16"}, {"deterministic": False})),
]  # fmt: skip


def test_whatever_decides_the_numbers_decides_the_identity() -> None:
    assert len({trial().trial_id, *(trial(**change).trial_id for change in CHANGES)}) == len(CHANGES) + 1


def test_what_does_not_decide_the_numbers_does_not() -> None:
    neither: dict[str, Any] = {
        "data": "folder:/elsewhere", "precision": "float32", "eval_batch_size": 7, "deterministic": True,
        "recipe": "modern", "decode_size": 20, "resize": "center_crop", "tuning_part": 0.5,
    }  # fmt: skip
    fields = RECIPES["source"].model_dump() | {"epsilon": 0.1 + 1e-17, "epochs": BASE["epochs"]}
    assert {trial(**fields | {name: value}).trial_id for name, value in neither.items()} == {trial().trial_id}
    # A new field must be named here as deciding the numbers, or as not.
    decide = {name for change in CHANGES for name in change} - {"seed", "repeat", "fingerprint", "numerics"}
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
        identity = json.loads(_identity(own.fields, own.seed, own.repeat, own.numerics, own.fingerprint))
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


def test_a_plan_is_seeds_of_whole_sets_of_arms() -> None:
    study = Study(question="?", base=BASE, factors={"epsilon": (0.0, 0.1)}, seeds=(3, 5))
    trials = expand(study, lambda fields: "f", lambda fields: CPU)
    assert [(t.seed, t.levels["epsilon"]) for t in trials] == [(3, 0.0), (3, 0.1), (5, 0.0), (5, 0.1)]
    plan = Plan(study=study, profile="p", reason="r", trials=tuple(trials))
    assert plan.arms == ("epsilon=0.0", "epsilon=0.1")
    assert arm_name({}) == "all"
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
