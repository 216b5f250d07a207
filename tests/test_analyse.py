"""Runs of another tool as a report: its numbers are scipy's and statsmodels', its errors say what to do."""

import functools
import json
import math
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests
from test_main import ablate as command

import ablate
from ablate.errors import AblateError, StudyError
from ablate.figures import draw_figures
from ablate.tables.quantities import quantity

pytestmark = pytest.mark.usefixtures("no_figures")

DECIDED = {1: "better", -1: "worse"}
welch = functools.partial(scipy_stats.ttest_ind, equal_var=False)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(seeds: int = 10) -> pd.DataFrame:
    """Accuracy in percent and loss of runs that share a seed's luck; a high rate costs, a wide net helps."""
    rng = np.random.default_rng(7)
    luck = rng.normal(0, 0.8, seeds)
    rows = [
        {
            "lr": lr, "net": net, "seed": seed,
            "val/acc": 90 + luck[seed] - 8 * (lr - 0.1) + 1.6 * (net == "wide") + rng.normal(0, 0.4 + lr),
            "val_loss": 0.4 + lr / 10 + rng.normal(0, 0.02),
        }
        for seed in range(seeds) for lr in (0.1, 0.3) for net in ("small", "wide")
    ]  # fmt: skip
    return pd.DataFrame(rows)


METRICS, MARGINS = {"val/acc": "higher", "val_loss": "lower"}, {"val/acc": 0.5, "val_loss": 0.06}
BASELINE = {"lr": 0.1, "net": "small"}
ASKED: dict[str, Any] = {"factors": ["lr", "net"], "metrics": METRICS, "baseline": BASELINE}


def column(frame: pd.DataFrame, arm: str, metric: str) -> np.ndarray[Any, Any]:
    levels = dict(part.split("=") for part in arm.split(", "))
    own = frame[(frame["lr"].astype(str) == levels["lr"]) & (frame["net"] == levels["net"])]
    return own.sort_values("seed")[metric].to_numpy()


UNKNOWN = "device|commit|not recorded|label smoothing|temperature|step time|training step|epoch|imagenette"


@pytest.mark.parametrize("seed", ["seed", None])
@pytest.mark.slow
def test_forty_runs_have_the_numbers_of_scipy_and_statsmodels(
    here: Path, seed: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ablate.report.content.draw_figures", draw_figures)
    frame = made()
    frame.to_csv("runs.csv", index=False)
    words = shlex.split(
        "report runs.csv --factors lr,net --metric val/acc:higher --metric val_loss:lower --baseline lr=0.1 "
        "--baseline net=small --margin val/acc=0.5 --margin val_loss=0.06 --family val/acc,val_loss"
    )
    words += ["--seed", seed] if seed else []
    done = command(here, *words)
    assert done.status == 0, done.err
    effects = pd.read_csv("report/runs/effects.csv")
    arms = effects[effects["kind"] == "arm"]
    family = len(arms)
    assert family == 3 * 2
    p_values, compare = [], scipy_stats.ttest_rel if seed else welch
    row: Any
    for row in arms.itertuples():
        margin = MARGINS[row.metric]
        one, other = (column(frame, arm, row.metric) for arm in (row.term, row.against))
        test = compare(one, other)
        low, high = test.confidence_interval(1 - 0.05 / family)
        below = compare(one - margin, other, alternative="less").pvalue
        beyond = max(below, compare(one + margin, other, alternative="greater").pvalue)
        p_values.append(test.pvalue)
        np.testing.assert_allclose(
            [row.effect, row.low, row.high, row.p],
            [one.mean() - other.mean(), low, high, test.pvalue],
            rtol=1e-9,
        )
        sign = np.sign(row.effect) * (1 if row.metric == "val/acc" else -1)
        expected = "undecided" if low <= 0 <= high else DECIDED[sign]
        if max(abs(low), abs(high)) <= margin:
            expected = "equivalent"
        assert row.verdict == expected
        assert row.p_equivalence == pytest.approx(min(1, 2 * family * beyond), rel=1e-9)
    assert {"worse", "better", "equivalent"} <= set(arms["verdict"])
    _, bonferroni, _, _ = multipletests(p_values, method="bonferroni")
    np.testing.assert_allclose(arms["p_adjusted"], bonferroni, rtol=1e-9)
    report = json.loads(Path("report/runs/report.json").read_text())
    means = {row[0]["text"]: row for row in report["arms"]["rows"]}
    for arm, row in means.items():
        own = column(frame, arm, "val/acc")
        low, high = scipy_stats.ttest_1samp(own, 0).confidence_interval()
        np.testing.assert_allclose([row[2]["value"], row[2]["low"], row[2]["high"]], [own.mean(), low, high])
    # Nothing is said that ablate does not know.
    said = Path("report/runs/report.md").read_text()
    assert re.findall(UNKNOWN, said.lower()) == []
    assert ("(Welch 1947)" in said, "paired t test" in said) == (seed is None, seed is not None)
    assert sorted(path.name for path in Path("report/runs").glob("*.csv")) == ["effects.csv", "trials.csv"]
    drawn = re.findall(r"\((figures/[^)]+)\)", said)
    assert len(drawn) >= 4
    assert all(Path("report/runs", path).is_file() for path in drawn)
    by_command = Path("report/runs/effects.csv").read_bytes()
    ablate.analyse("runs.csv", seed=seed, margins=MARGINS, family=[*METRICS], **ASKED)
    assert Path("report/runs/effects.csv").read_bytes() == by_command


def wandb(frame: pd.DataFrame) -> pd.DataFrame:
    """As its table of runs is exported, with settings that are no factor."""
    run = frame.reset_index(drop=True).rename(columns={at: f"config.{at}" for at in ("lr", "net", "seed")})
    facts = {"Name": [f"run-{at}" for at in run.index], "State": "finished", "Created": "2026-01-01"}
    return run.assign(**facts, gpu=["A", "B"] * (len(run) // 2), _runtime=run.index * 1.5)


def mlflow(frame: pd.DataFrame) -> pd.DataFrame:
    run = frame.reset_index(drop=True)
    return pd.DataFrame({
        "run_id": [f"{at:032x}" for at in run.index], "status": "FINISHED",
        **{f"params.{name}": run[name].astype(str) for name in ("lr", "net", "seed")},
        "metrics.val/acc": run["val/acc"], "metrics.val_loss": run["val_loss"],
    })  # fmt: skip


@pytest.mark.slow
def test_exports_as_they_come_give_the_same_numbers_and_unfinished_runs_have_failed(here: Path) -> None:
    frame = made(seeds=4)
    plain = ablate.analyse(frame, seed="seed", name="plain", **ASKED).tables["effects"]
    exported = wandb(frame)
    exported.to_csv("wandb.csv", index=False)
    pd.testing.assert_frame_equal(ablate.analyse("wandb.csv", seed="seed", **ASKED).tables["effects"], plain)
    flow = ablate.analyse(mlflow(frame), seed="seed", **ASKED).tables["effects"]
    pd.testing.assert_frame_equal(flow, plain)
    exported.loc[3, "State"] = "crashed"
    exported.loc[4, ["val/acc", "val_loss"]] = math.nan
    run = ablate.analyse(exported.drop(index=8), seed="seed", **ASKED)
    trials = run.tables["trials"].set_index("trial_id")
    lost = ["State: crashed", "no val/acc or val_loss"]
    assert trials.loc[["run-3", "run-4"], "failure"].tolist() == lost
    assert (run.failed, (trials["status"] == "missing").sum()) == (3, 1)
    report = json.loads((run.folder / "report.json").read_text())
    words = run.tables["effects"].query("kind == 'arm' and metric == 'val/acc'")["verdict"]
    assert set(words) <= {"undecided", "worse", "better"}
    assert "3 of 16 trials have no result" in [banner["title"] for banner in report["banners"]]
    (differing,) = [banner for banner in report["banners"] if "columns that are no factor" in banner["title"]]
    assert differing["items"] == ["gpu (2 values)", "in every run, as times and results do: _runtime"]


def test_metrics_of_a_report_are_gone_after_it(here: Path) -> None:
    known = quantity("accuracy")
    frame = made(seeds=2).rename(columns={"val/acc": "accuracy"})
    ablate.analyse(frame, factors=["net"], seed=None, metrics=["accuracy"], baseline={"net": "small"})
    assert quantity("accuracy") is known
    with pytest.raises(KeyError):
        quantity("val_loss")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"factors": ["lr", "nte"]}, "nte: unknown column; .* Did you mean 'net'"),
        ({"factors": "lr"}, "lists of columns"),
        ({"metrics": {"net": "higher"}, "factors": ["lr"]}, "net: expected a column of numbers, .*'small'"),
        ({"metrics": {"val/acc": "max"}}, "val/acc: say what is better.*'max' came"),
        ({"metrics": {"lr": "lower"}}, "lr: each column is one factor"),
        ({"baseline": {"lr": 0.2}}, r"baseline.lr: 0.2 is not among its levels \\[0.1, 0.3\\]"),
        ({"margins": {"val_los": 0.1}}, "margins: val_los: unknown metric.* Did you mean 'val_loss'"),
        ({"factors": ["lr"]}, "seed: rows 1, 2, .* share levels and seed; .*independent"),
        ({"seed": "run"}, "run: no two runs share one"),
        ({"factors": ["lr", "hole"]}, "hole: no value in rows 2"),
        ({"factors": ["lr", "twice"]}, "twice: could be each of params.twice, config.twice"),
        ({"report": "taken"}, "taken: the report cannot be written"),
        ({"comparisons": ["trends"]}, "comparisons: trends: unknown kind.* Did you mean 'trend'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_message_that_says_what_to_do(changes: dict[str, Any], message: str) -> None:
    Path("taken").write_text("")
    columns: dict[str, Any] = {"hole": ["a", None] + ["b"] * 6, "params.twice": 1, "config.twice": 2}
    frame = made(seeds=2).assign(run=range(8), **columns)
    with pytest.raises(AblateError, match=message.replace("\\\\", "\\")):
        ablate.analyse(frame, **{"seed": "seed", **ASKED, **changes})
    assert not Path("report").exists()


@pytest.mark.parametrize("content", ["", "a,b\n1,2,3\n4,5,6,7\n", None])
def test_a_file_that_is_no_csv_is_refused(here: Path, content: str | None) -> None:
    if content is not None:
        Path("runs.csv").write_text(content)
    with pytest.raises(StudyError, match=r"runs.csv: expected a CSV with a row per run, but ."):
        ablate.analyse("runs.csv", factors=["a"], metrics={"b": "higher"})


def test_a_trend_of_independent_runs_is_welchs_contrast_and_a_hump_is_undecided(here: Path) -> None:
    rng = np.random.default_rng(5)
    levels, counts = [0.0, 1.0, 3.0], [4, 6, 9]
    x = np.repeat(levels, counts)
    hump = rng.normal(-((x - 1.5) ** 2), 0.1)
    frame = pd.DataFrame({"x": x, "y": rng.normal(2 * x, 1 + x), "hump": hump})
    metrics = {"y": "higher", "hump": "higher"}
    run = ablate.analyse(frame, factors=["x"], metrics=metrics, family=["y", "hump"], comparisons=["trend"])
    trend = run.tables["effects"].query("kind == 'trend'").set_index("metric")
    groups = [frame.loc[frame["x"] == level, "y"].to_numpy() for level in levels]
    weights = np.polyfit(np.array(levels) / 3, np.eye(3), 1)[0]  # of a slope over the whole range
    parts = [weight**2 * own.var(ddof=1) / len(own) for weight, own in zip(weights, groups, strict=True)]
    freedom = sum(parts) ** 2 / sum(part**2 / (len(own) - 1) for part, own in zip(parts, groups, strict=True))
    effect = sum(weight * own.mean() for weight, own in zip(weights, groups, strict=True))
    reach = scipy_stats.t.ppf(1 - 0.05 / 4, freedom) * math.sqrt(sum(parts))
    np.testing.assert_allclose(
        trend.loc["y", ["effect", "low", "high"]].astype(float), [effect, effect - reach, effect + reach]
    )
    assert trend.loc["y", "verdict"] == "better"
    assert tuple(trend.loc["hump", ["verdict", "reason"]]) == ("undecided", "bent")


def test_arms_that_are_no_grid_are_compared_one_by_one(here: Path) -> None:
    frame = made(seeds=4)
    frame = frame[(frame["lr"] == 0.1) | (frame["net"] == "small")]
    run = ablate.analyse(frame, seed="seed", **ASKED)
    assert set(run.tables["effects"]["kind"]) == {"arm"}
    assert len(run.tables["trials"]) == 12
    assert "Not every combination of levels was run" in (run.folder / "report.md").read_text()
