"""One training step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ablate.train.augment import Mixture
from ablate.train.evaluate import autocast
from ablate.train.optimizer import build_optimizer
from ablate.train.schedule import learning_rate
from ablate.train.settings import Loss, Settings


class Step:
    """Forward, loss, backward and update, with epsilon as a tensor so that one compiled step serves all.

    Args:
        model: the network, on the device.
        loss: the training loss.
        settings: how to train.
        device: where the images are.
        steps_per_epoch: steps that an epoch has, which the learning rate's schedule counts by.
    """

    def __init__(
        self, model: nn.Module, loss: Loss, settings: Settings, device: torch.device, steps_per_epoch: int
    ) -> None:
        self.model, self.loss, self.settings, self.device = model, loss, settings, device
        self.epsilon = torch.tensor(settings.epsilon, device=device)
        self.optimizer = build_optimizer(model, settings)
        self.steps = settings.epochs * steps_per_epoch

    def __call__(
        self, images: Tensor, labels: Tensor, place: int = 0, mixture: Mixture | None = None
    ) -> tuple[Tensor, Tensor]:
        """Train on one batch.

        Args:
            images: [B, C, S, S] as the network is to see them.
            labels: [B] class ids.
            place: the step's place in the whole run, 0 the first.
            mixture: how to mix the batch's images, if at all.

        Returns:
            The batch's mean loss and its number of correct images, both [] tensors on the device. A mixed
            image's label is that of its greater part.
        """
        self._set_learning_rate(place)
        with autocast(self.device, self.settings.precision):
            logits = self.model(images if mixture is None else mixture.of_images(images))
        logits = logits.float()
        loss = self._batch_loss(logits, labels, mixture)
        self.optimizer.zero_grad(set_to_none=True)
        (loss / self._match(len(labels))).backward()  # type: ignore[no-untyped-call]
        if self.settings.clip_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self.optimizer.step()
        mean = loss.detach() / len(labels) if self.settings.reduction == "sum" else loss.detach()
        return mean, (logits.detach().argmax(dim=1) == labels).sum()

    def _batch_loss(self, logits: Tensor, labels: Tensor, mixture: Mixture | None) -> Tensor:
        """The batch's loss, []. A mixture needs per-image losses of both labels before they are reduced."""
        reduction = self.settings.reduction
        if mixture is None:
            loss = self.loss(logits, labels, epsilon=self.epsilon, reduction=reduction)
            return loss.mean() if reduction == "none" else loss
        own, partners = (
            self.loss(logits, target, epsilon=self.epsilon, reduction="none")
            for target in (labels, labels[mixture.partner])
        )
        losses = mixture.of_losses(own, partners)
        return losses.sum() if reduction == "sum" else losses.mean()

    def _match(self, batch: int) -> int:
        """What the gradient is divided by: the batch's true size under a summed, matched loss, else 1.

        On the gradient and not on the learning rate, so that weight decay and clipping stay what they are,
        and momentum can carry gradients from batches of different sizes.
        """
        return batch if self.settings.reduction == "sum" and self.settings.lr_rule == "matched" else 1

    def _set_learning_rate(self, place: int) -> None:
        settings = self.settings
        rate = learning_rate(
            settings.schedule, settings.lr, step=place, steps=self.steps, anneal_from=settings.anneal_from
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
