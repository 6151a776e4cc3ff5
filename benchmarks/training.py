"""How fast a step of adversarial training is: the code that `fit` runs, against a plain loop.

    OMP_NUM_THREADS=1 python benchmarks/training.py
    OMP_NUM_THREADS=1 python benchmarks/training.py --objective mart --block robust --widths 1 1 1
    OMP_NUM_THREADS=1 python benchmarks/training.py --curves --data digits
    python benchmarks/training.py --model rrn_a1 --device cuda --only published compiled --json FILE

The plain loops are eager float32 with contiguous tensors. For TRADES there are two: one as the
loop is usually published (the clean prediction is computed again in each of the inner steps), and
one with the clean prediction computed once. Each contender is a process of its own, so that none
profits from another's memory or caches; they take turns, one step each, and only one runs at a
time. Medians over the rounds after the first (after five on GPUs); CPU time is the processor time
of the step, which on a busy machine says more than wall time does. ``--curves`` trains the plain
loop and ours on the same batches and prints them side by side. ``--json`` keeps what was
measured so far after each round, so that a run that is cut off leaves something.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustray.attacks import ThreatModel, evaluate
from robustray.data import Dataset, EpochBatches, load_dataset
from robustray.manifest.job import DataConfig
from robustray.manifest.recipe import Augmentation, Recipe
from robustray.models import create_model, profile
from robustray.training import Trainer, fit, learning_rate, recipe_passes

Step = Callable[[Tensor, Tensor], Tensor]

PLAIN = {"plain, as published": False, "plain, clean logits once": True}
OURS: dict[str, dict[str, object]] = {
    "ours, float32": {"precision": "float32"},
    "ours, bf16": {"precision": "bfloat16"},
}


class Cost(NamedTuple):
    """Seconds of one step."""

    wall: float
    cpu: float


def main() -> None:
    """Measure, and print a table."""
    options = _options()
    torch.set_num_threads(options.threads)
    print(_describe(options))
    if options.curves:
        print_curves(options)
    else:
        print_speeds(options)


def print_speeds(options: argparse.Namespace) -> None:
    """Let the contenders take turns, and print images per second and ratios."""
    plain = list(PLAIN)[: 2 if options.objective == "trades" else 1]
    names = [*plain, *(name for name in OURS if options.precision in ("both", _format(name)))]
    if options.compile:
        names += [f"{name}, compiled" for name in names if name in OURS]
    if options.fused:
        names += [f"{name}, fused" for name in names if name in OURS]
    if options.only:
        names = [name for name in names if any(part in name for part in options.only)]
        plain = [name for name in plain if name in names] or names[:1]
    rounds: list[dict[str, Cost]] = []
    with _contenders(names, options) as pipes:
        for _ in _rounds(options):
            rounds.append({name: _turn(pipe) for name, pipe in pipes.items()})
            _keep(rounds[_warm(options) :], options.json)
    cost = {name: _median([r[name] for r in rounds[_warm(options) :]]) for name in names}
    clock = "wall" if "cuda" in options.device else "cpu"
    print(
        f"{'':<28}{'ms wall':>9}{'ms CPU':>9}{'images/s':>10}  ratio to published / once ({clock})"
    )
    published, once = (getattr(cost[name], clock) for name in (plain[0], plain[-1]))
    for name, (wall, cpu) in cost.items():
        own = getattr(cost[name], clock)
        rate, ratios = options.batch / wall, f"{published / own:5.2f} / {once / own:.2f}"
        print(f"{name:<28}{wall * 1e3:>9.0f}{cpu * 1e3:>9.0f}{rate:>10.1f}  {ratios}")


def print_curves(options: argparse.Namespace) -> None:
    """Train the plain loop and ours on the same batches, and print both epoch by epoch."""
    parts = tuple(options.parts) if options.parts else None
    config = DataConfig(
        name=options.data, parts=parts, train_limit=options.train_limit, validation=256
    )
    data = load_dataset(config, splits=("train", "validation"))
    print(data.label)
    digits = Augmentation(crop_padding=1, flip=False)
    augmentation = Augmentation() if options.data == "cifar10" else digits
    recipe = Recipe(epochs=options.epochs, batch_size=options.batch, augmentation=augmentation)
    columns = {"plain float32": _plain_curve(options, data, recipe)}
    fused = {f"{name}, fused": {**changes, "fused_blocks": True} for name, changes in OURS.items()}
    for name, changes in (OURS | (fused if options.fused else {})).items():
        if name.startswith("ours, bf16") and options.precision == "float32":
            continue
        changed = Recipe.model_validate({**recipe.model_dump(), **changes})
        columns[name] = _our_curve(options, data, changed)
    print("TRADES loss / accuracy on the adversarial training images / PGD-20 on held-out images")
    print(f"{'epoch':<6}" + "".join(f"{name:>26}" for name in columns))
    for epoch in range(recipe.epochs):
        cells = ["{:.4f} / {:.3f} / {:.3f}".format(*column[epoch]) for column in columns.values()]
        print(f"{epoch + 1:<6}" + "".join(f"{cell:>26}" for cell in cells))


class PlainLoop:
    """A step as it is usually written: eager, float32, contiguous.

    Parameters
    ----------
    model : nn.Module
        Trained in place.
    recipe : Recipe
        Objective, sizes, steps and rates.
    once : bool
        For TRADES: compute the clean prediction once, and not in each inner step.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, once: bool = False) -> None:
        self.model, self.recipe, self.once = model, recipe, once
        rates = recipe.optimizer
        self.optimizer = torch.optim.SGD(
            model.parameters(), rates.lr, rates.momentum, weight_decay=rates.weight_decay
        )

    def __call__(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Train on one batch; return the loss and the adversarial logits."""
        x_adv = self._attack(x, y)
        self.model.train()
        self.optimizer.zero_grad()
        clean = None if self.recipe.objective == "sat" else self.model(x)
        adversarial = self.model(x_adv)
        loss = self._loss(clean, adversarial, y)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.grad_clip or float("inf"))
        self.optimizer.step()
        return loss.detach(), adversarial.detach()

    def _loss(self, clean: Tensor | None, adversarial: Tensor, y: Tensor) -> Tensor:
        if clean is None:
            return F.cross_entropy(adversarial, y)
        log_adversarial, weight = F.log_softmax(adversarial, dim=1), self.recipe.beta
        if self.recipe.objective == "trades":
            robust = F.kl_div(log_adversarial, F.softmax(clean, dim=1), reduction="batchmean")
            return F.cross_entropy(clean, y) + weight * robust
        p, q = F.softmax(clean, dim=1), log_adversarial.exp()
        wrong = q.scatter(1, y[:, None], 0.0).amax(1)
        boosted = F.cross_entropy(adversarial, y) - torch.log(1.0001 - wrong + 1e-12).mean()
        divergence = (p * (p.log() - torch.log(q + 1e-12))).sum(1)
        return boosted + weight * (divergence * (1.0000001 - p.gather(1, y[:, None])[:, 0])).mean()

    def _attack(self, x: Tensor, y: Tensor) -> Tensor:
        inner, eps = self.recipe.inner, self.recipe.threat.eps
        self.model.eval()
        x_adv = x + inner.start_scale * torch.randn_like(x)
        with torch.no_grad():
            fixed = F.softmax(self.model(x), dim=1) if self.once else None
        for _ in range(inner.steps):
            x_adv.requires_grad_()
            loss = self._ascended(x, x_adv, y, fixed)
            (grad,) = torch.autograd.grad(loss, [x_adv])
            x_adv = x_adv.detach() + inner.step_size * torch.sign(grad)
            x_adv = torch.min(torch.max(x_adv, x - eps), x + eps)
            x_adv = torch.clamp(x_adv, 0.0, 1.0)
        return x_adv

    def _ascended(self, x: Tensor, x_adv: Tensor, y: Tensor, fixed: Tensor | None) -> Tensor:
        if self.recipe.objective != "trades":
            return F.cross_entropy(self.model(x_adv), y)
        clean = F.softmax(self.model(x), dim=1) if fixed is None else fixed
        return F.kl_div(F.log_softmax(self.model(x_adv), dim=1), clean, reduction="sum")


def _serve(pipe: Connection, name: str, options: argparse.Namespace) -> None:
    """Be one contender: take a step whenever asked, and answer what it cost."""
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    step = _contender(name, options, device)
    data = torch.Generator().manual_seed(0)
    x = torch.rand(options.batch, 3, 32, 32, generator=data).to(device)
    y = torch.randint(10, (options.batch,), generator=data).to(device)
    while pipe.recv():
        _wait(device)
        wall, cpu = time.perf_counter(), time.process_time()
        step(x, y)
        _wait(device)
        pipe.send(Cost(time.perf_counter() - wall, time.process_time() - cpu))


def _contender(name: str, options: argparse.Namespace, device: torch.device) -> Step:
    model = _model(options)
    if name in PLAIN:
        plain = PlainLoop(model.to(device), Recipe(objective=options.objective), PLAIN[name])
        return lambda x, y: plain(x, y)[0]
    own, _, how = name.removeprefix("ours, ").partition(", ")
    changes = {**OURS[f"ours, {own}"], "compile": how == "compiled", "fused_blocks": how == "fused"}
    changes["objective"] = options.objective
    trainer = Trainer(model, Recipe.model_validate(changes), seed=0, device=device)
    trainer.start_epoch(0)
    taken = iter(range(10**9))

    def step(x: Tensor, y: Tensor) -> Tensor:
        trainer.step(x, y, epoch=0, step=next(taken))
        return x

    return step


@contextmanager
def _contenders(names: list[str], options: argparse.Namespace) -> Iterator[dict[str, Connection]]:
    """Start a process for each contender; they end with the block."""
    context = mp.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for name in names:
        pipes[name], theirs = context.Pipe()
        context.Process(target=_serve, args=(theirs, name, options), daemon=True).start()
    try:
        yield pipes
    finally:
        for pipe in pipes.values():
            pipe.send(False)


def _keep(rounds: list[dict[str, Cost]], path: Path | None) -> None:
    """Write the rounds that count: contender -> seconds of wall and of processor time."""
    if path is not None and rounds:
        rows = {
            name: {"wall": [r[name].wall for r in rounds], "cpu": [r[name].cpu for r in rounds]}
            for name in rounds[0]
        }
        path.write_text(json.dumps({"rows": rows}))


def _turn(pipe: Connection) -> Cost:
    pipe.send(True)
    return pipe.recv()


def _rounds(options: argparse.Namespace) -> range:
    return range(options.repeats + _warm(options))


def _warm(options: argparse.Namespace) -> int:
    """Return how many rounds don't count; on GPUs steps are captured in them."""
    return 5 if "cuda" in options.device else 1


def _median(costs: list[Cost]) -> Cost:
    return Cost(*(statistics.median(values) for values in zip(*costs, strict=True)))


def _plain_curve(
    options: argparse.Namespace, data: Dataset, recipe: Recipe
) -> list[tuple[float, float, float]]:
    model = _model(options, data).to(options.device)
    step, curve = PlainLoop(model, recipe), []
    torch.manual_seed(0)
    for epoch in range(recipe.epochs):
        step.optimizer.param_groups[0]["lr"] = learning_rate(recipe, epoch)
        loss = correct = 0.0
        for x, y, _ in _batches(data, recipe, epoch, options.device):
            batch_loss, logits = step(x, y)
            loss += batch_loss.item() * len(y)
            correct += (logits.argmax(1) == y).sum().item()
        count = len(data.train)
        curve.append((loss / count, correct / count, _robust(model, data, recipe, options.device)))
    return curve


def _our_curve(
    options: argparse.Namespace, data: Dataset, recipe: Recipe
) -> list[tuple[float, float, float]]:
    selection = recipe.selection.model_copy(update={"start": 0.0})
    recipe = recipe.model_copy(update={"selection": selection})
    done = fit(_model(options, data), data, recipe, seed=0, device=options.device)
    names = ("train_loss", "train_accuracy", f"validation_{selection.attack}")
    return [tuple(report.metrics[name] for name in names) for report in done.history]  # type: ignore[misc]


def _batches(data: Dataset, recipe: Recipe, epoch: int, device: str) -> EpochBatches:
    augmentation = recipe.augmentation
    return EpochBatches(
        data.train, recipe.batch_size, augmentation, seed=0, epoch=epoch, device=device
    )


def _robust(model: nn.Module, data: Dataset, recipe: Recipe, device: str) -> float:
    threat, split = ThreatModel("linf", recipe.threat.eps), data.validation.to(device)
    return evaluate(
        model, split.x_NCHW, split.y_N, threat, suite=recipe.selection.attack, index=split.index_N
    ).robust_accuracy


def _model(options: argparse.Namespace, data: Dataset | None = None) -> nn.Module:
    torch.manual_seed(0)
    channels, classes = (3, 10) if data is None else (data.image_shape[0], data.num_classes)
    sizes = {"depths": tuple(options.depths), "widths": tuple(options.widths)}
    sizes["block"] = options.block
    return create_model(
        options.model,
        num_classes=classes,
        in_channels=channels,
        **(sizes if options.model == "preact_resnet" else {}),
    )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _format(name: str) -> object:
    return OURS[name]["precision"]


def _describe(options: argparse.Namespace) -> str:
    cost = profile(_model(options), (3, 32, 32))
    device = torch.cuda.get_device_name() if "cuda" in options.device else _processor()
    passes = recipe_passes(Recipe(objective=options.objective))
    sizes = (
        f" {options.block} {options.depths} {options.widths}"
        if options.model == "preact_resnet"
        else ""
    )
    return (
        f"{options.model}{sizes}: {cost.parameters:,} parameters, {cost.macs / 1e6:.0f} M MACs; "
        f"{options.objective}, "
        f"batch {options.batch}, {passes} passes an image\n"
        f"{device}, {options.threads} thread(s), torch {torch.__version__}, "
        f"Python {platform.python_version()}; {options.repeats} runs each"
    )


def _processor() -> str:
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{platform.processor() or platform.machine()} ({capability})"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Speed of a training step.")
    parser.add_argument("--model", default="preact_resnet", help="a name of create_model")
    parser.add_argument("--depths", type=int, nargs="+", default=[2, 2, 2])
    parser.add_argument("--widths", type=float, nargs="+", default=[2, 2, 2])
    parser.add_argument("--block", default="basic", choices=("basic", "robust"))
    parser.add_argument("--objective", default="trades", choices=("trades", "sat", "mart"))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=("both", "float32", "bfloat16"), default="both")
    parser.add_argument("--compile", action="store_true", help="measure compiled steps as well")
    parser.add_argument("--fused", action="store_true", help="measure fused robust blocks as well")
    parser.add_argument("--only", nargs="+", help="contenders whose names contain one of these")
    parser.add_argument("--json", type=Path, help="where to keep the seconds of each round")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--curves", action="store_true", help="train, and compare epoch by epoch")
    parser.add_argument("--data", default="digits", choices=("digits", "mnist", "cifar10"))
    parser.add_argument("--parts", nargs="+", help="official files of the training set")
    parser.add_argument("--train-limit", type=int, default=None)
    parser.add_argument("--epochs", type=int, default=4)
    return parser.parse_args()


if __name__ == "__main__":
    main()
