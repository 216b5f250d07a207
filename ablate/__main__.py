"""The commands. Each parses its arguments and calls one function; heavy things are imported inside it."""

from __future__ import annotations

import ast
import json
import shlex
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ablate.errors import AblateError, StudyError, nearest

if TYPE_CHECKING:
    from ablate.execution.driver import Summary
    from ablate.study.study import Study

app = typer.Typer(
    name="ablate",
    help="Ablation studies of training knobs: what a knob does to accuracy, calibration and step time.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

COMPLETE, WRONG, FAILURES, INTERRUPTED = 0, 1, 2, 130


class Concluded(SystemExit):
    """The exit status of a run that came to an end, as apart from the option parser's."""


class Device(StrEnum):
    """Where to train."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Engine(StrEnum):
    """How training steps reach a GPU."""

    eager = "eager"
    graph = "graph"


class Resize(StrEnum):
    """How an image becomes square."""

    squash = "squash"
    center_crop = "center_crop"


class Suite(StrEnum):
    """What to measure: the benchmarks, then what is run alone: a GPU, and the simulations."""

    loss = "loss"
    step = "step"
    epoch = "epoch"
    sweep = "sweep"
    driver = "driver"
    cuda = "cuda"
    statistics = "statistics"
    tune = "tune"


StudyFile = Annotated[Path, typer.Argument(help="A Python file that defines `study`; it is executed.")]
StudyName = Annotated[
    str, typer.Argument(help="A study that was run: NAME, NAME/PROFILE, or its results folder.")
]
Results = Annotated[Path, typer.Option(help="Folder of the results.")]
Reports = Annotated[Path, typer.Option("--report", help="Folder of the reports.")]
Profile = Annotated[str | None, typer.Option(help="Profile of the study; otherwise the hardware decides.")]
RanProfile = Annotated[str | None, typer.Option(help="Which of the profiles that were run.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE[,VALUE]", help="Fix a field, or sweep it over values."),
]
Seeds = Annotated[int | None, typer.Option(help="How many seeds, instead of the study's.")]
ByEngine = Annotated[
    Engine, typer.Option("--engine", help="On CUDA: hand steps over by operation, or captured as a whole.")
]
OnDevice = Annotated[Device, typer.Option(help="Where to train.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Trials at a time [default: one per GPU; on a CPU, cores / threads]")
]
Threads = Annotated[
    int, typer.Option(min=1, help="CPU threads that a trial computes with; part of what it is.")
]
DataDir = Annotated[
    Path | None, typer.Option(help="Folder with the dataset's files, instead of downloading them.")
]


def _show_version(asked: bool) -> None:
    if asked:
        from ablate.store.provenance import source_commit, version_of

        commit = source_commit()
        print(f"ablate {version_of('ablate')}{f' ({commit})' if commit else ''}")
        raise typer.Exit


@app.callback()
def ablate(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Ablation studies of training knobs: what a knob does to accuracy, calibration and step time."""


@app.command()
def run(
    study: StudyFile,
    profile: Profile = None,
    settings: Settings = None,
    seeds: Seeds = None,
    device: OnDevice = Device.auto,
    workers: Workers = None,
    threads: Threads = 1,
    data_dir: DataDir = None,
    results: Results = Path("results"),
    report_dir: Reports = Path("report"),
    engine: ByEngine = Engine.eager,
    timeout: Annotated[float | None, typer.Option(min=0.001, help="Minutes that one trial may take.")] = None,
    retry_failed: Annotated[bool, typer.Option(help="Run failed trials again.")] = False,
    timing: Annotated[bool, typer.Option(help="Time the training steps at the end, by themselves.")] = True,
) -> None:
    """Train what is missing of a study, write its tables and render its report."""
    from ablate.execution.driver import Options, run_study
    from ablate.execution.progress import ProgressView
    from ablate.finish import require_writable, write_results

    declared = load_declared(study)
    require_writable(report_dir)
    options = Options(
        profile=profile,
        device=device.value,
        workers=workers,
        threads=threads,
        engine=engine.value,
        data_dir=data_dir,
        results=results,
        settings=parse_settings(settings or []),
        seeds=seeds,
        timeout=None if timeout is None else 60 * timeout,
        retry_failed=retry_failed,
        timing=timing,
        command=command_line(study, profile, settings or [], seeds, device, threads),
    )
    console = Console()
    with ProgressView(console) as view:
        summary = run_study(declared, options, view)
    path = write_results(summary.folder, report_dir)
    raise Concluded(_conclude(console, summary, path))


def answer_of(page: Path) -> list[str]:
    """What the report of a tuned study, or of one beside a published table, says first."""
    report = json.loads((page.parent / "report.json").read_text(encoding="utf-8"))
    found = report["headline"].get("tuning", {"verdict": "", "sentences": []})
    beside = (report["published"] or {"summary": ""})["summary"]
    return [line for line in (found["verdict"], *found["sentences"], beside) if line]


def _conclude(console: Console, summary: Summary, report: Path) -> int:
    """Say what became of the run, and give its exit status."""
    for line in answer_of(report):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    console.print(f"{summary.ran} trials run", highlight=False)
    console.print(f"report: {report}", highlight=False, soft_wrap=True, markup=False)
    if summary.interrupted:
        console.print("interrupted: the report is partial; the same command goes on", highlight=False)
        return INTERRUPTED
    if summary.failed:
        console.print(
            f"{summary.failed} of {len(summary.plan.trials)} trials have no result; the report says why; "
            "--retry-failed runs them again",
            highlight=False,
        )
        return FAILURES
    return COMPLETE


@app.command()
def tune(
    study: StudyFile,
    profile: Profile = None,
    points: Annotated[int | None, typer.Option(min=1, help="The budget, instead of the study's.")] = None,
    storage: Annotated[
        str | None,
        typer.Option(metavar="URL", help="PostgreSQL database of a search that several tuners share."),
    ] = None,
    settings: Settings = None,
    seeds: Annotated[int | None, typer.Option(help="How many fresh seeds the re-test has.")] = None,
    device: OnDevice = Device.auto,
    workers: Workers = None,
    threads: Threads = 1,
    data_dir: DataDir = None,
    results: Results = Path("results"),
    report_dir: Reports = Path("report"),
    engine: ByEngine = Engine.eager,
    timeout: Annotated[float | None, typer.Option(min=0.001, help="Minutes that one trial may take.")] = None,
    retry_failed: Annotated[bool, typer.Option(help="Train failed points and trials again.")] = False,
    timing: Annotated[bool, typer.Option(help="Time the training steps at the end, by themselves.")] = True,
) -> None:
    """Search for the best setting on images held back from training, then re-test it with fresh seeds.

    The same command goes on with a search that was stopped. The verdict is about the re-test: winner against
    baseline on the reported images, which the search never looks at.
    """
    from ablate.execution.driver import Options
    from ablate.execution.progress import ProgressView
    from ablate.finish import require_writable, write_results
    from ablate.tuning import tune_study

    declared = load_declared(study)
    require_writable(report_dir)
    options = Options(
        profile=profile,
        device=device.value,
        workers=workers,
        threads=threads,
        engine=engine.value,
        data_dir=data_dir,
        results=results,
        settings=parse_settings(settings or []),
        seeds=seeds,
        timeout=None if timeout is None else 60 * timeout,
        retry_failed=retry_failed,
        timing=timing,
        command=command_line(
            study, profile, settings or [], seeds, device, threads, command="tune", points=points
        ),
    )
    console = Console()
    with ProgressView(console) as view:
        tuned = tune_study(declared, options, view, points=points, storage=storage)
    console.print(f"{tuned.ran} trials run for {len(tuned.tuning.points)} points", highlight=False)
    if tuned.retest is None:
        if tuned.interrupted:
            console.print("interrupted: the same command goes on", highlight=False)
        raise Concluded(INTERRUPTED if tuned.interrupted else COMPLETE)
    path = write_results(tuned.folder, report_dir)
    raise Concluded(_conclude(console, tuned.retest, path))


@app.command()
def plan(
    study: StudyFile,
    profile: Profile = None,
    settings: Settings = None,
    seeds: Seeds = None,
    device: OnDevice = Device.auto,
    workers: Workers = None,
    threads: Threads = 1,
    data_dir: DataDir = None,
    results: Results = Path("results"),
) -> None:
    """Say what `run` would train, how long it should take, and how small an effect it can detect.

    Of a study that is tuned, say what `tune` would train.
    """
    from ablate.execution.driver import Options, idle_cores, plan_study, results_folder, trials_at_a_time
    from ablate.execution.progress import ProgressView
    from ablate.gate.plan import forecast, show_forecast
    from ablate.terminal import print_line

    options = Options(
        profile=profile,
        device=device.value,
        workers=workers,
        threads=threads,
        data_dir=data_dir,
        settings=parse_settings(settings or []),
        seeds=seeds,
    )
    declared = load_declared(study)
    if declared.search is not None:
        from ablate.tuning import budget_in_words

        Console().print(budget_in_words(declared, options), highlight=False, soft_wrap=True, markup=False)
        return
    with ProgressView(Console(stderr=True)) as view:
        planned = plan_study(declared, options, view)
    folder = results_folder(results, planned.study.name, planned.profile)
    used = planned.trials[0].numerics.device
    found = forecast(planned, folder, workers=trials_at_a_time(used, options))
    show_forecast(Console(), found)
    if said := idle_cores(list(found.status.values()).count("missing"), used, options):
        print_line(Console(), said)


@app.command()
def status(study: StudyName, profile: RanProfile = None, results: Results = Path("results")) -> None:
    """Show how far a running or stopped study is, from another terminal."""
    from ablate.status import find_study, read_status, show_search, show_status

    folder = find_study(results, study, profile)
    if show_search(Console(), folder) and not folder.plan.exists():
        return  # the re-test is not planned yet
    show_status(Console(), read_status(folder))


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="A recorded study: NAME, NAME/PROFILE, or a results folder.")],
    b: Annotated[str, typer.Argument(help="Another; the differences are its values minus the first's.")],
    metric: Annotated[
        list[str] | None, typer.Option(help="A metric to compare [default: accuracy, nll and ece]")
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the differences to this file, unrounded.")] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Write the tables to this file, as for a comment on a forge.")
    ] = None,
    results: Results = Path("results"),
) -> None:
    """Set two recorded studies side by side: each arm that both have, and what differs between the runs.

    The verdict is of B against A, within the smaller of the margins that the two studies declare. Trials are
    paired by seed where seeds, fields and data agree; otherwise they are two samples, judged by Welch's test.
    The intervals of all arms and metrics shown hold together with 95 %: fewer metrics give narrower ones.
    """
    from ablate.gate.compare import METRICS_SHOWN, compare_runs
    from ablate.gate.comparison_shown import show_comparison, write_csv, write_markdown
    from ablate.gate.runs import read_run
    from ablate.status import find_study

    first, second = (read_run(find_study(results, named)) for named in (a, b))
    comparison = compare_runs(first, second, tuple(dict.fromkeys(metric or METRICS_SHOWN)))
    if csv is not None:
        write_csv(csv, comparison)
    if markdown is not None:
        write_markdown(markdown, comparison)
    show_comparison(Console(), comparison)


@app.command()
def check(
    study: StudyName,
    fail_if: Annotated[
        list[str] | None, typer.Option(metavar="CONDITION", help="Fail where this holds; can be repeated.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="A recorded run to compare with, instead of the study's baseline arm.")
    ] = None,
    allow_incomplete: Annotated[
        bool, typer.Option("--allow-incomplete", help="Judge by the trials that have a result.")
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
    from ablate.gate.runs import read_run
    from ablate.status import find_study

    run = read_run(find_study(results, study, profile))
    other = read_run(find_study(results, baseline)) if baseline is not None else None
    result = check_study(run, fail_if or [], other=other, allow_incomplete=allow_incomplete)
    show_result(Console(), result)
    raise Concluded(COMPLETE if result.passes else FAILURES)


@app.command()
def data(
    name: Annotated[
        str | None, typer.Argument(help="A dataset, or folder:PATH [default: list the datasets]")
    ] = None,
    image_size: Annotated[int, typer.Option(help="Pixels a side.")] = 128,
    resize: Annotated[Resize, typer.Option(help="How an image becomes square.")] = Resize.squash,
    data_dir: DataDir = None,
) -> None:
    """Download, check and decode a dataset, once; without a name, list them."""
    from ablate.data import default_cache_dir, prepare
    from ablate.data.catalogue import list_datasets, show_dataset, show_datasets

    cache_dir = default_cache_dir()
    if name is None:
        show_datasets(Console(), list_datasets(cache_dir), cache_dir)
        return
    from ablate.execution.progress import ProgressView

    with ProgressView(Console(stderr=True)) as view:
        dataset = prepare(
            name,
            image_size=image_size,
            resize=resize.value,
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
        typer.Argument(help="What to measure [default: all that run on a CPU, but the simulations]"),
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="Write the numbers to this file (pytest-benchmark's JSON).")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="One short round of each: whether it works, not how fast.")
    ] = False,
) -> None:
    """Time ablate beside plain torch, in the project's source tree; or simulate studies and searches.

    `cuda` measures a GPU: what it computes, and how fast, in at most eight minutes.
    `statistics` and `tune` simulate: `statistics` how often verdicts err, `tune` what searches find.
    """
    from ablate.bench import run_simulation, run_suites, run_tuning, write_json

    asked = suites or [Suite.loss, Suite.step, Suite.epoch, Suite.sweep, Suite.driver]
    if Suite.cuda in asked:
        from ablate.bench.cuda import bench_cuda

        if len(asked) > 1:
            raise StudyError("bench: give cuda alone; it takes the GPU for itself")
        raise Concluded(COMPLETE if bench_cuda(print, json) else FAILURES)
    simulations = {Suite.statistics: run_simulation, Suite.tune: run_tuning}
    if simulate := simulations.get(asked[0]) if len(asked) == 1 else None:
        stored = simulate(Console())
        if json is not None:
            write_json(json, stored)
        return
    if both := simulations.keys() & set(asked):
        raise StudyError(f"bench: give {min(both)} alone; it simulates and is run by itself")
    status = run_suites([suite.value for suite in asked], out=json, quick=quick)
    raise Concluded({0: COMPLETE, 1: FAILURES, 2: INTERRUPTED}.get(status, WRONG))


@app.command()
def report(
    study: StudyName,
    profile: RanProfile = None,
    results: Results = Path("results"),
    report_dir: Reports = Path("report"),
) -> None:
    """Write the tables and the report of a study again, from its records. Trains nothing."""
    from ablate.finish import write_results
    from ablate.status import find_study

    path = write_results(find_study(results, study, profile), report_dir)
    Console().print(f"report: {path}", highlight=False, soft_wrap=True, markup=False)


@app.command()
def publish(
    study: StudyName,
    name: Annotated[str, typer.Option("--as", help="Name to publish under.")],
    profile: RanProfile = None,
    predictions: Annotated[bool, typer.Option(help="Copy the predictions too, not only digests.")] = False,
    results: Results = Path("results"),
    report_dir: Reports = Path("report"),
) -> None:
    """Copy a study's records and tables to results/reference/, and render its report there."""
    from ablate.finish import rebuild_tables
    from ablate.report import write_report
    from ablate.status import find_study
    from ablate.store.publish import publish_results

    folder = find_study(results, study, profile)
    place = Path("reference", rebuild_tables(folder).study.name, name)
    published = publish_results(folder, results / place, predictions=predictions)
    path = write_report(published, report_dir / place)
    Console().print(f"report: {path}", highlight=False, soft_wrap=True, markup=False)


def load_declared(path: Path) -> Study:
    """The study of a file, its metrics known.

    Raises:
        StudyError: there is no such file (the nearest one is named), or it does not define a sound study.
    """
    from ablate.finish import require_metrics
    from ablate.study.study import load_study

    if not path.is_file():
        known = [str(file) for folder in (path.parent, Path("studies")) for file in folder.glob("*.py")]
        near = nearest(str(path), known)
        raise StudyError(
            f"{path}: no such study file; give the path of a Python file that defines `study`.{near}"
        )
    declared = load_study(path)
    require_metrics(declared)
    return declared


def command_line(
    study: Path,
    profile: str | None,
    settings: list[str],
    seeds: int | None,
    device: Device,
    threads: int,
    *,
    command: str = "run",
    points: int | None = None,
) -> str:
    """What to type to run this again; an absolute path is left to its file's name."""
    words = ["python", "-m", "ablate", command, study.name if study.is_absolute() else str(study)]
    words += ["--points", str(points)] if points is not None else []
    words += ["--profile", profile] if profile else []
    words += [word for setting in settings for word in ("--set", setting)]
    words += ["--seeds", str(seeds)] if seeds is not None else []
    words += ["--device", device.value] if device is not Device.auto else []
    words += ["--threads", str(threads)] if threads != 1 else []
    return shlex.join(words)


def parse_settings(settings: list[str]) -> dict[str, tuple[Any, ...]]:
    """FIELD=VALUE[,VALUE...] strings as field name to values; a value is a Python literal, or text as it is.

    Raises:
        StudyError: a string without `=`, or a field named twice.
    """
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
    signal.signal(signal.SIGTERM, _interrupt)
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


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
