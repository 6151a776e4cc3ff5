"""The spatial convolutions of a robust block as one GPU program for each image and group.

Channels of different groups never meet between a block's first and last 1x1 convolution. So one
program computes all branches of one group of one image: convolution, folded normalization,
activation and addition, branch after branch. From the GPU's main memory it reads t once and writes
u once; one launch takes the place of some thirty.

A thread can't read its neighbour's registers in Triton, and a 3x3 convolution needs the pixels
around. What a convolution reads therefore lies in ``scratch``: the map of one branch, surrounded
by zeros, which only this program touches. It has 5 to 50 kilobytes, is written over for each
branch, and so stays in the caches of the processor that runs the program. Barriers stand between
writing and reading it, and between reading it and writing it again; they also order the program's
reads of what it wrote to ``u`` and ``gt`` itself. The zeros spare the inner loop all masks of
borders: its addresses are one base and constants.

Tiles are [channels of a group, pixels]. In the layout that Triton chooses for them each thread has
all channels of a few pixels, so products are sums of outer products in registers. Tensor cores
would need 5 or 14 channels padded to 16 on both sides, and three format changes for each tap. Sums
are float32 for every type of input.

The gradient of the input goes the same way back. Where a stride left pixels out, zeros stand in
the scratch. The slope of ReLU is read from the output, those of other activations are kept by the
forward pass in the type of the maps.

The kernels are tested in Triton's interpreter, and compiled for sm_80 and sm_90. They have not been
run on a GPU yet: no speed is claimed.
"""

# ruff: noqa: ANN001, ANN201 - what Triton compiles has tensors and constants of its own
# pyright: reportGeneralTypeIssues=false, reportArgumentType=false

from __future__ import annotations

import triton
import triton.language as tl

# Names of constants: H, W and HO, WO are the sides of the maps before and after the stride; K that
# of the kernel; C channels of a group, CP padded to a power of 2; PAD zeros around a map, WIDE and
# AREA its sides with them; BLOCK pixels at a time. Weights are float32: [branch, group, channel
# that is read, tap, channel that is written (CP)].


@triton.jit
def activate(a, NAME: tl.constexpr):
    """Return the activation of float32 numbers."""
    if NAME == "ReLU":
        return tl.where(a < 0, 0.0, a)
    elif NAME == "LeakyReLU":
        return tl.where(a > 0, a, 0.01 * a)
    elif NAME == "ELU":
        return tl.where(a > 0, a, tl.exp(a) - 1)
    elif NAME == "SiLU":
        return a * sigmoid(a)
    elif NAME == "GELU":
        return 0.5 * a * (1 + tl.erf(a * 0.7071067811865476))
    elif NAME == "Softplus":
        return tl.where(a > 20, a, tl.log(1 + tl.exp(a)))
    else:
        tl.static_assert(NAME == "Mish")
        return a * tanh_softplus(a)


@triton.jit
def slope(a, NAME: tl.constexpr):
    """Return the derivative of an activation that is not ReLU."""
    if NAME == "LeakyReLU":
        return tl.where(a > 0, 1.0, 0.01)
    elif NAME == "ELU":
        return tl.where(a > 0, 1.0, tl.exp(a))
    elif NAME == "SiLU":
        s = sigmoid(a)
        return s * (1 + a * (1 - s))
    elif NAME == "GELU":
        density = 0.3989422804014327 * tl.exp(-0.5 * a * a)
        return 0.5 * (1 + tl.erf(a * 0.7071067811865476)) + a * density
    elif NAME == "Softplus":
        return sigmoid(a)
    else:
        tl.static_assert(NAME == "Mish")
        w = tanh_softplus(a)
        return w + a * (1 - w * w) * sigmoid(a)


@triton.jit
def sigmoid(a):
    """Return 1 / (1 + exp(-a))."""
    return 1 / (1 + tl.exp(-a))


@triton.jit
def tanh_softplus(a):
    """Return tanh(log(1 + exp(a))), which is 1 in float32 from a = 20 on."""
    e = tl.exp(tl.minimum(a, 20.0))
    square = e * (e + 2)
    return square / (square + 2)


@triton.jit
def clear(scratch, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """Fill the scratch with zeros."""
    for start in range(0, SIZE, BLOCK):
        i = start + tl.arange(0, BLOCK)
        tl.store(scratch + i, tl.full([BLOCK], 0.0, scratch.dtype.element_ty), mask=i < SIZE)


@triton.jit
def convolve(
    scratch, weight, base, start_C, K: tl.constexpr, C: tl.constexpr, CP: tl.constexpr,
    WIDE: tl.constexpr, AREA: tl.constexpr,
):  # fmt: skip
    """Return what K x K taps from ``base`` on add up to, float32 [CP, pixels], from ``start_C``."""
    lanes = tl.arange(0, CP)
    total = start_C[:, None] + tl.full([CP, base.shape[0]], 0.0, tl.float32)
    for channel in range(C):
        for tap in tl.static_range(K * K):
            place = scratch + channel * AREA + base + (tap // K * WIDE + tap % K)
            x = tl.load(place).to(tl.float32)
            w = tl.load(weight + (channel * (K * K) + tap) * CP + lanes)
            total += w[:, None] * x[None, :]
    return total


@triton.jit
def pool(scratch, base, lanes, C: tl.constexpr, WIDE: tl.constexpr, AREA: tl.constexpr):
    """Return the mean over 3 x 3 taps from ``base`` on, channel by channel, float32."""
    place = scratch + lanes[:, None] * AREA + base[None, :]
    total = tl.full([lanes.shape[0], base.shape[0]], 0.0, tl.float32)
    for tap in tl.static_range(9):
        shift = tap // 3 * WIDE + tap % 3
        total += tl.load(place + shift, mask=lanes[:, None] < C, other=0.0).to(tl.float32)
    return total / 9


@triton.jit
def cell(p, W: tl.constexpr, STRIDE: tl.constexpr, EDGE: tl.constexpr, WIDE: tl.constexpr):
    """Return where in the scratch pixels of a map of width W lie, ``EDGE`` from its corner."""
    return (p // W * STRIDE + EDGE) * WIDE + p % W * STRIDE + EDGE


@triton.jit
def tile(first, lanes, p, channel, pixel):
    """Return the offsets of channels from ``first`` on, and of pixels, in a map outside."""
    return (first + lanes[:, None]) * channel + p[None, :] * pixel


@triton.jit
def forward(
    t, u, slopes, scratch, weight, bias, t_image, t_channel, t_pixel, u_image, u_channel, u_pixel,
    H: tl.constexpr, W: tl.constexpr, HO: tl.constexpr, WO: tl.constexpr, STRIDE: tl.constexpr,
    K: tl.constexpr, C: tl.constexpr, CP: tl.constexpr, GROUPS: tl.constexpr,
    BRANCHES: tl.constexpr, BYPASS: tl.constexpr, ACT: tl.constexpr, PAD: tl.constexpr,
    BLOCK: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """Write u, and the slopes if asked (laid out as u), of one group of one image."""
    WIDE: tl.constexpr = W + 2 * PAD
    AREA: tl.constexpr = (H + 2 * PAD) * WIDE
    EDGE: tl.constexpr = PAD - K // 2
    program = tl.program_id(0)
    image, group = (program // GROUPS).to(tl.int64), program % GROUPS
    t += image * t_image + group * C * t_channel
    u += image * u_image + group * C * u_channel
    slopes += image * u_image + group * C * u_channel
    scratch += program.to(tl.int64) * (C * AREA)
    kind = scratch.dtype.element_ty
    lanes = tl.arange(0, CP)
    rows = lanes[:, None] * AREA
    clear(scratch, C * AREA, CP * BLOCK)
    for branch in range(BRANCHES + (1 if BYPASS and STRIDE > 1 else 0)):
        own, before = branch * GROUPS * C, (branch - 1) * GROUPS * C
        tl.debug_barrier()  # the scratch was read, and the branch before was written to u
        for start in range(0, H * W, BLOCK):
            p = start + tl.arange(0, BLOCK)
            inside = (lanes[:, None] < C) & (p[None, :] < H * W)
            x = tl.load(t + tile(own, lanes, p, t_channel, t_pixel), mask=inside, other=0.0)
            if STRIDE == 1:
                y = u + tile(before, lanes, p, u_channel, u_pixel)
                x = x.to(tl.float32) + tl.load(y, mask=inside & (branch > 0), other=0.0)
            place = rows + cell(p, W, 1, PAD, WIDE)[None, :]
            tl.store(scratch + place, x.to(kind), mask=inside)
        tl.debug_barrier()  # the scratch was written
        for start in range(0, HO * WO, BLOCK):
            p = start + tl.arange(0, BLOCK)
            inside = (lanes[:, None] < C) & (p[None, :] < HO * WO)
            q = tl.minimum(p, HO * WO - 1)
            place = tile(own, lanes, p, u_channel, u_pixel)
            if branch < BRANCHES:
                row = branch * GROUPS + group
                start_C = tl.load(bias + row * CP + lanes)
                base, own_weight = cell(q, WO, STRIDE, EDGE, WIDE), weight + row * (C * K * K * CP)
                a = convolve(scratch, own_weight, base, start_C, K, C, CP, WIDE, AREA)
                tl.store(u + place, activate(a, ACT).to(kind), mask=inside)
                if KEEP:
                    tl.store(slopes + place, slope(a, ACT).to(kind), mask=inside)
            else:
                base = cell(q, WO, STRIDE, PAD - 1, WIDE)
                y = pool(scratch, base, lanes, C, WIDE, AREA)
                tl.store(u + place, y.to(kind), mask=inside)
    if BYPASS and STRIDE == 1:
        last = BRANCHES * GROUPS * C
        for start in range(0, H * W, BLOCK):
            p = start + tl.arange(0, BLOCK)
            inside = (lanes[:, None] < C) & (p[None, :] < H * W)
            x = tl.load(t + tile(last, lanes, p, t_channel, t_pixel), mask=inside)
            tl.store(u + tile(last, lanes, p, u_channel, u_pixel), x, mask=inside)


@triton.jit
def backward(
    gu, gt, kept, scratch, weight, g_image, g_channel, g_pixel, t_image, t_channel, t_pixel,
    u_image, u_channel, u_pixel,
    H: tl.constexpr, W: tl.constexpr, HO: tl.constexpr, WO: tl.constexpr, STRIDE: tl.constexpr,
    K: tl.constexpr, C: tl.constexpr, CP: tl.constexpr, GROUPS: tl.constexpr,
    BRANCHES: tl.constexpr, BYPASS: tl.constexpr, ACT: tl.constexpr, PAD: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the gradient of t; ``kept`` is u for ReLU, and the slopes for what is none."""
    WIDE: tl.constexpr = W + 2 * PAD
    AREA: tl.constexpr = (H + 2 * PAD) * WIDE
    program = tl.program_id(0)
    image, group = (program // GROUPS).to(tl.int64), program % GROUPS
    gu += image * g_image + group * C * g_channel
    gt += image * t_image + group * C * t_channel
    kept += image * u_image + group * C * u_channel
    scratch += program.to(tl.int64) * (C * AREA)
    kind = scratch.dtype.element_ty
    lanes = tl.arange(0, CP)
    rows = lanes[:, None] * AREA
    clear(scratch, C * AREA, CP * BLOCK)
    for step in range(BRANCHES + (1 if BYPASS and STRIDE > 1 else 0)):
        # The bypass of a strided block comes last, as branch -1 of this count.
        branch = BRANCHES - 1 - step
        own = tl.where(branch < 0, BRANCHES, branch) * GROUPS * C
        tl.debug_barrier()  # the scratch was read, and the branch behind was written to gt
        for start in range(0, HO * WO, BLOCK):
            p = start + tl.arange(0, BLOCK)
            inside = (lanes[:, None] < C) & (p[None, :] < HO * WO)
            g = tl.load(gu + tile(own, lanes, p, g_channel, g_pixel), mask=inside, other=0.0)
            g = g.to(tl.float32)
            if STRIDE == 1:
                behind = gt + tile(own + GROUPS * C, lanes, p, t_channel, t_pixel)
                g += tl.load(behind, mask=inside & (step > 0), other=0.0)
            d = tl.load(kept + tile(own, lanes, p, u_channel, u_pixel), mask=inside, other=0.0)
            d = (d > 0).to(tl.float32) if ACT == "ReLU" else d.to(tl.float32)
            g *= tl.where(branch < 0, 1.0, d)
            place = rows + cell(p, WO, STRIDE, PAD, WIDE)[None, :]
            tl.store(scratch + place, g.to(kind), mask=inside)
        tl.debug_barrier()  # the scratch was written
        for start in range(0, H * W, BLOCK):
            p = start + tl.arange(0, BLOCK)
            inside = (lanes[:, None] < C) & (p[None, :] < H * W)
            q = tl.minimum(p, H * W - 1)
            place = tile(own, lanes, p, t_channel, t_pixel)
            if branch >= 0:
                base = cell(q, W, 1, PAD - K // 2, WIDE)
                own_weight = weight + (branch * GROUPS + group) * (C * K * K * CP)
                start_C = tl.full([CP], 0.0, tl.float32)
                x = convolve(scratch, own_weight, base, start_C, K, C, CP, WIDE, AREA)
                tl.store(gt + place, x.to(kind), mask=inside)
            else:
                x = pool(scratch, cell(q, W, 1, PAD - 1, WIDE), lanes, C, WIDE, AREA)
                tl.store(gt + place, x.to(kind), mask=inside)
    if BYPASS and STRIDE == 1:
        last = BRANCHES * GROUPS * C
        for start in range(0, H * W, BLOCK):
            p = start + tl.arange(0, BLOCK)
            inside = (lanes[:, None] < C) & (p[None, :] < H * W)
            g = tl.load(gu + tile(last, lanes, p, g_channel, g_pixel), mask=inside)
            tl.store(gt + tile(last, lanes, p, t_channel, t_pixel), g.to(kind), mask=inside)
