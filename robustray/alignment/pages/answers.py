"""What an alignment job was asked, and its answer in one sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from robustray.alignment.manifest import Alignment
from robustray.alignment.metrics import ALPHA
from robustray.alignment.pages.medians import (
    Median,
    compare_numbers,
    compare_words,
    compared_medians,
    median_of_curve,
    median_of_distances,
    method_words,
)
from robustray.alignment.pages.methods import attack_words, number, published_similarity
from robustray.reports.answers import Answer, measured
from robustray.reports.frontier import kendall
from robustray.reports.pages.frames import read_table
from robustray.reports.style import correlation_words
from robustray.reports.words import metric_label

COSINE = "cosine_similarity_correct_vs_net_g_val"
Files = Mapping[str, bytes]


def answer_alignment(manifest: Alignment, result: Mapping[str, Any], files: Files) -> Answer:
    """Answer what a finished job was asked.

    Parameters
    ----------
    manifest : Alignment
        What was asked for.
    result : mapping
        Its canonical result.
    files : mapping of str to bytes
        The tables that it left.
    """
    stage = manifest.stage
    if stage == "generator" or (stage == "evaluation" and manifest.weights is None):
        return _of_estimate(manifest, result, files)
    return _ANSWERS[stage](manifest, result, files)


def mean_interval(values: Any) -> str:
    """Write the mean of a column (N,) with its 95 % interval, by the normal approximation."""
    mean, half = float(values.mean()), 1.96 * float(values.std(ddof=1)) / math.sqrt(len(values))
    if not math.isfinite(half):
        return f"{mean:.3f}"
    return f"{mean:.3f} [{mean - half:.3f}, {mean + half:.3f}]"


def _of_classifier(manifest: Alignment, result: Mapping[str, Any], files: Files) -> Answer:
    metrics, examples = result["metrics"], read_table(files, "examples.csv")
    name = _network(manifest)
    if examples is None:
        assert manifest.training is not None, "an evaluation leaves its examples"
        attack = manifest.training.validation
        median = Median(metrics["epsilon_50_corrected"], "", max(attack.eps, default=0.0))
        sentence = (
            f"Epoch {result['selected_epoch']} was kept: {100 * metrics['validation_clean']:.1f} % "
            "of the validation images are classified correctly, and "
            f"{median.claim('them', attack_words(attack.label))}."
        )
        return Answer(f"How robust is {name}?", sentence)
    count = len(examples)
    clean = measured(1 - metrics["clean_error"], count)
    alpha, symbol = (ALPHA, "α") if ALPHA in examples else ("alpha_x", "αx")
    aligned = mean_interval(examples[alpha])
    medians = _medians(manifest, files, count)
    first = [one.claim(f"{count:,} examples", attack) for attack, one in medians.items()][:1]
    sentence = "; ".join(
        [*first, f"alignment {symbol} = {aligned}", f"{clean} are correct without attack"]
    )
    numbers = {f"Median robustness, {attack}": one.size for attack, one in medians.items()}
    numbers |= {f"Alignment {symbol}": aligned, "Clean accuracy": clean}
    if alpha == ALPHA:
        numbers["αx: gradient and image"] = mean_interval(examples["alpha_x"])
    question = f"How robust is {name} on {_data(manifest)}, and does its gradient point along Δx?"
    return Answer(question, f"{_begun(sentence)}.", numbers)


def _medians(manifest: Alignment, files: Files, count: int) -> dict[str, Median]:
    """Return what half of the examples withstand, by the attack in words."""
    found: dict[str, Median] = {}
    for attack in manifest.evaluation.attacks if manifest.evaluation else ():
        name, table = attack_words(attack.label), read_table(files, f"{attack.label}.csv")
        if attack.attack == "stadv" or table is None:
            continue  # its strengths are weights of smoothness: the larger the weaker
        if "eps" in table:
            found[name] = median_of_curve(table, count)
        else:
            found[name] = median_of_distances(table["distance"].tolist())
    return found


def _of_estimate(manifest: Alignment, result: Mapping[str, Any], files: Files) -> Answer:
    examples, metrics = read_table(files, "examples.csv"), result["metrics"]
    estimator = "direct" if manifest.stage == "generator" else manifest.delta_x.source
    told = published_similarity(manifest.data.name, estimator)
    question = f"How well is Δx estimated on {_data(manifest)} ({estimator})?"
    length = number(metrics["delta_x_norm"])
    numbers = {"Mean length of Δx": length}
    if COSINE not in metrics:
        sentence = f"The mean length of Δx is {length}; the true Δx of these images is not known."
        return Answer(question, sentence, numbers)
    cosine = number(metrics[COSINE])
    if examples is not None and "cosine" in examples:
        cosine = mean_interval(examples["cosine"])
    numbers = {"Cosine to the true Δx": cosine, **numbers}
    words = "" if told is None else f" (published: {number(told)})"
    return Answer(question, f"The cosine to the true Δx is {cosine}{words}.", numbers)


def _of_drawer(manifest: Alignment, result: Mapping[str, Any], files: Files) -> Answer:
    del result
    assert manifest.conditional_generator is not None
    table = read_table(files, "epochs.csv")
    done = f"Trained for {manifest.conditional_generator.iterations:,} iterations"
    numbers: dict[str, str] = {}
    if table is not None and len(table):
        last = table.iloc[-1].drop("epoch")
        numbers = {name.replace("_", " "): number(float(value)) for name, value in last.items()}
    question = f"Can images of {manifest.data.name} be drawn class by class?"
    sentence = f"{done}; an evaluation with delta_x: projected measures how good its images are."
    return Answer(question, sentence, {f"Last {name}": value for name, value in numbers.items()})


def _of_projections(manifest: Alignment, result: Mapping[str, Any], files: Files) -> Answer:
    del files
    pairs = {name.removesuffix("_pairs"): value for name, value in result["metrics"].items()}
    told = ", ".join(f"{value:,.0f} of the {name} images" for name, value in pairs.items())
    question = f"Are the images of {manifest.data.name} projected on its classes?"
    return Answer(question, f"Yes: pairs of image and class, {told}, are kept for later stages.")


def _of_comparison(manifest: Alignment, result: Mapping[str, Any], files: Files) -> Answer:
    data = manifest.data.name
    question = f"Which training makes networks robust on {data}, and which aligns their gradients?"
    table = read_table(files, "comparison.csv")
    if table is None:
        return Answer(question, "An earlier version compared these jobs: see the figures.")
    numbers: dict[str, str] = {}
    parts: list[str] = []
    for attack, medians in compared_medians(table, result["metrics"]).items():
        parts += [] if parts else [compare_words(attack, medians)]
        numbers |= {f"{attack}, {method_words(m)}": one.size for m, one in medians.items()}
    if "alpha_delta_x" in table and not table["alpha_delta_x"].isna().to_numpy().any():
        alphas = compare_numbers("alpha_delta_x", table)
        words = ", ".join(f"{text} with {method_words(m)}" for m, text in alphas.items())
        parts.append(f"alignment α is {words}")
        numbers |= {f"α, {method_words(m)}": text for m, text in alphas.items()}
    seeds: Any = table.groupby("method")["seed"].nunique()
    numbers["Seeds of each method"] = ", ".join(map(str, sorted(set(seeds))))
    sentence = f"{_begun('; '.join(parts))}." if parts else "No attack is common to all methods."
    return Answer(question, sentence, numbers)


def _of_probe(manifest: Alignment, result: Mapping[str, Any], files: Files) -> Answer:
    assert manifest.probe is not None
    table = read_table(files, "probe.csv")
    assert table is not None
    question = f"Does alignment predict the robust accuracy of {len(table)} networks?"
    names = [name for name in table.columns if name not in ("study", "trial", "alpha")]
    found = {}
    for name in names:
        known = table[["alpha", name]].dropna()
        found[name] = kendall(known["alpha"].tolist(), known[name].tolist())
    numbers = {
        f"τ with {metric_label(name)}": correlation_words(one) for name, one in found.items()
    }
    strongest = names[-1] if names else ""
    told = found.get(strongest)
    if told is None:
        return Answer(question, "There are too few networks to tell.", numbers)
    start = "Not clearly" if told.p_value >= 0.05 else "Yes" if told.tau > 0 else "The reverse"
    words = f"{start}: Kendall's τ of α and {metric_label(strongest)} is {correlation_words(told)}."
    return Answer(question, words, numbers)


_ANSWERS: dict[str, Callable[[Alignment, Mapping[str, Any], Files], Answer]] = {
    "classifier": _of_classifier,
    "evaluation": _of_classifier,
    "conditional_generator": _of_drawer,
    "projections": _of_projections,
    "comparison": _of_comparison,
    "probe": _of_probe,
}


def _network(manifest: Alignment) -> str:
    if manifest.training is not None:
        method = manifest.training.method
        words = {"baseline": "without attacks", "pgd": "against PGD", "l_alpha": "with L_α"}
        return f"a network trained {words[method]}"
    assert manifest.weights is not None
    return manifest.weights.run or str(manifest.weights.uri).rpartition("/")[2]


def _data(manifest: Alignment) -> str:
    data = manifest.data
    first = (
        f"the first {data.first:,} {data.split} examples" if data.first else f"the {data.split} set"
    )
    return f"{first} of {data.name}"


def _begun(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
