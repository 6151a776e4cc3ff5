"""torch.compile, used or refused: never silently skipped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from robustray.errors import UserError
from robustray.training.objectives import Forward


class CompileError(UserError):
    """The recipe asks for a compiled model and this one can't be compiled here."""


def compiled(model: nn.Module) -> Forward:
    """Return the model's forward pass as one compiled graph for each batch shape.

    Compilation happens at the first call of each shape, and of its backward pass; make them
    inside ``compile_errors``.
    """
    return torch.compile(  # pyright: ignore[reportCallIssue] (its overloads lag behind)
        model, fullgraph=True, dynamic=False, isolate_recompiles=True
    )


@contextmanager
def compile_errors() -> Iterator[None]:
    """Turn failures of the compiler into one message for the user.

    Raises
    ------
    CompileError
        If a graph can't be captured or compiled.
    """
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import CppCompileError, InductorError

    try:
        yield
    except (TorchDynamoException, InductorError, CppCompileError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0] if lines else type(error).__name__
        raise CompileError(
            f"recipe.compile: torch.compile fails for this model on this machine ({reason}); "
            "set compile: false, or see the error above this one"
        ) from error
