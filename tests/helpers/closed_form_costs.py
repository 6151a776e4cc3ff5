"""Parameters and multiply-accumulates of a PreActResNet by formula: the oracle of other tests."""

from __future__ import annotations

from dataclasses import dataclass

from robustray.models.options import PreActResNetConfig, RobustOptions


@dataclass
class Cost:
    parameters: int = 0
    products: int = 0
    elementwise: int = 0

    def add(self, parameters: int, products: int, elementwise: int) -> None:
        self.parameters += parameters
        self.products += products
        self.elementwise += elementwise


def _basic(cost: Cost, n: int, cin: int, c: int, k2: int, side: int, out: int, stride: int) -> int:
    short = cin * c if stride > 1 or cin != c else 0
    inner = k2 * cin * c + k2 * c * c + short
    norms = (cin * side**2 + c * out**2) if n else 0
    cost.add(n * (cin + c) + inner, out**2 * inner, norms)
    return c


def _gate(se: str, e: int, m: int, projected: bool) -> tuple[int, int]:
    """Channels that the gate multiplies, and those that are normalized for it."""
    if se in ("residual", "standard"):
        return e, e
    if se == "conv3x3":
        return m, 0
    return (0 if se == "none" or projected else e), 0


def _robust(
    cost: Cost, n: int, cin: int, c: int, k2: int, side: int, out: int, stride: int,
    options: RobustOptions,
) -> int:  # fmt: skip
    scales, g = options.scales, options.cardinality
    w = int(c * (options.base_width / 160)) * g
    m, e = w * scales, 4 * c
    q = 1 if scales == 1 else scales - 1
    short = cin * e if stride > 1 or cin != e else 0
    gated, normed = _gate(options.se, e, m, bool(short))
    se = 2 * gated * (e // options.se_reduction)
    convs = q * k2 * w * w // g + m * e + short
    pools = gated + (w * out**2 if scales > 1 and stride > 1 else 0)
    live = cin * side**2 if short else 0
    norms = (live + m * side**2 + (q * w + normed) * out**2) if n else 0
    cost.add(
        n * (cin + m + q * w + normed) + cin * m + convs + se,
        cin * m * side**2 + out**2 * convs + se,
        norms + pools + gated * out**2,
    )
    return e


def cost_of(config: PreActResNetConfig, side: int = 32) -> Cost:
    """Cost of one image of ``side`` x ``side`` pixels."""
    cost = Cost()
    cin = config.channels[0]
    stem = 9 * config.in_channels * cin
    side = -(-side // config.stem_stride)
    cost.add(stem, stem * side**2, 0)
    for i, depth in enumerate(config.depths):
        n = 0 if config.normalizations[i] == "InstanceNorm" else 2
        c, k2 = config.channels[i + 1], config.kernel_sizes[i] ** 2
        for j in range(depth):
            stride = config.strides[i] if j == 0 else 1
            out = -(-side // stride)
            if config.blocks[i] == "basic":
                cin = _basic(cost, n, cin, c, k2, side, out, stride)
            else:
                assert config.robust is not None
                cin = _robust(cost, n, cin, c, k2, side, out, stride, config.robust)
            side = out
    n = 0 if config.normalizations[-1] == "InstanceNorm" else 2
    norm = cin * side**2 if n else 0
    cost.add((n + config.num_classes) * cin + config.num_classes, cin * config.num_classes, norm)
    cost.elementwise += cin
    return cost
