"""Rewriting the frozen copy's graph: the same function in fewer walks through memory.

A normalization in evaluation mode is an affine map of each channel, so a convolution whose output
goes there and nowhere else can do its work (Jacob et al., "Quantization and training of neural
networks for efficient integer-arithmetic-only inference", 2018, section 3.2). Where one precedes a
ReLU instead, as in pre-activation networks, the two become one layer. What can't be traced stays
as it is.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import fx, nn

from robustray.training.fused import NormRelu, add_over, relu_over


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
    fused : list of NormRelu
        Layers to be refreshed after the copy's weights were set.
    """

    module: nn.Module
    folded: list[tuple[str, str]] = field(default_factory=list)
    fused: list[NormRelu] = field(default_factory=list)


def rewrite(module: nn.Module, dtype: torch.dtype, *, overwrite: bool) -> Rewritten:
    """Rewrite a module that is in evaluation mode and needs no weight gradients.

    Parameters
    ----------
    module : nn.Module
        Gets biases where normalizations are folded; otherwise unchanged.
    dtype : torch.dtype
        Number format of the passes.
    overwrite : bool
        Whether to use layers that write over their inputs; a compiler does better without.
    """
    graph = _trace(module)
    if graph is None:
        return Rewritten(module)
    work = _Rewriter(module, graph, dtype)
    work.fold()
    if overwrite:
        work.fuse()
        work.add_in_place()
    return Rewritten(fx.GraphModule(module, graph), work.folded, work.fused)


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

    def iter(self, obj: fx.Proxy) -> Iterator[fx.Proxy]:
        """Return the chunks, each as an item of the result."""
        node = obj.node
        if node.op == "call_method" and node.target == "chunk" and isinstance(node.args[1], int):
            return iter([obj[i] for i in range(node.args[1])])
        return super().iter(obj)


class _Rewriter:
    def __init__(self, module: nn.Module, graph: fx.Graph, dtype: torch.dtype) -> None:
        self._module, self._graph, self._dtype = module, graph, dtype
        self._calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
        self.folded: list[tuple[str, str]] = []
        self.fused: list[NormRelu] = []

    def fold(self) -> None:
        """Leave out normalizations that the convolution before them can do."""
        for node in self._graph.nodes:
            conv = self._sole_source(node)
            if self._norm(node) is None or conv is None or self._calls[conv.target] > 1:
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

    def fuse(self) -> None:
        """Let ReLUs write over what only they read."""
        for node in self._graph.nodes:
            source = self._sole_source(node)
            if source is None or type(self._layer(node)) is not nn.ReLU:
                continue
            owned = all(type(self._layer(user)) is nn.Conv2d for user in node.users)
            norm = self._norm(source)
            with self._graph.inserting_before(node):
                if norm is not None:
                    new = self._graph.call_module(self._add(norm, owned), source.args)
                elif type(self._layer(source)) is nn.Conv2d:
                    new = self._graph.call_function(relu_over, (source, owned))
                else:
                    continue
            node.replace_all_uses_with(new)
            self._graph.erase_node(node)
            if norm is not None:
                self._graph.erase_node(source)

    def add_in_place(self) -> None:
        """Add skips onto convolutions' outputs that only the sum reads."""
        for node in self._graph.nodes:
            if node.op != "call_function" or node.target is not operator.add:
                continue
            for into, other in (node.args, node.args[::-1]):
                if (
                    type(self._layer(into)) is nn.Conv2d
                    and len(into.users) == 1
                    and isinstance(other, fx.Node)
                    and other is not into
                ):
                    node.target, node.args = add_over, (into, other)
                    break

    def _add(self, norm: nn.BatchNorm2d, owned: bool) -> str:
        layer = NormRelu(norm, owned, self._dtype)
        name = f"norm_relu_{len(self.fused)}"
        self.fused.append(layer)
        self._module.add_module(name, layer)
        return name

    def _layer(self, node: object) -> nn.Module | None:
        """Return the module that a node calls, if it calls one."""
        if isinstance(node, fx.Node) and node.op == "call_module":
            return self._module.get_submodule(str(node.target))
        return None

    def _norm(self, node: fx.Node) -> nn.BatchNorm2d | None:
        """Return the batch normalization that a node, and no other, calls."""
        layer = self._layer(node)
        if type(layer) is not nn.BatchNorm2d or self._calls[node.target] > 1:
            return None
        return layer if layer.affine and layer.track_running_stats else None

    def _sole_source(self, node: fx.Node) -> fx.Node | None:
        """Return the module call whose output this module call reads, and nobody else."""
        if self._layer(node) is None or len(node.all_input_nodes) != 1:
            return None
        (source,) = node.all_input_nodes
        return source if self._layer(source) is not None and len(source.users) == 1 else None
