"""Rewriting a frozen copy of a network: normalizations folded, sums and ReLUs in place."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx, nn

from robustray.models.fused.layer import FusedLayer

# A normalization in evaluation mode is an affine map of each channel, so a convolution whose
# output goes there and nowhere else can do its work, with equal results up to rounding (Jacob et
# al., "Quantization and training of neural networks for efficient integer-arithmetic-only
# inference", 2018, section 3.2). ReLUs and sums are written over inputs that nobody else reads.
# What can't be traced stays as it is.


@dataclass
class Rewritten:
    """A copy that computes the same as before.

    Attributes
    ----------
    module : nn.Module
        What to call; shares its tensors with the copy it was made from.
    folded : list of (str, str)
        Names of (convolution, normalization) that became one convolution, which has a bias now:
        whoever sets the copy's weights must set these to the product.
    """

    module: nn.Module
    folded: list[tuple[str, str]] = field(default_factory=list)


def rewrite(module: nn.Module) -> Rewritten:
    """Rewrite a module that is in evaluation mode and needs no weight gradients.

    Parameters
    ----------
    module : nn.Module
        Gets biases where normalizations are folded; otherwise unchanged.
    """
    graph = _trace(module)
    if graph is None:
        return Rewritten(module)
    work = _Rewriter(module, graph)
    work.fold()
    work.overwrite()
    return Rewritten(fx.GraphModule(module, graph), work.folded)


def fold(module: nn.Module) -> list[tuple[str, str]]:
    """Find what `Rewritten.folded` says, and change nothing but give those convolutions biases.

    For whoever sets the products itself, and leaves the normalizations out.
    """
    graph = _trace(module)
    if graph is None:
        return []
    work = _Rewriter(module, graph)
    work.fold()
    return work.folded


def add_over(x: Tensor, other: Tensor) -> Tensor:
    """Return x + other, written over ``x`` where it fits."""
    if x.shape == other.shape and x.dtype == other.dtype:
        return x.add_(other)
    return x + other


def _trace(module: nn.Module) -> fx.Graph | None:
    """Return what a module does with its input, or None where that can't be told for all."""
    if any(part._forward_hooks or part._forward_pre_hooks for part in module.modules()):
        return None
    try:
        return _Tracer().trace(module)
    except Exception:
        # Whatever a model does that can't be traced, it is only left as it is.
        return None


class _Tracer(fx.Tracer):
    """Also follows loops over the parts of a tensor that was cut into chunks."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether a module is one step of the graph."""
        return isinstance(m, FusedLayer) or super().is_leaf_module(m, module_qualified_name)

    def iter(self, obj: fx.Proxy) -> Iterator[object]:
        """Return the chunks, each as an item of the result."""
        node = obj.node
        if node.op == "call_method" and node.target == "chunk" and isinstance(node.args[1], int):
            return iter([operator.getitem(obj, i) for i in range(node.args[1])])  # type: ignore[call-overload]
        return super().iter(obj)


class _Rewriter:
    def __init__(self, module: nn.Module, graph: fx.Graph) -> None:
        self._module, self._graph = module, graph
        self._calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
        self.folded: list[tuple[str, str]] = []

    def fold(self) -> None:
        """Leave out normalizations that the convolution before them can do."""
        for node in self._graph.nodes:
            conv = self._sole_source(node)
            if conv is None or not self._is_plain_norm(node) or self._calls[conv.target] > 1:
                continue
            layer = self._layer(conv)
            if type(layer) is not nn.Conv2d:
                continue
            if layer.bias is None:
                bias = layer.weight.new_zeros(layer.out_channels)
                layer.bias = nn.Parameter(bias, requires_grad=False)
            self.folded.append((str(conv.target), str(node.target)))
            node.replace_all_uses_with(conv)
            self._graph.erase_node(node)

    def overwrite(self) -> None:
        """Let ReLUs and sums write over outputs of layers that only they read.

        Neither convolutions nor normalizations need their own output for their gradient.
        """
        for node in self._graph.nodes:
            source = self._sole_source(node)
            if type(self._layer(node)) is nn.ReLU and source is not None:
                if isinstance(self._layer(source), nn.Conv2d | nn.BatchNorm2d):
                    with self._graph.inserting_before(node):
                        new = self._graph.call_function(torch.relu_, (source,))
                    node.replace_all_uses_with(new)
                    self._graph.erase_node(node)
            elif node.op == "call_function" and node.target is operator.add:
                for into, other in (node.args, node.args[::-1]):
                    if self._is_spare(into) and isinstance(other, fx.Node) and other is not into:
                        node.target, node.args = add_over, (into, other)
                        break

    def _is_spare(self, node: object) -> bool:
        """Return whether a node is a convolution whose output is read once."""
        return type(self._layer(node)) is nn.Conv2d and len(getattr(node, "users", ())) == 1

    def _layer(self, node: object) -> nn.Module | None:
        """Return the module that a node calls, if it calls one."""
        if isinstance(node, fx.Node) and node.op == "call_module":
            return self._module.get_submodule(str(node.target))
        return None

    def _is_plain_norm(self, node: fx.Node) -> bool:
        """Return whether a node, and no other, calls a normalization with all its parts."""
        norm = self._layer(node)
        if type(norm) is not nn.BatchNorm2d or self._calls[node.target] > 1:
            return False
        return norm.affine and norm.track_running_stats

    def _sole_source(self, node: fx.Node) -> fx.Node | None:
        """Return the module call whose output this module call reads, and nobody else."""
        if self._layer(node) is None or len(node.all_input_nodes) != 1:
            return None
        (source,) = node.all_input_nodes
        return source if self._layer(source) is not None and len(source.users) == 1 else None


class Folding:
    """A convolution of a copy that does the work of two layers of the original.

    Parameters
    ----------
    model, twin : nn.Module
        Original and copy.
    conv, norm : str
        Names of the convolution, and of the normalization after it.
    """

    def __init__(self, model: nn.Module, twin: nn.Module, conv: str, norm: str) -> None:
        self._conv, self._twin = _conv(model, conv), _conv(twin, conv)
        self._norm = model.get_submodule(norm)

    @torch.no_grad()
    def refresh(self) -> None:
        """Compute the copy's weights and bias from the original's of now."""
        conv, norm, twin = self._conv, self._norm, self._twin
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_var is not None
        assert norm.running_mean is not None
        assert twin.bias is not None
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        mean = norm.running_mean if conv.bias is None else norm.running_mean - conv.bias
        twin.weight.copy_(conv.weight * scale.view(-1, 1, 1, 1))
        twin.bias.copy_(norm.bias - mean * scale)


def _conv(model: nn.Module, name: str) -> nn.Conv2d:
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Conv2d)
    return layer
