"""The records of an installed RobustBench: what the tables of its own description say.

They are read from the package's metadata. So nothing of it is imported, and a leaderboard needs no
network.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, metadata

PREFIX = "robustbench:"
_HEADING = re.compile(r"#{3,4}\s+(.+)")
_LINK = re.compile(r"\[([^\]]+)\]\((\S+?)\)")
_MARKUP = re.compile(r"</?su[bp]>|[*`]")
_DATA = {"CIFAR-10": "cifar10", "CIFAR-100": "cifar100", "ImageNet": "imagenet"}
_ARXIV = re.compile(r"arxiv\.org/(?:abs|pdf)/(\d{4}\.\d{4,5})")
_BALL = re.compile(r"(Linf|L2),\s*eps\s*=\s*([\d./]+)")


@dataclass(frozen=True)
class RobustBenchRecord:
    """A network of RobustBench on one leaderboard.

    Attributes
    ----------
    id : str
        RobustBench's own name of it; another leaderboard may have it too.
    data : str
        "cifar10", "cifar100" or "imagenet".
    threat : str
        "linf 8/255", "l2 0.5", or "corruptions".
    clean, robust : float or None
        Accuracies in percent.
    architecture, paper, link, venue : str
        As printed; ``link`` is the paper's address.
    """

    id: str
    data: str
    threat: str
    clean: float | None
    robust: float | None
    architecture: str
    paper: str
    link: str
    venue: str

    @property
    def name(self) -> str:
        """What it is called in tables and manifests."""
        return f"{PREFIX}{self.id}"

    @property
    def eps(self) -> float | None:
        """Radius of the threat model; None for corruptions."""
        _, _, given = self.threat.partition(" ")
        above, _, below = given.partition("/")
        return float(above) / float(below or 1) if given else None

    @property
    def arxiv(self) -> str:
        """The paper's number on arXiv; "" if its address is another one."""
        found = _ARXIV.search(self.link)
        return found[1] if found else ""

    @property
    def published(self) -> dict[str, float]:
        """RobustBench's numbers, in percent, by what was measured."""
        measured = "corruptions" if self.threat == "corruptions" else "autoattack"
        found = {"clean": self.clean, measured: self.robust}
        return {key: value for key, value in found.items() if value is not None}


@lru_cache(maxsize=1)
def load_robustbench() -> tuple[RobustBenchRecord, ...]:
    """Return RobustBench's records in the order of its leaderboards; none where it is not there."""
    try:
        found = metadata("robustbench").json
    except PackageNotFoundError:
        return ()
    return tuple(read_leaderboards(str(found.get("description", ""))))


def read_leaderboards(text: str) -> list[RobustBenchRecord]:
    """Return the records of all tables in RobustBench's description (Markdown).

    Parameters
    ----------
    text : str
        Headings name the data set and the threat model; a table's own first line its columns.
    """
    data = threat = None
    columns: list[str] = []
    records: list[RobustBenchRecord] = []
    for line in text.splitlines():
        if match := _HEADING.match(line.strip()):
            columns = []
            if line.startswith("####"):
                threat = _threat(match[1])
            else:
                data, threat = _DATA.get(match[1].strip()), None
        if data is None or threat is None or not line.startswith("|"):
            continue
        cells = [_MARKUP.sub("", cell).strip() for cell in line.strip().strip("|").split("|")]
        if not columns:
            columns = [cell.lower() for cell in cells]
        elif len(cells) == len(columns) and not set(line) <= set("|:- "):
            row = dict(zip(columns, cells, strict=True))
            if row.get("model id"):
                records.append(_record(row, data, threat))
    return records


def _record(row: dict[str, str], data: str, threat: str) -> RobustBenchRecord:
    paper = row.get("paper", "")
    link = _LINK.search(paper)
    return RobustBenchRecord(
        id=row["model id"],
        data=data,
        threat=threat,
        clean=_percent(row.get("clean accuracy", "")),
        robust=_percent(row.get("robust accuracy", "")),
        architecture=row.get("architecture", ""),
        paper=link[1] if link else paper,
        link=link[2] if link else "",
        venue=row.get("venue", ""),
    )


def _threat(heading: str) -> str | None:
    if match := _BALL.search(heading):
        return f"{match[1].lower()} {match[2]}"
    return "corruptions" if "corruptions" in heading.lower() else None


def _percent(text: str) -> float | None:
    match = re.fullmatch(r"([\d.]+)\s*%?", text)
    return float(match[1]) if match else None
