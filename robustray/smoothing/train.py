"""Training a mixing network: epochs of steps over clean and freshly attacked images.

Each step's attacked images are made against the mixture as it is then, so no images are stale. Bai,
Anderson, Kim and Sojoudi, "Improving the accuracy-robustness trade-off of classifiers via adaptive
smoothing" (2024), section 4.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from robustray.data.augmentation import EpochPlan
from robustray.manifest import Augmentation
from robustray.random import derive_seed, generator
from robustray.smoothing.losses import composite_loss, learning_rate
from robustray.smoothing.training_data import TrainingAttack, attack_for_training
from robustray.training.optimizer_state import optimizer_state, restore_optimizer_state


@dataclass(frozen=True)
class MixingSettings:
    """How a mixing network is trained; the defaults are the published ones for CIFAR-10.

    Attributes
    ----------
    epochs, batch_size : int
        ``batch_size`` clean images are attacked in each round; with A attacks on each, the round
        trains on them, on (A - 1) times as many other clean images, and on the attacked ones.
    accumulation : int
        Minibatches per optimiser step; a round has 2 A of them. It divides 2 A.
    lr, weight_decay : float
        Of AdamW.
    bce, ce, product : float
        Weights of the loss; see `composite_loss`.
    clean_scale, attacked_scale : float
        What an image's loss is multiplied by.
    clip : float
        Largest norm of a step's gradient.
    attack : TrainingAttack
        How images are attacked.
    augmentation : Augmentation
        Of the clean images.

    Raises
    ------
    ValueError
        For a value out of range.
    """

    epochs: int = 3
    batch_size: int = 200
    accumulation: int = 4
    lr: float = 5e-5
    weight_decay: float = 1e-5
    bce: float = 1.5
    ce: float = 0.0
    product: float = 0.3
    clean_scale: float = 1.0
    attacked_scale: float = 1.0
    clip: float = 10.0
    attack: TrainingAttack = field(default_factory=TrainingAttack)
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size, self.accumulation) < 1:
            raise ValueError("epochs, batch_size and accumulation are at least 1")
        if not (self.lr > 0 and self.clip > 0):
            raise ValueError("lr and clip are above 0")
        if self.augmentation.cutout or self.augmentation.mixes:
            raise ValueError("mixing networks train without cutout and cutmix")
        least = min(self.weight_decay, self.bce, self.ce, self.product)
        if min(least, self.clean_scale, self.attacked_scale) < 0:
            raise ValueError("weight_decay, the loss's weights and the scales are at least 0")


class Buffer(NamedTuple):
    """Images of a round, their labels, and 1 where they are attacked."""

    x: Tensor
    y: Tensor
    attacked: Tensor


class MixingTraining:
    """A mixing network in training.

    Parameters
    ----------
    mixture : Module
        On the device of the images. ``forward_with_gamma`` gives log-probabilities (B, K) and gamma
        (B,), and alpha is gamma's sigmoid, its range not compressed. Only the mixing network's
        parameters have gradients; ``train`` and ``eval`` leave the bases in evaluation mode.
    x_NCHW, y_N : Tensor
        Training images in [0, 1], labels int64.
    settings : MixingSettings
        How.
    seed : int
        What all that is random belongs to.

    Raises
    ------
    ValueError
        If nothing is trainable, the images are fewer than a batch, or a round's minibatches can't
        be gathered in equal groups.
    """

    def __init__(
        self,
        mixture: nn.Module,
        x_NCHW: Tensor,
        y_N: Tensor,
        settings: MixingSettings,
        *,
        seed: int,
    ) -> None:
        self.mixture, self.x, self.y = mixture, x_NCHW, y_N
        self.settings, self.seed = settings, seed
        self.parameters = [
            (name, one) for name, one in mixture.named_parameters() if one.requires_grad
        ]
        if not self.parameters:
            raise ValueError("the mixture has no trainable parameters")
        self.rounds = len(x_NCHW) // settings.batch_size
        if self.rounds < 1:
            raise ValueError(f"{len(x_NCHW)} images are fewer than a batch")
        with torch.no_grad():
            classes = self._answer(x_NCHW[:1])[0].shape[1]
        self.attacks = 1 + min(settings.attack.n_targets, classes - 1)
        if 2 * self.attacks % settings.accumulation:
            raise ValueError(f"accumulation divides {2 * self.attacks}, twice the attacks")
        self.groups = 2 * self.attacks // settings.accumulation
        self.total_steps = settings.epochs * self.rounds * self.groups
        self.optimizer = torch.optim.AdamW(
            [one for _, one in self.parameters],
            lr=settings.lr,
            weight_decay=settings.weight_decay,
        )

    def run_epoch(self, epoch: int) -> dict[str, float]:
        """Train for one epoch, counted from 0, and return its means.

        Returns
        -------
        dict of str to float
            ``loss``; ``gamma_clean``, ``gamma_attacked``; ``gamma_accuracy``, the share of images
            whose gamma is above 0 if and only if they are attacked; ``fooled``, the share of
            attacks that fooled the mixture; ``lr``, of the last step.

        Raises
        ------
        FloatingPointError
            When the loss is not finite.
        """
        plan = EpochPlan.draw(
            len(self.x), self.settings.augmentation, seed=self.seed, epoch=epoch
        ).to(self.x.device)
        sums: dict[str, float] = {}
        for number in range(self.rounds):
            buffer, fooled = self._gather(plan, epoch, number)
            _add(sums, {"fooled": fooled})
            self._train_on(buffer, epoch, number, sums)
        images = self.rounds * self.settings.batch_size * self.attacks
        means = {
            "loss": sums["loss"] / (2 * images),
            "gamma_clean": sums["gamma_clean"] / images,
            "gamma_attacked": sums["gamma_attacked"] / images,
            "gamma_accuracy": sums["right"] / (2 * images),
            "fooled": sums["fooled"] / images,
        }
        return means | {"lr": float(self.optimizer.param_groups[0]["lr"])}

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Return what `restore` needs, on the CPU: the mixture's tensors but frozen parameters."""
        kept = {name: tensor.detach().cpu().clone() for name, tensor in self._changing().items()}
        return {"mixing": kept, "optimizer": optimizer_state(self.parameters, self.optimizer)}

    def restore(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Go back to a state.

        Raises
        ------
        ValueError
            If it is of another mixing network.
        """
        changing = self._changing()
        if set(changing) != set(state["mixing"]):
            raise ValueError("the state is of another mixing network")
        with torch.no_grad():
            for name, tensor in state["mixing"].items():
                changing[name].copy_(tensor)
        restore_optimizer_state(self.parameters, self.optimizer, state["optimizer"])

    def _changing(self) -> dict[str, Tensor]:
        return dict(self.parameters) | dict(self.mixture.named_buffers())

    def _answer(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Ask in evaluation mode."""
        self.mixture.eval()
        return _ask(self.mixture)(x)

    def _gather(self, plan: EpochPlan, epoch: int, number: int) -> tuple[Buffer, float]:
        size = self.settings.batch_size
        rows = slice(number * size, (number + 1) * size)
        index_B = plan.order_N[rows]
        x = plan.augment(self.x[index_B], rows, self.settings.augmentation)
        y_B = self.y[index_B]
        attacked = attack_for_training(
            self._answer,
            x,
            y_B,
            index_B,
            self.settings.attack,
            seed=self.seed,
            epoch=epoch,
            batch=number,
        )
        extra_x, extra_y = self._other_images((self.attacks - 1) * size, epoch, number)
        images = torch.cat([x, extra_x, attacked.x])
        labels = torch.cat([y_B, extra_y, y_B.repeat(self.attacks)])
        is_attacked = torch.zeros(len(images), device=x.device)
        is_attacked[-len(attacked.x) :] = 1
        return Buffer(images, labels, is_attacked), float(attacked.fooled.sum())

    def _other_images(self, count: int, epoch: int, number: int) -> tuple[Tensor, Tensor]:
        """Draw clean images from the whole set, in passes without repetition."""
        passes = -(-count // len(self.x))
        plans = [
            EpochPlan.draw(
                len(self.x),
                self.settings.augmentation,
                seed=derive_seed("mixing-others", self.seed, number, one),
                epoch=epoch,
            )
            for one in range(passes)
        ]
        images, labels = [self.x[:0]], [self.y[:0]]
        for one in plans:
            rows = slice(0, min(count, len(self.x)))
            count -= rows.stop
            plan = one.to(self.x.device)
            index = plan.order_N[rows]
            images.append(plan.augment(self.x[index], rows, self.settings.augmentation))
            labels.append(self.y[index])
        return torch.cat(images), torch.cat(labels)

    def _train_on(self, buffer: Buffer, epoch: int, number: int, sums: dict[str, float]) -> None:
        chance = generator("mixing-order", self.seed, epoch, number)
        order = torch.randperm(len(buffer.x), generator=chance).to(self.x.device)
        self.mixture.train()
        step = (epoch * self.rounds + number) * self.groups
        for group in order.chunk(self.groups):
            for options in self.optimizer.param_groups:
                options["lr"] = learning_rate(step, self.total_steps, self.settings.lr)
            self.optimizer.zero_grad()
            for part in group.chunk(self.settings.accumulation):
                _add(sums, self._backward(Buffer(*(one[part] for one in buffer)), len(group)))
            nn.utils.clip_grad_norm_([one for _, one in self.parameters], self.settings.clip)
            self.optimizer.step()
            step += 1

    def _backward(self, part: Buffer, group_size: int) -> dict[str, float]:
        settings = self.settings
        logits_BK, gamma_B = _ask(self.mixture)(part.x)
        loss_B = composite_loss(
            logits_BK,
            gamma_B,
            part.y,
            part.attacked,
            bce=settings.bce,
            ce=settings.ce,
            product=settings.product,
        )
        scale_B = torch.where(part.attacked > 0, settings.attacked_scale, settings.clean_scale)
        loss = (scale_B * loss_B).sum()
        if not bool(loss.isfinite()):
            raise FloatingPointError("the mixing network's loss is not finite")
        (loss / group_size).backward()
        gamma_B = gamma_B.detach()
        return {
            "loss": float(loss.detach()),
            "gamma_clean": float((gamma_B * (1 - part.attacked)).sum()),
            "gamma_attacked": float((gamma_B * part.attacked).sum()),
            "right": float(((gamma_B > 0) == (part.attacked > 0)).sum()),
        }


def _ask(mixture: nn.Module) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    return cast(Any, mixture).forward_with_gamma


def _add(sums: dict[str, float], more: Mapping[str, float]) -> None:
    for name, value in more.items():
        sums[name] = sums.get(name, 0.0) + value
