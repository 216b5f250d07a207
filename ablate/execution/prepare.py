"""What trials are made from, settled and checked before training: device, arithmetic, data, network, loss."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ablate.data import Dataset, Progress, bind_data, default_cache_dir, prepare
from ablate.errors import FOREIGN_FAULTS, DeviceError, StudyError, first_line
from ablate.execution.trial import build_network
from ablate.losses import ForeignLoss, build_loss
from ablate.models import bind_network
from ablate.models.weights import head_of
from ablate.plugins import is_foreign
from ablate.study.fields import SLOTS, Fields
from ablate.study.own import Metric, OwnFields
from ablate.study.trials import AnyFields, Numerics, Sources, Trial, build_trial, sources_now
from ablate.train.device import cpu_has_bfloat16
from ablate.train.images import check_augmentation
from ablate.train.optimizer import check_optimizer, check_schedule


class Inputs:
    """Everything that trials need besides their seeds, each thing checked and prepared once."""

    def __init__(
        self, device: str, data_dir: Path | None, preparing: Progress | None, *, threads: int = 1
    ) -> None:
        self.device, self.threads = device, threads
        self._data_dir, self.preparing = data_dir, preparing
        self._datasets: dict[tuple[object, ...], Dataset] = {}
        self._fingerprints: dict[tuple[Path, float], str] = {}
        self._built: set[tuple[object, ...]] = set()
        self.sources: Callable[[AnyFields], Sources] = sources_now

    def check(self, arms: Iterable[AnyFields]) -> None:
        """Find what is wrong with arms before any training, the cheap faults of all of them first."""
        arms = list(arms)
        check_names(arms)
        for fields in arms:
            if fields.data:
                self.dataset(fields)
        for fields in arms:
            self.fingerprint(fields)
            if isinstance(fields, Fields):
                self._check_network(fields)

    def dataset(self, fields: AnyFields) -> Dataset:
        """The data of an arm, decoded."""
        asked: dict[str, Any] = {name: getattr(fields, name) for name in ("resize", "split", "tuning_part")}
        asked |= {"image_size": fields.decoded_size, "arguments": tuple(fields.arguments("data").items())}
        known = fields.data, *asked.values()
        if known not in self._datasets:
            asked |= {"cache_dir": default_cache_dir(), "data_dir": self._data_dir}
            self._datasets[known] = prepare(fields.data, progress=self.preparing, **asked)
        return self._datasets[known]

    def fingerprint(self, fields: AnyFields) -> str:
        """The identity of an arm's data, its wrong labels included; "" where ablate has none of it."""
        if not fields.data:
            return ""
        dataset, noise = self.dataset(fields), fields.label_noise
        if (dataset.folder, noise) not in self._fingerprints:
            self._fingerprints[dataset.folder, noise] = dataset.fingerprint_with(noise)
        return self._fingerprints[dataset.folder, noise]

    def folders(self) -> dict[str, Path]:
        """The folder of decoded data for each fingerprint."""
        return {"": Path()} | {digest: folder for (folder, _), digest in self._fingerprints.items()}

    def numerics(self, fields: AnyFields) -> Numerics:
        """The arithmetic of an arm here."""
        return resolve_numerics(fields, self.device, self.threads)

    def trial(self, levels: Mapping[str, Any], fields: AnyFields, seed: int) -> Trial:
        """One training run of an arm."""
        numerics, fingerprint = self.numerics(fields), self.fingerprint(fields)
        return build_trial(levels, fields, seed, numerics, fingerprint, sources=self.sources(fields))

    def _check_network(self, fields: Fields) -> None:
        """Build each distinct network once, so that a wrong one is found before any training."""
        data = self.dataset(fields)
        images, classes = len(data.train.labels), len(data.classes)
        lone = not fields.drop_last and images % fields.batch_size == 1
        start = fields.weights, fields.freeze, fields.head_lr != 1
        network = (fields.arch, *fields.arguments("arch").items(), fields.image_size, classes, lone, start)
        if network in self._built:
            return
        self._built.add(network)
        model = build_network(fields, classes)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise StudyError(f"freeze: {fields.freeze!r} leaves nothing of {fields.arch} to train")
        if fields.head_lr != 1 and head_of(model) is None:
            raise StudyError(f"head_lr: {fields.arch} has no last linear layer; set it to 1")
        if not lone:
            return
        try:  # batch normalisation cannot train on a batch of one image where its maps are single pixels
            model.train()(torch.zeros(1, 3, fields.image_size, fields.image_size))
        except FOREIGN_FAULTS as error:
            raise StudyError(
                f"batch_size: {images} training images in batches of {fields.batch_size} leave a last batch "
                f"of one image, which {fields.arch} cannot train on ({first_line(error)}); set "
                "drop_last to True, or another batch_size"
            ) from None


def check_names(every: Iterable[AnyFields]) -> None:
    """Find what is wrong with the losses and networks that arms name; it needs no data."""
    arms = [fields for fields in every if isinstance(fields, Fields)]
    for fields in arms:
        with _levels_apart(arms):
            bind_data(fields.data, fields.arguments("data"))
            loss, logits = build_loss(fields.loss, fields.arguments("loss")), torch.zeros(2, 3)
            try:  # it can refuse an ε or a reduction
                loss(logits, torch.tensor([0, 1]), epsilon=fields.epsilon, reduction=fields.reduction)
            except ValueError as error:
                raise StudyError(f"loss {fields.loss!r} refuses an arm of the study: {error}") from None
            if isinstance(loss, ForeignLoss):
                takes = {"epsilon"} if loss.takes_epsilon else set()
                _check_untaken("loss", takes, ("epsilon",), fields, arms)
                if fields.mixup and not loss.per_image:
                    raise StudyError(
                        f"mixup: needs a loss per image, but {fields.loss!r} gives one number for a batch; "
                        "have it return one per image, or set mixup to 0"
                    )
            bind_network(fields.arch, fields.arguments("arch"))  # built when the classes are known
            check_augmentation(fields)
            names = ("weight_decay", "momentum", "beta2", "adam_epsilon")
            _check_untaken("optimizer", check_optimizer(fields), names, fields, arms)
            _check_untaken("schedule", check_schedule(fields), ("anneal_from",), fields, arms)


def check_metrics(metrics: Mapping[str, Metric], classes: int) -> None:
    """Try a study's own metrics on a few made-up predictions of so many classes."""
    random, labels = np.random.default_rng(0), np.arange(4 * classes) % classes
    for name, metric in metrics.items():
        if metric.code:
            metric.score(name, random.normal(size=(len(labels), classes)), labels)


@contextlib.contextmanager
def _levels_apart(arms: Sequence[Fields]) -> Iterator[None]:
    """Say what else to do about an argument of code, as `arch.depth`, that not all arms name."""
    try:
        yield
    except StudyError as error:
        slot = str(error).partition(".")[0]
        names = list(dict.fromkeys(getattr(fields, slot) for fields in arms)) if slot in SLOTS else []
        if len(names) < 2:
            raise
        levels = ", ".join(f"{chr(97 + at)!r}: {{{slot!r}: {name!r}, ...}}" for at, name in enumerate(names))
        raise StudyError(
            f"{error} Where arms differ in {slot}, give each its own arguments by named levels: "
            f"factors={{'variant': {{{levels}}}}}"
        ) from None


def _check_untaken(
    slot: str, takes: Set[str], names: Iterable[str], fields: Fields, arms: Sequence[Fields]
) -> None:
    """Refuse what code from outside would not notice: fields that it does not take."""
    code = getattr(fields, slot)
    for name in {*names} - takes if is_foreign(code) else ():
        values = {getattr(arm, name) for arm in arms if getattr(arm, slot) == code}
        if len(values) > 1 or (name == "weight_decay" and values != {0.0}):
            came = " and ".join(map(str, sorted(values)))
            raise StudyError(
                f"{name}: is {came}, but the {slot} {code!r} takes no {name}; give it such a parameter, or "
                f"{'set it to 0' if len(values) == 1 else 'do not sweep it'}"
            )


def resolve_device(asked: str) -> str:
    """The device kind to train on: cpu or cuda."""
    available = torch.cuda.is_available()
    if asked == "cuda" and not available:
        raise DeviceError(
            "--device cuda: expected a CUDA device, but torch sees none; check the driver and that torch is "
            "a CUDA build (`python -m torch.utils.collect_env`), or leave --device out to train on the CPU"
        )
    return "cuda" if available and asked != "cpu" else "cpu"


def resolve_numerics(fields: AnyFields, device: str, threads: int = 1) -> Numerics:
    """The arithmetic that a trial's fields come to on a device; a CPU is deterministic for its threads."""
    on_cpu = device == "cpu"
    threads = threads if on_cpu else 1
    if isinstance(fields, OwnFields):
        return Numerics(device=device, precision="own", deterministic=False, threads=threads)
    precision = fields.precision
    if precision == "auto":
        fast = cpu_has_bfloat16() if on_cpu else torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bfloat16" if fast else "float32"
    deterministic = fields.deterministic or on_cpu
    return Numerics(device=device, precision=precision, deterministic=deterministic, threads=threads)
