"""The commands. Each parses its arguments and calls one function; heavy things are imported inside it."""

from __future__ import annotations

import ast
import functools
import inspect
import shlex
import signal
import sys
from collections.abc import Callable, Collection
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, get_type_hints

import typer
from rich.console import Console
from typer import Argument, Option

from ablate.errors import AblateError, StudyError
from ablate.study import Options, load_study
from ablate.terminal import print_line

if TYPE_CHECKING:
    from ablate.notebook import Run

app = typer.Typer(
    name="ablate",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

COMPLETE, WRONG, FAILURES, INTERRUPTED = 0, 1, 2, 130
KEYWORD = inspect.Parameter.KEYWORD_ONLY


class Concluded(SystemExit):
    """The exit status of a run that came to an end, as apart from the option parser's."""


Suite = StrEnum("Suite", ["loss", "step", "epoch", "sweep", "driver", "cuda", "statistics", "tune"])
"""What to measure: the benchmarks, then what is run alone: a GPU, and the simulations."""

StudyFile = Annotated[Path, Argument(help="A Python file that defines `study`; it is executed.")]
StudyName = Annotated[str, Argument(help="A study that was run: NAME, NAME/PROFILE, or its results folder.")]
Results = Annotated[Path, Option(help="Folder of the results.")]
Reports = Annotated[Path, Option("--report", help="Folder of the reports.")]
RanProfile = Annotated[str | None, Option(help="Which of the profiles that were run.")]


def takes_options(*, without: Collection[str] = (), **helps: str) -> Callable[[Callable[..., None]], Any]:
    """Give a command the fields of `Options` as parameters; it is called with the `options` they make.

    `helps` is what to say of a field where that is not its own description.
    """
    kinds = get_type_hints(Options)
    names = [name for name in Options.model_fields if name not in {"command", *without}]

    def wrap(command: Callable[..., None]) -> Any:
        @functools.wraps(command)
        def parsed(**given: Any) -> None:
            values = {name: given.pop(name) for name in names}
            values["settings"] = parse_settings(values["settings"] or [])
            options = Options(**values)
            typed = command_line(command.__name__, given["study"], options, given.get("points"))
            command(**given, options=options.model_copy(update={"command": typed}))

        own = inspect.signature(command, eval_str=True).parameters.values()
        parameters = [parameter for parameter in own if parameter.name != "options"]
        for name in names:
            field = Options.model_fields[name]
            text = helps.get(name, field.description)
            least: Any = next((rule.ge for rule in field.metadata if hasattr(rule, "ge")), None)
            option, kind, default = Option(help=text, min=least), kinds[name], field.default
            if name == "settings":
                option = Option("--set", metavar="FIELD=VALUE[,VALUE]", help=text)
                kind, default = list[str] | None, None
            elif name == "seeds":
                kind = int | None
            annotation: Any = Annotated[kind, option]
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
def run(study: StudyFile, options: Options) -> None:
    """Train what is missing of a study, write its tables and render its report."""
    from ablate.pipeline import run_study

    _conclude(run_study(load_study(study), options))


@app.command()
@takes_options(
    seeds="How many fresh seeds the re-test has.", retry_failed="Train failed points and trials again."
)
def tune(
    study: StudyFile,
    options: Options,
    points: Annotated[int | None, Option(min=1, help="The budget, instead of the study's.")] = None,
    storage: Annotated[
        str | None, Option(metavar="URL", help="PostgreSQL database that tuners with one --results share.")
    ] = None,
) -> None:
    """Search for the best setting on images held back from training, then re-test it with fresh seeds.

    The same command goes on with a search that was stopped. The verdict is about the re-test: winner against
    baseline on the reported images, which the search never looks at.
    """
    from ablate.pipeline import tune_study

    _conclude(tune_study(load_study(study), options, points=points, storage=storage))


def _conclude(ended: Run) -> NoReturn:
    """Say what became of a run or a search, its answer first, and exit with its status."""
    lines, partial = list(ended.answer), ""
    if ended.report is not None:
        partial = "the report is partial; "
        lines += [f"{ended.ran} trials run", f"report: {ended.report}"]
    if ended.interrupted:
        lines.append(f"interrupted: {partial}the same command goes on")
    elif ended.failed:
        lines.append(
            f"{ended.failed} of {len(ended.tables['trials'])} trials have no result; the report says why; "
            "--retry-failed runs them again"
        )
    print_line(Console(), *lines)
    raise Concluded(INTERRUPTED if ended.interrupted else FAILURES if ended.failed else COMPLETE)


@app.command()
@takes_options(without={"report", "engine", "timeout", "retry_failed", "timing"})
def plan(study: StudyFile, options: Options) -> None:
    """Say what `run` would train, how long it should take, and how small an effect it can detect.

    Of a study that is tuned, say what `tune` would train.
    """
    from ablate.execution.driver import idle_cores, plan_settled, settle, trials_at_a_time
    from ablate.execution.progress import Watcher
    from ablate.gate.plan import show_forecast
    from ablate.pipeline import require_metrics
    from ablate.store.results import ResultsFolder

    declared = load_study(study)
    require_metrics(declared)
    if declared.search is not None:
        from ablate.tuning import budget_in_words

        print_line(Console(), *budget_in_words(declared, options).splitlines())
        return
    with Watcher(Console(stderr=True)) as view:
        planned, _ = plan_settled(settle(declared, options), options, view)
    folder = ResultsFolder(options.results / planned.study.name / planned.profile)
    used = planned.trials[0].numerics.device
    missing = show_forecast(Console(), planned, folder, workers=trials_at_a_time(used, options))
    print_line(Console(), *filter(None, [idle_cores(missing, used, options)]))


@app.command()
def status(study: StudyName, profile: RanProfile = None, results: Results = Path("results")) -> None:
    """Show how far a running or stopped study is, from another terminal."""
    from ablate.status import find_study, show_search, show_status

    folder = find_study(results, study, profile)
    if show_search(Console(), folder) and not folder.plan.exists():
        return  # the re-test is not planned yet
    show_status(Console(), folder)


@app.command()
def compare(
    a: Annotated[str, Argument(help="A recorded study: NAME, NAME/PROFILE, or a results folder.")],
    b: Annotated[str, Argument(help="Another; the differences are its values minus the first's.")],
    metric: Annotated[
        list[str] | None, Option(help="A metric to compare [default: accuracy, nll and ece]")
    ] = None,
    csv: Annotated[Path | None, Option(help="Write the differences to this file, unrounded.")] = None,
    markdown: Annotated[
        Path | None, Option(help="Write the tables to this file, as for a comment on a forge.")
    ] = None,
    results: Results = Path("results"),
) -> None:
    """Set two recorded studies side by side: each arm that both have, and what differs between the runs.

    The verdict is of B against A, within the smaller of the margins that the two studies declare. Trials are
    paired by seed where seeds, fields and data agree; otherwise they are two samples, judged by Welch's test.
    The intervals of all arms and metrics shown hold together with 95 %: fewer metrics give narrower ones.
    """
    from ablate.gate import compare
    from ablate.status import find_study

    first, second = (compare.read_run(find_study(results, named)) for named in (a, b))
    comparison = compare.compare_runs(first, second, tuple(dict.fromkeys(metric or compare.METRICS_SHOWN)))
    if csv is not None:
        compare.write_csv(csv, comparison)
    if markdown is not None:
        compare.write_markdown(markdown, comparison)
    compare.show_comparison(Console(), comparison)


@app.command()
def check(
    study: StudyName,
    fail_if: Annotated[
        list[str] | None, Option(metavar="CONDITION", help="Fail where this holds; can be repeated.")
    ] = None,
    baseline: Annotated[
        str | None, Option(help="A recorded run to compare with, instead of the study's baseline arm.")
    ] = None,
    allow_incomplete: Annotated[
        bool, Option("--allow-incomplete", help="Judge by the trials that have a result.")
    ] = False,
    profile: RanProfile = None,
    results: Results = Path("results"),
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
    from ablate.status import find_study

    run = read_run(find_study(results, study, profile))
    other = read_run(find_study(results, baseline)) if baseline is not None else None
    result = check_study(run, fail_if or [], other=other, allow_incomplete=allow_incomplete)
    show_result(Console(), result)
    raise Concluded(COMPLETE if result.passes else FAILURES)


@app.command()
def data(
    name: Annotated[
        str | None, Argument(help="A dataset, or folder:PATH [default: list the datasets]")
    ] = None,
    image_size: Annotated[int, Option(help="Pixels a side.")] = 128,
    resize: Annotated[
        Literal["squash", "center_crop"], Option(help="How an image becomes square.")
    ] = "squash",
    data_dir: Annotated[Path | None, Option(help=Options.model_fields["data_dir"].description)] = None,
) -> None:
    """Download, check and decode a dataset, once; without a name, list them."""
    from ablate.data import default_cache_dir, prepare
    from ablate.data.catalogue import list_datasets, show_dataset, show_datasets

    cache_dir = default_cache_dir()
    if name is None:
        show_datasets(Console(), list_datasets(cache_dir), cache_dir)
        return
    from ablate.execution.progress import Watcher

    with Watcher(Console(stderr=True)) as view:
        dataset = prepare(
            name,
            image_size=image_size,
            resize=resize,
            cache_dir=cache_dir,
            data_dir=data_dir,
            progress=view.preparing,
        )
    show_dataset(Console(), dataset)


@app.command()
def doctor() -> None:
    """Look at what a run needs: device, arithmetic, versions, cache, and which profile would run."""
    from ablate.doctor import examine, show_findings

    raise Concluded(COMPLETE if show_findings(Console(), examine()) else WRONG)


@app.command()
def bench(
    suites: Annotated[
        list[Suite] | None,
        Argument(help="What to measure [default: all that run on a CPU, but the simulations]"),
    ] = None,
    json: Annotated[
        Path | None, Option(help="Write the numbers to this file (pytest-benchmark's JSON).")
    ] = None,
    quick: Annotated[
        bool, Option("--quick", help="One short round of each: whether it works, not how fast.")
    ] = False,
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
    study: StudyName,
    profile: RanProfile = None,
    results: Results = Path("results"),
    report_dir: Reports = Path("report"),
    pdf: Annotated[bool, Option("--pdf", help="Write every figure as PDF too.")] = False,
) -> None:
    """Write the tables and the report of a study again, from its records. Trains nothing."""
    from ablate.pipeline import write_results
    from ablate.status import find_study

    path = write_results(find_study(results, study, profile), report_dir, pdf=pdf)
    print_line(Console(), f"report: {path}")


@app.command()
def publish(
    study: StudyName,
    name: Annotated[str, Option("--as", help="Name to publish under.")],
    profile: RanProfile = None,
    predictions: Annotated[bool, Option(help="Copy the predictions too, not only digests.")] = False,
    results: Results = Path("results"),
    report_dir: Reports = Path("report"),
) -> None:
    """Copy a study's records and tables to results/reference/, and render its report there."""
    from ablate.pipeline import rebuild_tables
    from ablate.report import write_report
    from ablate.status import find_study
    from ablate.store.records import publish_results

    folder = find_study(results, study, profile)
    below = Path("reference", rebuild_tables(folder).study.name, name)
    published = publish_results(folder, results / below, predictions=predictions)
    path = write_report(published, report_dir / below)
    print_line(Console(), f"report: {path}")


def command_line(command: str, study: Path, options: Options, points: int | None = None) -> str:
    """What to type to run this again; an absolute path is left to its file's name."""
    words = ["python", "-m", "ablate", command, study.name if study.is_absolute() else str(study)]
    words += ["--points", str(points)] if points is not None else []
    for name, value in options.repeated().items():
        for field, values in value.items() if name == "settings" else ():
            # Text that would be read as a number or the like needs its quotes.
            typed = [
                repr(one) if isinstance(one, str) and _literal(one) != one else str(one) for one in values
            ]
            words += ["--set", f"{field}={','.join(typed)}"]
        if name != "settings":
            words += [f"--{name}", str(value)]
    return shlex.join(words)


def parse_settings(settings: list[str]) -> dict[str, tuple[Any, ...]]:
    """FIELD=VALUE[,VALUE...] strings as field name to values: Python literals, or text as it is."""
    parsed: dict[str, tuple[Any, ...]] = {}
    for setting in settings:
        name, separator, values = setting.partition("=")
        if not separator or not name or not values:
            raise StudyError(f"--set {setting}: expected FIELD=VALUE, for example --set epochs=5")
        if name in parsed:
            raise StudyError(f"--set {name}: is given twice; write its values as {name}=A,B to sweep it")
        parsed[name] = tuple(_literal(value) for value in values.split(","))
    return parsed


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def main() -> None:
    """Run a command; a fault that the user can mend is one message on stderr, without a traceback."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except AblateError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except Concluded:
        raise
    except SystemExit as ended:
        # The option parser's status for a wrong option is 2, which here means "complete with failures".
        sys.exit(WRONG if ended.code == FAILURES else ended.code)


if __name__ == "__main__":
    main()
