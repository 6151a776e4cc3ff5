"""Fused robust blocks compute what plain ones do: outputs, and gradients of the input.

Without a GPU the kernels run in Triton's interpreter; triton is among the development packages.
"""

from __future__ import annotations

import copy
import logging
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
from torch import Tensor, nn

from robustray.attacks import AttackSpec, ThreatModel, evaluate
from robustray.attacks.engine.network import Network, input_gradient
from robustray.cuda_graphs import CudaGraphs
from robustray.manifest.recipe import InnerAttack, Recipe
from robustray.models import RobustResBlock, create_model, fused
from robustray.models.fused import fuse_blocks, gate, hierarchy, layer
from robustray.models.fused.gate import FusedGate, can_fuse_gate
from robustray.training import Trainer
from robustray.training.frozen import FrozenCopy
from robustray.training.precision import Precision
from tests.helpers.small_training import toy_recipe
from tests.training.test_frozen import both, stir

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROOT = Path(__file__).resolve().parents[2]
LAST = torch.channels_last
needs_gpu = pytest.mark.skipif(DEVICE == "cpu", reason="needs a CUDA device")


@pytest.fixture(autouse=True, scope="module")
def _kernels_run_here() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        if DEVICE == "cpu":
            patch.setenv("TRITON_INTERPRET", "1")
        yield


def make_block(seed: int = 0, channels: int = 16, **options: Any) -> RobustResBlock:
    """A frozen block with statistics of its own; 3 channels in each of 2 groups by default."""
    torch.manual_seed(seed)
    options = {"scales": 3, "base_width": 30, "cardinality": 2, "se_reduction": 16, **options}
    block = RobustResBlock(16, channels, **options)
    return stir(block).eval().requires_grad_(False).to(DEVICE)  # type: ignore[return-value]


def run(branches: Any, t: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return u, and the gradient of its sum (weighted, if weights are given)."""
    leaf = t.clone(memory_format=torch.preserve_format).requires_grad_()
    u = branches(leaf)
    total = u.sum() if weight is None else (u * weight.to(u.dtype)).sum()
    return u.detach(), torch.autograd.grad(total, leaf)[0]


def compare(
    block: RobustResBlock, sides: tuple[int, int], dtype: torch.dtype = torch.float32,
    layout: torch.memory_format = torch.contiguous_format, *, weighted: bool = True,
    batch: int = 2,
) -> list[float]:  # fmt: skip
    """Return the relative distances of u and of the gradient from the plain block's in float64."""
    assert hierarchy.obstacle(block) is None
    t = torch.randn(batch, block.conv1.out_channels, *sides, device=DEVICE)
    t = t.to(dtype).contiguous(memory_format=layout)
    plain = copy.deepcopy(block).double()
    shape = plain._hierarchy(t.double()).shape
    weight = torch.randn(shape, device=DEVICE) if weighted else None
    theirs = run(plain._hierarchy, t.double(), weight)
    mine = run(hierarchy.FusedHierarchy(block), t, weight)
    assert mine[0].dtype == mine[1].dtype == dtype
    assert mine[1].shape == t.shape
    if layout is LAST:
        assert all(one.is_contiguous(memory_format=LAST) for one in mine)
    return [float((a.double() - b).norm() / b.norm()) for a, b in zip(mine, theirs, strict=True)]


SHAPES: dict[str, tuple[dict[str, Any], tuple[int, int]]] = {
    "hierarchy": ({}, (6, 5)),
    "published scales": ({"scales": 8, "base_width": 10}, (4, 4)),
    "two branches": ({"scales": 2}, (5, 4)),
    "one scale, no bypass": ({"scales": 1}, (4, 6)),
    "one group": ({"cardinality": 1, "base_width": 60}, (3, 7)),
    "one channel": ({"base_width": 10, "cardinality": 4}, (5, 5)),
    "kernel of one pixel": ({"kernel_size": 1}, (5, 4)),
    "kernel of five pixels": ({"kernel_size": 5}, (4, 6)),
    "map smaller than the kernel": ({"kernel_size": 5}, (1, 2)),
}


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_and_stride(shape: str, stride: int) -> None:
    options, sides = SHAPES[shape]
    assert max(compare(make_block(stride=stride, **options), sides)) < 1e-6


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", hierarchy.ACTIVATIONS)
def test_every_activation(name: str, stride: int) -> None:
    block = make_block(stride=stride, activation_name=name, base_width=20, scales=3)
    assert max(compare(block, (5, 4))) < 1e-5


@pytest.mark.parametrize("name", ["ReLU", "SiLU"])
@pytest.mark.parametrize("stride", [1, 2])
def test_half_precision_within_its_rounding(stride: int, name: str) -> None:
    block = make_block(stride=stride, activation_name=name)
    for dtype, share in ((torch.bfloat16, 2**-7), (torch.float16, 2**-10)):
        u, gradient = compare(block, (6, 6), dtype)
        # Where a sum is almost 0, rounding decides whether ReLU lets its gradient through.
        assert u < share
        assert gradient < (16 if name == "ReLU" else 2) * share


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stride", [1, 2])
def test_layouts_are_kept(stride: int, dtype: torch.dtype) -> None:
    block = make_block(stride=stride)
    assert compare(block, (5, 6), dtype, LAST)[0] < (1e-6 if dtype == torch.float32 else 2**-7)


@pytest.mark.parametrize("stride", [1, 2])
def test_maps_larger_than_a_tile(stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hierarchy, "_TILE", 64)
    assert max(compare(make_block(stride=stride), (7, 6))) < 1e-6


def test_strange_strides_and_no_images() -> None:
    block = make_block()
    assert max(compare(block, (4, 5), weighted=False)) < 1e-6, "the gradient is one number"
    mine, t = hierarchy.FusedHierarchy(block), torch.randn(2, 18, 4, 10, device=DEVICE)
    assert torch.equal(mine(t[..., ::2]), mine(t[..., ::2].contiguous()))
    assert torch.equal(mine(t.mT), mine(t.mT.contiguous()))
    assert mine(t[:0]).shape == (0, 18, 4, 10)


@pytest.mark.parametrize("layout", [torch.contiguous_format, LAST])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("se", ["residual", "standard"])
@pytest.mark.parametrize("by_kernel", [True, False])
def test_the_end_of_a_block(
    by_kernel: bool, se: str, dtype: torch.dtype, layout: torch.memory_format,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(gate, "kernels_run_on", lambda device: by_kernel)
    block = make_block(se=se, se_reduction=4, channels=24)
    assert can_fuse_gate(block)
    o, skip, weight = torch.randn(3, 2, 96, 9, 8, device=DEVICE).unbind()
    o, skip = (x.to(dtype).contiguous(memory_format=layout) for x in (o, skip))
    ends = (FusedGate(block), copy.deepcopy(block).double().end)
    results: list[tuple[Tensor, ...]] = []
    for end, kind in zip(ends, (dtype, torch.float64), strict=True):
        leaves = [x.to(kind).requires_grad_() for x in (o, skip)]
        out = end(*leaves)
        assert out.dtype == kind
        results.append((out.detach(), *torch.autograd.grad((out * weight.to(kind)).sum(), leaves)))
    for mine, theirs in zip(*results, strict=True):
        assert (mine.double() - theirs).norm() < theirs.norm() * (
            1e-6 if dtype == torch.float32 else 2**-6
        )


def test_ends_that_are_another_formula_stay_as_they_are() -> None:
    for se in ("conv3x3", "identity", "none"):
        assert not can_fuse_gate(make_block(se=se))
    assert not can_fuse_gate(make_block().train())


def thin_network(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"depths": (2, 1), "channels": (4, 16, 16), "num_classes": 4, "in_channels": 1}
    few = {"scales": 3, "base_width": 10, "cardinality": 2, "se_reduction": 16}
    model = create_model("preact_resnet", block="robust", **{**sizes, **few, **options})
    return stir(model).to(DEVICE)


def test_a_frozen_copy_follows_its_model() -> None:
    model = thin_network(depths=(1, 1))
    float32 = Precision.of(Recipe(channels_last=False), DEVICE)
    frozen = FrozenCopy(model, float32, fused=True)
    layers = [m for m in frozen.module.modules() if isinstance(m, hierarchy.FusedHierarchy)]
    assert len(layers) == 2
    assert sum(isinstance(m, FusedGate) for m in frozen.module.modules()) == 2
    for _ in range(2):
        for mine, theirs in both(model, frozen.module, torch.rand(2, 1, 6, 6, device=DEVICE)):
            assert (mine - theirs).norm() <= 1e-5 * mine.norm()
        stir(model)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)
        frozen.refresh()


def test_the_inner_attack_of_training_goes_where_the_plain_one_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gate, "kernels_run_on", lambda device: DEVICE == "cuda")
    x, y = torch.rand(2, 1, 5, 5), torch.arange(2)
    inner = InnerAttack(steps=2, start_scale=0.05)
    found: list[Tensor] = []
    for choice in (True, False):
        recipe = toy_recipe(inner=inner, fused_blocks=choice)
        trainer = Trainer(thin_network(depths=(1, 1)), recipe, seed=7, device=DEVICE)
        frozen = trainer._frozen
        assert frozen is not None
        layers = [m for m in frozen.module.modules() if isinstance(m, hierarchy.FusedHierarchy)]
        assert len(layers) == 2 * choice
        trainer.start_epoch(0)
        x_adv = trainer.attack(trainer.precision.images(x), y.to(DEVICE), epoch=0, step=0)
        assert x_adv is not None
        found.append(x_adv)
    assert (found[0] - x.to(DEVICE)).abs().max() > 0.05
    torch.testing.assert_close(*found)


def test_attacks_search_with_them_and_verdicts_stay_the_models_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gate, "kernels_run_on", lambda device: DEVICE == "cuda")
    model = thin_network(depths=(1,), channels=(4, 16)).eval()
    x = torch.rand(8, 1, 4, 4, device=DEVICE)
    with torch.no_grad():
        model.get_parameter("fc.bias").sub_(model(x).mean(0))  # all classes about equally often
    y = model(x).argmax(1)
    suite = [AttackSpec("pgd", options={"steps": 2, "step_size": 0.02})]
    options: dict[str, Any] = {"suite": suite, "compute_shape": 8, "check": False}
    threat = ThreatModel("linf", 0.03)
    found = evaluate(
        model, x, y, threat, fused_blocks=True, search_dtype="bfloat16", channels_last=True,
        **options,
    )  # fmt: skip
    plain = evaluate(model, x, y, threat, **options)
    assert 0 < plain.robust.sum() < 8
    assert torch.equal(found.robust, plain.robust)
    assert torch.equal(model(found.x_adv).argmax(1) == y, found.robust)
    blocks = [m for m in model.modules() if isinstance(m, RobustResBlock)]
    assert all(m.fused_branches is None and m.fused_gate is None for m in blocks)


def test_a_search_in_float32_has_the_models_gradient() -> None:
    model, x = thin_network(depths=(1, 1)).eval(), torch.rand(2, 1, 5, 5, device=DEVICE)
    network = Network(model, x.device, fused_blocks=True)
    assert not network.searches_itself
    mine, theirs = (
        input_gradient(path, x, lambda logits: logits.logsumexp(1))
        for path in (network.search_path, model)
    )
    assert not torch.equal(mine.grad, theirs.grad), "the kernels round differently"
    assert (mine.grad - theirs.grad).norm() < 1e-5 * theirs.grad.norm()
    torch.testing.assert_close(mine.logits_BK, theirs.logits_BK)


class Reached(nn.Module):
    """Reaches a block by two names, another by no list, and reads what one says of itself."""

    def __init__(self) -> None:
        super().__init__()
        first = RobustResBlock(64, 16)
        self.twice = nn.ModuleList([first, first])
        self.plain = [RobustResBlock(64, 16)]
        self.last = self.plain[0]

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, out_channels of the last block)."""
        for block in (*self.twice, *self.plain):
            x = block(x)
        assert self.last.out_channels == x.shape[1]
        return x.mean((2, 3))


def test_blocks_are_fused_however_a_network_reaches_them() -> None:
    torch.manual_seed(0)
    model, x = Reached().to(DEVICE), torch.randn(4, 64, 5, 5, device=DEVICE)
    with torch.no_grad():
        model(x)  # statistics that are none of a fresh network
        model.eval()
        network = Network(model, x.device, fused_blocks=True)
        torch.testing.assert_close(network.search_logits(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("act", [nn.LeakyReLU(0.3), nn.ELU(2.0), nn.GELU("tanh"), nn.Softplus(3.0)])
def test_activations_with_options_of_their_own_have_no_kernel(act: nn.Module) -> None:
    block = make_block().eval()
    assert hierarchy.obstacle(block) is None
    block.act = act
    assert "its activation is" in str(hierarchy.obstacle(block))


def test_what_cannot_be_fused_stays_plain_and_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fused._say.cache_clear()
    wide = thin_network(base_width=400, cardinality=1, se="none", se_reduction=None)
    cases = {
        "its normalization is no batch norm": thin_network(normalizations="LayerNorm").eval(),
        "it is in training mode": thin_network(),
        "its weights are float64": thin_network().eval().double(),
        "its groups have 40 channels": wide.eval(),
        "the network has no RobustResBlock": nn.Linear(2, 2),
    }
    with caplog.at_level(logging.WARNING, "robustray.models"):
        for model in cases.values():
            for _ in range(2):
                assert fuse_blocks(copy.deepcopy(model), model) == []
    assert len(caplog.messages) == len(cases) + 1
    told = [one for one in caplog.messages if "the end of a robust block" not in one]
    for reason, message in zip(cases, told, strict=True):
        assert message.startswith("fused_blocks: ")
        assert reason in message


def test_without_a_gpu_or_triton_branches_stay_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = thin_network(depths=(1, 1)).eval().cpu(), torch.rand(2, 1, 5, 5)
    for name, value in (("find_spec", lambda name: None), ("environ", {})):
        with monkeypatch.context() as patch:
            patch.setattr(layer.importlib.util if name == "find_spec" else layer.os, name, value)
            fusions = fuse_blocks(twin := copy.deepcopy(model), model)
        assert [type(fusion.layer) for fusion in fusions] == [FusedGate] * 2
        torch.testing.assert_close(twin(x), model(x))


def test_compiled_and_fused_is_refused() -> None:
    with pytest.raises(ValueError, match="torch compiles no fused block"):
        Recipe(compile=True, fused_blocks=True)


@pytest.mark.skipif(DEVICE == "cuda", reason="kernels can be launched here")
def test_where_triton_finds_no_gpu_the_reason_is_known() -> None:
    reason = layer.kernel_obstacle(torch.device("cuda"))
    assert reason is not None
    assert reason.startswith("triton can't launch kernels here (")


def test_loading_networks_loads_no_triton() -> None:
    code = "import sys, robustray.training, robustray.attacks, robustray.models.fused\n"
    code += "print('triton' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_kernels_compile_for_gpus(tmp_path: Path) -> None:
    """Not for one that is here: the compiler alone, in a process that doesn't interpret."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.helpers.compiled_kernels"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    found = {name: (int(a), int(b)) for name, a, b in map(str.split, done.stdout.splitlines())}
    assert list(found) == ["strided", "smooth", "back", "gate", "gate-back"]
    for barriers, blind in found.values():
        assert barriers >= 1, "between writing what other threads read, and reading it"
        assert blind == 0, "no cache that doesn't see the program's own writes"


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("channels", "side"), [(80, 32), (224, 16), (192, 8)])
def test_blocks_of_rrn_a1_again_and_again(channels: int, side: int, dtype: torch.dtype) -> None:
    """A race between threads of a program would show as bits that differ between runs."""
    for stride in (1, 2):
        sizes: dict[str, Any] = {"scales": 8, "base_width": 10, "cardinality": 4}
        block = make_block(channels=channels, stride=stride, **sizes)
        bound = 1e-5 if dtype == torch.float32 else 2**-7
        assert compare(block, (side, side), dtype, batch=16)[0] < bound
        layer = hierarchy.FusedHierarchy(block)
        t = torch.randn(128, block.conv1.out_channels, side, side, device=DEVICE, dtype=dtype)
        weight = torch.randn_like(layer(t))
        first = run(layer, t, weight)
        graphed = CudaGraphs(partial(run, layer), eager=1)
        for _ in range(20):
            assert all(map(torch.equal, first, run(layer, t, weight)))
            assert all(map(torch.equal, first, graphed(t, weight)))


def test_triton_is_the_version_that_is_pinned() -> None:
    pins = (ROOT / "constraints.txt").read_text()
    assert f"\ntriton=={triton.__version__}\n" in pins
