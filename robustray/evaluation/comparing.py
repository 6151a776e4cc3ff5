"""Evaluations of one network put side by side: read from the store, written, shown in MLflow."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from robustray.errors import CorruptObjectError, UserError
from robustray.evaluation.record import published_text
from robustray.files import write_atomically
from robustray.reports import render
from robustray.reports.html import Picture
from robustray.reports.judgement_figures import judgement_figures
from robustray.reports.judgements import Judgement, table_csv, table_text
from robustray.reports.pages.drawing import draw
from robustray.reports.pages.judgements import judgements_page
from robustray.reports.words import network_name
from robustray.store import NotFoundError, ObjectStore, read_sealed, sha256_bytes
from robustray.store.opening import choose_id, newest_attempt
from robustray.tracking import MetricPoint, MlflowSink, RunRecord, Uploader

Say = Callable[[str], None]


def publish_judgements(
    names: Sequence[str], store: ObjectStore, report_root: Path, tracking_uri: str, say: Say
) -> Path:
    """Write table, curves and page of some evaluations, and bring them to MLflow.

    Parameters
    ----------
    names : sequence of str
        Ids of evaluations, their names, or how they begin; in the order of the table.
    store, report_root, tracking_uri
        Where they are, where the files go, and where they are shown.
    say : callable
        Takes lines for a person.

    Raises
    ------
    UserError
        If one is not there or not finished, or they are of different networks, images or threat
        models.
    """
    ids = [_find(store, name) for name in names]
    results = {id_: read_result(store, id_) for id_ in ids}
    for id_, result in results.items():
        if result["partial"]:
            raise UserError(
                f"{id_} is not complete, so it has no robust accuracy ({result['missing'][0]}); "
                "run its command again"
            )
    _check_equal(results)
    short = [id_.rpartition("-")[0] for id_ in ids]
    labels = short if len(set(short)) == len(short) else ids
    rows = [
        _judgement(store, id_, results[id_], label) for id_, label in zip(ids, labels, strict=True)
    ]
    first = results[ids[0]]
    threat, data = first["threat"], first["data"]["label"]
    caption = f"{data}, {rows[0].images} images, {threat['norm']}; bars: 95 % intervals"
    figures = judgement_figures(rows, norm=threat["norm"], caption=caption)
    images = {f"{drawn.name}.png": render(drawn.figure) for drawn in figures}
    files = {"table.csv": table_csv(rows), **images}
    bare = judgement_figures(rows, norm=threat["norm"], caption="", bare=True)
    pictures = [Picture(draw(one.figure, one.name), one.title, one.words) for one in bare]
    title = f"{_network(first)}: {len(rows)} judgements"
    files["judgements.html"] = judgements_page(
        _network(first), rows, pictures, ["table.csv"]
    ).encode()
    key = f"judgements/{sha256_bytes(' '.join(ids).encode())[:10]}"
    folder = report_root / key.replace("/", "-")
    for name, content in files.items():
        write_atomically(folder / name, content)
    say(table_text(rows))
    _track(key, title, rows, files, tracking_uri, say)
    say(f"\npage         {folder / 'judgements.html'}")
    return folder


def read_result(store: ObjectStore, id_: str) -> dict[str, Any]:
    """Return the result of a finished evaluation.

    Raises
    ------
    CorruptObjectError
        If it is damaged; giving its command again writes it anew.
    """
    try:
        return read_sealed(store, f"evaluations/{id_}/result.json").content
    except CorruptObjectError as error:
        raise CorruptObjectError(f"{error}. Give the evaluation's command again") from error


def _find(store: ObjectStore, name: str) -> str:
    keys = store.list("evaluations/")
    done = {k.key.split("/")[1] for k in keys if k.key.endswith("/result.json")}
    return choose_id(
        name,
        sorted(done),
        "finished evaluations",
        lambda one: newest_attempt(store, f"evaluations/{one}"),
    )


def _check_equal(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse what can't stand in one table: other networks, images, or perturbations.

    Of one network are evaluations with the same weights; where gradients come from, and how it is
    asked (its mode), may differ.
    """
    for what, part in (
        ("network", lambda r: [_network(r), r["subject"].get("weights_sha256")]),
        ("data", lambda r: r["data"]),
        ("threat", lambda r: r["threat"]),
    ):
        values = {json.dumps(part(result), sort_keys=True): id_ for id_, result in results.items()}
        if len(values) > 1:
            said = " and ".join(f"{value} ({id_})" for value, id_ in values.items())
            raise UserError(f"these evaluations have different {what}: {said}")


def _judgement(store: ObjectStore, id_: str, result: Mapping[str, Any], label: str) -> Judgement:
    curve = []
    try:
        points = read_sealed(store, f"evaluations/{id_}/report/curve.json").content["points"]
        curve = [(p["eps"], p["accuracy"], *p["interval_95"]) for p in points]
    except NotFoundError:
        pass
    composition = result.get("composition")
    return Judgement(
        label=label,
        suite=_suite(result["suite"]),
        surrogate=_surrogate(result["subject"]["network"].get("surrogate")),
        batches=f"{composition['size']}, {composition['order']}" if composition else "",
        images=result["data"]["count"],
        clean=result["clean"]["accuracy"],
        robust=result["robust"]["accuracy"],
        interval=tuple(result["robust"]["interval_95"]),
        findings=result["audit"],
        curve=curve,
        columns=[(c["name"], c["accuracy"]) for c in result.get("columns", ())],
        published=published_text(result),
    )


def _suite(suite: Mapping[str, Any]) -> str:
    """Return a suite's name, and that it is independent: results from before can't be."""
    return f"{suite['name']} (independent)" if suite.get("mode") == "independent" else suite["name"]


def _surrogate(found: Any) -> str:
    """Return in words where gradients came from."""
    if isinstance(found, Mapping):
        return str(found.get("name", "surrogate"))
    return "the model's surrogate" if found else "its own"


def _network(result: Mapping[str, Any]) -> str:
    return network_name(result["subject"]["network"])


def _track(
    key: str,
    title: str,
    rows: Sequence[Judgement],
    files: Mapping[str, bytes],
    tracking_uri: str,
    say: Say,
) -> None:
    now = int(time.time() * 1000)
    record = RunRecord(
        key=key,
        name=title,
        experiment="judgements",
        params={row.label: row.suite for row in rows},
        metrics=tuple(
            MetricPoint(f"{row.label}.robust_accuracy", row.robust, 0, now) for row in rows
        ),
        artifacts=dict(files),
        status="FINISHED",
        start_ms=now,
        end_ms=now,
    )
    with Uploader(MlflowSink(tracking_uri), log=say) as uploader:
        uploader.submit(key, lambda: record)
        if uploader.drain(60):
            say(
                "warning: this is not in MLflow yet; run the same command again when MLflow answers"
            )
