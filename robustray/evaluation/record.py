"""The record of an evaluation: its canonical result, and the forms that others read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from robustray.attacks.checks.plausibility import CHECKS
from robustray.evaluation.audit.verdict_findings import findings_after
from robustray.evaluation.distances import describe_distances, distance_lines, find_distances
from robustray.evaluation.suites import MODES
from robustray.evaluation.task import Task
from robustray.evaluation.units.merge import AttackSummary, Merged
from robustray.files import csv_bytes, parquet_bytes
from robustray.models import find_model
from robustray.reports.intervals import wilson
from robustray.reports.words import eps_text, network_name
from robustray.runtime.progress.words import count


def result_document(
    task: Task,
    merged: Merged,
    *,
    suite: str,
    data: Mapping[str, Any],
    findings: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the canonical result: no time, host, attempt or shard size in it.

    Parameters
    ----------
    task : Task
        What was evaluated.
    merged : Merged
        Its verdicts, whole or not; a partial result says so.
    suite : str
        The suite's name.
    data : mapping
        "label", "split" and "sha256" of the images.
    findings : sequence of mapping
        Of the audit before the attacks; those that follow from the verdicts are added.
    """
    rows, correct = len(merged.columns["label"]), int(merged.clean_correct.sum())
    found = find_distances(task, merged)
    after = findings_after(task, merged, findings)
    again = {finding["check"] for finding in after}  # the audit has seen the first images only
    findings = [
        {k: v for k, v in finding.items() if k != "falls"}
        for finding in findings
        if finding["check"] not in again
    ]
    return {
        "format": 1,
        "partial": merged.partial,
        "missing": list(merged.missing),
        "subject": task.subject.identity(),
        "data": {**data, "count": task.count},
        "threat": {"norm": task.norm, "eps": task.eps},
        "suite": {
            "name": suite,
            "mode": task.mode,
            "attack_all": task.attack_all,
            "attacks": [dict(attack) for attack in task.attacks],
        },
        "engine": dict(task.conditions.engine),
        "search_dtype": task.conditions.search_dtype,
        "channels_last": task.conditions.channels_last,
        **({"fused_blocks": True} if task.conditions.fused_blocks else {}),
        "compute_shape": task.conditions.compute_shape,
        **({"composition": composition} if (composition := task.conditions.composition) else {}),
        "seed": task.conditions.seed,
        "tf32": False,
        "clean": _accuracy(correct, rows),
        "robust": None if merged.partial else _accuracy(_robust(merged), rows),
        "bounds": _bounds(merged) if merged.partial else None,
        "attacks": [_attack_document(summary, merged) for summary in merged.attacks],
        **({"columns": _column_documents(task, merged)} if task.columns else {}),
        **({"distances": describe_distances(found)} if found else {}),
        "forwards": _total(merged, "forwards"),
        "backwards": _total(merged, "backwards"),
        "audit": [*findings, *after],
    }


def metrics_of(result: Mapping[str, Any]) -> dict[str, float]:
    """Return a whole result's numbers, as MLflow shows them."""
    assert not result["partial"]
    numbers = {
        "clean_accuracy": result["clean"]["accuracy"],
        "robust_accuracy": result["robust"]["accuracy"],
        "robust_accuracy_low": result["robust"]["interval_95"][0],
        "robust_accuracy_high": result["robust"]["interval_95"][1],
        "forwards": float(result["forwards"]),
        "backwards": float(result["backwards"]),
    }
    for attack in result["attacks"]:
        numbers[f"after.{attack['label']}"] = attack["accuracy_after"]
    for column in result.get("columns", ()):
        numbers[f"under.{column['name']}"] = column["accuracy"]
    for entry in result.get("distances", ()):
        for name in ("median", "optimality"):
            if entry[name] is not None:
                numbers[f"distance.{name}.{entry['label']}"] = entry[name]
    return numbers


def write_parquet(merged: Merged) -> bytes:
    """Write the table of verdicts as Parquet; equal verdicts give equal bytes."""
    arrays = {name: _arrow(name, column) for name, column in merged.columns.items()}
    return parquet_bytes(pa.table(arrays))


def write_csv(merged: Merged) -> bytes:
    """Write the table of verdicts as CSV: empty where there is no value."""
    columns = [_arrow(name, column).to_pylist() for name, column in merged.columns.items()]
    rows = ([_text(value) for value in row] for row in zip(*columns, strict=True))
    return csv_bytes([list(merged.columns), *rows])


def model_info(result: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a whole result as an entry of RobustBench's model_info folder.

    Who, where and with which data the model was trained is known for models of the catalogue only;
    elsewhere those fields are empty and to be filled in. Another suite than AutoAttack's own does
    not go by its name: its number stands under "external".
    """
    network = result["subject"]["network"]
    paper = _paper(network)
    is_autoattack = result["suite"]["name"].startswith("autoattack-")
    robust = f"{100 * result['robust']['accuracy']:.2f}"
    bad = [
        finding
        for finding in result["audit"]
        if finding["severity"] == "error"
        or (finding["severity"] == "warning" and finding["check"] in CHECKS)
    ]
    notes = [] if is_autoattack else [f"Robust accuracy by {result['suite']['name']}."]
    notes.append(f"Measured on {result['data']['count']} images: {result['data']['label']}.")
    return {
        "link": f"https://arxiv.org/abs/{paper['arxiv']}" if paper else "",
        "name": paper["title"] if paper else name,
        "authors": paper["authors"] if paper else "",
        "additional_data": None,
        "number_forward_passes": 1,
        "dataset": result["data"]["name"],
        "venue": paper["venue"] if paper else "",
        "architecture": network_name(network),
        "eps": eps_text(result["threat"]["eps"]),
        "clean_acc": f"{100 * result['clean']['accuracy']:.2f}",
        "reported": "",
        "autoattack_acc": robust if is_autoattack else "",
        "external": "" if is_autoattack else robust,
        "footnote": " ".join([*notes, *(finding["message"] for finding in bad)]),
        "unreliable": bool(bad),
    }


def summary_text(result: Mapping[str, Any]) -> str:
    """Return a result as a small table for a terminal."""
    threat = result["threat"]
    lines = ["PARTIAL"] if result["partial"] else []
    lines += [
        f"{result['data']['label']}, {result['data']['count']} images; "
        f"{threat['norm']}, eps = {eps_text(threat['eps'])}; {result['suite']['name']}",
        MODES[result["suite"]["mode"]],
        f"{'attack':<20} {'attacked':>9} {'broken':>7} {'accuracy after':>15} "
        f"{'forwards':>12} {'backwards':>12}",
        f"{'clean':<20} {'':>9} {'':>7} {_percent(result['clean']):>15}",
    ]
    for attack in result["attacks"]:
        after = attack["accuracy_after"]
        accuracy = "-" if after is None else f"{100 * after:.2f} %"
        lines.append(
            f"{attack['label']:<20} {attack['attacked']:>9} {attack['broken']:>7} {accuracy:>15} "
            f"{attack['forwards']:>12,} {attack['backwards']:>12,}"
        )
    lines += _row_lines(result)
    lines += distance_lines(result)
    lines.append(_verdict_line(result))
    if words := published_text(result):
        lines.append(words)
    if result["subject"]["network"].get("outputs") == "logits":
        lines.append("note: the network returns objects; their logits were judged")
    for finding in result["audit"]:
        if finding["severity"] in ("warning", "error"):
            lines.append(f"{finding['severity']}: {finding['check']}: {finding['message']}")
        elif finding["severity"] == "info" and finding["check"] in CHECKS:
            lines.append(f"note: {finding['check']}: {finding['message']}")
    return "\n".join(lines)


def published_text(result: Mapping[str, Any]) -> str:
    """Return what a library publishes of a network, in a line; "" where it is none of one's."""
    found = result["subject"]["network"].get("published")
    if not found:
        return ""
    numbers = [f"{what} {100 * found[what]:.2f} %" for what in ("clean", "robust") if found[what]]
    about = [found["data"]]
    if found["norm"] is not None:
        about += [found["norm"], f"eps = {eps_text(found['eps'])}"]
    threat = result["threat"]
    same = found["data"] == result["data"]["name"] and found["norm"] == threat["norm"]
    same = same and abs((found["eps"] or 0) - threat["eps"]) < 1e-9
    other = "" if same else "; not what was judged here"
    return f"published: {', '.join(numbers)} ({', '.join(about)}; {found['source']}{other})"


def _row_lines(result: Mapping[str, Any]) -> list[str]:
    """Return an independent suite's row, as tables of papers have it: a head and the numbers."""
    if "columns" not in result:
        return []
    cells = [("clean", _percent(result["clean"]))]
    cells += [(column["name"], _percent(column)) for column in result["columns"]]
    widths = [max(len(name), len(number)) for name, number in cells]
    return [
        "  ".join(cell[k].rjust(width) for cell, width in zip(cells, widths, strict=True))
        for k in (0, 1)
    ]


def _verdict_line(result: Mapping[str, Any]) -> str:
    if result["partial"]:
        low, high = result["bounds"]
        words = f"PARTIAL: robust accuracy is between {100 * low:.2f} and {100 * high:.2f} %; "
        return words + f"not done: {count(len(result['missing']), 'range')} of images"
    low, high = result["robust"]["interval_95"]
    return (
        f"robust accuracy {_percent(result['robust'])} "
        f"(95 % interval {100 * low:.2f} to {100 * high:.2f} %)"
    )


def _percent(accuracy: Mapping[str, Any]) -> str:
    return "-" if accuracy["accuracy"] is None else f"{100 * accuracy['accuracy']:.2f} %"


def _accuracy(correct: int, total: int) -> dict[str, Any]:
    if total == 0:
        return {"correct": 0, "total": 0, "accuracy": None, "interval_95": None}
    return {
        "correct": correct,
        "total": total,
        "accuracy": correct / total,
        "interval_95": list(wilson(correct, total)),
    }


def _robust(merged: Merged) -> int:
    return sum(value is True or value == 1 for value in merged.columns["robust"])


def _bounds(merged: Merged) -> list[float]:
    """Return the lowest and the highest robust accuracy that the whole result may have."""
    robust = merged.columns.get("robust", np.zeros(0, object))
    broken = sum(value is not None and not value for value in robust)
    sure = sum(bool(value) for value in robust)
    return [sure / merged.total, 1 - broken / merged.total]


def _attack_document(summary: AttackSummary, merged: Merged) -> dict[str, Any]:
    whole = summary.examples == merged.total
    return vars(summary) | {"accuracy_after": summary.robust / summary.examples if whole else None}


def _column_documents(task: Task, merged: Merged) -> list[dict[str, Any]]:
    """Return the accuracy under each column alone; none where its units are not all there."""
    documents = []
    for column in task.columns:
        last = merged.attacks[column.stop - 1]
        rows = last.examples if last.examples == merged.total else 0
        documents.append({"name": column.name, **_accuracy(last.robust, rows)})
    return documents


def _total(merged: Merged, name: str) -> int:
    return int(merged.columns[name].sum()) if name in merged.columns else 0


def _arrow(name: str, column: np.ndarray) -> pa.Array:
    if name.partition(".")[0] == "distance":
        return pa.array(column, pa.float32(), mask=np.isnan(column))
    if name == "prediction":
        return pa.array(column, pa.int64(), mask=column < 0)
    if name == "robust":
        return pa.array([None if value is None else bool(value) for value in column], pa.bool_())
    if name == "broken_by" or name.startswith("status."):
        return pa.array(column, pa.string())
    return pa.array(column, pa.int64())


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)


def _paper(network: Mapping[str, Any]) -> dict[str, str] | None:
    if "model" not in network:
        return None
    paper = find_model(network["model"]["name"]).paper
    return vars(paper) if paper else None
