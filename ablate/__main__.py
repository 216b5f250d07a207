"""The commands. Each parses its arguments and calls one function; heavy things are imported inside it."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    sys.path.append(sys.path.pop(0))  # `python -m` looks for Python's own modules in the current folder first
    import signal

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and not ignored, as in the background
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # an import that Ctrl-C ends is no error

import contextlib
import functools
import importlib
import inspect
import io
import os
import re
import shlex
import signal
from collections.abc import Callable, Collection
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, get_type_hints

import typer
from pydantic_core import to_json
from rich.console import Console
from typer import Argument, Option

from ablate.errors import AblateError, StudyError
from ablate.guarded import FORKS, guarded
from ablate.store.results import below, find_study
from ablate.study import Options, Study, load_study
from ablate.study.fields import FIELD_NAMES, describe_fields, unknown_name
from ablate.study.settings import command_line, literal, pairs, parse_settings
from ablate.terminal import Lasting, print_line, print_table

if TYPE_CHECKING:
    from ablate.pipeline import Run

app = typer.Typer(name="ablate", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)

COMPLETE, WRONG, FAILURES, INTERRUPTED = 0, 1, 2, 130
KEYWORD = inspect.Parameter.KEYWORD_ONLY


class Concluded(SystemExit):
    """The exit status of a run that came to an end, as apart from the option parser's."""


Suite = StrEnum("Suite", ["loss", "step", "epoch", "sweep", "driver", "cuda", "statistics", "tune"])
"""What to measure: the benchmarks, then what is run alone: a GPU, and the simulations."""

StudyFile = Annotated[Path, Argument(help="A Python file that defines `study`, or one of ablate's by name.")]
StudyName = Annotated[
    str, Argument(help="A study that was run: NAME[/PROFILE[/VARIATION]], or its results folder.")
]
Results = Annotated[Path, Option(help="Folder of the results.")]
Reports = Annotated[Path, Option("--report", help="Folder of the reports.")]
RESULTS, REPORTS = Path("results"), Path("report")
Text = str | None
File = Path | None
Several = list[str] | None
Resize = Literal["squash", "center_crop"]
Interval = Literal["ci", "sd", "se", "none"]
RanProfile = Annotated[Text, Option(help="Which of the profiles that were run.")]
OpenPage = Annotated[bool, Option("--open", help="Open the report in the browser.")]
IN_JSON = "Print one JSON object instead, numbers unrounded, what is not known null."
AsJson = Annotated[bool, Option("--json", help=IN_JSON)]


def takes_options(*, without: Collection[str] = (), **helps: str) -> Callable[[Callable[..., None]], Any]:
    """Give a command the fields of `Options` as parameters, with `helps` in place of their descriptions."""
    kinds = get_type_hints(Options) | {"settings": Several, "seeds": int | None}
    names = [name for name in Options.model_fields if name not in {"command", *without}]

    def wrap(command: Callable[..., None]) -> Any:
        @functools.wraps(command)
        def parsed(**given: Any) -> None:
            values = {name: given.pop(name) for name in names}
            values["settings"] = parse_settings(values["settings"] or [])
            options = Options(**values)
            if options.workers == 0:
                FORKS.set(False)
            typed = command_line(command.__name__, given["study"] or Path(), options, given.get("points"))
            command(**given, options=options.model_copy(update={"command": typed}))

        own = inspect.signature(command, eval_str=True).parameters.values()
        parameters = [parameter for parameter in own if parameter.name != "options"]
        for name in names:
            field, is_set = Options.model_fields[name], name == "settings"
            least: Any = next((rule.ge for rule in field.metadata if hasattr(rule, "ge")), None)
            names_of, metavar = (["--set"], "FIELD=VALUE[,VALUE]") if is_set else ([], None)
            option = Option(*names_of, metavar=metavar, help=helps.get(name, field.description), min=least)
            default, annotation = None if is_set else field.default, Annotated[kinds[name], option]
            parameters.append(inspect.Parameter(name, KEYWORD, default=default, annotation=annotation))
        parsed.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        parsed.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return parsed

    return wrap


@app.callback(invoke_without_command=True)
def ablate(version: Annotated[bool, Option("--version", help="Show the version and exit.")] = False) -> None:
    """Ablation studies of training knobs: what a knob does to accuracy, calibration and step time."""
    if version:
        from ablate.store.provenance import source_commit, version_of

        commit = source_commit()
        print(f"ablate {version_of('ablate')}{f' ({commit})' if commit else ''}")
        raise typer.Exit


@app.command()
@takes_options()
def run(study: StudyFile, options: Options, open_page: OpenPage = False) -> None:
    """Train what is missing of a study, write its tables and render its report."""
    from ablate.pipeline import run_study

    _conclude(run_study(_load(study), options), open_page)


@app.command()
@takes_options(
    without={"name", "shard"},
    seeds="How many fresh seeds the re-test has.",
    retry_failed="Train failed points and trials again.",
)
def tune(
    study: StudyFile,
    options: Options,
    points: Annotated[int | None, Option(min=1, help="The budget, instead of the study's.")] = None,
    storage: Annotated[
        Text, Option(metavar="URL", help="PostgreSQL, which tuners share as --results.")
    ] = None,
    open_page: OpenPage = False,
) -> None:
    """Search for the best setting on images held back from training, then re-test it with fresh seeds.

    The same command goes on with a search that was stopped. The verdict is about the re-test: winner against
    baseline on the reported images, which the search never looks at.
    """
    from ablate.pipeline import tune_study

    _conclude(tune_study(_load(study), options, points=points, storage=storage), open_page)


def _load(file: Path) -> Study:
    """A study from its file, which like all code of the user's runs in a child."""
    importlib.import_module("ablate.execution.driver")  # and torch: imported here, it is in the child too
    return guarded(load_study, file, what=f"{file}: running the study file")


def _conclude(ended: Run, open_page: bool) -> NoReturn:
    ran = [f"{ended.ran} trials run"] if ended.report else []
    print_line(Console(), *ended.answer, *ran, *ended.remarks("command", "--retry-failed"))
    if ended.report:
        _show_report(ended.report, open_page)
    raise Concluded(INTERRUPTED if ended.interrupted else FAILURES if ended.failed else COMPLETE)


def _dump(facts: Any, as_json: bool) -> None:
    """One JSON object, where that is asked for: numbers unrounded, those that are not finite null."""
    if as_json:
        print(to_json(facts, indent=1, inf_nan_mode="null", fallback=lambda one: one.item()).decode())


def _show_report(page: Path, open_page: bool) -> None:
    """Say where a report is, with a link to follow, and open it where that is asked for and can be done."""
    link = page.absolute().as_uri()
    print_line(Console(), f"report: {page}", link)
    if open_page:
        import webbrowser

        webbrowser.open(link)


@app.command()
@takes_options(
    without={
        "report", "engine", "timeout", "stall", "retry_failed", "shard", "timing", "executor", "address",
    }
)  # fmt: skip
def plan(
    study: StudyFile,
    options: Options,
    sd: Annotated[float | None, Option(min=0, max=1e9, help="Of an arm over seeds, in shown units.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what `run` would train, on which data, how long that takes, and how likely it decides what it asks.

    Of a study that is tuned, say what `tune` would train. Data that is not here is not fetched.
    """
    from ablate.gate.plan import show_plan
    from ablate.pipeline import require_metrics

    declared = _load(study)
    require_metrics(declared)
    _dump(show_plan(Console(quiet=as_json), declared, options, sd), as_json)


@app.command()
def status(
    study: StudyName, profile: RanProfile = None, results: Results = RESULTS, as_json: AsJson = False
) -> None:
    """Show how far a running or stopped study is, from another terminal."""
    from ablate.status import show_status

    _dump(show_status(Console(quiet=as_json), find_study(results, study, profile)), as_json)


@app.command("list")
def list_(results: Results = RESULTS, report_dir: Reports = REPORTS, as_json: AsJson = False) -> None:
    """List the studies that are recorded, the latest last."""
    from ablate.status import show_runs

    _dump(show_runs(Console(quiet=as_json), results, report_dir), as_json)


@app.command()
def fields(
    name: Annotated[Text, Argument(help="A field [default: all of them]")] = None, as_json: AsJson = False
) -> None:
    """Say what can be set or swept: every field's range, default and meaning, and what recipes set."""
    described = describe_fields()
    if name is not None and name not in described:
        raise StudyError(unknown_name("field", name, described))
    asked = {known: facts for known, facts in described.items() if name in (None, known)}
    console, heads = Console(quiet=as_json), ("field", "values", "default", "meaning")
    rows = [[known, *(str(facts.get(head, "–")) for head in heads[1:])] for known, facts in asked.items()]
    print_table(console, heads, rows)
    recipes = asked[name]["recipes"] if name is not None else {}
    print_line(console, *(f"recipe {recipe}: {value}" for recipe, value in recipes.items()))
    _dump(asked, as_json)


@app.command()
def init(
    file: Annotated[Path, Argument(help="The file to write, such as my_study.py.")],
    network: Annotated[Text, Option("--from", metavar="MODULE:NAME", help="A network of yours.")] = None,
) -> None:
    """Write a study to start from, commented; it runs as it is, in a minute on a CPU."""
    from ablate.starter import write_study

    write_study(file, network)
    print_line(Console(), f"{file}: written; run it by python -m ablate run {shlex.quote(str(file))}")


@app.command()
def compare(
    a: Annotated[str, Argument(help="A recorded study: NAME[/PROFILE[/VARIATION]], or a results folder.")],
    b: Annotated[str, Argument(help="Another; the differences are its values minus the first's.")],
    metric: Annotated[Several, Option(help="A metric to compare [default: accuracy, nll and ece]")] = None,
    csv: Annotated[File, Option(help="Write the differences to this file, unrounded.")] = None,
    markdown: Annotated[File, Option(help="Write the tables to this file, for a forge.")] = None,
    results: Results = RESULTS,
    as_json: AsJson = False,
) -> None:
    """Set two recorded studies side by side: each arm that both have, and what differs between the runs.

    The verdict is of B against A, within the smaller of the margins that the two studies declare. Trials are
    paired by seed where seeds, fields and data agree; otherwise they are two samples, judged by Welch's test.
    The intervals of all arms and metrics shown hold together with 95 %: fewer metrics give narrower ones.
    """
    from ablate.gate import compare

    first, second = (compare.read_run(find_study(results, named)) for named in (a, b))
    comparison = compare.compare_runs(
        first, second, tuple(dict.fromkeys(metric or compare.metrics_shown(first)))
    )
    if csv is not None:
        compare.write_csv(csv, comparison)
    if markdown is not None:
        compare.write_markdown(markdown, comparison)
    _dump(compare.show_comparison(Console(quiet=as_json), comparison), as_json)


@app.command()
def check(
    study: StudyName,
    fail_if: Annotated[Several, Option(metavar="CONDITION", help="Fail where it holds; repeatable.")] = None,
    baseline: Annotated[Text, Option(help="A recorded run to compare with, not the baseline arm.")] = None,
    allow_incomplete: Annotated[
        bool, Option("--allow-incomplete", help="Judge by what has a result.")
    ] = False,
    profile: RanProfile = None,
    results: Results = RESULTS,
    as_json: AsJson = False,
) -> None:
    """Fail where a condition holds of a recorded study: exit status 0, 2 if it fails, 1 for wrong input.

    A condition is about a mean over seeds, `accuracy < 55%`; about an end of its 95 % interval,
    `low(accuracy) < 0.55`; about a verdict, `accuracy worse` or `verdict(ece) != equivalent`; about a
    difference, `difference(accuracy) < -1%`; or about trials, `failed > 0`, `missing > 0`. Join them by `and`
    and `or`. A condition is put to every arm and holds if it does for ANY of them; `accuracy(epsilon=0.1)`
    names one. A study that lacks results fails, and so does what cannot be told, as an interval of one seed.

    Verdicts and differences are against the study's baseline arm, as in the report, or with --baseline
    against the same arm of another recorded run, within the smaller margin of the two.

    ablate check eps_sweep --fail-if "accuracy < 55%" --fail-if "high(ece) > 10%"

    ablate check eps_sweep --baseline results/reference/eps_sweep/main --fail-if "accuracy worse or nll worse"
    """
    from ablate.gate.check import check_study, show_result
    from ablate.gate.compare import read_run

    run = read_run(find_study(results, study, profile))
    other = read_run(find_study(results, baseline)) if baseline is not None else None
    result = check_study(run, fail_if or [], other=other, allow_incomplete=allow_incomplete)
    _dump(show_result(Console(quiet=as_json), result), as_json)
    raise Concluded(COMPLETE if result.passes else FAILURES)


@app.command()
def data(
    name: Annotated[Text, Argument(help="A dataset, folder:PATH or module:function [default: list]")] = None,
    image_size: Annotated[int, Option(min=1, max=4096, help="Pixels a side.")] = 128,
    resize: Annotated[Resize, Option(help="How an image becomes square.")] = "squash",
    split: Annotated[
        float, Option(min=0, max=0.99, help="Part of each class in folder:PATH to report on.")
    ] = 0.0,
    data_dir: Annotated[File, Option(help=Options.model_fields["data_dir"].description)] = None,
) -> None:
    """Download, check and decode a dataset, once; without a name, list them."""
    from ablate.data import default_cache_dir, prepare
    from ablate.data.catalogue import list_datasets, show_dataset, show_datasets

    cache_dir = default_cache_dir()
    if name is None:
        show_datasets(Console(), list_datasets(cache_dir), cache_dir)
        return
    from ablate.execution.progress import Watcher

    asked: Any = {"image_size": image_size, "resize": resize, "split": split, "data_dir": data_dir}
    with Watcher(Console(stderr=True)) as view:
        read = functools.partial(prepare, name, cache_dir=cache_dir, **asked)
        dataset = guarded(lambda told: read(progress=told), view.preparing, what=f"reading {name}")
    show_dataset(Console(), dataset)


@app.command()
@takes_options(without={*Options.model_fields} - {"profile", "settings", "device", "data_dir"})
def doctor(
    options: Options, study: Annotated[File, Argument(help="A study file, to look for its data too.")] = None
) -> None:
    """Look at what a run needs: device, arithmetic, versions, cache, which profile would run, data."""
    from ablate.doctor import examine, show_findings
    from ablate.execution.driver import data_needed, settle

    needed = data_needed(settle(_load(study), options), options) if study is not None else []
    raise Concluded(COMPLETE if show_findings(Console(), examine(needed)) else WRONG)


@app.command()
def bench(
    suites: Annotated[list[Suite] | None, Argument(help="What to measure [default: loss to driver]")] = None,
    json: Annotated[File, Option(help="Write the numbers to this file (pytest-benchmark's JSON).")] = None,
    quick: Annotated[bool, Option("--quick", help="One short round of each: does it work?")] = False,
) -> None:
    """Time ablate beside plain torch, in the project's source tree; or simulate studies and searches.

    `cuda` measures a GPU: what it computes, and how fast, in at most eight minutes.
    `statistics` and `tune` simulate: `statistics` how often verdicts err, `tune` what searches find.
    """
    from ablate.bench import ALONE, run_benchmarks

    asked = [suite.value for suite in suites or []] or ["loss", "step", "epoch", "sweep", "driver"]
    if alone := ALONE.keys() & asked if len(asked) > 1 else set():
        raise StudyError(f"bench: give {min(alone)} alone; it takes the machine for itself")
    status = run_benchmarks(asked, out=json, quick=quick)
    raise Concluded({0: COMPLETE, 1: FAILURES, 2: INTERRUPTED}.get(status, WRONG))


@app.command()
def report(
    study: Annotated[str, Argument(help="A study that was run, or a CSV file of another tool's runs.")],
    profile: RanProfile = None,
    results: Results = RESULTS,
    report_dir: Reports = REPORTS,
    open_page: OpenPage = False,
    pdf: Annotated[bool, Option("--pdf", help="Write every figure as PDF too.")] = False,
    factors: Annotated[str, Option(help="Of a CSV: the columns that make the arms, as lr,net.")] = "",
    seed: Annotated[Text, Option(help="The column that pairs runs; without: Welch's test.")] = None,
    metric: Annotated[Several, Option(metavar="NAME:BETTER", help="As acc:higher, loss:lower.")] = None,
    baseline: Annotated[Several, Option(metavar="FACTOR=LEVEL", help="What is compared with.")] = None,
    margin: Annotated[Several, Option(metavar="NAME=SIZE", help="A difference of no matter.")] = None,
    family: Annotated[str, Option(help="Metrics with verdicts, as acc,loss [default: the first].")] = "",
) -> None:
    """Write the tables and the report of a study again, from its records. Trains nothing.

    Or the same of runs that another tool made, a row each; --metric, --baseline and --margin can be repeated:
    ablate report runs.csv --factors lr,net --seed seed --metric val_acc:higher --baseline lr=0.1
    """
    if study.endswith(".csv"):
        from ablate.external import analyse

        ended = analyse(
            study,
            factors=factors.split(",") if factors else (),
            metrics=pairs(metric, ":"),
            seed=seed,
            baseline={factor: literal(level) for factor, level in pairs(baseline, "=").items()},
            margins=pairs(margin, "="),
            family=family.split(",") if family else (),
            report=report_dir,
        )
        print_line(Console(), *ended.answer)
        return _show_report(ended.folder / "index.html", open_page)
    from ablate.pipeline import write_results

    _show_report(write_results(find_study(results, study, profile), report_dir, pdf=pdf), open_page)


@app.command()
def table(
    study: StudyName,
    latex: Annotated[bool, Option("--latex", help="LaTeX with booktabs, not Markdown.")] = False,
    metric: Annotated[Several, Option(help="A column [default: primary, family, accuracy, ece]")] = None,
    interval: Annotated[Interval, Option(help="95 % interval, ± standard deviation or error.")] = "ci",
    out: Annotated[File, Option(help="Write it to this file.")] = None,
    profile: RanProfile = None,
    results: Results = RESULTS,
) -> None:
    """Show the table of arms of a recorded study as for a paper, the best means bold, claims marked."""
    from ablate.gate.compare import read_run
    from ablate.report.paper import arms_table

    run = read_run(find_study(results, study, profile))
    text = arms_table(run.trials, run.plan, metric or (), interval, latex=latex)
    print(text, end="") if out is None else out.write_text(text, encoding="utf-8")


@app.command()
def publish(
    study: StudyName,
    name: Annotated[str, Option("--as", help="Name to publish under.")],
    profile: RanProfile = None,
    predictions: Annotated[bool, Option(help="Copy the predictions too, not only digests.")] = False,
    results: Results = RESULTS,
    report_dir: Reports = REPORTS,
) -> None:
    """Copy a study's records and tables to results/reference/, and render its report there."""
    from ablate.pipeline import rebuild_tables
    from ablate.report import write_report
    from ablate.store.records import publish_results

    folder, name = find_study(results, study, profile), below(Path(), name).name
    place = Path("reference", rebuild_tables(folder).study.name, name)
    published = publish_results(folder, results / place, predictions=predictions)
    _show_report(write_report(published, report_dir / place), open_page=False)


@app.command()
def export(
    study: StudyName,
    to: Annotated[Literal["tensorboard", "csv", "parquet"], Option(help="For which tools.")],
    out: Annotated[File, Option(help="The folder [default: export/STUDY/PROFILE/TO]")] = None,
    profile: RanProfile = None,
    results: Results = RESULTS,
) -> None:
    """Write what is recorded of a study, finished or not, for other tools; the folder is replaced whole.

    For TensorBoard a run per trial, comparable in its HParams page; the verdicts go with it as a table.
    """
    from ablate.export import export_study

    folder, trials = export_study(find_study(results, study, profile), to, out)
    look = f"; tensorboard --logdir {shlex.quote(str(folder))} shows them" if to == "tensorboard" else ""
    print_line(Console(), f"{folder}: {trials} trials{look}")


def main() -> None:
    """Run a command; a fault that the user can mend is one message on stderr, without a traceback."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    while (spare := os.open(os.devnull, os.O_RDWR)) < 3:  # where one of the streams was closed
        os.set_inheritable(spare, True)
    os.close(spare)
    sys.stderr = sys.stderr or io.StringIO()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # of a locale without our signs
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    shown: Any = Lasting(sys.stdout)
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # looks for GPUs in a way that forks survive
    forks = FORKS.set(True)
    try:
        with contextlib.redirect_stdout(shown):
            app()
    except (AblateError, OSError, MemoryError, ImportError) as error:  # a library that finds no memory
        print_line(Console(stderr=True), *f"error: {str(error) or 'no memory is left'}".split("\n"))
        sys.exit(WRONG)
    except Concluded:
        raise
    except SystemExit as ended:
        if ended.code == INTERRUPTED:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # of who presses twice
            print_line(
                Console(stderr=True), "interrupted: what is recorded is kept; the same command goes on"
            )
        if ended.code == FAILURES and sys.argv[1:2] in (["run"], ["tune"], ["plan"]):
            for option, value in re.findall(r"--([\w-]+)[= ]*(\S*)", " ".join(sys.argv)):
                if (name := option.replace("-", "_")) in FIELD_NAMES:
                    print(f"{name} is a field; write --set {name}={value or 'VALUE'}", file=sys.stderr)
        if not ended.code and not isinstance(ended.__context__, typer.Exit):
            print("error: code that the study names ended the command, by sys.exit", file=sys.stderr)
            sys.exit(WRONG)
        # The option parser's status for a wrong option is 2, which here means "complete with failures".
        sys.exit(WRONG if ended.code == FAILURES or shown.fault else ended.code)
    finally:
        FORKS.reset(forks)


if __name__ == "__main__":
    main()
