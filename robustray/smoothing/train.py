"""Training a mixing network: epochs of steps over clean and freshly attacked images.

A round's attacked images are made against the mixture as it is then, or as it was a few rounds
before. Bai, Anderson, Kim and Sojoudi, "Improving the accuracy-robustness trade-off of classifiers
via adaptive smoothing" (2024), section 4.2.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from robustray.data.augmentation import EpochPlan
from robustray.random import derive_seed, generator
from robustray.smoothing.manifest import MixingSettings, TrainingAttack
from robustray.smoothing.training_data import (
    AttackedImages,
    attack_for_training,
    composite_loss,
    learning_rate,
)
from robustray.training.moments import optimizer_state, restore_optimizer_state
from robustray.training.state import TrainingState


class Buffer(NamedTuple):
    """Images of a round, their labels, and 1 where they are attacked."""

    x: Tensor
    y: Tensor
    attacked: Tensor


class AttackTask(NamedTuple):
    """Images to attack: (B, C, H, W), labels and indices (B,), and what randomness belongs to."""

    x: Tensor
    y_B: Tensor
    index_B: Tensor
    seed: int
    epoch: int
    batch: int

    def to(self, device: torch.device | str) -> AttackTask:
        """Return the task with its tensors on a device."""
        tensors = [one.to(device) for one in (self.x, self.y_B, self.index_B)]
        return AttackTask(tensors[0], tensors[1], tensors[2], self.seed, self.epoch, self.batch)


def run_task(mixture: nn.Module, task: AttackTask, attack: TrainingAttack) -> AttackedImages:
    """Attack a task's images against a mixture, which is set to evaluation mode."""
    mixture.eval()
    return attack_for_training(
        _ask(mixture),
        task.x,
        task.y_B,
        task.index_B,
        attack,
        seed=task.seed,
        epoch=task.epoch,
        batch=task.batch,
    )


# Begins a task against a training's mixture as it is now; what it returns waits for the images.
Attacker = Callable[["MixingTraining", AttackTask], Callable[[], AttackedImages]]


def attack_here(training: MixingTraining, task: AttackTask) -> Callable[[], AttackedImages]:
    """Attack in this process, at once."""
    made = run_task(training.mixture, task, training.settings.attack)
    return lambda: made


class _Asked(NamedTuple):
    """A round's clean images, and what waits for the parts of its attacked ones."""

    x: Tensor
    y: Tensor
    parts: list[Callable[[], AttackedImages]]

    def wait(self) -> AttackedImages:
        """Return the attacked images, attack by attack in the order of the clean ones."""
        made = [part() for part in self.parts]
        attacks = sum(len(part.x) for part in made) // len(self.x)

        def joined(tensors: list[Tensor]) -> Tensor:
            parts = [one.reshape(attacks, -1, *one.shape[1:]) for one in tensors]
            return torch.cat(parts, 1).flatten(0, 1)

        return AttackedImages(joined([m.x for m in made]), joined([m.fooled for m in made]))


Segment = tuple[int, range]  # an epoch, from 0, and some of its rounds


def lay_out_segments(settings: MixingSettings, images: int) -> tuple[Segment, ...]:
    """Return what a training's states lie between: up to ``segment`` rounds of an epoch each."""
    rounds, size = images // settings.batch_size, settings.segment
    return tuple(
        (epoch, range(start, min(start + size, rounds)))
        for epoch in range(settings.epochs)
        for start in range(0, rounds, size)
    )


class MixingTraining:
    """A mixing network in training; `robustray.training.loop.run_epochs` trains it in segments.

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
    attacker : callable
        Who makes attacked images: this process, or as many as there are. They are the same.

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
        attacker: Attacker = attack_here,
    ) -> None:
        self.mixture, self.x, self.y = mixture, x_NCHW, y_N
        self.settings, self.seed, self.attacker = settings, seed, attacker
        self.parameters = [
            (name, one) for name, one in mixture.named_parameters() if one.requires_grad
        ]
        if not self.parameters:
            raise ValueError("the mixture has no trainable parameters")
        self.rounds = len(x_NCHW) // settings.batch_size
        if self.rounds < 1:
            raise ValueError(f"{len(x_NCHW)} images are fewer than a batch")
        mixture.eval()
        with torch.no_grad():
            classes = _ask(mixture)(x_NCHW[:1])[0].shape[1]
        self.attacks = 1 + min(settings.attack.n_targets, classes - 1)
        if 2 * self.attacks % settings.accumulation:
            raise ValueError(f"accumulation divides {2 * self.attacks}, twice the attacks")
        self.groups = 2 * self.attacks // settings.accumulation
        self.total_steps = settings.epochs * self.rounds * self.groups
        self.segments = lay_out_segments(settings, len(x_NCHW))
        self.optimizer = torch.optim.AdamW(
            [one for _, one in self.parameters],
            lr=settings.lr,
            weight_decay=settings.weight_decay,
        )

    def begin(self, done: int, state: TrainingState | None) -> None:
        """Start after some segments; see `robustray.training.state`."""
        if state is not None:
            self.restore(state)

    def train(self, number: int) -> dict[str, float]:
        """Train for one segment, counted from 1 over all epochs.

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
        epoch, rounds = self.segments[number - 1]
        return self._means(self._run_segment(epoch, rounds), len(rounds))

    def _run_segment(self, epoch: int, rounds: range) -> dict[str, float]:
        plan = EpochPlan.draw(
            len(self.x), self.settings.augmentation, seed=self.seed, epoch=epoch
        ).to(self.x.device)
        sums: dict[str, float] = {}
        coming: deque[_Asked] = deque()
        todo = iter(rounds)
        for number in rounds:
            wanted = min(self.settings.ahead, rounds[-1] - number) + 1
            while len(coming) < wanted:
                coming.append(self._ask_for(plan, epoch, next(todo)))
            asked = coming.popleft()
            attacked = asked.wait()
            _add(sums, {"fooled": float(attacked.fooled.sum())})
            self._train_on(self._gather(asked, attacked, epoch, number), epoch, number, sums)
        return sums

    def _means(self, sums: Mapping[str, float], rounds: int) -> dict[str, float]:
        images = rounds * self.settings.batch_size * self.attacks
        means = {
            "loss": sums["loss"] / (2 * images),
            "gamma_clean": sums["gamma_clean"] / images,
            "gamma_attacked": sums["gamma_attacked"] / images,
            "gamma_accuracy": sums["right"] / (2 * images),
            "fooled": sums["fooled"] / images,
        }
        return means | {"lr": float(self.optimizer.param_groups[0]["lr"])}

    def state(self) -> TrainingState:
        """Return what `restore` needs, on the CPU: the mixture's tensors but frozen parameters."""
        kept = {name: tensor.detach().cpu().clone() for name, tensor in self._changing().items()}
        moments = optimizer_state(self.parameters, self.optimizer)
        return TrainingState({"mixing": kept, "optimizer": moments}, {})

    def restore(self, state: TrainingState) -> None:
        """Go back to a state.

        Raises
        ------
        ValueError
            If it is of another mixing network.
        """
        changing, kept = self._changing(), state.files["mixing"]
        if set(changing) != set(kept):
            raise ValueError("the state is of another mixing network")
        with torch.no_grad():
            for name, tensor in kept.items():
                changing[name].copy_(tensor)
        restore_optimizer_state(self.parameters, self.optimizer, state.files["optimizer"])

    def _changing(self) -> dict[str, Tensor]:
        return dict(self.parameters) | dict(self.mixture.named_buffers())

    def _ask_for(self, plan: EpochPlan, epoch: int, number: int) -> _Asked:
        """Have a round's images attacked, against the mixture as it is now."""
        size = self.settings.batch_size
        rows = slice(number * size, (number + 1) * size)
        index_B = plan.order_N[rows]
        x, y_B = plan.augment(self.x[index_B], rows, self.settings.augmentation), self.y[index_B]
        tasks = [
            AttackTask(x[part], y_B[part], index_B[part], self.seed, epoch, number)
            for part in torch.arange(size, device=x.device).split(self.settings.attack.chunk)
        ]
        return _Asked(x, y_B, [self.attacker(self, task) for task in tasks])

    def _gather(self, asked: _Asked, attacked: AttackedImages, epoch: int, number: int) -> Buffer:
        extra_x, extra_y = self._other_images((self.attacks - 1) * len(asked.x), epoch, number)
        images = torch.cat([asked.x, extra_x, attacked.x])
        labels = torch.cat([asked.y, extra_y, asked.y.repeat(self.attacks)])
        is_attacked = torch.zeros(len(images), device=images.device)
        is_attacked[-len(attacked.x) :] = 1
        return Buffer(images, labels, is_attacked)

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
