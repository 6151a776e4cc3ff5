"""Rows of published tables: what was printed, and what is right where that differs.

Source: the tables of "Revisiting Residual Networks for Adversarial Robustness" (arXiv:2212.11005)
and of its code's latest README. Accuracies are percentages at Linf, eps = 8/255. "autoattack" is
what the authors call AA; their released evaluation script runs two of its four attacks. Costs
beside the rows were counted by `robustray.models.profile`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from robustray.models.profile import Profile
from robustray.models.registry import PublishedCost


@dataclass(frozen=True)
class Row:
    """A line of a published table.

    Attributes
    ----------
    table, label : str
        Which table, and what the line is called there.
    model : str
        Name in the catalogue.
    options : tuple of (str, object)
        Options of ``create_model``.
    recorded : Profile or None
        Cost of the network for 10 classes and 3 x 32 x 32 images; None where the catalogue's entry
        has it.
    printed : PublishedCost or None
        Cost as printed; None where the catalogue's entry has it.
    training, data : str
        What the accuracies are for ("TRADES", "cifar10").
    accuracies : tuple of (str, float)
        By metric, in percent.
    corrections : tuple of str
        What is wrong or doubtful in the line.
    """

    table: str
    label: str
    model: str
    options: tuple[tuple[str, Any], ...] = ()
    recorded: Profile | None = None
    printed: PublishedCost | None = None
    training: str = "TRADES"
    data: str = "cifar10"
    accuracies: tuple[tuple[str, float], ...] = ()
    corrections: tuple[str, ...] = ()


_WHITE_BOX = ("pgd-20", "cw-40")


def _accuracies(metrics: Iterable[str], values: Iterable[float]) -> tuple[tuple[str, float], ...]:
    return tuple(zip(metrics, values, strict=True))


def _options(depths: tuple[int, ...], widths: tuple[int, ...], **more: Any) -> tuple[Any, ...]:
    return (("depths", depths), ("widths", widths), *more.items())


def _uniform(
    depth: int, width: int, cost: tuple[int, int, int], printed: tuple[str, str], *values: float
) -> Row:
    """Return a line of table 1: robust blocks, equal depth and widening factor in all stages."""
    return Row(
        "Table 1",
        f"RobustResBlock, D={depth}, W={width}",
        "preact_resnet",
        _options((depth,) * 3, (width,) * 3, block="robust"),
        Profile(*cost),
        PublishedCost(*printed),
        accuracies=_accuracies(_WHITE_BOX, values),
    )


def _scaled(
    label: str,
    depths: tuple[int, ...],
    widths: tuple[int, ...],
    cost: tuple[int, int, int],
    printed: tuple[str, str],
    *values: float,
    corrections: tuple[str, ...] = (),
) -> Row:
    """Return a line of table 2: basic blocks, scaled by depth alone or by width alone."""
    return Row(
        "Table 2",
        label,
        "preact_resnet",
        _options(depths, widths),
        Profile(*cost),
        PublishedCost(*printed),
        accuracies=_accuracies(_WHITE_BOX, values),
        corrections=corrections,
    )


def _compound(label: str, model: str, *values: float) -> Row:
    return Row("Table 2", label, model, accuracies=_accuracies(_WHITE_BOX, values))


def _bottleneck(
    label: str,
    cost: tuple[int, int, int],
    printed: tuple[str, str],
    metrics: tuple[str, ...],
    values: tuple[float, ...],
    *corrections: str,
    **options: Any,
) -> Row:
    """Return a line on blocks of the bottleneck family, D = 11, W = 16 in all stages."""
    return Row(
        "Blocks",
        label,
        "preact_resnet",
        _options((11,) * 3, (16,) * 3, block="robust", **options),
        Profile(*cost),
        PublishedCost(*printed),
        accuracies=_accuracies(metrics, values),
        corrections=corrections,
    )


TABLE_1 = (
    _uniform(4, 10, (39_588_314, 6_004_667_392, 5_989_239_808), ("39.6M", "6.00G"), 57.70, 54.71),
    _uniform(5, 12, (70_538_874, 10_566_890_752, 10_544_332_800), ("70.5M", "10.6G"), 58.46, 55.56),
    _uniform(7, 14, (132_890_938, 19_620_952_960, 19_585_192_448), ("133M", "19.6G"), 59.41, 56.62),
    _uniform(
        11, 16, (269_940_570, 39_319_757_824, 39_257_300_992), ("270M", "39.3G"), 60.48, 57.78
    ),
)

_MISPRINT = (
    "The printed third depth, 11, is a misprint for 6: cost and scaling figure are those of 6."
)
TABLE_2 = (
    _scaled("5G, D", (5, 5, 2), (10, 10, 10), (24_034_394, 5_245_967_232, 5_243_328_768),
            ("24.0M", "5.25G"), 56.05, 53.14),
    _scaled("5G, W", (4, 4, 4), (11, 13, 6), (24_521_434, 5_705_371_776, 5_702_864_640),
            ("24.5M", "5.71G"), 56.89, 53.87),
    _compound("5G, D&W", "wrn_a1", 57.49, 54.78),
    _scaled("10G, D", (6, 6, 3), (12, 12, 12), (48_538_074, 9_586_188_544, 9_582_337_536),
            ("48.5M", "9.59G"), 56.42, 53.91),
    _scaled("10G, W", (5, 5, 5), (13, 16, 7), (44_415_386, 10_522_456_896, 10_518_712_704),
            ("44.4M", "10.5G"), 57.06, 54.29),
    _compound("10G, D&W", "wrn_a2", 58.06, 55.45),
    _scaled("20G, D", (9, 8, 4), (14, 14, 14), (90_448_986, 18_591_852_160, 18_585_412_352),
            ("90.4M", "18.6G"), 57.11, 54.48),
    _scaled("20G, W", (7, 7, 7), (16, 18, 8), (81_664_218, 20_366_857_728, 20_360_647_680),
            ("81.7M", "20.4G"), 58.02, 55.34),
    _compound("20G, D&W", "wrn_a3", 58.47, 56.14),
    _scaled("40G, D (as printed)", (14, 13, 11), (16, 16, 16),
            (279_779_802, 44_816_215_040, 44_804_007_936), ("185M", "38.8G"), 57.90, 55.79,
            corrections=(_MISPRINT,)),
    _scaled("40G, D (corrected)", (14, 13, 6), (16, 16, 16),
            (185_387_482, 38_775_761_920, 38_764_210_176), ("185M", "38.8G"), 57.90, 55.79),
    _scaled("40G, W", (11, 11, 11), (18, 21, 9), (169_657_434, 42_717_165_760, 42_706_065_024),
            ("170M", "42.7G"), 58.48, 56.15),
    _compound("40G, D&W", "wrn_a4", 58.76, 56.59),
)  # fmt: skip

_PLAIN = {"scales": 1, "base_width": 160, "cardinality": 1}
_LAST_DIGIT = "The printed multiply-accumulates are {} more than what this network has."
_BOTH_DATA = ("clean", "pgd-20", "cw-40", "cifar100 clean", "cifar100 pgd-20", "cifar100 cw-40")
_SE = ("clean", "cw-40")

# Of the paper's table 1 and figure 5d; what the paper calls basic is wrn_70_16.
TOPOLOGIES = (
    _bottleneck("bottleneck", (265_260_506, 39_024_242_688, 39_011_704_832), ("265M", "39.0G"),
                _BOTH_DATA, (85.47, 57.49, 55.07, 59.24, 32.08, 28.61), **_PLAIN, se="none"),
    _bottleneck("aggregated", (264_806_362, 39_304_310_784, 39_286_431_744), ("265M", "39.4G"),
                _BOTH_DATA, (85.47, 57.50, 55.53, 59.27, 31.63, 28.80), _LAST_DIGIT.format("0.1G"),
                scales=1, base_width=60, cardinality=4, se="none"),
    _bottleneck("aggregated, hierarchical", (262_213_466, 39_271_739_392, 39_249_731_584),
                ("262M", "39.3G"), _BOTH_DATA, (86.29, 59.48, 56.94, 59.32, 33.46, 29.65),
                se="none"),
    _bottleneck("RobustResBlock", (269_940_570, 39_319_757_824, 39_257_300_992), ("270M", "39.3G"),
                _BOTH_DATA, (86.55, 60.48, 57.78, 60.22, 33.88, 29.91)),
    _bottleneck("standard SE, r=16", (295_695_834, 39_094_969_344, 39_041_982_464),
                ("296M", "39.1G"), _SE, (84.56, 54.52), **_PLAIN, se="standard", se_reduction=16),
    _bottleneck("conv3x3 SE, r=16", (272_829_914, 39_036_878_080, 39_019_274_240),
                ("273M", "39.1G"), _SE, (85.26, 54.77), _LAST_DIGIT.format("0.1G"),
                **_PLAIN, se="conv3x3", se_reduction=16),
    _bottleneck("identity SE, r=16", (292_785_626, 39_070_189_568, 39_039_229_952),
                ("293M", "39.1G"), _SE, (85.20, 54.94), **_PLAIN, se="identity", se_reduction=16),
    _bottleneck("residual SE, r=16", (295_695_834, 39_094_969_344, 39_041_982_464),
                ("296M", "39.1G"), _SE, (85.75, 55.95), **_PLAIN, se_reduction=16),
    _bottleneck("residual SE, r=64", (272_987_610, 39_072_261_120, 39_019_274_240),
                ("273M", "39.1G"), _SE, (85.61, 56.05), **_PLAIN, se_reduction=64),
)  # fmt: skip
