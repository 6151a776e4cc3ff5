"""How much of a study has to be computed before its best network is found, by replay.

    OMP_NUM_THREADS=1 python benchmarks/search.py                  # both tables, 50 replays
    OMP_NUM_THREADS=1 python benchmarks/search.py --replays 5 --only digits_64
    OMP_NUM_THREADS=1 python benchmarks/search.py --draw           # the figure alone, from the JSON

A complete study says what each trial of its grid would have given. A replay searches it again with
the code that searches a real study (`robustray.sweeps.search`), one trial after the other, and
looks up what training would have found: the score after each epoch, and in the end the accuracy
under attack on test images. It is charged what the plan counts for that: each epoch that a trial
was trained, and the attacks on those that were not stopped. The searcher hears held-out scores
only. The regret is the accuracy of the best network of the study less that of the best one that
was attacked so far, both on test images; before any was, that of a network taken blindly. The best
of many is also the luckiest of many. So the same is told of expected accuracies, which a fit to
the whole study smooths (`robustray.reports.fit`): that of the network that would have been taken,
against the highest. Whoever searches with ``longest first`` has one replay, the others have one
for each seed.

``--told test`` tells the searcher the accuracy on test images in place of the held-out one, which
no real search may: how well it would do if its scores were as good as the judge's.
"""

# ruff: noqa: E402 - imports follow a change of the path

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.axes import Axes

ROOT = Path(__file__).resolve().parent.parent
sys.path = [str(ROOT), *(p for p in sys.path if Path(p).resolve() != ROOT / "benchmarks")]

from robustray.data import describe
from robustray.manifest import Search, Sweep, load_manifest
from robustray.manifest.search import Searcher
from robustray.random import derive_seed
from robustray.reports.canvas import make_canvas
from robustray.reports.fit.surface import Shape, fit_surface
from robustray.reports.rows import TrialRow
from robustray.reports.style import BLUE, GREEN, GREY, VERMILION, framed, render, style
from robustray.runtime.attempts import cpu_name
from robustray.sweeps.grid import Study
from robustray.sweeps.plan import make_plan
from robustray.sweeps.search.halving import Rungs
from robustray.sweeps.search.proposals import (
    Space,
    comparable_scores,
    fewest_scores,
    propose,
)

RESULTS, FIGURE = ROOT / "docs/results/search.json", ROOT / "docs/figures/search.png"
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
GOAL, AT = 0.5, 0.1  # points of regret, and the share of the cost at which it is wanted
# Of each study: its manifest, its folder with table.csv and curves.csv, and its rungs. Scores of
# cifar10_64 begin after the third of four epochs.
STUDIES: dict[str, tuple[str, Search]] = {
    "digits_64": ("pgd-20", Search(grace_epochs=1, reduction=3)),
    "cifar10_64": ("pgd-20", Search(grace_epochs=3, reduction=2)),
}
COLOURS = {"longest first": "black", "random": GREY, "TPE": BLUE, "GP": VERMILION}
METHODS: dict[str, tuple[Searcher | None, bool]] = {
    "longest first, ASHA": (None, True),
    "random": ("random", False),
    "random, ASHA": ("random", True),
    "TPE": ("tpe", False),
    "TPE, ASHA": ("tpe", True),
    "GP": ("gp", False),
    "GP, ASHA": ("gp", True),
}


@dataclass(frozen=True)
class Table:
    """A complete study: what each trial costs, and what came of it."""

    space: Space
    epochs: int
    epoch_macs: dict[str, float]
    attack_macs: dict[str, float]
    held_out: dict[str, dict[int, float]]
    final: dict[str, float]
    test: dict[str, float]
    expected: dict[str, float]
    images: int

    @cached_property
    def whole(self) -> float:
        """Cost of all trials."""
        return sum(self.epochs * self.epoch_macs[n] + self.attack_macs[n] for n in self.test)


def read_table(name: str) -> Table:
    """Read a study from its manifest and the files of its results."""
    held, _ = STUDIES[name]
    manifest = load_manifest(ROOT / f"manifests/sweeps/{name}.yaml")
    assert isinstance(manifest, Sweep)
    study, folder = Study.from_manifest(manifest), ROOT / f"docs/results/{name}"
    plan, rows = make_plan(study), _read(folder / "table.csv")
    curves: dict[str, dict[int, float]] = {}
    for row in _read(folder / "curves.csv"):
        if row[f"validation_{held}"]:
            score = float(row[f"validation_{held}"])
            curves.setdefault(row["name"], {})[int(row["epoch"])] = score
    epochs = manifest.recipe.epochs
    return Table(
        Space.of(study.trials),
        epochs,
        {name: cost.train_macs / epochs for name, cost in plan.costs.items()},
        {name: float(cost.evaluation_macs) for name, cost in plan.costs.items()},
        curves,
        {row["name"]: float(row["validation_accuracy"]) for row in rows},
        {row["name"]: float(row["cw-40"]) for row in rows},
        _smooth(rows),
        describe(manifest.data).test,
    )


def _smooth(rows: list[dict[str, str]]) -> dict[str, float]:
    """Return the accuracies that a fit to all trials expects."""
    trials = [
        TrialRow(
            row["name"],
            tuple(int(row[f"depth_{stage}"]) for stage in (1, 2, 3)),
            tuple(float(row[f"width_{stage}"]) for stage in (1, 2, 3)),
            int(row["parameters"]), int(row["macs"]), "finished",
            metrics={"cw-40": float(row["cw-40"])},
        )
        for row in rows
    ]  # fmt: skip
    surface = fit_surface(trials, "cw-40")
    assert surface is not None
    found = surface.predict([Shape.of(trial) for trial in trials])
    return {trial.name: one.accuracy for trial, one in zip(trials, found, strict=True)}


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as lines:
        return list(csv.DictReader(lines))


def replay(
    table: Table, rule: Search, searcher: Searcher | None, halving: bool, seed: int, told: str
) -> list[tuple[float, str]]:
    """Search a table; return (share of the whole cost, best on test images) after each trial."""
    rungs, scores = Rungs(rule, table.epochs), dict[str, dict[int, float]]()
    spent, best, steps = 0.0, "", list[tuple[float, str]]()
    left = sorted(table.test, key=lambda name: (-table.epoch_macs[name], name))
    for number in range(len(left)):
        if spent / table.whole > max(SHARES):
            break
        name = left[0]
        if searcher is not None:
            known = comparable_scores(scores, fewest_scores(table.space))
            name = propose(table.space, searcher, told=known, left=left, seed=seed, number=number)
        left.remove(name)
        for epoch in range(1, table.epochs + 1):
            spent += table.epoch_macs[name]
            score = table.held_out[name].get(epoch) if told == "held-out" else table.test[name]
            rung = rungs.due(name, epoch) if halving else 0
            if score is not None and rung and epoch < table.epochs:
                scores.setdefault(name, {})[rung] = score
                if not rungs.judge(name, rung, score):
                    break
        else:
            spent += table.attack_macs[name]
            final = table.final[name] if told == "held-out" else table.test[name]
            scores.setdefault(name, {})[table.epochs] = final
            best = max(best or name, name, key=lambda one: table.test[one])
            steps.append((spent / table.whole, best))
    return steps


def regrets(accuracies: dict[str, float], steps: list[tuple[float, str]]) -> list[float]:
    """Return the regret at each of the shares, in points."""
    top, found = max(accuracies.values()), []
    for share in SHARES:
        names = [name for cost, name in steps if cost <= share]
        found.append(accuracies[names[-1]] if names else fmean(accuracies.values()))
    return [100 * (top - accuracy) for accuracy in found]


def measure(name: str, replays: int, told: str) -> dict[str, Any]:
    """Replay every method on a study."""
    table, (_, rule) = read_table(name), STUDIES[name]
    methods: dict[str, Any] = {}
    for label, (searcher, halving) in METHODS.items():
        seeds = range(replays if searcher else 1)
        began = time.perf_counter()
        steps = [
            replay(table, rule, searcher, halving, derive_seed("replay", seed) % 2**32, told)
            for seed in seeds
        ]
        found, smooth = (
            np.array([regrets(one, taken) for taken in steps])
            for one in (table.test, table.expected)
        )
        low, middle, high = np.quantile(found, (0.25, 0.5, 0.75), axis=0)
        methods[label] = {
            "replays": len(found),
            "median": _rounded(middle),
            "quartiles": [_rounded(low), _rounded(high)],
            "expected": _rounded(np.median(smooth, axis=0)),
            "within_goal": round(float((found[:, SHARES.index(AT)] <= GOAL + 1e-9).mean()), 3),
            "seconds": round(time.perf_counter() - began, 1),
        }
        print(f"{name:<11} {told:<9} {label:<20} " + " ".join(f"{v:6.2f}" for v in middle)
              + f"   within {GOAL} at {AT:.0%}: {methods[label]['within_goal']:.0%}")  # fmt: skip
    top = sorted(table.test.values(), reverse=True)
    return {
        "best": round(100 * top[0], 3),
        "second": round(100 * top[1], 3),
        "within_goal_of_best": sum(100 * (top[0] - one) <= GOAL + 1e-9 for one in top),
        "mean": round(100 * fmean(top), 3),
        "expected_range": _rounded(100 * np.array(sorted(table.expected.values()))[[0, -1]]),
        "trials": len(top),
        "test_images": table.images,
        "noise": round(100 * float(np.sqrt(top[0] * (1 - top[0]) / table.images)), 3),
        "rungs": list(rule.rungs(table.epochs)),
        "epochs": table.epochs,
        "methods": methods,
    }


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 3) for value in values]


def draw(found: dict[str, Any]) -> bytes:
    """Draw the median regret of all methods against the share of the cost."""
    names = [name for name in STUDIES if name in found["held-out"]]
    with style():
        figure = make_canvas(10.5, width=11.0)
        panels = figure.subplots(2, len(names), squeeze=False)
        for column, name in zip(panels.T, names, strict=True):
            study = found["held-out"][name]
            top = f"{name}: best accuracy found"
            _panel(column[0], top, study, "median")
            _panel(column[1], f"{name}: expected accuracy of that network", study, "expected")
            column[0].axhline(GOAL, color=GREEN, linewidth=1.5, linestyle=":")
            column[0].axhspan(0, study["noise"], color=GREY, alpha=0.15, linewidth=0)
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return render(figure)


def _panel(axes: Axes, title: str, study: dict[str, Any], key: str) -> None:
    for label, one in study["methods"].items():
        colour = COLOURS[label.partition(",")[0]]
        line = "--" if "ASHA" in label else "-"
        axes.plot(SHARES, one[key], line, color=colour, label=label, marker="o", markersize=4)
    axes.set_xscale("log")
    axes.set_xticks(SHARES, [f"{100 * share:g}" for share in SHARES])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    framed(axes, "% of the whole study's cost", "median regret in points", title, 13)


def main() -> None:
    """Replay, write the JSON, draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--replays", type=int, default=50)
    parser.add_argument("--only", choices=tuple(STUDIES))
    parser.add_argument("--told", choices=("held-out", "test"), action="append")
    parser.add_argument("--draw", action="store_true", help="only draw what the JSON has")
    options = parser.parse_args()
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if not options.draw:
        names = [options.only] if options.only else list(STUDIES)
        for told in options.told or ("held-out", "test"):
            for name in names:
                measured = measure(name, options.replays, told)
                found.setdefault(told, {})[name] = measured
        packages = ("optuna", "ray", "torch", "scipy", "numpy")
        found |= {
            "benchmark": "search",
            "versions": {name: version(name) for name in packages},
            "device": f"CPU {cpu_name()}",
            "shares": list(SHARES),
            "replays": options.replays,
        }
        RESULTS.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    FIGURE.write_bytes(draw(found))


if __name__ == "__main__":
    main()
