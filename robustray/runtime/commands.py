"""What the command line asks of a kind of job."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from robustray.errors import CorruptObjectError, UserError
from robustray.files import from_here
from robustray.manifest import Manifest
from robustray.store import ObjectStore
from robustray.tracking import default_tracking_uri, ui_lines

M = TypeVar("M", bound=Manifest)
Say = Callable[[str], None]
Tell = Callable[[Mapping[str, Any]], None]
Trouble = CorruptObjectError | UserError


@dataclass(frozen=True)
class Request:
    """What a command has at hand, and what it was asked for beside its manifest.

    Attributes
    ----------
    store : ObjectStore
        Where jobs are kept.
    report_root : Path
        The folder for files that people read.
    say : callable
        Takes lines for a person.
    tell : callable
        Takes what scripts read (``--json``): the same facts as a mapping with stable keys.
    assume_yes : bool
        Use CPUs where no GPU is.
    measure : bool
        Measure this device's speed before a plan is made.
    in_full : bool
        Leave nothing out of a list.
    large : bool
        Do what is larger than anybody wants by mistake.
    tracking_uri : str, optional
        MLflow; by default what the environment says.
    """

    store: ObjectStore
    report_root: Path
    say: Say
    tell: Tell = lambda found: None
    assume_yes: bool = False
    measure: bool = False
    in_full: bool = False
    large: bool = False
    tracking_uri: str | None = None

    @property
    def tracking(self) -> str:
        """Where MLflow is."""
        return self.tracking_uri or default_tracking_uri()


@dataclass(frozen=True)
class Ended:
    """How a run ended, and what came of it so far.

    Attributes
    ----------
    whole, interrupted : bool
        Whether all of it is done, and whether it was stopped by hand.
    id : str
        The job's id: its name and hash.
    folder : Path, optional
        Where the files for people are.
    failed : mapping of str to str
        Why parts of it were given up, by their names.
    columns : mapping of str to sequence
        A table with a row for each trial, or one row for the job: values by column.
    judged_by : str, optional
        The column by which rows are compared; more is better.
    answer : str
        What came of it, in a sentence; "" where nobody says.
    best_name : str, optional
        The best of them, by its ``name``, where more than ``judged_by`` says which.
    """

    whole: bool
    interrupted: bool
    id: str = ""
    folder: Path | None = None
    failed: Mapping[str, str] = field(default_factory=lambda: MappingProxyType[str, str]({}))
    columns: Mapping[str, Sequence[Any]] = field(
        default_factory=lambda: MappingProxyType[str, Sequence[Any]]({})
    )
    judged_by: str | None = None
    answer: str = ""
    best_name: str | None = None

    @property
    def status(self) -> str:
        """``"finished"``, ``"failed"`` (parts were given up) or ``"interrupted"``."""
        done = "finished" if self.whole else "failed"
        return "interrupted" if self.interrupted else done

    @property
    def page(self) -> Path | None:
        """The HTML page, where there is one."""
        return find_page(self.folder) if self.folder else None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The table as a mapping for each row."""
        size = max(map(len, self.columns.values()), default=0)
        return [{name: column[row] for name, column in self.columns.items()} for row in range(size)]

    @property
    def best(self) -> dict[str, Any] | None:
        """The row of `best_row`."""
        return None if self.best_row is None else self.rows[self.best_row]

    @property
    def best_row(self) -> int | None:
        """The finished row that is best under the strongest attack; None while there is none."""
        names, judge = self.columns.get("name", ()), self.judged_by
        if self.best_name is not None:
            return list(names).index(self.best_name)
        if judge is None:
            return 0 if self.status == "finished" and len(names) == 1 else None
        scores = self.columns.get(judge, ())
        states = self.columns.get("status", ["finished"] * len(scores))
        judged = [
            (score, -row)
            for row, (score, state) in enumerate(zip(scores, states, strict=True))
            if score is not None and state == "finished"
        ]
        return -max(judged)[1] if judged else None


def say_files(folder: Path, say: Say) -> None:
    """Say where the files for people are: the page, or the folder where there is none."""
    page = find_page(folder)
    say(f"{'page' if page else 'files':<12} {from_here(page or folder)}")


def find_page(folder: Path) -> Path | None:
    """Return the HTML page in a folder, where there is one."""
    return next(iter(sorted(folder.glob("*.html"))), None)


class Commands(ABC, Generic[M]):
    """What can be done with manifests of a kind.

    What `plan`, `status`, `overview` and `report` print, they also tell to scripts
    (`Request.tell`): a mapping with ``kind``, ``id`` and ``name`` for each job.

    All but `overview` raise a UserError for what can't be done as asked.
    """

    @abstractmethod
    def plan(self, manifest: M, request: Request) -> None:
        """Print what a run would do; start nothing, and refuse what a run would refuse."""

    @abstractmethod
    def run(self, manifest: M, request: Request) -> Ended:
        """Do what is left, and print what came of it."""

    @abstractmethod
    def status(self, manifest: M, request: Request) -> None:
        """Print how far the job is."""

    @abstractmethod
    def report(self, manifest: M, request: Request) -> None:
        """Write what people read again, from what the store holds."""

    def overview(self, request: Request) -> Iterator[str | Trouble]:
        """Yield a text on each job of the kind in the store, or what is wrong with it."""
        yield from ()


def say_tracking(
    untracked: Mapping[str, Sequence[str]], uri: str, experiment: str, say: Say
) -> None:
    """Say what each sink lacks, and how to look at the runs of an experiment in MLflow."""
    for sink, keys in untracked.items():
        runs = "1 run is" if len(keys) == 1 else f"{len(keys)} runs are"
        say(
            f"{sink:<12} {runs} not there yet; nothing is lost: run the same command again when "
            "it answers"
        )
    for line in ui_lines(uri, experiment):
        say(line)
