"""What a training run is told: plain values, already resolved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor


class Loss(Protocol):
    """The loss as training calls it; the losses' registry states the full contract."""

    def __call__(self, logits: Tensor, target: Tensor, /, *, epsilon: Tensor, reduction: str) -> Tensor:
        """Values of shape [] for "mean" and "sum", [batch] for "none"."""
        ...


@dataclass(frozen=True)
class Settings:
    """How to train one network.

    What has a default does nothing at it.

    Attributes:
        epochs: passes over the training images, at least 1.
        batch_size: images per training step.
        eval_batch_size: images per evaluation batch.
        drop_last: leave out an epoch's last batch when it is smaller than the others.
        lr: highest learning rate.
        momentum: momentum of SGD, beta1 of the others; 0 is none.
        weight_decay: L2 coefficient of SGD, decoupled decay of the others; 0 is none.
        epsilon: label smoothing handed to the loss, 0 to 1.
        reduction: how the loss reduces a batch; with "none" the loop averages the per-image values.
        lr_rule: "matched" divides the gradient of a summed loss by the batch's true size; "fixed" does not.
        precision: arithmetic of the network's forward pass.
        deterministic: allow deterministic algorithms only.
        order_seed: seed of the order of training images.
        noise_seed: seed of anything random inside the network, such as dropout.
        image_size: pixels a side that the network sees; 0 is what the images have.
        optimizer: "sgd", "adamw" or "ranger".
        beta2: decay of squared gradients; SGD has none.
        adam_epsilon: added to the root of the squared gradients; SGD has none.
        decay_norms: whether weight decay acts on biases and normalisation layers too.
        clip_norm: largest norm of the gradient; 0 does not clip.
        schedule: "constant", "one_cycle" or "flat_cosine".
        anneal_from: part of the run, in [0, 1), after which the schedule falls.
        crop_area: smallest part of an image that a random resized crop keeps; 1 is no crop.
        flip: mirror every other training image, at random.
        mixup: alpha of the Beta distribution that mixes pairs of images; 0 is no mixup.
        augment_seed: seed of crops, mirrors and mixtures.
    """

    epochs: int
    batch_size: int
    eval_batch_size: int
    drop_last: bool
    lr: float
    momentum: float
    weight_decay: float
    epsilon: float
    reduction: Literal["mean", "sum", "none"]
    lr_rule: Literal["fixed", "matched"]
    precision: Literal["float32", "bfloat16"]
    deterministic: bool
    order_seed: int
    noise_seed: int
    image_size: int = 0
    optimizer: Literal["sgd", "adamw", "ranger"] = "sgd"
    beta2: float = 0.999
    adam_epsilon: float = 1e-8
    decay_norms: bool = True
    clip_norm: float = 0.0
    schedule: Literal["constant", "one_cycle", "flat_cosine"] = "constant"
    anneal_from: float = 0.0
    crop_area: float = 1.0
    flip: bool = False
    mixup: float = 0.0
    augment_seed: int = 0
