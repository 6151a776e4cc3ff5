"""Train a class-conditional generator for a given time, and judge it by projection.

    python benchmarks/conditional_generator.py --data squares32 --device cuda --minutes 5 --out out

Writes the weights, a sheet of drawn images, a sheet of (x, x', delta-x), and numbers; for squares32
also the mean cosine between the projected and the true delta-x over the first test images.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
# Not the folder of this script: in it is another script with the name of a package.
sys.path = [str(ROOT), *(p for p in sys.path if Path(p).resolve() != ROOT / "benchmarks")]

from robustray.alignment.conditional_gan import fit_conditional_generator  # noqa: E402
from robustray.alignment.delta_x import project  # noqa: E402
from robustray.alignment.manifest import (  # noqa: E402
    ConditionalGeneratorTraining,
    Projection,
)
from robustray.alignment.metrics import alignment  # noqa: E402
from robustray.alignment.pages.sheets import comparison_figure, sheet_png  # noqa: E402
from robustray.alignment.splits import load_study  # noqa: E402
from robustray.models import save_weights  # noqa: E402
from robustray.models.architectures.conditional_networks import ConditionalGenerator  # noqa: E402
from robustray.random import ExampleRandom  # noqa: E402
from robustray.reports.style import render  # noqa: E402

PENALTIES = {"squares32": 0.03, "mnist": 1.5}


def main() -> None:
    """Train, draw, project, tell."""
    options = _options()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    train = load_study(options.data, "train", root=options.root, limit=options.train_limit)
    settings = ConditionalGeneratorTraining(
        iterations=options.iterations, every=options.every, channels=options.channels
    )
    start, told = time.perf_counter(), {"iteration": 0}

    def tell(epoch: int, metrics: dict[str, float], _: object) -> None:
        told["iteration"] = min(epoch * options.every, options.iterations)
        words = " ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        print(f"{told['iteration']} {time.perf_counter() - start:.0f}s {words}", flush=True)

    generator = fit_conditional_generator(
        train.images(), train.y_N, settings, num_classes=train.num_classes, seed=options.seed,
        device=options.device, on_epoch=tell,
        go_on=lambda: time.perf_counter() - start < 60 * options.minutes,
    )  # fmt: skip
    save_weights(generator, options.out / "generator.safetensors")
    facts = {"data": train.label, "iterations": told["iteration"], "channels": options.channels}
    facts["train_seconds"] = round(time.perf_counter() - start, 1)
    _draw(generator, options)
    facts |= _judge(generator, options)
    (options.out / "numbers.json").write_text(json.dumps(facts, indent=1))
    print(facts)


def _draw(generator: ConditionalGenerator, options: argparse.Namespace) -> None:
    index_B = torch.arange(100, device=options.device)
    z_BZ = ExampleRandom(options.seed, "sheet").normal(index_B, (generator.latent,))
    with torch.no_grad():
        drawn = generator(z_BZ, index_B % generator.num_classes).cpu()
    (options.out / "samples.png").write_bytes(sheet_png(drawn))


def _judge(generator: ConditionalGenerator, options: argparse.Namespace) -> dict[str, object]:
    test = load_study(options.data, "test", root=options.root, limit=options.images)
    x = test.images()
    other_B = (test.y_N + 1) % test.num_classes
    projection = Projection(
        penalty=PENALTIES[options.data],
        initial_steps=options.initial_steps,
        steps=options.steps,
    )
    start = time.perf_counter()
    nearest, z = project(generator, x, other_B, projection, compute_shape=options.images)
    delta_x, exact = nearest - x, test.delta_x()
    facts: dict[str, object] = {
        "test": test.label,
        "projection": projection.model_dump(),
        "project_seconds": round(time.perf_counter() - start, 1),
        "mean_square_error": round(float(delta_x.square().mean()), 5),
        "mean_square_z": round(float(z.square().mean()), 4),
    }
    if exact is not None:
        facts["cosine_to_truth"] = round(float(alignment(delta_x, exact).mean()), 4)
        facts["cosine_of_a_constant_image"] = round(float(alignment(-x, exact).mean()), 4)
    rows = {"x": x, "x'": nearest, "Δx": delta_x}
    shown = {name: images[:8].numpy() for name, images in rows.items()}
    (options.out / "projected.png").write_bytes(render(comparison_figure(shown, signed=("Δx",))))
    return facts


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train and judge a conditional generator.")
    parser.add_argument("--data", choices=sorted(PENALTIES), default="squares32")
    parser.add_argument("--root", type=Path, help="folder of the data files (mnist)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=5.0, help="of training")
    parser.add_argument("--iterations", type=int, default=25_000, help="at most")
    parser.add_argument("--every", type=int, default=100, help="iterations between looks")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--train-limit", type=int)
    parser.add_argument("--images", type=int, default=100, help="test images that are projected")
    parser.add_argument("--initial-steps", type=int, default=600)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
