"""The studies whose reports the tests look at, and their reports read back from disk."""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_pages import Page, markdown_page
from report_results import (
    BASE,
    EPSILON,
    Asked,
    declare,
    epsilon_points,
    guess,
    hump,
    make_results,
    predict,
    retest_study,
    write_search,
)

from ablate.report import build_report, write_report
from ablate.report.content import derived_tables
from ablate.store.records import Predictions
from ablate.store.results import ResultsFolder
from ablate.study.search import Choice, Range, Search
from ablate.study.trials import Plan, Trial
from ablate.tables.files import Tables

SCRIPT = "<script>alert(1)</script>"
HOSTILE = (
    SCRIPT,
    'a|b\r\n\n# c\n"><img src=x onerror=alert(1)>',
    "=1+1 `x` [y](javascript;) *z* $1$ \x1b[31m \u202etxt",
    "</style></title></textarea>-->",
)
"""Levels that would break a page, a table or a spreadsheet that took them as they are."""
HARMLESS = ("a", "b", "c", "d")

EPOCHS = [
    {"epoch": float(epoch), "train_loss": 2.0 - 0.3 * epoch, "valid_accuracy": 0.4 + 0.05 * epoch}
    for epoch in range(5)
]
PUBLISHED = {"source": "somebody's table", "data": "digits", "epochs": tuple(EPOCHS)}


@dataclass(frozen=True)
class Rendered:
    results: ResultsFolder
    folder: Path
    report: dict[str, Any]
    html: str
    page: Page
    markdown: str
    markdown_page: Page


Get = Callable[..., Rendered]


def sweep() -> dict[str, Any]:
    levels, words = {"epsilon": (0.0, 0.05, 0.1, 0.4)}, "A first line.\n\nA second."
    declared: dict[str, Any] = {"baseline": {"epsilon": 0}, "family": ("accuracy", "ece"), "seeds": 3}
    return {"study": declare(factors=levels, profiles={"quick": {}}, description=words, **declared)}


def factorial() -> dict[str, Any]:
    """Two factors; every run that sums but one diverges, and the last seed is not there."""

    def outcome(trial: Trial) -> Any:
        if trial.fields.reduction == "sum" and trial.seed != 2:
            return "diverged", "the loss is not finite in step 3 of epoch 1"
        return "missing" if trial.seed == 3 else "complete"

    factors = {"epsilon": (0.0, 0.1), "reduction": ("mean", "sum", "none")}
    study = declare(factors=factors, baseline={"reduction": "mean"}, seeds=4)
    commits = {0: "0123456789ab-dirty", 1: "0123456789ab"}

    def ran_on(trial: Trial) -> dict[str, Any]:
        return {"torch_version": "2.12.0" if trial.seed else "2.11.0", "commit": commits.get(trial.seed)}

    return {"study": study, "outcome": outcome, "ran_on": ran_on}


def marked() -> dict[str, Any]:
    """Parts that are on or off: one does nothing, one costs five points, both are kept at once."""

    def made(trial: Trial) -> Any:
        luck = np.random.default_rng([trial.seed, round(10 * trial.fields.clip_norm), trial.fields.flip])
        labels = np.arange(1_000) % 10
        right = luck.permutation(1_000) < 700 + 2 * trial.seed - 50 * trial.fields.flip + luck.integers(0, 3)
        predicted = np.where(right, labels, (labels + 1) % 10)
        return Predictions((3.0 * np.eye(10)[predicted]).astype(np.float32), labels)

    parts: dict[str, Any] = {"flip": (True, False), "clip_norm": (0.0, 1.0), "arch": ("a", "b", "c")}
    study = declare(
        factors=parts, baseline={"flip": False, "clip_norm": 0.0}, margins={"accuracy": 0.02}, seeds=6
    )
    return {"study": study, "made": made}


def single() -> dict[str, Any]:
    return {"study": declare(seeds=3, published=PUBLISHED, base={**BASE, "data": "folder:x"})}


def named(levels: tuple[str, ...], words: str) -> dict[str, Any]:
    """A categorical factor with these levels, the words wherever a study or a machine says something."""
    plain = words.replace("/", "").replace("\n", " ")  # a name is one part of a path
    study = declare(
        question=words,
        name=plain,
        description=words,
        factors={"arch": levels},
        baseline={"arch": levels[0]},
        seeds=2,
        # Outside of every arm's interval, so that all names give as long a list.
        published={**PUBLISHED, "source": words, "differences": words, "epochs": tuple(
            {"epoch": 1.0 * at, "train_loss": 99.0, "valid_accuracy": 9.0} for at in range(5)
        )},
        profiles={plain: {}},
    )  # fmt: skip
    fields = ("device_name", "torch_version", "commit")
    return {
        "study": study,
        "profile": plain,
        "reason": words,
        "outcome": lambda trial: ("error", words) if trial.levels["arch"] == levels[1] else "complete",
        "ran_on": lambda trial: dict.fromkeys(fields, words),
        # The same numbers whatever the levels are called.
        "made": lambda trial: predict(
            trial, rng=np.random.default_rng([levels.index(trial.fields.arch), trial.seed])
        ),
    }


def two_arms(seeds: int, outcome: Any = "complete") -> dict[str, Any]:
    study = declare(factors={"epsilon": (0.0, 0.1)}, baseline={"epsilon": 0.0}, seeds=seeds)
    return {"study": study, "outcome": lambda trial: outcome}


def tuned() -> dict[str, Any]:
    """ε tuned for accuracy; the re-test has the baseline, the anchor and what the search chose."""
    arms = [{"epsilon": 0.0}, {"epsilon": 0.1}, {"epsilon": 0.105}]
    return {
        "study": retest_study(EPSILON, arms),
        "search": lambda results: write_search(results, EPSILON, epsilon_points(), strength=hump, overlap=3),
        "made": lambda trial: guess(trial, hump(trial.levels), images=300),
    }


def tuned_front(words: tuple[str, ...] = HARMLESS) -> dict[str, Any]:
    """Two objectives and fields of every kind, one of them with a condition; names as hostile as asked."""
    search = Search(
        space={
            "epsilon": Range(low=0.0, high=0.4, step=0.1),
            "lr": Range(low=0.001, high=1.0, log=True, levels=7),
            "arch": Choice(of=words),
            "batch_size": Range(low=32, high=128, step=32, when={"arch": words[0]}),
        },
        objective=("accuracy", "nll"), points=20, seeds=2, sampler="nsga2",
    )  # fmt: skip
    rng, asked = np.random.default_rng(0), list[Asked]()
    for number in range(18):
        drawn = {
            "epsilon": 0.1 * int(rng.integers(0, 5)), "lr": 10.0 ** -int(rng.integers(0, 4)),
            "arch": words[int(rng.integers(0, len(words)))], "batch_size": 32 * int(rng.integers(1, 5)),
        }  # fmt: skip
        state = "failed" if number in (4, 8, 12) else "complete"
        why = f"its fields cannot be trained: {words[0]}" if state == "failed" else ""
        asked.append(Asked(search.active(drawn), "sampler" if number else "baseline", state, why))  # type: ignore[arg-type]
    base = {"batch_size": 64, "lr": 0.1}
    wholes = ({**base, **asked[number].levels} for number in (0, 3, 7))
    arms = [{name: whole[name] for name in search.space} for whole in wholes]
    place = {word: number for number, word in enumerate(words)}

    # The same numbers whatever the levels are called.
    def stream(trial: Trial) -> list[int]:
        own = trial.fields
        return [round(10 * own.epsilon), round(1e4 * own.lr), place[own.arch], own.batch_size, trial.seed]

    def searched(results: ResultsFolder) -> None:
        # Of 250 images and two seeds, no mean is a tie of two decimals.
        write_search(results, search, asked, stream=stream, images=250,
                     strength=lambda levels: 1.5 + 0.3 * place[levels["arch"]],
                     scale=lambda levels: 1.2 - 2 * levels["epsilon"])  # fmt: skip

    return {
        "study": retest_study(search, arms, seeds=3),
        "search": searched,
        "made": lambda trial: guess(trial, 1.5 + 0.3 * place[trial.fields.arch], images=200, stream=stream),
    }


CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "sweep": sweep,
    "factorial": factorial,
    "single": single,
    "marked": marked,
    "hostile": lambda: named(HOSTILE, SCRIPT + " | \n=1 `x` [y](z)"),
    "harmless": lambda: named(HARMLESS, "word"),
    "one_seed": lambda: two_arms(1),
    "all_failed": lambda: two_arms(2, ("oom", "out of memory")),
    "nothing_ran": lambda: two_arms(2, "missing"),
    "tuned": tuned,
    "tuned_front": tuned_front,
    "tuned_hostile": lambda: tuned_front(HOSTILE),
}


def render(root: Path, *, figures: bool = False, **case: Any) -> Rendered:
    return report_of(make_results(root / "results", **case), root / "report", figures=figures)


def report_of(results: ResultsFolder, folder: Path, *, figures: bool = False) -> Rendered:
    with pytest.MonkeyPatch.context() as patch:
        if not figures:
            patch.setattr("ablate.report.content.draw_figures", lambda tables, plan, **_: [])
        write_report(results, folder)
    html, markdown = ((folder / name).read_text(encoding="utf-8") for name in ("index.html", "report.md"))
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return Rendered(results, folder, report, html, Page(html), markdown, markdown_page(markdown))


def built(tables: Tables, plan: Plan) -> dict[str, Any]:
    return build_report({**tables, **derived_tables(tables, plan)}, plan, [])


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Get:
    """The report of one of `CASES`, made when first asked for; with its figures where `figures` is true."""

    @functools.cache
    def results(case: str) -> ResultsFolder:
        return make_results(tmp_path_factory.mktemp(case) / "results", **CASES[case]())

    @functools.cache
    def get(case: str, *, figures: bool = False) -> Rendered:
        name = "with_figures" if figures else "report"
        return report_of(results(case), results(case).root.parent / name, figures=figures)

    return get
