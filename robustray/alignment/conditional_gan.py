"""Training of a class-conditional generator with multi-hinge losses.

Randomness is keyed by seed, purpose and the number of the critic's step, so a training that goes
on from a commit is the one that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from robustray.alignment.direct_generator import EAGER
from robustray.alignment.manifest import ConditionalGeneratorTraining
from robustray.cuda_graphs import CudaGraphs, Function, Tensors, make_graphable_adam
from robustray.errors import DataError
from robustray.models.architectures.conditional_networks import (
    IMAGE_SIZE,
    ConditionalCritic,
    ConditionalGenerator,
)
from robustray.random import ExampleRandom, derive_seed, generator
from robustray.training.loop import OnEpoch, Resumed, run_epochs
from robustray.training.state import Learner, TrainingState

_LOSSES: tuple[str, ...] = ("critic_loss", "feature_distance", "generator_hinge")


def hinge(scores_BK: Tensor, target_B: Tensor) -> Tensor:
    """Return the multi-class hinge loss of Crammer and Singer (JMLR 2001), a scalar.

    The mean over the batch of ``relu(1 + max over others of score - score of the target)``.
    """
    own_B1 = scores_BK.gather(1, target_B[:, None])
    others_BK = scores_BK.scatter(1, target_B[:, None], -torch.inf)
    return torch.relu(1 + others_BK.amax(1) - own_B1[:, 0]).mean()


def feature_distance(fake_BF: Tensor, real_BF: Tensor) -> Tensor:
    """Return the mean over features of the distance between two batches' means, a scalar."""
    return (fake_BF.mean(0) - real_BF.mean(0)).abs().mean()


def padded(x_NCHW: Tensor) -> Tensor:
    """Pad images in [-1, 1] with their darkest value, evenly, to 32 x 32.

    Raises
    ------
    DataError
        If they are larger, or can't be padded evenly.
    """
    missing = IMAGE_SIZE - x_NCHW.shape[-1]
    if x_NCHW.shape[-1] != x_NCHW.shape[-2] or missing < 0 or missing % 2:
        raise DataError(
            f"the conditional generator draws {IMAGE_SIZE} x {IMAGE_SIZE} images; images of "
            f"{x_NCHW.shape[-2]} x {x_NCHW.shape[-1]} can't be padded evenly to that"
        )
    return nn.functional.pad(x_NCHW, [missing // 2] * 4, value=-1.0)


def fit_conditional_generator(
    x_NCHW: Tensor,
    y_N: Tensor,
    settings: ConditionalGeneratorTraining,
    *,
    num_classes: int,
    seed: int = 0,
    device: torch.device | str = "cpu",
    resumed: Resumed | None = None,
    on_epoch: OnEpoch[dict[str, float]] | None = None,
    go_on: Callable[[], bool] = lambda: True,
) -> ConditionalGenerator:
    """Train a conditional generator.

    Each iteration has ``critic_steps`` steps of the critic, each on a batch of real images and one
    of drawn images, and then one of the generator on the last drawn batch's z and classes:

    * critic: hinge(D(real), y) + hinge(D(G(z, y')), "generated");
    * generator: ``feature_matching`` times `feature_distance` between drawn and real, plus
      ``hinge`` times hinge(D(G(z, y')), y').

    Parameters
    ----------
    x_NCHW : Tensor
        Training images float32 in [-1, 1], up to 32 pixels; smaller ones are padded.
    y_N : Tensor
        Classes, int64 (N,).
    settings : ConditionalGeneratorTraining
        Sizes, steps and weights; an epoch has ``every`` iterations, the last one what is left.
    num_classes : int
        Number of classes.
    seed : int
        The experiment's seed.
    device : torch.device or str
        Where to train.
    resumed, on_epoch, go_on : optional
        See `robustray.training.loop.run_epochs`; an epoch's report is its mean losses.

    Returns
    -------
    ConditionalGenerator
        On the device, in evaluation mode.

    Raises
    ------
    DataError
        If there are fewer images than a batch, or they do not fit 32 pixels.
    """
    if len(x_NCHW) < settings.batch_size:
        raise DataError(f"{len(x_NCHW)} images are fewer than a batch of {settings.batch_size}")
    x_NCHW, y_N = padded(x_NCHW).to(device), y_N.to(device)
    training = _ConditionalTraining(x_NCHW, y_N, settings, num_classes, seed)
    epochs = -(-settings.iterations // settings.every)
    run_epochs(training, epochs, resumed=resumed, on_epoch=on_epoch, go_on=go_on)
    drawer = training.drawer.network
    assert isinstance(drawer, ConditionalGenerator)
    return drawer.eval()


class _ConditionalTraining:
    """Generator and critic in training, and how many iterations they have had."""

    def __init__(
        self,
        x_NCHW: Tensor,
        y_N: Tensor,
        settings: ConditionalGeneratorTraining,
        num_classes: int,
        seed: int,
    ) -> None:
        self._x, self._y, self._settings = x_NCHW, y_N, settings
        self._classes, self._seed, self._done = num_classes, seed, 0
        device = x_NCHW.device
        self.drawer, self._critic = _learners(settings, num_classes, x_NCHW.shape[1], seed, device)
        iteration = _iteration(self.drawer, self._critic, settings, num_classes)
        self._step = CudaGraphs(iteration, eager=EAGER, repeatable=False)

    def begin(self, done: int, state: TrainingState | None) -> None:
        if state is not None:
            self._done = int(state.info["iteration"])
            self.drawer.restore("generator", state.files)
            self._critic.restore("critic", state.files)
        first = self._done * self._settings.critic_steps
        self._batches = _batches(self._x, self._y, self._settings, self._classes, self._seed, first)

    def train(self, epoch: int) -> dict[str, float]:
        settings, start = self._settings, self._done
        self._done = min(epoch * settings.every, settings.iterations)
        sum_3 = torch.zeros(3, device=self._x.device)
        for _ in range(start, self._done):
            drawn = (next(self._batches) for _ in range(settings.critic_steps))
            (losses_3,) = self._step(*(torch.stack(column) for column in zip(*drawn, strict=True)))
            sum_3 += losses_3
        means: list[float] = (sum_3 / (self._done - start)).tolist()
        return dict(zip(_LOSSES, means, strict=True))

    def state(self) -> TrainingState:
        files = self.drawer.files("generator") | self._critic.files("critic")
        return TrainingState(files, {"iteration": self._done})


def _learners(
    settings: ConditionalGeneratorTraining,
    num_classes: int,
    image_channels: int,
    seed: int,
    device: torch.device | str,
) -> tuple[Learner, Learner]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "conditional generator"))
        networks = (
            ConditionalGenerator(num_classes, image_channels, settings.channels, settings.latent),
            ConditionalCritic(num_classes, image_channels, settings.channels),
        )
    learners = []
    for network in networks:
        network.to(device).train()
        if torch.device(device).type == "cuda":
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = make_graphable_adam(network, settings.lr, settings.betas, device)
        learners.append(Learner(network, optimizer))
    return learners[0], learners[1]


Batch = tuple[Tensor, Tensor, Tensor, Tensor]


def _batches(
    x_NCHW: Tensor,
    y_N: Tensor,
    settings: ConditionalGeneratorTraining,
    num_classes: int,
    seed: int,
    step: int,
) -> Iterator[Batch]:
    """Yield real images, their classes, z and the classes to draw, from a critic's step on."""
    size, device = settings.batch_size, x_NCHW.device
    per_epoch = len(x_NCHW) // size
    noise, classes = (ExampleRandom(seed, "conditional generator", n) for n in ("z", "class"))
    epoch, order_N = -1, torch.empty(0)
    while True:
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            rng = generator(seed, "conditional generator", "order", epoch)
            order_N = torch.randperm(len(x_NCHW), generator=rng).to(device)
        rows_B = order_N[step % per_epoch * size :][:size]
        index_B = torch.arange(size, device=device) + step * size
        z_BZ = noise.normal(index_B, (settings.latent,))
        yield x_NCHW[rows_B], y_N[rows_B], z_BZ, classes.integers(num_classes, index_B, ())
        step += 1


def _iteration(
    drawer: Learner, critic: Learner, settings: ConditionalGeneratorTraining, num_classes: int
) -> Function:
    """Return an iteration: from the critic's batches (S, B, ...) to the last losses (3,)."""
    judge = critic.network
    assert isinstance(judge, ConditionalCritic)

    def iteration(x_SBCHW: Tensor, y_SB: Tensor, z_SBZ: Tensor, wanted_SB: Tensor) -> Tensors:
        critic.network.requires_grad_(True)
        critic_loss = torch.zeros(())
        for batch in zip(x_SBCHW, y_SB, z_SBZ, wanted_SB, strict=True):
            critic_loss = _critic_step(drawer, critic, batch, num_classes)
        critic.network.requires_grad_(False)
        x_BCHW, z_BZ, wanted_B = x_SBCHW[-1], z_SBZ[-1], wanted_SB[-1]
        drawer.optimizer.zero_grad()
        both_2BF = judge.features(torch.cat([drawer.network(z_BZ, wanted_B), x_BCHW]))
        fake_BF, real_BF = both_2BF.chunk(2)
        matching = feature_distance(fake_BF, real_BF.detach())
        hinged = hinge(judge.linear(fake_BF), wanted_B)
        loss = settings.feature_matching * matching + settings.hinge * hinged
        loss.backward()
        drawer.optimizer.step()
        return (torch.stack([critic_loss, matching.detach(), hinged.detach()]),)

    return iteration


def _critic_step(drawer: Learner, critic: Learner, batch: Batch, num_classes: int) -> Tensor:
    x_BCHW, y_B, z_BZ, wanted_B = batch
    critic.optimizer.zero_grad()
    with torch.no_grad():
        fake_BCHW = drawer.network(z_BZ, wanted_B)
    # No batch norm in the critic: real and drawn images may go through it together.
    real_BK, fake_BK = critic.network(torch.cat([x_BCHW, fake_BCHW])).chunk(2)
    loss = hinge(real_BK, y_B) + hinge(fake_BK, torch.full_like(y_B, num_classes))
    loss.backward()
    critic.optimizer.step()
    return loss.detach()
