"""Project MNIST images on classes with two actors; kill the run, resume it, compare all bytes.

python -m benchmarks.projections --images 2000 --classes 0 1 2

A small conditional generator is trained first (it only has to be the same in both runs). One run is
killed with SIGKILL after some units and started again; another is not disturbed. What both leave
in their stores must be equal byte by byte.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from benchmarks.networks import SHARED
from robustray.alignment.conditional_gan import fit_conditional_generator
from robustray.alignment.job.projections import compute_projections, plan_projections
from robustray.alignment.manifest import ConditionalGeneratorTraining, Projection
from robustray.alignment.splits import load_study
from robustray.cluster import connect
from robustray.manifest import Resources
from robustray.models.architectures.conditional_networks import ConditionalGenerator
from robustray.store import LocalStore

CHANNELS, LATENT, UNIT = 4, 16, 50
PROJECTION = Projection(initial_steps=15, steps=5)


def main() -> int:
    """Train, run twice, compare; exit code 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--classes", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run is not None:
        return _project(options.run, options.images, options.classes)
    with tempfile.TemporaryDirectory(prefix="robustray-projections-") as name:
        folder = Path(name)
        _train(folder, options.iterations)
        units = len(options.classes) * -(-options.images // UNIT)
        killed, whole = folder / "killed", folder / "whole"
        begun = time.perf_counter()
        done = _killed(killed, options, units // 3)
        print(f"killed after {done} of {units} units, {time.perf_counter() - begun:.0f} s")
        begun = time.perf_counter()
        _run(killed, options).wait()
        print(f"resumed and finished in {time.perf_counter() - begun:.0f} s")
        begun = time.perf_counter()
        _run(whole, options).wait()
        print(f"undisturbed in {time.perf_counter() - begun:.0f} s")
        first, second = _content(killed), _content(whole)
        size = sum(map(len, first.values()))
        equal = first == second and len(first) == 2 * units + 1
        print(f"{len(first)} objects, {size / 1e6:.1f} MB: {'equal' if equal else 'DIFFERENT'}")
        return int(not equal)


def _train(folder: Path, iterations: int) -> None:
    train = load_study("mnist", "train", root=SHARED, limit=5000)
    settings = ConditionalGeneratorTraining(
        channels=CHANNELS, latent=LATENT, iterations=iterations, every=iterations, critic_steps=1
    )
    generator = fit_conditional_generator(train.images(), train.y_N, settings, num_classes=10)
    save_file(generator.state_dict(), folder / "generator.safetensors")


def _run(store: Path, options: argparse.Namespace) -> subprocess.Popen[bytes]:
    classes = [str(one) for one in options.classes]
    command = [sys.executable, "-m", "benchmarks.projections", "--run", str(store)]
    command += ["--images", str(options.images), "--classes", *classes]
    return subprocess.Popen(command, start_new_session=True)  # noqa: S603


def _killed(store: Path, options: argparse.Namespace, after: int) -> int:
    """Start a run and kill its whole session once some units are committed."""
    process = _run(store, options)
    while _units(store) < after and process.poll() is None:
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return _units(store)


def _units(store: Path) -> int:
    return len(list(store.glob("projections/units/*/record.json")))


def _content(store: Path) -> dict[str, bytes]:
    files = [path for path in store.glob("projections/**/*") if path.is_file()]
    return {str(path.relative_to(store)): path.read_bytes() for path in files}


def _project(folder: Path, images: int, classes: list[int]) -> int:
    torch.set_num_threads(1)
    generator = ConditionalGenerator(10, 1, CHANNELS, LATENT)
    generator.load_state_dict(load_file(folder.parent / "generator.safetensors"))
    x = load_study("mnist", "test", root=SHARED, limit=images).images()
    store = LocalStore(folder)
    resources = Resources(gpus=0, cpus=1, max_concurrent=2)
    with connect():
        plan = plan_projections(generator, x, classes, PROJECTION, store, unit=UNIT)
        return int(not compute_projections(plan, x, store, resources))


if __name__ == "__main__":
    sys.exit(main())
