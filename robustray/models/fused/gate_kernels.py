"""The end of a robust block as one GPU program for each image.

A gate needs the means of all channels before the first pixel of the output can be written. So one
program reads the map o of an image twice: for the means, and for the output. Between them it
computes the gate of all channels. What threads have to tell each other of that (a number for each
channel) they leave in memory, with a barrier between. The way back has the same form. Sums are
float32 for every type of maps. A batch has as many programs as images: those of a few images leave
most of a GPU idle.

The kernels are tested in Triton's interpreter, and compiled for sm_80 and sm_90. They have not been
run on a GPU yet: no speed is claimed.
"""

# ruff: noqa: ANN001, ANN201 - what Triton compiles has tensors and constants of its own
# pyright: reportGeneralTypeIssues=false, reportArgumentType=false

from __future__ import annotations

import triton
import triton.language as tl

from robustray.models.fused.kernels import sigmoid

# Names of constants: C channels, PIXELS of a map, K hidden units of the gate (KP padded to a power
# of 2); CB channels and PB pixels are a tile. KEPT is what o is multiplied by without a gate.


@triton.jit
def plus(a, b):
    """Return a sum, for reductions."""
    return a + b


@triton.jit
def values(x, c, p, channel, pixel, C: tl.constexpr, PIXELS: tl.constexpr):
    """Return a tile [channels, pixels] of a map in float32, with zeros outside."""
    inside = (c[:, None] < C) & (p[None, :] < PIXELS)
    place = x + c[:, None] * channel + p[None, :] * pixel
    return tl.load(place, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def write(x, tile, c, p, channel, pixel, C: tl.constexpr, PIXELS: tl.constexpr):
    """Write a tile [channels, pixels] of a map."""
    inside = (c[:, None] < C) & (p[None, :] < PIXELS)
    place = x + c[:, None] * channel + p[None, :] * pixel
    tl.store(place, tile.to(x.dtype.element_ty), mask=inside)


@triton.jit
def multiply(
    matrix, vector, row, column, C: tl.constexpr, K: tl.constexpr, KP: tl.constexpr,
    CB: tl.constexpr,
):  # fmt: skip
    """Return the product [KP] of a matrix [K, C] of any strides and a vector [C] in memory."""
    k = tl.arange(0, KP)
    total = tl.full([KP], 0.0, tl.float32)
    for start in range(0, C, CB):
        c = start + tl.arange(0, CB)
        inside = (k[:, None] < K) & (c[None, :] < C)
        part = tl.load(matrix + k[:, None] * row + c[None, :] * column, mask=inside, other=0.0)
        part *= tl.load(vector + c, mask=c < C, other=0.0)[None, :]
        total += tl.reduce(part, 1, plus)
    return total


@triton.jit
def forward(
    o, skip, out, gates, hidden, means, scale, shift, squeeze, excite, o_image, o_channel, o_pixel,
    skip_image, skip_channel, skip_pixel,
    C: tl.constexpr, PIXELS: tl.constexpr, K: tl.constexpr, KP: tl.constexpr, KEPT: tl.constexpr,
    CB: tl.constexpr, PB: tl.constexpr,
):  # fmt: skip
    """Write the output (laid out as o), the gate [C] and its hidden units [K] of one image."""
    image = tl.program_id(0).to(tl.int64)
    o += image * o_image
    out += image * o_image
    skip += image * skip_image
    gates += image * C
    means += image * C
    k = tl.arange(0, KP)
    for start in range(0, C, CB):
        c = start + tl.arange(0, CB)
        total = tl.full([CB, PB], 0.0, tl.float32)
        for first in range(0, PIXELS, PB):
            p = first + tl.arange(0, PB)
            total += values(o, c, p, o_channel, o_pixel, C, PIXELS)
        a = tl.load(scale + c, mask=c < C, other=0.0)
        b = tl.load(shift + c, mask=c < C, other=0.0)
        tl.store(means + c, tl.reduce(total, 1, plus) * a / PIXELS + b, mask=c < C)
    tl.debug_barrier()  # the means were written
    h_K = multiply(squeeze, means, C, 1, C, K, KP, CB)
    h_K = tl.where(h_K < 0, 0.0, h_K)
    tl.store(hidden + image * K + k, h_K, mask=k < K)
    for start in range(0, C, CB):
        c = start + tl.arange(0, CB)
        inside = (c[:, None] < C) & (k[None, :] < K)
        part = tl.load(excite + c[:, None] * K + k[None, :], mask=inside, other=0.0)
        gate = sigmoid(tl.reduce(part * h_K[None, :], 1, plus))
        tl.store(gates + c, gate, mask=c < C)
        factor = KEPT + tl.load(scale + c, mask=c < C, other=0.0) * gate
        added = tl.load(shift + c, mask=c < C, other=0.0) * gate
        for first in range(0, PIXELS, PB):
            p = first + tl.arange(0, PB)
            tile = values(o, c, p, o_channel, o_pixel, C, PIXELS) * factor[:, None]
            tile += values(skip, c, p, skip_channel, skip_pixel, C, PIXELS) + added[:, None]
            write(out, tile, c, p, o_channel, o_pixel, C, PIXELS)


@triton.jit
def backward(
    grad, o, of_o, gates, hidden, slopes, scale, shift, squeeze, excite,
    g_image, g_channel, g_pixel, o_image, o_channel, o_pixel,
    C: tl.constexpr, PIXELS: tl.constexpr, K: tl.constexpr, KP: tl.constexpr, KEPT: tl.constexpr,
    CB: tl.constexpr, PB: tl.constexpr,
):  # fmt: skip
    """Write the gradient of o (laid out as o) of one image."""
    image = tl.program_id(0).to(tl.int64)
    grad += image * g_image
    o += image * o_image
    of_o += image * o_image
    gates += image * C
    slopes += image * C
    k = tl.arange(0, KP)
    for start in range(0, C, CB):
        c = start + tl.arange(0, CB)
        along = tl.full([CB, PB], 0.0, tl.float32)
        whole = tl.full([CB, PB], 0.0, tl.float32)
        for first in range(0, PIXELS, PB):
            p = first + tl.arange(0, PB)
            g = values(grad, c, p, g_channel, g_pixel, C, PIXELS)
            along += g * values(o, c, p, o_channel, o_pixel, C, PIXELS)
            whole += g
        a = tl.load(scale + c, mask=c < C, other=0.0)
        b = tl.load(shift + c, mask=c < C, other=0.0)
        gate = tl.load(gates + c, mask=c < C, other=0.0)
        of_gate = a * tl.reduce(along, 1, plus) + b * tl.reduce(whole, 1, plus)
        tl.store(slopes + c, of_gate * gate * (1 - gate), mask=c < C)
    tl.debug_barrier()  # the slopes were written
    of_h_K = multiply(excite, slopes, 1, K, C, K, KP, CB)
    active = tl.load(hidden + image * K + k, mask=k < K, other=0.0) > 0
    of_h_K = tl.where(active, of_h_K, 0.0)
    for start in range(0, C, CB):
        c = start + tl.arange(0, CB)
        inside = (c[:, None] < C) & (k[None, :] < K)
        part = tl.load(squeeze + k[None, :] * C + c[:, None], mask=inside, other=0.0)
        a = tl.load(scale + c, mask=c < C, other=0.0)
        of_mean = tl.reduce(part * of_h_K[None, :], 1, plus) * a / PIXELS
        factor = KEPT + a * tl.load(gates + c, mask=c < C, other=0.0)
        for first in range(0, PIXELS, PB):
            p = first + tl.arange(0, PB)
            tile = values(grad, c, p, g_channel, g_pixel, C, PIXELS) * factor[:, None]
            write(of_o, tile + of_mean[:, None], c, p, o_channel, o_pixel, C, PIXELS)
