"""A model as attacks see it: a judge in full precision, a search that may be cheaper, gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from robustray.attacks.engine.inputs import Shapes, check_mixture
from robustray.attacks.engine.watch import Asked, Watched, watched
from robustray.models.fused import fuse_blocks
from robustray.models.fused.rewriting import Folding, fold

# A model whose forward pass hides or breaks its gradient may offer ``surrogate(x)``, a
# differentiable stand-in. Gradients then come from it and verdicts still from ``model(x)``:
# backward pass differentiable approximation (Athalye, Carlini and Wagner, "Obfuscated gradients
# give a false sense of security", 2018, section 4.1).

Model = Callable[[Tensor], Tensor]

REMEDY = (
    "use an attack that needs none (square), or give the model a differentiable surrogate(x) "
    "(Bpda, WithSurrogate; in a manifest `surrogate`, such as spsa)"
)
# What autograd says of models that it can't differentiate.
_REFUSALS = (
    "requires grad",
    "modified by an inplace operation",
    "in-place operation",
    "Inference tensors cannot be saved",
    "derivative for",
)


class InputGradient(NamedTuple):
    """One forward and one backward pass.

    ``grad`` has the shape of the images; ``loss_B`` and ``logits_BK`` come from the same pass (of
    the surrogate, where the model has one), detached.
    """

    grad: Tensor
    loss_B: Tensor
    logits_BK: Tensor


def gradient_path(model: Model) -> Model:
    """Return ``model.surrogate`` where the model offers one, else the model."""
    surrogate = getattr(model, "surrogate", None)
    return cast(Model, surrogate) if callable(surrogate) else model


def input_gradient(model: Model, x: Tensor, loss: Callable[[Tensor], Tensor]) -> InputGradient:
    """Differentiate a loss with respect to the images, and nothing else.

    No weight gradient is computed or left behind, whatever the parameters' ``requires_grad``.

    Parameters
    ----------
    model : callable
        Images (B, ...) to logits (B, K); its ``surrogate`` is used where there is one.
    x : Tensor
        Images (B, ...).
    loss : callable
        Logits (B, K) to losses (B,).

    Raises
    ------
    ValueError
        If the output does not depend on the images through differentiable operations.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        with explained():
            logits_BK = _at_least_float32(watched_path(model)(x))
        loss_B = loss(logits_BK)
        (grad,) = differentiate(loss_B.sum(), x)
    return InputGradient(grad, loss_B.detach(), logits_BK.detach())


def watched_path(model: Model) -> Model:
    """Return ``gradient_path(model)``, its passes watched (see ``watch``)."""
    path = gradient_path(model)
    return watched(model) if path is model else Watched(path)


def differentiate(total: Tensor, x: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Return the derivatives of a number with respect to images, and other tensors.

    Raises
    ------
    ValueError
        If it does not depend on the images ``x`` through differentiable operations.
    """
    grads: tuple[Tensor | None, ...] = (None,)
    if total.requires_grad:
        with explained():
            grads = torch.autograd.grad(total, (x, *others), allow_unused=True)
    if grads[0] is None:
        raise ValueError(f"the model's output has no gradient with respect to its input; {REMEDY}")
    return cast(tuple[Tensor, ...], grads)


@contextmanager
def explained() -> Iterator[None]:
    """Say of what autograd refuses that the model is not to be differentiated.

    Raises
    ------
    ValueError
        In place of its error, and with a remedy.
    """
    try:
        yield
    except RuntimeError as error:
        if not any(words in str(error) for words in _REFUSALS):
            raise
        raise ValueError(
            f"the model has no gradient with respect to its input ({error}); {REMEDY}"
        ) from error


def averaged_gradient(
    model: Model, x: Tensor, loss: Callable[[Tensor], Tensor], eot: int
) -> tuple[Tensor, Tensor]:
    """Average ``input_gradient`` over passes, for models that are random.

    Athalye, Engstrom, Ilyas and Kwok, "Synthesizing robust adversarial examples" (2018).

    Returns
    -------
    Tensor, Tensor
        Gradients (B, ...), 0 where they were not finite; and in how many passes they were not:
        int64 (B,).
    """
    passes = [finite(input_gradient(model, x, loss).grad) for _ in range(eot)]
    grad = passes[0][0] if eot == 1 else torch.stack([one for one, _ in passes]).mean(0)
    return grad, torch.stack([flawed_B for _, flawed_B in passes]).sum(0)


def finite(grad: Tensor) -> tuple[Tensor, Tensor]:
    """Return gradients with 0 for what is not finite, and where there was any: bool (B,)."""
    # A sum is finite only if all of it is; asking every pixel costs ten times as much.
    whole_B = grad.flatten(1).sum(1).isfinite()
    if grad.device.type == "cpu" and bool(whole_B.all()):
        return grad, ~whole_B
    good = grad.isfinite()
    return torch.where(good, grad, 0.0), ~good.flatten(1).all(1)


def gradient_shares(
    model: Model, x: Tensor, loss: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Return for each image how much of its gradient is no use to an attack.

    Returns
    -------
    Tensor, Tensor
        The shares of pixels whose derivative is exactly 0, and is not finite: (B,) in [0, 1].
    """
    grad = input_gradient(model, x, loss).grad.flatten(1)
    zero_B, flawed_B = (flags.double().mean(1) for flags in (grad == 0, ~grad.isfinite()))
    return zero_B, flawed_B


@torch.no_grad()
def predict_logits(model: Model, x: Tensor) -> Tensor:
    """Return the logits (B, K) of ``model(x)``, in float32 or better, without a graph."""
    return _at_least_float32(watched(model)(x))


def is_correct(logits_BK: Tensor, y_B: Tensor) -> Tensor:
    """Return whether the largest logit is the label's: bool (B,). A NaN among them is wrong."""
    return (logits_BK.argmax(dim=1) == y_B) & ~logits_BK.isnan().any(dim=1)


def is_fooled(model: Model, x_adv: Tensor, y_B: Tensor, votes: int) -> Tensor:
    """Return whether more than half of ``votes`` passes are wrong: bool (B,)."""
    wrong_B = torch.zeros_like(y_B)
    for _ in range(votes):
        wrong_B += ~is_correct(predict_logits(model, x_adv), y_B)
    return 2 * wrong_B > votes


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


SEARCH_DTYPES = ("float32", "bfloat16")


class Network(Asked):
    """A model on its device, fed in its own floating-point type.

    Images and perturbations stay float32 whatever the model computes in. Calling the network asks
    the model itself: that is the judge. Gradients are asked of ``search_path``.

    Parameters
    ----------
    model : callable
        A module, or any function of images.
    device : torch.device
        Where the images are, for a model without parameters.
    search_dtype : {"float32", "bfloat16"}
        What the search computes in. Judging is not affected.
    channels_last : bool
        Search in the memory layout that convolutions are often faster in.
    fused_blocks : bool
        Search with fused kernels for the branches of robust blocks (`robustray.models.fused`).

    Raises
    ------
    ValueError
        For another ``search_dtype``, or a search that needs a module where there is none.
    """

    def __init__(
        self,
        model: Model,
        device: torch.device,
        search_dtype: str = "float32",
        channels_last: bool = False,
        fused_blocks: bool = False,
    ) -> None:
        if search_dtype not in SEARCH_DTYPES:
            raise ValueError(
                f"search_dtype is one of {', '.join(SEARCH_DTYPES)}, not {search_dtype!r}"
            )
        tensors = [*model.parameters(), *model.buffers()] if isinstance(model, nn.Module) else []
        dtypes = [tensor.dtype for tensor in tensors if tensor.is_floating_point()]
        self.device = tensors[0].device if tensors else device
        self._judge = Watched(model, dtypes[0] if dtypes else None)
        searched = dtypes[0] if dtypes else None
        copied = search_dtype != "float32" or channels_last or fused_blocks
        if copied:
            model = _search_copy(model, search_dtype, channels_last, fused_blocks)
            searched = torch.bfloat16 if search_dtype == "bfloat16" else searched
        path = gradient_path(model)
        self.has_surrogate = path is not model
        self.loss_from_surrogate = bool(getattr(model, "loss_from_surrogate", False))
        # How many passes of the model one of the surrogate is worth (finite differences: many).
        self.surrogate_forwards = int(getattr(model, "surrogate_forwards", 1))
        self.search_logits = Watched(model, searched, channels_last) if copied else self._judge
        self.search_path = (
            Watched(path, searched, channels_last) if self.has_surrogate else self.search_logits
        )
        # What attacks that know no search path take gradients from (``gradients.gradient_path``).
        self.surrogate = self.search_path if self.has_surrogate or copied else None
        # What attacks on mixed classifiers need (``apgd_adaptive``).
        gamma = cast(Any, getattr(model, "forward_with_gamma", None))
        self.forward_with_gamma = (
            Watched(gamma, searched, channels_last, check_mixture) if callable(gamma) else None
        )
        self.found_shapes: dict[tuple[object, ...], Shapes] = {}  # see ``oracle.find_shapes``

    def __call__(self, x: Tensor) -> Tensor:
        """Return the logits (B, K) of the model itself."""
        return self._judge(x)

    @property
    def searches_itself(self) -> bool:
        """Whether logits of the search are those of the model itself."""
        return self.search_logits is self._judge

    @property
    def draws_random(self) -> bool:
        """Whether the model was seen to draw random numbers in a pass."""
        paths = (self._judge, self.search_path, self.search_logits, self.forward_with_gamma)
        return any(path is not None and path.draws_random for path in paths)


def as_network(model: Model, device: torch.device) -> Network:
    """Return a model as attacks see it: itself, where it is a `Network`."""
    return model if isinstance(model, Network) else Network(model, device)


def _search_copy(model: Model, search_dtype: str, channels_last: bool, fused: bool) -> nn.Module:
    """Copy a module for the search: in evaluation mode, its weights frozen."""
    if not isinstance(model, nn.Module):
        message = "search_dtype, channels_last and fused_blocks need a module, not a function"
        raise ValueError(message)  # noqa: TRY004 - users catch one type for all arguments
    twin = copy.deepcopy(model).eval().requires_grad_(False)
    if search_dtype == "bfloat16":
        twin = twin.to(torch.bfloat16)
    if fused:
        _fuse(twin, model)
    return nn.Module.to(twin, memory_format=torch.channels_last) if channels_last else twin  # pyright: ignore[reportCallIssue]


def _fuse(twin: nn.Module, model: nn.Module) -> None:
    """Fuse a copy's robust blocks, and fold normalizations within them.

    Blocks stay the objects that they are: the network may reach them by several ways.
    """
    for name, original in {f.name: f.block for f in fuse_blocks(twin, model)}.items():
        block = twin.get_submodule(name)
        for conv, norm in fold(block):
            Folding(original, block, conv, norm).refresh()
            block.set_submodule(norm, nn.Identity())
