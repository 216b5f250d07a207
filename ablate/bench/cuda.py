"""What a CUDA machine computes and how fast: `python -m ablate bench cuda`.

Parity first, of the loss and of captured, eager and CPU training; then seconds an epoch beside what the card
copies and multiplies, a textbook loop, and a sweep from study to report. It prints and writes as it goes, and
ends after eight minutes with what it has.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ablate.driver import Options, run_study
from ablate.errors import DeviceError
from ablate.fields import resolve
from ablate.finish import write_results
from ablate.inputs import resolve_numerics
from ablate.losses import build_loss
from ablate.models import build_model, count_macs
from ablate.progress import ProgressView
from ablate.provenance import source_commit
from ablate.results import write_atomically
from ablate.run import Engine, build_settings
from ablate.study import Study
from ablate.train import Images, Settings, Step, ready_step
from ablate.train.device import seed_generators, set_numerics
from ablate.trials import build_trial

NETWORKS, RECIPES = ("seed_cnn", "xresnet18"), ("source", "modern", "board_5")
ENGINES: tuple[Engine, Engine] = ("eager", "graph")
MEAN, STD, CLASSES = (0.47, 0.48, 0.45), (0.29, 0.28, 0.30), 10

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Scale:
    """How much is measured: by default epochs of Imagenette's size, at its pixels."""

    seconds: float = 480.0
    images: int = 9469
    side: int = 128
    parity_images: int = 500
    copied: int = 2**30
    multiplied: int = 8192
    files: int = 2048
    arms: int = 4
    seeds: int = 5


def bench_cuda(say: Callable[[str], None], out: Path | None, scale: Scale | None = None) -> bool:
    """Measure part by part; what is known is said, and written to `out`, as soon as it is.

    Returns:
        Whether every part could be measured.

    Raises:
        DeviceError: there is no CUDA device.
    """
    if not torch.cuda.is_available():
        raise DeviceError(
            "bench cuda: expected a CUDA device, but torch sees none; run it on the machine whose GPU you want "
            "to trust, or one of the other suites here"
        )
    scale, begun = scale or Scale(), time.monotonic()
    known: dict[str, list[Values]] = {}
    for name, part in PARTS.items():
        known[name] = []
        try:
            for values in part(scale, known):
                known[name].append(values)
                say(f"{name}: " + ", ".join(f"{key} {_text(value)}" for key, value in values.items()))
                if out is not None:
                    write_atomically(out, json.dumps(known, indent=1).encode())
                if time.monotonic() - begun > scale.seconds:
                    say(f"stopped after {scale.seconds:g} s: the rest was not measured")
                    return False
        except Exception as error:  # a part that fails must not cost the others
            say(f"{name}: failed: {type(error).__name__}: {str(error).splitlines()[0]}")
            known[name].append({"failed": str(error)})
    return not any("failed" in values for rows in known.values() for values in rows)


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _card(scale: Scale, known: Mapping[str, list[Values]]) -> Iterator[Values]:
    """What is measured, and the rates that the card copies and multiplies at."""
    source = torch.empty(scale.copied, dtype=torch.uint8, device="cuda")
    target, size = torch.empty_like(source), scale.multiplied
    left = torch.randn(size, size, device="cuda", dtype=torch.bfloat16)
    yield {
        "name": torch.cuda.get_device_name(), "torch": torch.__version__, "cuda": torch.version.cuda,
        "commit": source_commit(),
        "bytes_per_second": 2 * scale.copied / _seconds(lambda: target.copy_(source)),
        "flops_per_second": 2 * size**3 / _seconds(lambda: left @ left),
    }  # fmt: skip


def _seconds(work: Callable[[], object], repeats: int = 10) -> float:
    """Median seconds of a piece of work, after one that is not counted."""
    times = []
    for _ in range(repeats + 1):
        torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return float(np.median(times[1:]))


def _loss(scale: Scale, known: Mapping[str, list[Values]]) -> Iterator[Values]:
    """Errors of the loss and its gradient on the card, beside torch's in float64 on the CPU."""
    generator = torch.Generator().manual_seed(0)
    logits, labels = 3 * torch.randn(512, 1000, generator=generator), torch.arange(512)
    loss, epsilon = build_loss("label_smoothing"), torch.tensor(0.1, device="cuda")
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for reduction in ("mean", "sum", "none"):
            exact = logits.to(dtype).double().requires_grad_()
            ours = logits.to(dtype).cuda().requires_grad_()
            expected = cross_entropy(exact, labels, label_smoothing=0.1, reduction=reduction)
            found = loss(ours, labels.cuda(), epsilon=epsilon, reduction=reduction)
            gradients = (
                torch.autograd.grad(value.sum(), of)[0] for value, of in ((found, ours), (expected, exact))
            )
            errors = {"value": _apart(found, expected), "gradient": _apart(*gradients)}
            yield {"dtype": str(dtype).removeprefix("torch."), "reduction": reduction, **errors}


def _apart(mine: Tensor, reference: Tensor) -> float:
    mine, reference = mine.detach().double().cpu(), reference.detach().double().cpu()
    return float((mine - reference).norm() / reference.norm())


def _training(scale: Scale, known: Mapping[str, list[Values]]) -> Iterator[Values]:
    """What an epoch changes in the weights: captured beside eager, and eager beside the CPU."""
    for arch in NETWORKS:
        for recipe in RECIPES:
            for precision in ("float32", "bfloat16"):
                settings = _settings(arch, recipe, scale, precision=precision, batch_size=32)
                changes, reasons = [], []
                for engine, device in (("graph", "cuda"), ("eager", "cuda"), ("eager", "cpu")):
                    step, reason = _step(arch, engine, device, settings, scale.parity_images, scale)
                    begun = _weights(step)
                    _epoch(step)
                    changes.append(_weights(step) - begun)
                    reasons.append(reason)
                yield {
                    "arch": arch, "recipe": recipe, "precision": precision, "not_captured": reasons[0],
                    "graph_to_eager": _apart(*changes[:2]), "eager_to_cpu": _apart(*changes[1:]),
                }  # fmt: skip


def _weights(step: Step) -> Tensor:
    return torch.cat([parameter.detach().double().cpu().flatten() for parameter in step.model.parameters()])


def _epoch(step: Step) -> None:
    for place, index in enumerate(step.begin_epoch(0)):
        step(index, place)


def _settings(arch: str, recipe: str, scale: Scale, **changes: Any) -> Settings:
    base = {"data": "noise", "image_size": scale.side, "arch": arch, "recipe": recipe}
    fields = resolve(base, changes)
    return build_settings(build_trial({}, fields, 0, resolve_numerics(fields, "cuda"), fingerprint=""))


def _step(
    arch: str, engine: str, device: str, settings: Settings, count: int, scale: Scale
) -> tuple[Step, str | None]:
    def build(seed: int) -> torch.nn.Module:
        seed_generators(seed)
        return build_model(arch, num_classes=CLASSES, image_size=scale.side)

    rng = np.random.default_rng(0)
    pixels, labels = _noise(rng, (count, scale.side, scale.side, 3)), rng.integers(0, CLASSES, count)
    images = Images.on(torch.device(device), pixels, labels, MEAN, STD)
    set_numerics(deterministic=settings.deterministic)
    kind = (arch, count, scale.side)
    return ready_step(engine, kind, build, 1, build_loss("label_smoothing"), images, images, settings)


def _noise(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    return rng.integers(0, 256, shape, dtype=np.uint8)


def _epochs(scale: Scale, known: Mapping[str, list[Values]]) -> Iterator[Values]:
    """Seconds an epoch, and the part of the card's rates that its bytes and multiplications come to."""
    card = known["card"][0]
    for arch in NETWORKS:
        for recipe in RECIPES:
            settings = _settings(arch, recipe, scale)
            for engine in ENGINES:
                began = time.perf_counter()
                step, reason = _step(arch, engine, "cuda", settings, scale.images, scale)
                ready = time.perf_counter() - began
                seconds = _seconds(lambda step=step: _epoch(step), repeats=3)  # type: ignore[misc]
                # A step's forward pass multiplies once, its backward pass twice.
                flops = 3 * 2 * sum(step.sizes) * count_macs(step.model, scale.side)
                with _Bytes() as moved:  # type: ignore[no-untyped-call]
                    Step.compute(step, step.begin_epoch(0)[0])
                yield {
                    "arch": arch, "recipe": recipe, "engine": step.engine, "precision": settings.precision,
                    "seconds": seconds, "images_per_second": sum(step.sizes) / seconds, "ready_seconds": ready,
                    "part_of_copies": moved.count * len(step.sizes) / seconds / card["bytes_per_second"],
                    "part_of_products": flops / seconds / card["flops_per_second"], "not_captured": reason,
                }  # fmt: skip


class _Bytes(TorchDispatchMode):
    """Counts the bytes that operations read and write, were none of them fused; views move none."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func._schema.is_mutable or not any(returned.alias_info for returned in func._schema.returns):
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
            self.count += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return result


def _from_files(scale: Scale, known: Mapping[str, list[Values]]) -> Iterator[Values]:
    """From JPEG files: a loop as it is taught, and a study of some trials up to its report by both engines."""
    with tempfile.TemporaryDirectory() as name:
        folder, rng = Path(name), np.random.default_rng(0)
        for number in range(scale.files + scale.files // 4):
            path = (
                folder
                / ("train" if number < scale.files else "val")
                / str(number % CLASSES)
                / f"{number}.jpeg"
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(_noise(rng, (160, 160, 3))).save(path)
        yield {"textbook_images_per_second": _textbook(folder / "train", scale)}
        base = {"data": f"folder:{folder}", "image_size": scale.side, "arch": "seed_cnn", "epochs": 2}
        levels = tuple(round(0.1 * number, 1) for number in range(scale.arms))
        factors, baseline = {"epsilon": levels}, {"epsilon": 0.0}
        study = Study(
            name="bench", question="ε?", base=base, factors=factors, baseline=baseline, seeds=scale.seeds
        )
        for engine in ENGINES:
            options = Options(device="cuda", results=folder / engine, timing=False, engine=engine)
            began = time.perf_counter()
            with ProgressView(Console(quiet=True)) as view:
                summary = run_study(study, options, view)
            trained = time.perf_counter() - began
            write_results(summary.folder, folder / "report")
            seconds = {"trained_seconds": trained, "to_report_seconds": time.perf_counter() - began}
            yield {"engine": engine, "trials": summary.ran, "failed": summary.failed, **seconds}


def _textbook(folder: Path, scale: Scale) -> float:
    """Images a second of `ImageFolder`, a `DataLoader` and a loop in float32, without ablate."""
    from torchvision import datasets, transforms

    steps = [
        transforms.Resize((scale.side, scale.side)),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]
    data = datasets.ImageFolder(str(folder), transforms.Compose(steps))
    options: dict[str, Any] = {"num_workers": 2, "persistent_workers": True, "pin_memory": True}
    loader = torch.utils.data.DataLoader(data, 128, shuffle=True, **options)
    model = build_model("seed_cnn", num_classes=CLASSES, image_size=scale.side).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def epoch() -> None:
        for images, labels in loader:
            loss = cross_entropy(model(images.cuda()), labels.cuda(), label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    return len(data) / _seconds(epoch, repeats=2)


PARTS = {
    "card": _card, "loss": _loss, "training": _training, "epochs": _epochs, "from_files": _from_files,
}  # fmt: skip
