"""What ``robustray plan --target-gmacs`` says of a network of one's own."""

from __future__ import annotations

from robustray.errors import UserError
from robustray.scaling.networks import ScaledNetwork
from robustray.scaling.ratios import Rule

MOST_GMACS = 1000  # fifty times the largest published network


def check_gmacs(gmacs: float) -> None:
    """Refuse what is no budget.

    Raises
    ------
    UserError
        If it is not above 0, or more than 1,000.
    """
    if not 0 < gmacs <= MOST_GMACS:
        raise UserError(
            f"--target-gmacs {gmacs:g}: a budget is a number above 0 and at most {MOST_GMACS:,}"
        )


def read_shape(text: str) -> tuple[int, int, int]:
    """Read "3x64x64" as (C, H, W).

    Raises
    ------
    UserError
        If it is nothing like that, or a side is 0 or above 10,000.
    """
    parts = text.lower().split("x")
    if len(parts) == 3 and all(part.isascii() and part.isdigit() for part in parts):
        channels, height, width = (int(part[:6]) for part in parts)
        if all(1 <= size <= 10_000 for size in (channels, height, width)):
            return channels, height, width
    raise UserError(
        f"--input {text}: an image is CxHxW, such as 3x64x64, with sizes from 1 to 10,000"
    )


def describe_scaled(found: ScaledNetwork) -> str:
    """Return a table of a scaled network: its stages, what they cost, and how it was found."""
    image = " x ".join(map(str, found.input_shape))
    rows = [
        (f"stage {place}", depth, width, factor, cost.parameters, cost.macs)
        for place, (depth, width, factor, cost) in enumerate(
            zip(found.depths, found.widths, found.factors, found.count_stages(), strict=True), 1
        )
    ]
    whole = found.profile
    lines = [
        f"{found.name} by the rule {found.rule.name}, {found.target_macs / 1e9:g} GMACs on "
        f"{image} images",
        _ratios(found.rule),
        "",
        f"{'':<20}{'depth':>7}{'width':>9}{'factor':>9}{'parameters':>15}{'GMACs':>11}",
        *(_line(*row) for row in rows),
        _line(
            "stem, firsts, head", "", "", "",
            whole.parameters - sum(row[4] for row in rows),
            whole.macs - sum(row[5] for row in rows),
        ),
        _line(
            "whole network", sum(found.depths), "", sum(found.factors),
            whole.parameters, whole.macs,
        ),
        "",
        f"r_D {found.depth_share:.3f}, {found.off:+.1%} from the budget; a stage's costs are those "
        "of its blocks but the first",
        f"arguments: {', '.join(f'{name}={value!r}' for name, value in found.arguments.items())}",
    ]  # fmt: skip
    return "\n".join(lines)


def _line(
    word: str, depth: int | str, width: float | str, factor: float | str, parameters: int, macs: int
) -> str:
    shown = "".join(f"{v if isinstance(v, str) else f'{v:g}':>9}" for v in (width, factor))
    return f"{word:<20}{depth:>7}{shown}{parameters:>15,}{macs / 1e9:>11.4f}"


def _ratios(rule: Rule) -> str:
    depths, widths = (" : ".join(f"{ratio:g}" for ratio in r) for r in (rule.depths, rule.widths))
    return f"depths {depths}, widening factors {widths}, depth share r_D = {rule.depth_share:g}"
