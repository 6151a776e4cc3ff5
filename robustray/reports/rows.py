"""What a report is made of: one row per trial, and what is known of the study as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

Status = Literal["finished", "unfinished", "failed", "stopped", "not started"]
Axis = Literal["width", "depth"]
GridKind = Literal["width", "depth", "both", "list", "none"]

# Weakest first, so that the last one is the attack that a study is judged by.
_METRIC_ORDER = ("clean", "fgsm", "pgd-10", "pgd-20", "cw-40")


@dataclass(frozen=True)
class TrialRow:
    """One trial as its report shows it.

    Parameters
    ----------
    name : str
        The trial's name, unique in its study.
    depths, widths : tuple of int, tuple of float
        Blocks and widening factor of each stage.
    parameters, macs : int
        Size of the network, and multiply-accumulates for one image.
    status : {"finished", "unfinished", "failed", "stopped", "not started"}
        Where the trial stands; "stopped" early, for good, by the study's search, or "not started"
        by it before its budget was spent.
    selected_epoch : int or None
        The epoch (1-based) whose checkpoint was chosen on held-out data.
    validation_accuracy : float or None
        Robust accuracy of that checkpoint on held-out data, in [0, 1].
    metrics : mapping of str to float
        Test accuracies in [0, 1] by attack ("clean", "fgsm", "pgd-20", "cw-40").
    weights_sha256 : str or None
        Digest of the weights that were judged.
    seed : int
        The trial's seed.
    stopped_epoch : int or None
        Epochs that a stopped trial was trained; its ``validation_accuracy`` is of the last one.

    Raises
    ------
    ValueError
        Unknown status, or an accuracy outside [0, 1].
    """

    name: str
    depths: tuple[int, ...]
    widths: tuple[float, ...]
    parameters: int
    macs: int
    status: Status
    selected_epoch: int | None = None
    validation_accuracy: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    weights_sha256: str | None = None
    seed: int = 0
    stopped_epoch: int | None = None

    def __post_init__(self) -> None:
        if self.status not in get_args(Status):
            raise ValueError(f"trial {self.name!r}: unknown status {self.status!r}")
        accuracies = {"validation_accuracy": self.validation_accuracy, **self.metrics}
        for metric, value in accuracies.items():
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"trial {self.name!r}: {metric} = {value} is outside [0, 1]")

    def setting(self, by: Axis) -> tuple[float, ...]:
        """Return the widths or the depths of the stages."""
        return tuple(self.widths if by == "width" else self.depths)


@dataclass(frozen=True)
class Counts:
    """How many of a study's trials are where.

    ``missing`` trials were planned and have no row; ``unjudged`` ones are finished and lack
    the accuracy under the attack that the study is judged by; ``stopped`` ones were stopped early,
    and ``not_started`` ones left out by a search whose budget is spent.
    """

    expected: int
    finished: int
    unfinished: int
    failed: int
    missing: int
    unjudged: int
    stopped: int = 0
    not_started: int = 0

    @property
    def judged(self) -> int:
        """Trials whose result is there."""
        return self.finished - self.unjudged

    @property
    def partial(self) -> bool:
        """Whether anything is still to come, or was lost."""
        return self.judged + self.stopped + self.not_started < self.expected

    def __str__(self) -> str:
        parts = [f"{self.finished} of {self.expected} trials finished"]
        for word, number in (
            ("stopped early", self.stopped),
            ("not started (budget spent)", self.not_started),
            ("not yet attacked", self.unjudged),
            ("unfinished", self.unfinished),
            ("failed", self.failed),
            ("missing", self.missing),
        ):
            parts += [f"{number} {word}"] if number else []
        return ", ".join(parts)


@dataclass(frozen=True)
class Link:
    """Where something lies: an address for a browser, or a place to copy.

    ``target`` is a file beside the page, an ``http`` address, or a URI of the store.
    """

    word: str
    target: str
    about: str = ""


@dataclass(frozen=True)
class StudyReport:
    """Everything that a report shows.

    Parameters
    ----------
    study, study_id : str
        The study's name and identity.
    grid : {"width", "depth", "both", "list", "none"}
        What varies; "list": whole networks; "none": there is one network.
    data_label : str
        The data and every restriction of it ("cifar10[data_batch_1][:4000]").
    rows : sequence of TrialRow
        The trials, in any order.
    manifest_hash, threat : str
        Hash of the manifest; the threat model in words ("linf, eps = 8/255").
    attacks : sequence of str
        The attacks in the manifest's order; the last one is what the study is judged by.
        Empty: the strongest one found in the rows.
    planned_trials : int or None
        Trials the manifest asks for; None: as many as there are rows.
    recipe : mapping
        Summary of the recipe, word by word.
    cost : mapping of str to (planned, actual)
        What was planned and what it really took, numbers (in units that the key names)
        or words; None: unknown.
    failures : mapping of str to str
        One line on why each failed trial failed.
    provenance : sequence of mapping
        One record per trial or attempt: host, device, times, attempt, versions.
    versions : mapping of str to str
        Versions of the software.
    devices : sequence of str
        What the study ran on.
    curves : mapping of str to list of (epoch, {metric: value})
        Validation history of each trial.
    curve_metrics : sequence of str
        Which metrics of ``curves`` are drawn, a panel each.
    notes : sequence of str
        What a reader must know.
    partial : bool
        Call the report partial whatever its rows say.
    tested : mapping of str to int
        On how many images each metric was measured, where that is known.
    commands : sequence of (str, str)
        What one may do next, and the command that does it.
    links : sequence of Link
        Where checkpoints and runs are; the page adds the files beside it.
    """

    study: str
    study_id: str
    grid: GridKind
    data_label: str
    rows: Sequence[TrialRow]
    manifest_hash: str = ""
    threat: str = ""
    attacks: Sequence[str] = ()
    planned_trials: int | None = None
    recipe: Mapping[str, object] = field(default_factory=dict)
    cost: Mapping[str, tuple[object, object]] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    provenance: Sequence[Mapping[str, object]] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    devices: Sequence[str] = ()
    curves: Mapping[str, Sequence[tuple[int, Mapping[str, float]]]] = field(default_factory=dict)
    curve_metrics: Sequence[str] = ("validation_accuracy", "validation_loss")
    notes: Sequence[str] = ()
    partial: bool = False
    tested: Mapping[str, int] = field(default_factory=dict)
    commands: Sequence[tuple[str, str]] = ()
    links: Sequence[Link] = ()

    @property
    def headline(self) -> str | None:
        """The attack that the study is judged by; None where no trial was attacked."""
        return self.attacks[-1] if self.attacks else headline(self.rows)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """What the grid varies."""
        if self.grid == "both":
            return ("width", "depth")
        return () if self.grid in ("none", "list") else (self.grid,)

    @property
    def uniform_axes(self) -> tuple[Axis, ...]:
        """In what uniform networks are uniform: what the grid varies, both in a list."""
        return ("width", "depth") if self.grid == "list" else self.axes

    @property
    def images(self) -> int | None:
        """Test images behind the accuracy that the study is judged by; None: unknown."""
        return self.tested.get(str(self.headline))

    @property
    def counts(self) -> Counts:
        """Trials by status."""
        return count(self.rows, self.headline, self.planned_trials)

    @property
    def is_partial(self) -> bool:
        """Whether any trial that was planned has no result."""
        return self.partial or self.counts.partial


def metric_names(rows: Iterable[TrialRow]) -> tuple[str, ...]:
    """Return the metrics of all rows: clean accuracy first, then attacks, weakest first.

    The columns of a suite ("suite:column") stand before the worst case over them ("suite").
    """
    names = {name for row in rows for name in row.metrics}
    known = [name for name in _METRIC_ORDER if name in names]
    rest = names.difference(known)
    return (*known, *sorted(rest, key=lambda name: (name.partition(":")[0], ":" not in name, name)))


def headline(rows: Iterable[TrialRow]) -> str | None:
    """Return the last metric of the rows, the one they are judged by; None without any."""
    return next(reversed(metric_names(rows)), None)


def count(
    rows: Iterable[TrialRow], metric: str | None = None, planned_trials: int | None = None
) -> Counts:
    """Count trials by status; ``metric`` is the accuracy that finished ones should have."""
    rows = list(rows)
    states = [row.status for row in rows]
    expected = max(planned_trials or 0, len(rows))
    return Counts(
        expected=expected,
        finished=states.count("finished"),
        unfinished=states.count("unfinished"),
        failed=states.count("failed"),
        missing=expected - len(rows),
        stopped=states.count("stopped"),
        not_started=states.count("not started"),
        unjudged=sum(r.status == "finished" and metric not in r.metrics for r in rows),
    )


def judged(rows: Iterable[TrialRow], metric: str | None) -> list[TrialRow]:
    """Return the finished rows that have the metric, by name."""
    found = [row for row in rows if row.status == "finished" and metric in row.metrics]
    return sorted(found, key=lambda row: row.name)


def ranked(rows: Iterable[TrialRow], metric: str | None) -> list[TrialRow]:
    """Return rows from the highest accuracy to the lowest, those without one last.

    Of equal ones the cheaper is first, then the one whose name is.
    """
    return sorted(
        rows,
        key=lambda r: (metric not in r.metrics, -r.metrics.get(str(metric), 0.0), r.macs, r.name),
    )
