"""What a run was asked, and its answer in one sentence, as pages, MLflow and terminals show it."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from robustray.reports.frontier import find_best, find_rival, is_uniform
from robustray.reports.intervals import accuracy_interval, difference
from robustray.reports.rows import StudyReport, TrialRow, judged, metric_names
from robustray.reports.words import amount, eps_text, metric_label, network_name

_EQUAL = 0.10  # networks whose MACs differ by no more than this share cost the same


@dataclass(frozen=True)
class Answer:
    """A question, its answer in one sentence, and the numbers behind it, all of it plain text.

    Attributes
    ----------
    question, sentence : str
        What was asked, and the answer with its 95 % interval.
    numbers : mapping of str to str
        What each number is, and the number with its interval or unit.
    partial : bool
        Whether results are missing, so that the answer may change.
    doubts : sequence of str
        Why the numbers may be worth less than they look; empty where nothing is known.
    """

    question: str
    sentence: str
    numbers: Mapping[str, str] = field(default_factory=dict)
    partial: bool = False
    doubts: Sequence[str] = ()


def measured(accuracy: float, images: int | None) -> str:
    """Write an accuracy in [0, 1] with its 95 % interval: "53.1 % [50.2, 56.0]"."""
    if not images:
        return f"{100 * accuracy:.1f} %"
    low, high = accuracy_interval(accuracy, images)
    return f"{100 * accuracy:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def answer_study(report: StudyReport) -> Answer:
    """Answer which network of a study is the most robust, or how robust its only one is."""
    counts, metric = report.counts, report.headline
    found = judged(report.rows, metric)
    lone = counts.expected == 1
    question = _lone_question(report) if lone else _sweep_question(report)
    best = find_best(found, metric)
    if best is None:
        return Answer(question, f"Nothing is known yet: {counts}.", {}, True)
    numbers = _trial_numbers(report, best)
    if lone:
        sentence = f"{_score(report, best)}{_unattacked(report, best)}."
        return Answer(question, sentence, numbers, report.is_partial)
    searched = f"Best of {len(found)} that a search judged" if counts.not_started else "Best"
    start = "Best so far" if report.is_partial else searched
    sentence = f"{start}: {best.name}, {_score(report, best)}"
    if report.uniform_axes and all(is_uniform(best, by) for by in report.uniform_axes):
        sentence += "; it is uniform"
    if (even := find_rival(found, metric, report.uniform_axes)) is not None:
        sentence += _against(report, best, even)
        numbers |= {f"Uniform: {even.name}": _cost_words(report, even)}
    values = [row.metrics[str(metric)] for row in found]
    numbers |= {f"Median of {len(found)}": f"{100 * statistics.median(values):.1f} %"}
    return Answer(question, f"{sentence}.", numbers, report.is_partial)


def answer_evaluation(result: Mapping[str, Any]) -> Answer:
    """Answer how robust one network is, from the result document of its evaluation."""
    threat, data = result["threat"], result["data"]
    question = (
        f"How robust is {network_name(result['subject']['network'])} on {data['count']:,} images "
        f"of {data['label']} ({threat['norm']}, eps = {eps_text(threat['eps'])})?"
    )
    suite, total = suite_words(result), data["count"]
    doubts = [f["message"] for f in result["audit"] if f["severity"] in ("warning", "error")]
    numbers = {
        f"After {attack['label']}": f"{100 * attack['accuracy_after']:.1f} %, "
        f"{attack['broken']:,} of {attack['attacked']:,} broken"
        for attack in result["attacks"]
        if attack["accuracy_after"] is not None
    }
    if result["clean"]["accuracy"] is not None:
        numbers = {"Clean accuracy": _rate(result["clean"])} | numbers
    if result["partial"]:
        low, high = result["bounds"]
        sentence = f"Robust accuracy lies between {100 * low:.1f} and {100 * high:.1f} % so far"
        return Answer(question, f"{sentence}; {suite} is not done.", numbers, True, doubts)
    numbers = {"Robust accuracy": _rate(result["robust"])} | numbers
    sentence = (
        f"{_rate(result['robust'])} of {total:,} images withstand {suite}; "
        f"{_rate(result['clean'])} are classified correctly without attack."
    )
    return Answer(question, sentence, numbers, False, doubts)


def suite_words(result: Mapping[str, Any]) -> str:
    """Return what a suite is called, or what it consists of where it has no name of its own."""
    name = result["suite"]["name"]
    if name != "custom":
        return metric_label(name)
    *first, last = [metric_label(attack["label"]) for attack in result["attacks"]]
    return f"{', '.join(first)} and {last}" if first else last


def answer_corruptions(result: Mapping[str, Any]) -> Answer:
    """Answer which network copes best with corrupted images, from a job's result document.

    It is partial where networks are missing from the result.
    """
    networks, many = result["networks"], len(result["averaged"])
    partial = set(networks) != set(result["subjects"])
    images = min(
        (
            cell["total"]
            for network in networks.values()
            for found in network["corruptions"].values()
            for cell in found["severities"]
        ),
        default=None,
    )
    kinds = f"{many} corruption{'s' * (many != 1)}"
    question = (
        f"How well do {len(result['subjects'])} networks classify {result['data']['name']} under "
    )
    question += f"{kinds}, severities {_span(result['severities'])}?"
    if len(result["subjects"]) == 1:
        (alone,) = result["subjects"]
        question = question.replace("do 1 networks classify", f"does {alone} classify")
    known = {name: n for name, n in networks.items() if n["mean_accuracy"] is not None}
    if not known:
        return Answer(question, "Nothing is known yet.", {}, True)
    best = max(known, key=lambda name: known[name]["mean_accuracy"])
    numbers = {name: measured(n["mean_accuracy"], images) for name, n in known.items()}
    start = f"Best{' so far' * partial}: {best}, " if len(result["subjects"]) > 1 else ""
    sentence = f"{start}{numbers[best]} mean accuracy over {kinds}"
    if clean := known[best]["clean"]:
        sentence += f"; {_rate(clean)} without corruption"
    return Answer(question, f"{sentence}.", numbers, partial)


def _lone_question(report: StudyReport) -> str:
    name = report.rows[0].name if report.rows else report.study
    return f"How robust is {name}, trained on {report.data_label} ({report.threat})?"


def _sweep_question(report: StudyReport) -> str:
    several = f"{report.counts.expected:,} networks"
    return f"Which of {several} is the most robust on {report.data_label} ({report.threat})?"


def _score(report: StudyReport, row: TrialRow) -> str:
    metric = str(report.headline)
    number = measured(row.metrics[metric], report.tested.get(metric))
    return number if metric == "clean" else f"{number} under {metric_label(metric)}"


def _unattacked(report: StudyReport, row: TrialRow) -> str:
    """Return the clean accuracy as the end of a sentence, beside one under attack."""
    clean = row.metrics.get("clean")
    if clean is None or report.headline == "clean":
        return ""
    return f"; {measured(clean, report.tested.get('clean'))} without attack"


def _trial_numbers(report: StudyReport, row: TrialRow) -> dict[str, str]:
    """Return each accuracy of a trial, and what the network costs."""
    names = dict.fromkeys((str(report.headline), *reversed(metric_names([row]))))
    numbers = {
        metric_label(metric): measured(row.metrics[metric], report.tested.get(metric))
        for metric in names
    }
    cost = f"{amount(row.macs)} MACs, {amount(row.parameters)} parameters"
    return numbers | {"Cost of one image": cost}


def _cost_words(report: StudyReport, row: TrialRow) -> str:
    return f"{_score(report, row)}, {amount(row.macs)} MACs"


def _against(report: StudyReport, best: TrialRow, even: TrialRow) -> str:
    """Compare the best network with a uniform one; "" where their costs differ too much."""
    metric = str(report.headline)
    if abs(even.macs - best.macs) > _EQUAL * best.macs:
        return ""
    first, second = best.metrics[metric], even.metrics[metric]
    words, chance = f"{100 * (first - second):+.1f} points", ""
    if float(words.split()[0]) == 0:
        return "; level with the uniform network of equal cost"
    if images := report.images:
        low, high = difference(first, second, images)
        words += f" [{100 * low:+.1f}, {100 * high:+.1f}]"
        chance = ", not significant" if low <= 0 <= high else ""
    return f"; {words} over the uniform network of equal cost{chance}"


def _rate(document: Mapping[str, Any]) -> str:
    """Write an accuracy that carries its interval."""
    low, high = document["interval_95"]
    return f"{100 * document['accuracy']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def _span(numbers: Sequence[int]) -> str:
    ordered = sorted(numbers)
    whole = len(ordered) > 2 and ordered == list(range(ordered[0], ordered[-1] + 1))
    return f"{ordered[0]} to {ordered[-1]}" if whole else ", ".join(map(str, ordered))


def write_note(description: str, answer: Answer | None, further: Sequence[str] = ()) -> str:
    """Write a description and an answer as Markdown, as MLflow shows beside a run.

    Parameters
    ----------
    description : str
        What people wrote themselves, in Markdown; may be empty.
    answer : Answer or None
        What was found, once something is.
    further : sequence of str
        More paragraphs, in Markdown.
    """
    parts = [description]
    if answer is not None:
        parts += [f"*{_plain(answer.question)}*", f"**{_plain(answer.sentence)}**"]
        parts += ["\n".join(f"- {_plain(n)}: {_plain(v)}" for n, v in answer.numbers.items())]
        parts += [f"Doubt: {_plain(doubt)}" for doubt in answer.doubts]
    return "\n\n".join(part for part in (*parts, *further) if part)


def _plain(text: str) -> str:
    """Return text that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]<>#|])", r"\\\1", text)
