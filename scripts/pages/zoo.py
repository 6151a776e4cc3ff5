"""The records of published weights as a page."""

from __future__ import annotations

from robustray.zoo import ZooFile, ZooRecord, load_records
from scripts.pages.markdown import escape, render_table

_HEAD = """# Published weights

The records that come with robustray: where weights are published, for which network, and what
their authors measured. [Published weights](../guides/zoo.md) says how to fetch, verify and import
them. `robustray zoo show NAME` prints a record. Numbers are the authors', in percent.
"""


def make_pages() -> dict[str, str]:
    """Return the page."""
    records = load_records()
    rows = [
        (f"[{name}](#{_anchor(name)})", escape(one.data), one.threat or "", _published(one))
        for name, one in records.items()
    ]
    lines = [_HEAD, *render_table(("name", "data", "threat", "published"), rows), ""]
    for name, record in records.items():
        lines += _render_record(name, record)
    return {"reference/zoo.md": "\n".join(lines)}


def _anchor(name: str) -> str:
    return name.replace(".", "-")


def _published(record: ZooRecord) -> str:
    return ", ".join(f"{what} {number:g}" for what, number in record.published.items())


def _render_record(name: str, record: ZooRecord) -> list[str]:
    lines = [f"## {name} {{ #{_anchor(name)} }}", "", f"{escape(record.description)}.", ""]
    if record.model is not None:
        options = ", ".join(f"{option}={value}" for option, value in record.options.items())
        lines.append(f"- network: [`{record.model}`](networks.md#{record.model}) {escape(options)}")
    facts = {
        "normalisation": record.normalisation,
        "paper": record.paper,
        "licence": record.licence,
        "published": _published(record),
        "note": record.note,
    }
    lines += [f"- {what}: {escape(' '.join(text.split()))}" for what, text in facts.items() if text]
    return [*lines, *map(_render_file, record.files), ""]


def _render_file(file: ZooFile) -> str:
    sources = " or ".join(f"`{source}`" for source in file.sources)
    digest = f", SHA-256 `{file.sha256}`" if file.sha256 else ""
    return f"- file `{file.name}`: {sources}{digest}"
