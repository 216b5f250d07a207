"""What this machine is to ablate: device, arithmetic, versions, cache; and what is broken of it."""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata

from rich.console import Console

from ablate.data import DATASETS, Originals, default_cache_dir, find_originals
from ablate.errors import first_line
from ablate.store.provenance import source_commit, version_of
from ablate.terminal import print_line, print_table

PACKAGE = "ablate"
SHOWN_PACKAGES = ("torch", "numpy", "scipy", "pandas", "pydantic", "matplotlib", "scikit-learn", "pillow")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at, what it came to, and what to do about it; "" where it is in order."""

    name: str
    value: str
    remedy: str = ""


def examine(needed: Sequence[Originals] = ()) -> list[Finding]:
    """Look at everything that a run needs, as the data of a study, one fault never hiding another."""
    findings: list[Finding] = []
    for check in (_versions, _devices, _arithmetic, _cache):
        name = check.__name__.strip("_")
        try:
            findings += check()
        except Exception as error:  # a broken installation can raise anything
            remedy = f"the check of {name} fails; install {PACKAGE} and its packages again"
            findings.append(Finding(name, f"{type(error).__name__}: {error}", remedy))
    for one in needed or map(find_originals, DATASETS):
        lost = needed and not one.at_hand and one.download_bytes is None
        findings.append(Finding("data", str(one), "give the folder that holds it" if lost else ""))
    return findings


def _versions() -> Iterable[Finding]:
    commit = source_commit()
    yield Finding(PACKAGE, version_of(PACKAGE) + (f", commit {commit}" if commit else ""))
    yield Finding("python", f"{platform.python_version()}, {sys.executable}")
    yield Finding("packages", ", ".join(f"{name} {version_of(name)}" for name in SHOWN_PACKAGES))
    from packaging.requirements import Requirement  # here, so that what stands above is told without it

    for needed in map(Requirement, metadata.requires(PACKAGE) or ()):
        version = version_of(needed.name)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        if version == "unknown" or not needed.specifier.contains(version, prereleases=True):
            value = f"expected {needed}, but its version here is {version}"
            yield Finding("package", value, "run pip install again in the folder of ablate")


def _devices() -> Iterable[Finding]:
    import torch

    from ablate.execution.driver import usable_cores
    from ablate.train.device import device_name

    cuda = torch.cuda
    if not cuda.is_available():
        reason = "torch finds a driver, but no GPU"
        try:
            cuda.init()  # type: ignore[no-untyped-call]
        except (RuntimeError, AssertionError) as error:  # also of a torch that is built without CUDA
            reason = first_line(error).rstrip(".")
        if os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1"):
            reason = "CUDA_VISIBLE_DEVICES hides every GPU"
        yield Finding("CUDA", f"none: {reason}")
    for number in range(cuda.device_count() if cuda.is_available() else 0):
        properties = cuda.get_device_properties(number)
        value, remedy = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB", ""
        try:
            torch.ones(8, device=f"cuda:{number}").sum().item()
        except RuntimeError as error:
            value += f": it does not compute ({first_line(error)})"
            remedy = "install a build of torch for this GPU and driver, or train with --device cpu"
        yield Finding(f"GPU {number}", value, remedy)
    name = device_name(torch.device("cpu"))
    yield Finding("CPU", f"{name}; {usable_cores()} of {os.cpu_count()} cores may be used")


def _arithmetic() -> Iterable[Finding]:
    from ablate.execution.driver import choose_profile
    from ablate.execution.prepare import resolve_device, resolve_numerics
    from ablate.study.fields import resolve
    from ablate.study.study import Profile, Study

    base, device = {"data": "synthetic", "image_size": 16}, resolve_device("auto")
    for kind in dict.fromkeys((device, "cpu")):
        precision = resolve_numerics(resolve(base | {"precision": "auto"}), kind).precision
        native = "native" if precision == "bfloat16" else "not native"
        yield Finding(f"bfloat16 on {kind}", f"{native}, so precision=auto is {precision}")
    study = Study(question="Which?", base=base, profiles={"full": Profile(), "quick": Profile()})
    _, reason = choose_profile(study, None, device)
    yield Finding("profile", f"{reason}, in a study that has full and quick")


def _cache() -> Iterable[Finding]:
    folder = default_cache_dir().absolute()
    there = next(path for path in (folder, *folder.parents) if path.is_dir())
    held = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    value = f"{folder}, holds {held / 1e9:.2f} GB, {shutil.disk_usage(there).free / 1e9:.1f} GB free"
    fault = f": {folder} is not a folder" if folder.exists() and there != folder else ""
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"\0")
    except OSError as error:
        fault = fault or f": cannot be written ({error.strerror})"
    yield Finding("cache", value + fault, fault and "set ABLATE_CACHE to a folder that can be written")


def show_findings(console: Console, findings: Sequence[Finding]) -> bool:
    """Print what was found, then what to do about what is broken; whether all is in order."""
    print_table(console, ("what", "found"), [(finding.name, finding.value) for finding in findings])
    broken = [f"broken: {finding.name}: {finding.remedy}" for finding in findings if finding.remedy]
    print_line(console, *(broken or ["nothing is broken"]))
    return not broken
