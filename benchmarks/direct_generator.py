"""Train a residual generator of delta-x with its critic, and compare it with the truth.

    python benchmarks/direct_generator.py --data spheres --epochs 8 --steps 500 --out out
    python benchmarks/direct_generator.py --data mnist35 --root ../shared/data --batch 12 --out out

Prints losses, lengths and, where the truth is known, the mean cosine to it after each epoch; writes
the selected weights, the numbers, and for images a sheet of x, x' and delta-x.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
# Not the folder of this script: in it is another script with the name of a package.
sys.path = [str(ROOT), *(p for p in sys.path if Path(p).resolve() != ROOT / "benchmarks")]

from robustray.alignment.batches import study_batches  # noqa: E402
from robustray.alignment.direct_generator import (  # noqa: E402
    binary_loss,
    direct_delta_x,
    fit_direct_generator,
)
from robustray.alignment.manifest import GeneratorTraining  # noqa: E402
from robustray.alignment.metrics import alignment  # noqa: E402
from robustray.alignment.pages.sheets import comparison_figure  # noqa: E402
from robustray.alignment.splits import StudySplit, load_study  # noqa: E402
from robustray.models import create_model, save_weights  # noqa: E402
from robustray.models.architectures.residual_generators import residual_generator  # noqa: E402
from robustray.reports.style import render  # noqa: E402


def main() -> None:
    """Train, compare, tell."""
    options = _options()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    train, validation, test = (
        load_study(options.data, split, root=options.root, limit=limit, seed=options.seed)
        for split, limit in (
            ("train", options.train_limit or (options.batch if _drawn(options) else None)),
            ("validation", options.images),
            ("test", options.images),
        )
    )
    generator = residual_generator(train.image_shape, options.downsamplings)
    settings = GeneratorTraining(
        lr=options.lr,
        batch_size=options.batch,
        fake=options.fake,
        average=options.average,
        epochs=options.epochs,
        steps_per_epoch=options.steps,
    )
    start = time.perf_counter()
    reached = {"epoch": 0}

    def tell(epoch: int, metrics: dict[str, float], _: object) -> None:
        reached["epoch"] = epoch
        words = " ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        print(f"{epoch} {time.perf_counter() - start:.0f}s {words}", flush=True)

    fitted = fit_direct_generator(
        generator, _critic(train, options), train, validation, settings, seed=options.seed,
        device=options.device, on_epoch=tell,
        go_on=lambda: time.perf_counter() - start < 60 * options.minutes,
    )  # fmt: skip
    generator.load_state_dict(fitted.weights)
    save_weights(generator, options.out / "generator.safetensors")
    delta_x, exact = direct_delta_x(generator, test.images(), test.y_N), test.delta_x()
    facts: dict[str, Any] = {"data": train.label, "test": test.label, "lr": options.lr}
    facts |= {"fake": options.fake, "average": options.average}
    facts["critic_steps"] = options.critic_steps
    facts |= {"iterations": reached["epoch"] * options.steps}
    facts |= {"seconds": round(time.perf_counter() - start, 1), "best_epoch": fitted.best_epoch}
    if exact is not None:
        facts["cosine_to_truth"] = round(float(alignment(delta_x, exact).mean()), 4)
    (options.out / "numbers.json").write_text(json.dumps(facts | fitted.metrics, indent=1))
    if len(train.image_shape) == 3:
        x, moves = test.images()[:8].numpy(), delta_x[:8].numpy()
        sheet = comparison_figure({"x": x, "x'": x + moves, "Δx": moves}, signed=("Δx",))
        (options.out / "sheet.png").write_bytes(render(sheet))
    print(facts)


def _critic(train: StudySplit, options: argparse.Namespace) -> torch.nn.Module:
    """Return the critic; that of the spheres learns to tell them apart first."""
    if train.name == "spheres":
        critic = create_model("gd_spheres_mlp", num_classes=1).to(options.device).eval()
        optimizer = torch.optim.Adam(critic.parameters(), 1e-4, (0.0, 0.9))
        batches = study_batches(
            train, 1, options.batch, options.critic_steps, options.seed + 1, options.device
        )
        for x, y_B, _ in batches:
            optimizer.zero_grad()
            binary_loss(critic(x), y_B).backward()
            optimizer.step()
        return critic
    channels = train.image_shape[0]
    return create_model("gd_resnet18", num_classes=1, in_channels=channels, normalisation="direct")


def _drawn(options: argparse.Namespace) -> bool:
    return options.data == "spheres"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train and compare a residual generator.")
    parser.add_argument("--data", choices=("spheres", "mnist35", "squares"), default="spheres")
    parser.add_argument("--root", type=Path, help="folder of the data files (mnist35)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=500, help="in each epoch")
    parser.add_argument("--minutes", type=float, default=60.0, help="after which it stops")
    parser.add_argument("--critic-steps", type=int, default=1500, help="before (spheres)")
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--fake", type=float, default=0.01, help="weight of x' for the critic")
    parser.add_argument("--average", type=float, default=0.0, help="decay of the kept weights")
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--downsamplings", type=int, default=2)
    parser.add_argument("--train-limit", type=int)
    parser.add_argument("--images", type=int, default=200, help="judged, of each split")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
