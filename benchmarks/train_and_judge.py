"""One network of ResNet-18's size: TRADES on real CIFAR-10 images, then AutoAttack.

    ROBUSTRAY_SHARED=../shared/data python benchmarks/train_and_judge.py --device cuda --epochs 20

bf16, EMA, else the default recipe; the epoch is selected by PGD-10 on held-out images; bf16 search
with float32 verdicts on the first test images. Prints a line for each epoch.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
# Not the folder of this script: in it is another script with the name of a package.
sys.path = [str(ROOT), *(p for p in sys.path if Path(p).resolve() != ROOT / "benchmarks")]

from benchmarks.networks import SHARED, describe_machine, images  # noqa: E402
from robustray.attacks import ThreatModel, evaluate  # noqa: E402
from robustray.data import load_dataset  # noqa: E402
from robustray.manifest.job import DataConfig  # noqa: E402
from robustray.manifest.recipe import Ema, Optimizer, Recipe, Selection  # noqa: E402
from robustray.models import create_model, profile  # noqa: E402
from robustray.training import EpochReport, fit  # noqa: E402


def main() -> None:
    """Train, print the curve, and attack."""
    options = _options()
    torch.set_num_threads(options.threads)
    config = DataConfig(
        name="cifar10", parts=("data_batch_1",), validation=512, train_limit=options.train_limit
    )
    data = load_dataset(config, SHARED, splits=("train", "validation"))
    model = create_model("preact_resnet", depths=(2, 2, 2), widths=(options.width,) * 3)
    print(describe_machine(options.device, options.threads))
    print(data.label, len(data.train), profile(model, (3, 32, 32)), flush=True)
    recipe = Recipe(
        epochs=options.epochs,
        precision="bfloat16",
        ema=Ema(decay=0.995),
        optimizer=Optimizer(weight_decay=5e-4),
        selection=Selection(start=0.0, attack="pgd-10"),
    )
    start = time.perf_counter()
    done = fit(model, data, recipe, seed=0, device=options.device, on_epoch=_tell)
    print(f"trained in {time.perf_counter() - start:.0f} s; selected epoch {done.best_epoch}")
    assert done.best_weights is not None
    model.load_state_dict(done.best_weights)
    x, y = (tensor.to(options.device) for tensor in images("resnet_4b", options.n))
    start, shape = time.perf_counter(), 512 if options.device == "cuda" else None
    judged = evaluate(
        model.to(options.device), x, y, ThreatModel("linf", 8 / 255), batch_size=1024,
        compute_shape=shape, search_dtype="bfloat16", channels_last=True,
    )  # fmt: skip
    print(
        f"clean {judged.clean_accuracy:.2%}, robust {judged.robust_accuracy:.2%}, "
        f"{int(judged.forwards.sum())} forwards, {int(judged.backwards.sum())} backwards, "
        f"{time.perf_counter() - start:.0f} s"
    )


def _tell(report: EpochReport, _: object) -> None:
    words = {**report.metrics, **report.timing}
    print(report.epoch, *(f"{name} {value:.4g}" for name, value in words.items()), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train one network, and attack it.")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--train-limit", type=int)
    parser.add_argument("--n", type=int, default=1000, help="test images")
    return parser.parse_args()


if __name__ == "__main__":
    main()
