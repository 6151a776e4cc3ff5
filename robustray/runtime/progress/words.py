"""Numbers as people read them: times, accuracies, bytes, counts; and how long the rest takes."""

from __future__ import annotations


def describe_duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"


def describe_rest(seconds: float, basis: str) -> str:
    """Return how long the rest will take, and what that is known from.

    Parameters
    ----------
    seconds : float
        Expected.
    basis : str
        What was measured ("34 epochs of this run").
    """
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            number = seconds / length
            shown = f"{number:.0f}" if number >= 10 or unit == "min" else f"{number:.1f}"
            return f"about {shown} {unit} left, from {basis}"
    return f"about {10 * max(1, round(seconds / 10))} s left, from {basis}"


UNKNOWN = "-"
_START_S = 30


def describe_waiting(needs: str, seconds: float) -> str:
    """Return what a run waits for in which nothing is worked on.

    Parameters
    ----------
    needs : str
        What a worker takes ("1 GPU and 4 CPUs").
    seconds : float
        Since when.
    """
    if seconds < _START_S:
        return f"for a worker to start ({needs}), usually 10 s; {seconds:.0f} s so far"
    return f"for a free node with {needs}, for {clock(seconds)} now"


def percent(share: float | None) -> str:
    """Return a share in [0, 1] in percent, "-" where it is unknown."""
    return UNKNOWN if share is None else f"{100 * share:.1f} %"


def gigabytes(count: float | None) -> str:
    """Return a number of bytes in GB, "-" where it is unknown or none."""
    return f"{count / 1e9:.1f} GB" if count else UNKNOWN


def count(number: int, word: str) -> str:
    """Return a number with its noun: "1 epoch", "34 epochs"."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def clock(seconds: float) -> str:
    """Return a time as on a stopwatch: "2:31", "1:02:31"."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
