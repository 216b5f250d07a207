"""A network's logits on a split, and what one evaluation keeps of them."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from ablate.study.fields import Fields
from ablate.train.augment import shrink
from ablate.train.images import Images

CONFIDENCE_BINS = 15


class Loss(Protocol):
    """The loss as training calls it; the losses' registry states the full contract."""

    def __call__(self, logits: Tensor, target: Tensor, /, *, epsilon: Tensor, reduction: str) -> Tensor:
        """Values of shape [] for "mean" and "sum", [batch] for "none"."""
        ...


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The forward pass's arithmetic. Nothing is cached: a captured step would keep a cast of old weights."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=False)


def predict(model: nn.Module, images: Images, fields: Fields, index: Tensor | None = None) -> Tensor:
    """Logits [N, K] float32 of a split, or of its images of index [N]; leaves the network evaluating."""
    model.eval()
    size = fields.eval_batch_size
    whole = [slice(start, start + size) for start in range(0, len(images), size)]
    parts = whole if index is None else torch.split(index, size)
    with torch.inference_mode():
        return torch.cat([predict_batch(model, images, fields, part) for part in parts])


def predict_batch(model: nn.Module, images: Images, fields: Fields, index: Tensor | slice) -> Tensor:
    """Logits [B, K] float32 of one batch."""
    with autocast(images.labels.device, fields.precision):
        logits: Tensor = model(shrink(images.batch(index)[0], fields.image_size))
    return logits.float()


def evaluate(logits: Tensor, labels: Tensor, loss: Loss, epsilon: float) -> dict[str, Any]:
    """What an evaluation of logits [N, K] measures, named as in `Epoch`; of ties the first class counts."""
    smoothing = torch.tensor(epsilon, device=logits.device)
    confidence, predicted = logits.double().softmax(dim=1).max(dim=1)
    correct = predicted == labels
    edges = torch.linspace(0, 1, CONFIDENCE_BINS + 1, dtype=torch.float64, device=logits.device)
    bins = torch.bucketize(confidence, edges[1:-1], right=True)
    sums = torch.zeros(3, CONFIDENCE_BINS, dtype=torch.float64, device=logits.device)
    values = torch.stack([torch.ones_like(confidence), confidence, correct.double()])
    sums.index_add_(1, bins, values)
    count, confidence_sum, correct_sum = sums.tolist()
    return {
        "valid_loss": float(loss(logits, labels, epsilon=smoothing, reduction="none").double().mean()),
        "valid_nll": float(functional.cross_entropy(logits.double(), labels)),
        "valid_accuracy": float(correct.double().mean()),
        "bin_count": tuple(map(int, count)),
        "bin_confidence": tuple(confidence_sum),
        "bin_correct": tuple(map(int, correct_sum)),
    }
