"""One training step, and all that it needs: network, loss, optimiser, images; and prediction."""

import copy

import torch
from torch import Tensor, nn

from ablate.losses import Loss
from ablate.study.fields import Fields
from ablate.train.device import seed_generators
from ablate.train.images import Augmentation, Images, batches, epoch_order, epoch_seed, shrink
from ablate.train.optimizer import Ranger, build_optimizer, build_schedule, set_rate


class Step:
    """Gather, augment, forward, loss, backward and update, on the images' device.

    What differs between steps, or runs of one kind, is in tensors that are filled and never replaced, for a
    captured step. The fields are a trial's, with precision and deterministic resolved.
    """

    engine = "eager"
    """Or "graph" where the step is captured, or "eager: " and why it could not be."""

    def __init__(self, model: nn.Module, loss: Loss, images: Images, fields: Fields, seed: int) -> None:
        self.model, self.loss, self.images = model, loss, images
        self.fields, self.seed = fields, seed
        self.device = images.labels.device
        self.epsilon = torch.tensor(fields.epsilon, device=self.device)
        self.augmentation = Augmentation(fields, seed, len(images), 0, self.device)
        self.optimizer, self.schedule = build_optimizer(model, fields), build_schedule(fields)
        self.evaluated = copy.deepcopy(model).eval() if fields.ema else model
        """What predicts: the network with the average of its steps' weights, or as it is."""
        parts = batches(torch.arange(len(images)), fields.batch_size, drop_last=fields.drop_last)
        self.sizes = [len(part) for part in parts]

    def begin_epoch(self, epoch: int) -> list[Tensor]:
        """Seed and draw what is random in an epoch, and give the indices of its batches."""
        self.model.train()
        seed_generators(epoch_seed(self.seed, "noise", epoch))
        self.augmentation.draw(epoch)
        order = epoch_order(len(self.images), self.seed, epoch).to(self.device)
        return batches(order, self.fields.batch_size, drop_last=self.fields.drop_last)

    def __call__(self, index: Tensor, number: int = 0) -> tuple[Tensor, Tensor]:
        """Train on the images of index [B], at the learning rate of the step of this number in the run.

        Gives the batch's mean loss and number of correct images (a mixed one has its greater part's label),
        both [] tensors on the device, to be read before the next step.
        """
        progress = number / max(self.fields.epochs * len(self.sizes) - 1, 1)
        set_rate(self.optimizer, self.fields.lr * self.schedule(progress))
        measured = self.compute(index)
        if isinstance(self.optimizer, Ranger):
            self.optimizer.look_ahead(number + 1)
        if self.evaluated is not self.model:
            # The newest weights' share, of all that the decay has left of the steps: so they sum to one, and
            # the first weights have no part, however few the steps.
            share = (1 - self.fields.ema) / (1 - self.fields.ema ** (number + 1))
            with torch.no_grad():
                torch._foreach_lerp_([*self.evaluated.parameters()], [*self.model.parameters()], share)
                for mine, last in zip(self.evaluated.buffers(), self.model.buffers(), strict=True):
                    mine.copy_(last)
        return measured

    def compute(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The step's work on the device; nothing of the host's decides it."""
        pixels, labels = self.augmentation.batch(self.images, index), self.images.labels[index]
        mixture = self.augmentation.mixture(index)
        if mixture:
            weight, partner = mixture
            pixels = torch.lerp(pixels[partner], pixels, weight.view(-1, 1, 1, 1))
        with autocast(self.device, self.fields.precision):
            logits = self.model(pixels)
        logits = logits.float()
        loss = self._batch_loss(logits, labels, mixture)
        self.optimizer.zero_grad(set_to_none=True)
        # Not the learning rate: weight decay and clipping stay what they are, and momentum carries on.
        is_matched = self.fields.reduction == "sum" and self.fields.lr_rule == "matched"
        (loss / (len(labels) if is_matched else 1)).backward()  # type: ignore[no-untyped-call]
        if self.fields.clip_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.fields.clip_norm)
        self.optimizer.step()
        mean = loss.detach() / len(labels) if self.fields.reduction == "sum" else loss.detach()
        return mean, (logits.detach().argmax(dim=1) == labels).sum()

    def predict(self, images: Images) -> Tensor:
        """Logits [N, K] float32 of a split; the network is left in evaluation mode."""
        return predict(self.evaluated, images, self.fields)

    def _batch_loss(self, logits: Tensor, labels: Tensor, mixture: tuple[Tensor, Tensor] | None) -> Tensor:
        """The batch's loss, []. A mixture needs per-image losses of both labels before they are reduced."""
        reduction = self.fields.reduction
        if mixture is None:
            loss = self.loss(logits, labels, epsilon=self.epsilon, reduction=reduction)
            return loss.mean() if reduction == "none" else loss
        weight, partner = mixture
        losses, partner_losses = (
            self.loss(logits, target, epsilon=self.epsilon, reduction="none")
            for target in (labels, labels[partner])
        )
        mixed = torch.lerp(partner_losses, losses, weight)
        return mixed.sum() if reduction == "sum" else mixed.mean()


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
