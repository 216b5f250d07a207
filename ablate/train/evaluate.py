"""A network's logits on a split, and what one evaluation keeps of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ablate.train.augment import shrink
from ablate.train.images import Images
from ablate.train.settings import Loss, Settings

CONFIDENCE_BINS = 15


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of the reported split.

    Attributes:
        logits: [N, K] float32 on the device.
        loss: mean loss with the training loss.
        nll: mean unsmoothed negative log-likelihood, nats.
        accuracy: fraction of images whose largest logit is their class's.
        bin_count: [15] images per confidence bin, equal widths over [0, 1], the last one closed.
        bin_confidence: [15] sum of confidence per bin.
        bin_correct: [15] correct images per bin.
    """

    logits: Tensor
    loss: float
    nll: float
    accuracy: float
    bin_count: tuple[int, ...]
    bin_confidence: tuple[float, ...]
    bin_correct: tuple[int, ...]


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The forward pass's arithmetic. Nothing is cached: a captured step would keep a cast of old weights."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=False)


def predict(model: nn.Module, images: Images, settings: Settings, index: Tensor | None = None) -> Tensor:
    """Logits [N, K] float32 of a split, in its order; the network is left in evaluation mode.

    Args:
        model: the network, on the images' device.
        images: the split.
        settings: how large the batches and the images are, and in what arithmetic.
        index: [N] int64 places of the images that are wanted, in their order; None is the whole split.
    """
    model.eval()
    size = settings.eval_batch_size
    whole = [slice(start, start + size) for start in range(0, len(images), size)]
    places = whole if index is None else torch.split(index, size)
    with torch.inference_mode():
        return torch.cat([predict_batch(model, images, settings, place) for place in places])


def predict_batch(model: nn.Module, images: Images, settings: Settings, index: Tensor | slice) -> Tensor:
    """Logits [B, K] float32 of one batch."""
    with autocast(images.labels.device, settings.precision):
        logits: Tensor = model(shrink(images.batch(index)[0], settings.image_size or images.side))
    return logits.float()


def evaluate(logits: Tensor, labels: Tensor, loss: Loss, epsilon: float) -> Evaluation:
    """Measure a split's logits [N, K] by its labels [N]. Ties of the largest go to the lowest class.

    Args:
        logits: [N, K] float32.
        labels: [N] int64, on the same device.
        loss: the training loss.
        epsilon: its label smoothing.
    """
    smoothing = torch.tensor(epsilon, device=logits.device)
    confidence, predicted = logits.double().softmax(dim=1).max(dim=1)
    correct = predicted == labels
    edges = torch.linspace(0, 1, CONFIDENCE_BINS + 1, dtype=torch.float64, device=logits.device)
    bins = torch.bucketize(confidence, edges[1:-1], right=True)
    sums = torch.zeros(3, CONFIDENCE_BINS, dtype=torch.float64, device=logits.device)
    values = torch.stack([torch.ones_like(confidence), confidence, correct.double()])
    sums.index_add_(1, bins, values)
    count, confidence_sum, correct_sum = sums.tolist()
    return Evaluation(
        logits=logits,
        loss=float(loss(logits, labels, epsilon=smoothing, reduction="none").double().mean()),
        nll=float(functional.cross_entropy(logits.double(), labels)),
        accuracy=float(correct.double().mean()),
        bin_count=tuple(map(int, count)),
        bin_confidence=tuple(confidence_sum),
        bin_correct=tuple(map(int, correct_sum)),
    )
