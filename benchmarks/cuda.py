"""What a CUDA machine computes and how fast: `python -m ablate bench cuda`.

Parity first, of the loss and of captured, eager and CPU training; then seconds an epoch beside what the card
copies and multiplies, a textbook loop, and a sweep from study to report.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from ablate.errors import DeviceError
from ablate.execution.driver import Options, run_settled, settle
from ablate.execution.prepare import resolve_numerics
from ablate.execution.progress import Watcher
from ablate.execution.trial import resolved_fields
from ablate.losses import build_loss
from ablate.models import build_model, count_macs
from ablate.pipeline import write_results
from ablate.store.provenance import source_commit
from ablate.store.results import write_atomically
from ablate.study.fields import resolve
from ablate.study.study import Study
from ablate.study.trials import build_trial
from ablate.train.device import seed_generators, set_numerics
from ablate.train.engine import ready_step, relative_distance
from ablate.train.images import Images
from ablate.train.step import Step
from benchmarks import simulation

NETWORKS, RECIPES = ("seed_cnn", "xresnet18"), ("source", "modern", "board_5")
ENGINES: tuple[Literal["eager", "graph"], ...] = ("eager", "graph")
MEAN, STD, CLASSES = (0.47, 0.48, 0.45), (0.29, 0.28, 0.30), 10

Values = Mapping[str, Any]
Measured = Mapping[str, list[Values]]


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
    sweep: tuple[int, int] = (4, 5)


def bench_cuda(say: Callable[[str], None], out: Path | None, scale: Scale | None = None) -> bool:
    """Measure part by part, saying and writing to `out` what comes out; whether all could be measured."""
    if not torch.cuda.is_available():
        raise DeviceError("bench cuda: expected a CUDA device, but torch sees none; run it where your GPU is")
    scale = scale or Scale()
    ends = time.monotonic() + scale.seconds
    measured: dict[str, list[Values]] = {}
    for part in (_card, _loss, _training, _epochs, _from_files):
        rows = measured.setdefault(name := part.__name__.strip("_"), [])
        try:
            for values in part(scale, measured):
                rows.append({k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in values.items()})
                say(f"{name}: {json.dumps(rows[-1])}")
                if out is not None:
                    write_atomically(out, json.dumps(measured, indent=1).encode())
                if time.monotonic() > ends:
                    say(f"stopped after {scale.seconds:g} s: the rest was not measured")
                    return False
        except Exception as error:  # a part that fails must not cost the others
            rows.append({"error": f"{type(error).__name__}: {str(error).splitlines()[0]}"})
            say(f"{name}: {json.dumps(rows[-1])}")
    return not any("error" in values for rows in measured.values() for values in rows)


def _card(scale: Scale, measured: Measured) -> Iterator[Values]:
    """What is measured, and the rates that the card copies and multiplies at."""
    source = torch.empty(scale.copied, dtype=torch.uint8, device="cuda")
    target, size = torch.empty_like(source), scale.multiplied
    left = torch.randn(size, size, device="cuda", dtype=torch.bfloat16)
    yield {
        "name": torch.cuda.get_device_name(), "torch": torch.__version__, "commit": source_commit(),
        "bytes_per_second": 2 * scale.copied / _seconds(lambda: target.copy_(source)),
        "flops_per_second": 2 * size**3 / _seconds(lambda: left @ left),
    }  # fmt: skip


def _seconds(work: Callable[[], object], repeats: int = 10) -> float:
    """Median seconds of a piece of work, after one that is not counted."""
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return float(np.median(times[1:]))


def _loss(scale: Scale, measured: Measured) -> Iterator[Values]:
    """Errors of the loss and its gradient on the card, beside torch's in float64 on the CPU."""
    generator = torch.Generator().manual_seed(0)
    logits, labels = 3 * torch.randn(512, 1000, generator=generator), torch.arange(512)
    loss, epsilon = build_loss("label_smoothing"), torch.tensor(0.1, device="cuda")
    for dtype, reduction in product((torch.float32, torch.bfloat16, torch.float16), ("mean", "sum", "none")):
        exact = logits.to(dtype).double().requires_grad_()
        ours = logits.to(dtype).cuda().requires_grad_()
        expected = cross_entropy(exact, labels, label_smoothing=0.1, reduction=reduction)
        value = loss(ours, labels.cuda(), epsilon=epsilon, reduction=reduction)
        apart = relative_distance(value.detach(), expected.detach())
        gradients = [torch.autograd.grad(y.sum(), x)[0] for y, x in ((value, ours), (expected, exact))]
        gradient = relative_distance(*gradients)
        yield {"dtype": str(dtype), "reduction": reduction, "value": apart, "gradient": gradient}


def _training(scale: Scale, measured: Measured) -> Iterator[Values]:
    """What an epoch changes in the weights: captured beside eager, and eager beside the CPU."""
    for arch, recipe, precision in product(NETWORKS, RECIPES, ("float32", "bfloat16")):
        changes, engines = [], []
        for engine, device in (("graph", "cuda"), ("eager", "cuda"), ("eager", "cpu")):
            fields = {"precision": precision, "batch_size": 32}
            step = _step(arch, recipe, engine, scale.parity_images, scale, device, **fields)
            begun = [weight.detach().clone() for weight in step.model.parameters()]
            _epoch(step)
            moved = map(torch.sub, step.model.parameters(), begun)
            changes.append(torch.cat([change.detach().flatten().cpu() for change in moved]))
            engines.append(step.engine)
        yield {
            "arch": arch, "recipe": recipe, "precision": precision, "engine": engines[0],
            "graph_to_eager": relative_distance(*changes[:2]),
            "eager_to_cpu": relative_distance(*changes[1:]),
        }  # fmt: skip


def _epoch(step: Step) -> None:
    for number, index in enumerate(step.begin_epoch(0)):
        step(index, number)


def _step(
    arch: str, recipe: str, engine: str, count: int, scale: Scale, device: str = "cuda", **changes: Any
) -> Step:
    """A step over noise."""
    fields = resolve({"data": "noise", "image_size": scale.side, "arch": arch, "recipe": recipe}, changes)
    fields = resolved_fields(build_trial({}, fields, 0, resolve_numerics(fields, "cuda"), fingerprint=""))
    pixels = np.random.default_rng(0).integers(0, 256, (count, scale.side, scale.side, 3), dtype=np.uint8)
    images = Images.on(torch.device(device), pixels, np.arange(count) % CLASSES, MEAN, STD)

    def build(seed: int) -> nn.Module:
        seed_generators(seed)
        return build_model(arch, num_classes=CLASSES, image_size=scale.side)

    set_numerics(deterministic=fields.deterministic)
    return ready_step(engine, count, build, build_loss("label_smoothing"), images, images, fields, seed=0)


def _epochs(scale: Scale, measured: Measured) -> Iterator[Values]:
    """Seconds an epoch, and the part of the card's rates that its bytes and products (3 forward) come to."""
    card = measured["card"][0]
    for arch, recipe, engine in product(NETWORKS, RECIPES, ENGINES):
        began = time.perf_counter()
        step = _step(arch, recipe, engine, scale.images, scale)
        ready = time.perf_counter() - began
        seconds = _seconds(lambda step=step: _epoch(step), repeats=3)  # type: ignore[misc]
        macs = count_macs(build_model(arch, num_classes=CLASSES, image_size=scale.side), scale.side)
        flops = 3 * 2 * sum(step.sizes) * macs
        with _Bytes() as moved:  # type: ignore[no-untyped-call]
            Step.compute(step, step.begin_epoch(0)[0])
        yield {
            "arch": arch, "recipe": recipe, "engine": step.engine, "precision": step.fields.precision,
            "seconds": seconds, "images_per_second": sum(step.sizes) / seconds, "ready_seconds": ready,
            "part_of_copies": moved.count * len(step.sizes) / seconds / card["bytes_per_second"],
            "part_of_products": flops / seconds / card["flops_per_second"],
        }  # fmt: skip


class _Bytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes that operations read and write, were none of them fused; views move none."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func._schema.is_mutable or not any(returned.alias_info for returned in func._schema.returns):
            self.count += sum(x.nbytes for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor))
        return result


def _from_files(scale: Scale, measured: Measured) -> Iterator[Values]:
    """From JPEG files: a loop as it is taught, and a study up to its report by both engines."""
    with tempfile.TemporaryDirectory() as name:
        folder, rng = Path(name), np.random.default_rng(0)
        for number in range(scale.files + scale.files // 4):
            split = "train" if number < scale.files else "val"
            path = folder / split / str(number % CLASSES) / f"{number}.jpeg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (160, 160, 3), dtype=np.uint8)).save(path)
        # A loop in float32, without ablate.
        to_tensor = [transforms.Resize((scale.side, scale.side)), transforms.ToTensor()]
        data = ImageFolder(
            folder / "train", transforms.Compose([*to_tensor, transforms.Normalize(MEAN, STD)])
        )
        loader = DataLoader(data, 128, shuffle=True, num_workers=2, persistent_workers=True, pin_memory=True)
        model = build_model("seed_cnn", num_classes=CLASSES, image_size=scale.side).cuda()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

        def textbook() -> None:
            for images, labels in loader:
                loss = cross_entropy(model(images.cuda()), labels.cuda(), label_smoothing=0.1)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()

        yield {"textbook_images_per_second": len(data) / _seconds(textbook, repeats=2)}
        base = {"data": f"folder:{folder}", "image_size": scale.side, "epochs": 2}
        levels = {"epsilon": tuple(round(0.1 * number, 1) for number in range(scale.sweep[0]))}
        study = Study(name="bench", question="ε?", base=base, factors=levels, seeds=scale.sweep[1])
        for engine in ENGINES:
            began = time.perf_counter()
            options = Options(device="cuda", results=folder / engine, timing=False, engine=engine)
            with Watcher() as view:
                summary = run_settled(settle(study, options), options, view)
            trained = time.perf_counter() - began
            write_results(summary.folder, folder / "report")
            seconds = {"trained": trained, "to_report": time.perf_counter() - began}
            yield {"engine": engine, "trials": summary.ran, "failed": summary.failed, "seconds": seconds}


def main() -> None:
    """Exits as pytest does: 1 where something could not be measured, 4 without a GPU."""
    arguments = simulation.options(__doc__ or "")
    scale = Scale(images=640, copied=2**20, multiplied=256, files=160, sweep=(2, 1))
    try:
        sys.exit(not bench_cuda(print, arguments.json, scale if arguments.repeats else None))
    except DeviceError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(4)


if __name__ == "__main__":
    main()
