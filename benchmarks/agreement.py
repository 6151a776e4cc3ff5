"""Whether our AutoAttack is as strong as the reference, image by image.

    OMP_NUM_THREADS=1 python benchmarks/agreement.py --model trades-mnist --n 500
    OMP_NUM_THREADS=1 python benchmarks/agreement.py --model resnet4b-2 --n 500 --norm l2 --eps 0.5
    OMP_NUM_THREADS=1 python benchmarks/agreement.py --model cnn-a-adv4 --n 500 --alone
    OMP_NUM_THREADS=1 python benchmarks/agreement.py --model natural --n 500 --search bf16
    OMP_NUM_THREADS=1 python benchmarks/agreement.py --model resnet4b-2 --n 500 --compatible

Both engines judge the same images with the seeds 0 to 4, fixed before any was run. For each image,
the difference is the share of seeds at which ours leaves it robust, less that of the reference;
the mean over images is the difference of mean robust accuracies, and its 95 % interval comes from
the spread over images (Student's t). Ours is "as strong" where the whole interval is at most +0.2
points, "weaker" where the whole interval is above, else the comparison is inconclusive.
Disagreements count pairs of equal seeds: robust for ours alone / robust for the reference alone.

The table goes attack by attack through the cascade: what is robust after each; the last row is the
suite. With ``--alone`` each attack runs by itself on all images as well. The reference's own
verdicts move with the size of its batches (``--reference-batch``).

``--compatible`` runs our attacks in lockstep instead, with the reference's random numbers, quirks
and batch size: every flag has to be equal, and the exit code is 1 where one is not.
"""

# ruff: noqa: E402 - imports follow a change of the path

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import stats
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
# Not the folder of this script: in it is another script with the name of a package.
sys.path = [str(ROOT), *(p for p in sys.path if Path(p).resolve() != ROOT / "benchmarks")]

from benchmarks.networks import CASES, describe_machine, images, network
from robustray.attacks import EvaluationResult, Suite, ThreatModel, attack_suite, evaluate
from robustray.attacks.engine import Examples, Network, Schedule, clean_logits
from robustray.attacks.engine.context import judging
from robustray.attacks.engine.network import is_correct
from robustray.attacks.engine.upstream import run_attack_upstream
from robustray.evaluation.units.reference import evaluate_reference, run_reference
from robustray.evaluation.units.reference_attacks import find_package
from robustray.manifest.fields import read_number

SEEDS = (0, 1, 2, 3, 4)
TOLERANCE = 0.2  # points of robust accuracy
SEARCHES = {
    "float32": {},
    "channels-last": {"channels_last": True},
    "bf16": {"channels_last": True, "search_dtype": "bfloat16"},
}
Judge = Callable[[Suite, int], EvaluationResult]


@dataclass(frozen=True)
class Comparison:
    """What is compared after one attack: accuracies in %, differences in points.

    Attributes
    ----------
    attack : str
        The attack, or "suite".
    ours, reference : float
        Mean robust accuracy over the seeds.
    ours_spread, reference_spread : float
        Largest less smallest over the seeds.
    difference, low, high : float
        Ours less the reference's, and its 95 % interval.
    ours_alone, reference_alone : int
        Pairs (image, seed) that are robust for one engine only.
    images, seeds : int
        How many there were.
    """

    attack: str
    ours: float
    reference: float
    ours_spread: float
    reference_spread: float
    difference: float
    low: float
    high: float
    ours_alone: int
    reference_alone: int
    images: int
    seeds: int

    @property
    def verdict(self) -> str:
        """In words, whether ours is as strong."""
        if self.high <= TOLERANCE:
            return "as strong"
        return "weaker" if self.low > TOLERANCE else "inconclusive"


def main() -> None:
    """Compare, print a table, and write it as JSON where that is wanted."""
    options = _options()
    torch.set_num_threads(options.threads)
    print(_describe(options), flush=True)
    suite = attack_suite(options.suite, options.norm)
    if options.compatible:
        equal = [compare_compatible(suite, seed, options) for seed in SEEDS[: options.seeds]]
        sys.exit(0 if all(equal) else 1)
    rows = compare_suite(None, options)
    if options.alone:
        for spec in suite.attacks:
            rows += compare_suite(spec.name, options)
    print_table(rows)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def compare_suite(alone: str | None, options: argparse.Namespace) -> list[Comparison]:
    """Judge with both engines at all seeds; compare after each attack, or after one alone."""
    suite = _suite(alone, options)
    names = [spec.name for spec in suite.attacks]
    with ProcessPoolExecutor(options.jobs, mp_context=mp.get_context("spawn")) as pool:
        waiting = [_judged(pool, engine, alone, options) for engine in ("reference", "ours")]
        theirs_SAN, ours_SAN = (np.array([run.result() for run in runs]) for runs in waiting)
    titles = names if len(names) > 1 else [suite.name]
    return [compare(title, ours_SAN[:, at], theirs_SAN[:, at]) for at, title in enumerate(titles)]


def compare_compatible(suite: Suite, seed: int, options: argparse.Namespace) -> bool:
    """Run both engines in lockstep through a cascade; print and return whether flags are equal."""
    model, examples, threat = _given(options)
    model_network, batch = Network(model, examples.x.device), options.reference_batch
    equal = True
    print(
        f"seed {seed}  attacked, robust, flags that differ, largest distance, forwards, backwards"
    )
    with judging(model):
        logits = clean_logits(model_network, examples, Schedule(64, batch))
        left = examples.take(is_correct(logits, examples.y_N).nonzero()[:, 0])
        for spec in suite.attacks:
            if len(left) == 0:
                break
            ours = run_attack_upstream(model_network, left, threat, spec, batch, seed=seed)
            theirs = run_reference(model, left, threat, spec, seed=seed, batch_size=batch)
            broken = theirs.success_B | theirs.lost_B
            differ = int((broken != ours.success_B).sum())
            both = broken & ours.success_B
            apart = (ours.x_adv - theirs.x_adv)[both].abs()
            print(
                f"{spec.name:<10}{len(left):>6}{int((~broken).sum()):>8}{differ:>8}"
                f"{apart.max().item() if len(apart) else 0:>12.1e}"
                f"  {_sums(ours.forwards_B, theirs.forwards_B)}"
                f"  {_sums(ours.backwards_B, theirs.backwards_B)}",
                flush=True,
            )
            equal, left = equal and not differ, left.take((~broken).nonzero()[:, 0])
    return equal


def compare(attack: str, ours_SN: np.ndarray, theirs_SN: np.ndarray) -> Comparison:
    """Compare flags: bool (S, N), whether an image is robust at a seed."""
    ours, theirs = 100 * ours_SN.mean(1), 100 * theirs_SN.mean(1)
    difference_N = 100 * (ours_SN.mean(0) - theirs_SN.mean(0))
    mean, count = difference_N.mean(), len(difference_N)
    error = difference_N.std(ddof=1) / count**0.5
    half = stats.t.ppf(0.975, count - 1) * error
    return Comparison(
        attack=attack,
        ours=float(ours.mean()),
        reference=float(theirs.mean()),
        ours_spread=float(np.ptp(ours)),
        reference_spread=float(np.ptp(theirs)),
        difference=float(mean),
        low=float(mean - half),
        high=float(mean + half),
        ours_alone=int((ours_SN & ~theirs_SN).sum()),
        reference_alone=int((theirs_SN & ~ours_SN).sum()),
        images=count,
        seeds=len(ours_SN),
    )


def print_table(rows: list[Comparison]) -> None:
    """Print a row for each comparison."""
    print(
        f"{'robust after':<16}{'ours %':>16}{'reference %':>16}{'difference':>12}"
        f"{'95 % interval':>18}{'disagree':>12}  verdict"
    )
    for row in rows:
        ours = f"{row.ours:.2f} ({row.ours_spread:.2f})"
        theirs = f"{row.reference:.2f} ({row.reference_spread:.2f})"
        interval = f"[{row.low:+.2f}, {row.high:+.2f}]"
        apart = f"{row.ours_alone}/{row.reference_alone}"
        print(
            f"{row.attack:<16}{ours:>16}{theirs:>16}{row.difference:>+12.2f}"
            f"{interval:>18}{apart:>12}  {row.verdict}"
        )
    print("(in brackets: largest less smallest over the seeds)")


def _given(options: argparse.Namespace) -> tuple[nn.Module, Examples, ThreatModel]:
    name = CASES[options.model].network
    x, y = images(name, options.n)
    examples = Examples(x, y, torch.arange(len(y))).to(torch.device(options.device))
    return network(name).to(options.device), examples, ThreatModel(options.norm, options.eps)


def _suite(alone: str | None, options: argparse.Namespace) -> Suite:
    suite = attack_suite(options.suite, options.norm)
    if alone is None:
        return suite
    return Suite(f"{alone} alone", tuple(spec for spec in suite.attacks if spec.name == alone))


def _sums(ours: torch.Tensor, theirs: torch.Tensor) -> str:
    return f"{int(ours.sum())} / {int(theirs.sum())}"


def _judges(options: argparse.Namespace) -> dict[str, Judge]:
    model, examples, threat = _given(options)
    x, y = examples.x, examples.y_N

    def ours(suite: Suite, seed: int) -> EvaluationResult:
        return evaluate(model, x, y, threat, suite, seed, options.batch, **SEARCHES[options.search])

    def theirs(suite: Suite, seed: int) -> EvaluationResult:
        return evaluate_reference(model, x, y, threat, suite, seed, options.reference_batch)

    return {"ours": ours, "reference": theirs}


def _judged(
    pool: Executor, engine: str, alone: str | None, options: argparse.Namespace
) -> list[Future[np.ndarray]]:
    """Judge at each seed; what is robust after each attack: bool (A, N)."""
    return [pool.submit(_judge, engine, alone, seed, options) for seed in SEEDS[: options.seeds]]


def _judge(engine: str, alone: str | None, seed: int, options: argparse.Namespace) -> np.ndarray:
    torch.set_num_threads(options.threads)
    suite = _suite(alone, options)
    search = options.search if engine == "ours" else "float32"
    kept = options.keep and options.keep / "-".join(
        (options.model, options.norm, f"{options.eps:.6f}", str(options.n), search,
         suite.name.replace(" ", "-"), engine, f"{seed}.npy")
    )  # fmt: skip
    if kept and kept.exists():
        return np.load(kept)
    names, start = [spec.name for spec in suite.attacks], time.perf_counter()
    found = _judges(options)[engine](suite, seed)
    place = [names.index(name) if name else len(names) for name in found.broken_by]
    broken_at_N = np.where(found.clean_correct.cpu().numpy(), place, -1)
    print(
        f"  {engine}, {suite.name}, seed {seed}: {found.robust_accuracy:.2%} robust, "
        f"{int(found.forwards.sum())} forwards, {int(found.backwards.sum())} backwards, "
        f"{time.perf_counter() - start:.1f} s",
        flush=True,
    )
    flags_AN = np.array([broken_at_N > at for at in range(len(names))])
    if kept:
        np.save(kept, flags_AN)
    return flags_AN


def _describe(options: argparse.Namespace) -> str:
    package = find_package()
    return (
        f"{CASES[options.model].network}, {options.norm} eps {options.eps:.5f}, first {options.n} "
        f"test images, {options.suite}, seeds {SEEDS[: options.seeds]}\n"
        f"ours: search in {options.search}; {package.name} {package.version}: batches of "
        f"{options.reference_batch}\n{describe_machine(options.device, options.threads)}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Strength of AutoAttack.")
    parser.add_argument("--model", choices=CASES, default="resnet4b-2")
    parser.add_argument("--n", type=int, default=500, help="images")
    parser.add_argument("--norm", choices=("linf", "l2", "l1"), default="linf")
    parser.add_argument("--eps", type=read_number, help="default: that of the model")
    parser.add_argument("--suite", default="autoattack-standard")
    parser.add_argument("--alone", action="store_true", help="each attack by itself as well")
    parser.add_argument("--compatible", action="store_true", help="in lockstep; see above")
    parser.add_argument("--search", choices=SEARCHES, default="float32")
    parser.add_argument("--seeds", type=int, choices=range(1, 6), default=5, help="the first ones")
    parser.add_argument("--batch", type=int, default=256, help="our batch_size")
    parser.add_argument("--reference-batch", type=int, default=250, help="its own default: 250")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="evaluations at a time")
    parser.add_argument("--keep", type=Path, help="folder: what was judged before is read there")
    parser.add_argument("--json", type=Path, help="where to write the table")
    options = parser.parse_args()
    options.eps = options.eps or CASES[options.model].eps
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
    return options


if __name__ == "__main__":
    main()
