"""A thin quantised network, trained here, judged with and without BPDA.

    python benchmarks/quantised_bpda.py --data mnist --epochs 3
    python benchmarks/quantised_bpda.py --data cifar10 --device cuda --width 16 --epochs 20 \
        --train-limit 9488 --n 1000 --steps 100 --queries 1000

Adversarial training in literal mode, gradients straight through the quantisers. Judged in frozen
mode (statistics and maxima of the first training images): robust accuracy by source of gradients,
with the shares of gradients that are zero or not finite, and the audit of all three.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
# Not the folder of this script: in it is another script with the name of a package.
sys.path = [str(ROOT), *(p for p in sys.path if Path(p).resolve() != ROOT / "benchmarks")]

from benchmarks.networks import SHARED, describe_machine  # noqa: E402
from robustray.attacks import AttackSpec, Suite, ThreatModel, evaluate  # noqa: E402
from robustray.attacks.engine.context import judging  # noqa: E402
from robustray.attacks.engine.inputs import check_examples  # noqa: E402
from robustray.attacks.engine.network import gradient_shares, is_correct, predict_logits  # noqa: E402
from robustray.attacks.losses import margin  # noqa: E402
from robustray.attacks.surrogates.catalogue import put_surrogate  # noqa: E402
from robustray.data import Dataset, load_dataset  # noqa: E402
from robustray.evaluation.audit.checks import audit  # noqa: E402
from robustray.manifest.job import DataConfig  # noqa: E402
from robustray.manifest.recipe import (  # noqa: E402
    InnerAttack,
    Optimizer,
    Recipe,
    Schedule,
    Selection,
    ThreatConfig,
)
from robustray.models import create_model  # noqa: E402
from robustray.models.architectures.quantised import QuantisedNetwork, frozen_copy  # noqa: E402
from robustray.training import fit  # noqa: E402

EPS = {"mnist": 0.15, "cifar10": 8 / 255}
SURROGATES: tuple[tuple[str, dict[str, object]], ...] = (
    ("none", {}),
    ("twin", {"loss_values": "surrogate"}),
    ("twin", {"loss_values": "model"}),
    ("straight-through", {}),
    ("shifted", {"through_maximum": True}),
    ("smooth", {"alpha": 10.0}),
    ("smooth", {"alpha": 100.0}),
    ("smooth", {"alpha": 1000.0}),
    ("nes", {"samples": 8, "radius": 0.02}),
)


def main() -> None:
    """Train, attack through each surrogate, and audit."""
    options = _options()
    torch.set_num_threads(options.threads)
    eps = EPS[options.data] if options.eps is None else options.eps
    print(describe_machine(options.device, options.threads))
    data = _data(options)
    literal = _trained(data, eps, options)
    frozen = _network(options, "frozen", data)
    calibration = data.train.x_NCHW[:1000].float() / 255
    frozen_copy(frozen, literal.cpu(), calibration)
    frozen, literal = frozen.to(options.device).eval(), literal.to(options.device).eval()
    threat = ThreatModel("linf", eps)
    x, y = (t[: options.n] for t in (data.test.x_NCHW, data.test.y_N))
    _table(frozen, x.float() / 255, y, threat, options)
    _audits(frozen, literal, x, y, threat)


def _network(options: argparse.Namespace, mode: str, data: Dataset) -> QuantisedNetwork:
    model = create_model(
        "robust_model_zoo_1", num_classes=data.num_classes, width=options.width,
        in_channels=data.train.image_shape[0], depths=tuple(options.depths), mode=mode,
    )  # fmt: skip
    assert isinstance(model, QuantisedNetwork)
    return model


def _data(options: argparse.Namespace) -> Dataset:
    parts = ("data_batch_1",) if options.data == "cifar10" else None
    config = DataConfig(
        name=options.data, validation=512, train_limit=options.train_limit, parts=parts
    )
    return load_dataset(config, SHARED)


def _trained(data: Dataset, eps: float, options: argparse.Namespace) -> QuantisedNetwork:
    torch.manual_seed(0)
    model = _network(options, "literal", data)
    for quantiser in model.quantisers():
        quantiser.straight_through = True
    augmented = (
        {} if options.data == "cifar10" else {"augmentation": {"flip": False, "crop_padding": 0}}
    )
    recipe = Recipe.model_validate({
        "objective": "sat",
        "threat": ThreatConfig(eps=eps),
        "inner": InnerAttack(
            steps=options.inner, step_size=1.5 * eps / options.inner, start="uniform",
            start_scale=eps,
        ),
        "epochs": options.epochs,
        "batch_size": 64,
        "optimizer": Optimizer(lr=options.lr),
        "grad_clip": options.clip,
        "schedule": Schedule(),
        "selection": Selection(start=0.9, attack="pgd-10"),
        **augmented,
    })  # fmt: skip
    start = time.perf_counter()
    done = fit(model, data, recipe, seed=0, device=options.device, on_epoch=_tell)
    print(f"{data.label}: trained in {time.perf_counter() - start:.0f} s", flush=True)
    assert done.best_weights is not None
    model.load_state_dict(done.best_weights)
    for quantiser in model.quantisers():
        quantiser.straight_through = False
    return model


def _tell(report: object, _: object) -> None:
    print(report.epoch, report.metrics, flush=True)  # type: ignore[attr-defined]


def _table(
    model: QuantisedNetwork, x: Tensor, y: Tensor, threat: ThreatModel, options: argparse.Namespace
) -> None:
    gradient = tuple(
        AttackSpec(name, name, {"n_iter": options.steps}) for name in ("apgd-ce", "apgd-dlr")
    )
    square = AttackSpec("square", "square", {"n_queries": options.queries})
    x, y = x.to(options.device), y.to(options.device)
    print("surrogate | robust | and after Square | zero pixels | not finite | seconds")
    for name, given in SURROGATES:
        attacked = put_surrogate(model, name, None, **given)
        start = time.perf_counter()
        result = evaluate(attacked, x, y, threat, Suite(name, (*gradient, square)), batch_size=512)
        spared = sum(who == "square" for who in result.broken_by) / len(y)
        with judging(model):
            good = is_correct(predict_logits(model, x), y)
            labels = y[good]
            zero, flawed = gradient_shares(attacked, x[good], lambda z: margin(z, labels))  # noqa: B023
        label = " ".join([name, *(f"{key}={value}" for key, value in given.items())])
        print(
            f"{label} | {result.robust_accuracy + spared:.2%} | {result.robust_accuracy:.2%} | "
            f"{zero.mean():.1%} | {flawed.mean():.1%} | {time.perf_counter() - start:.0f}",
            flush=True,
        )
    alone = evaluate(model, x, y, threat, Suite("black box", (square,)), batch_size=512)
    print(f"clean {alone.clean_accuracy:.2%}, Square alone {alone.robust_accuracy:.2%}")


def _audits(
    frozen: QuantisedNetwork, literal: QuantisedNetwork, x: Tensor, y: Tensor, threat: ThreatModel
) -> None:
    examples = check_examples(x, y, None)
    for label, model in (
        ("frozen, without BPDA", put_surrogate(frozen, "none")),
        ("frozen, straight-through", put_surrogate(frozen, "straight-through")),
        ("literal, straight-through", put_surrogate(literal, "straight-through")),
    ):
        print(f"audit: {label}")
        for finding in audit(model, examples, threat, seed=0, compute_shape=64):
            if finding.severity != "ok":
                print(f"  {finding.severity} {finding.check}: {finding.message}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a quantised network, and attack it.")
    parser.add_argument("--data", choices=sorted(EPS), default="mnist")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--width", type=int, default=4)
    parser.add_argument("--depths", type=int, nargs=3, default=[1, 1, 1])
    parser.add_argument("--inner", type=int, default=2, help="steps of the training's attack")
    parser.add_argument("--train-limit", type=int, default=3500)
    parser.add_argument("--eps", type=float)
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--clip", type=float, help="largest norm of a gradient")
    parser.add_argument("--n", type=int, default=200, help="test images")
    parser.add_argument("--steps", type=int, default=20, help="of each gradient attack")
    parser.add_argument("--queries", type=int, default=200, help="of Square")
    return parser.parse_args()


if __name__ == "__main__":
    main()
