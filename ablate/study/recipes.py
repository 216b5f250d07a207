"""Recipes: named, complete, frozen sets of training fields."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Frozen(BaseModel):
    """Values that do not change once they are validated, with no others among them."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Recipe(Frozen, strict=True, allow_inf_nan=False):
    """How a network is trained, in full: optimiser, schedule, augmentation and batches.

    A field that came later has a default, which is what training did before it: a record written then still
    says what was done, and its trial keeps its identity.
    """

    epochs: int = Field(ge=1, le=100_000, description="passes over the training images")
    batch_size: int = Field(ge=1, le=65_536, description="training images per step")
    eval_batch_size: int = Field(ge=1, le=65_536, description="images per evaluation batch")
    drop_last: bool = Field(description="drop the last, smaller training batch of an epoch")
    optimizer: Literal["sgd", "adamw", "ranger"] = Field(
        description="sgd; adamw; ranger: rectified Adam with a look-ahead of six steps"
    )
    lr: float = Field(gt=0, description="learning rate; with a schedule, its highest")
    momentum: float = Field(ge=0, lt=1, description="momentum of sgd, beta1 of adamw and ranger; 0 is none")
    beta2: float = Field(default=0.999, ge=0, lt=1, description="decay of squared gradients; not for sgd")
    adam_epsilon: float = Field(
        default=1e-8, gt=0, description="added to the root of squared gradients; not for sgd"
    )
    weight_decay: float = Field(
        ge=0, description="sgd: L2 penalty added to the gradient; adamw, ranger: decoupled; 0 is none"
    )
    decay_norms: bool = Field(
        default=True, description="weight decay acts on biases and normalisation layers too"
    )
    clip_norm: float = Field(default=0.0, ge=0, description="largest norm of the gradient; 0 does not clip")
    schedule: Literal["constant", "one_cycle", "flat_cosine"] = Field(
        description="constant; one_cycle: a rise from lr/25 and a fall; flat_cosine: flat, then a fall; both "
        "are cosines and end at lr/100000"
    )
    anneal_from: float = Field(
        default=0.0, ge=0, lt=1, description="part of the steps after which the schedule falls"
    )
    crop_area: float = Field(
        default=1.0, gt=0, le=1, description="smallest part of an image that a random crop keeps; 1: no crop"
    )
    flip: bool = Field(default=False, description="mirror every other training image, at random")
    mixup: float = Field(
        default=0.0,
        ge=0,
        description="alpha of the Beta distribution that mixes pairs of images; 0: no mixup",
    )


# Fields that are not named have their defaults.
RECIPES: dict[str, Recipe] = {
    # The course notebook that the suite reproduces: plain SGD at a constant rate, ragged last batch kept.
    "source": Recipe(
        epochs=11, batch_size=128, eval_batch_size=256, drop_last=False,
        optimizer="sgd", lr=0.4, momentum=0.0, weight_decay=0.0, schedule="constant",
    ),
    # What most would train a small residual network with today.
    "modern": Recipe(
        epochs=20, batch_size=64, eval_batch_size=256, drop_last=True,
        optimizer="adamw", lr=0.004, momentum=0.9, beta2=0.99, weight_decay=0.05, decay_norms=False,
        schedule="one_cycle", anneal_from=0.25, crop_area=0.35, flip=True,
    ),
    # The public Imagenette board's entries at 128 px with xse_resnext50 and ε = 0.1, 87.43 % (5 epochs) and
    # 91.57 % (20 epochs), mean of 5 runs each: https://github.com/fastai/imagenette. Theirs decode the 320 px
    # files; the 5-epoch one crops to the centre square (resize="center_crop").
    **{
        f"board_{epochs}": Recipe(
            epochs=epochs, batch_size=batch_size, eval_batch_size=128, drop_last=True,
            optimizer="ranger", lr=0.008, momentum=0.95, beta2=0.99, adam_epsilon=1e-6, weight_decay=0.01,
            decay_norms=False, schedule="flat_cosine", anneal_from=0.75, crop_area=crop_area, flip=True,
        )
        for epochs, batch_size, crop_area in ((5, 32, 1.0), (20, 64, 0.35))
    },
}  # fmt: skip
