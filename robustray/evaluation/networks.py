"""Building the network that is judged: from the catalogue, or by a user's own function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from robustray.attacks.engine.batches import default_compute_shape
from robustray.attacks.engine.context import judging
from robustray.attacks.engine.network import Network, gradient_path
from robustray.attacks.engine.watch import ask
from robustray.attacks.surrogates.bpda import Attackable, WithSurrogate
from robustray.attacks.surrogates.catalogue import put_surrogate
from robustray.data import DataFacts
from robustray.errors import ManifestError, UserError, below
from robustray.manifest import (
    Evaluation,
    ModelConfig,
    Preprocessing,
    SurrogateConfig,
)
from robustray.models import create_model
from robustray.models.architectures.layers import Standardize
from robustray.models.counting import building_on_meta
from robustray.models.libraries.library import Library, TakesLogits, logits_of
from robustray.models.weights.files import check_recorded, constants_of
from robustray.registry import MODELS
from robustray.store import canonical_json, sha256_bytes
from robustray.user_code import call, digest_code, load_reference, told


class Standardized(nn.Module):
    """A network behind (x - mean) / std, so that it takes pixels in [0, 1].

    Parameters
    ----------
    network : nn.Module
        Takes standardised images (B, C, H, W).
    mean, std : sequence of float
        One value for each channel.
    """

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.standardize = Standardize(tuple(mean), tuple(std))

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's logits for pixels in [0, 1]."""
        return ask(self.network, self.standardize(x))


class _WithSurrogate(Standardized):
    """The same around a network that offers ``surrogate``."""

    def surrogate(self, x: Tensor) -> Tensor:
        return ask(gradient_path(self.network), self.standardize(x))


def describe_network(manifest: Evaluation, facts: DataFacts) -> dict[str, Any]:
    """Return how a manifest's network is built, as plain data; a user's code by its digest.

    Where its outputs are objects with logits, these count, and ``outputs`` says so.

    Raises
    ------
    UserError
        If it can't be built.
    """
    if manifest.model is not None:
        network = describe_model(manifest.model, manifest.preprocessing, facts, manifest.surrogate)
        if manifest.weights is not None:
            return network
        if not is_published(manifest.model):
            # told after what is wrong with the network itself
            raise ManifestError("are missing: name a file with --weights, or weights: FILE",
                                path="weights")  # fmt: skip
        return network | _describe_published(manifest.model, facts.num_classes)
    assert manifest.factory is not None
    factory = manifest.factory
    network = {
        "factory": factory.function,
        "arguments": dict(factory.arguments),
        "preprocessing": _plain(manifest.preprocessing),
    }
    built = build_network(network)
    network |= _describe_outputs(built, facts)
    network["code_sha256"] = _code_digest(factory.function, built)
    network |= _standardisation(inner_network(built))
    return network | {"surrogate": _describe_surrogate(manifest.surrogate, built)}


def is_published(model: ModelConfig) -> bool:
    """Tell whether a network is another library's, whose published weights are meant."""
    library = MODELS.library(model.name)
    return library is not None and bool(model.options().get("trained", True))


def describe_model(
    model: ModelConfig,
    preprocessing: Preprocessing | None,
    facts: DataFacts,
    surrogate: SurrogateConfig | None = None,
) -> dict[str, Any]:
    """Return how a named network is built for a data set, as plain data; a user's has a digest.

    Raises
    ------
    UserError
        If it can't be built, or the surrogate does not fit it.
    """
    network = {
        "model": model.model_dump(mode="json", exclude_none=True),
        "num_classes": facts.num_classes,
        "in_channels": facts.image_shape[0],
        "preprocessing": _plain(preprocessing),
    }
    brought = MODELS.is_brought(model.name)
    if brought:
        network["code_sha256"] = MODELS.code_digest(model.name)
    if library := MODELS.library(model.name):
        network |= _describe_library(library, model, facts.num_classes)
    # Users' code may load weights.
    on_meta = not brought and (surrogate is None or surrogate.function is None)
    with building_on_meta() if on_meta else torch.random.fork_rng(devices=[]):
        built = build_network(network)
        network |= _describe_outputs(built, facts) if brought else {}
        network |= _standardisation(inner_network(built))
        return network | {"surrogate": _describe_surrogate(surrogate, built)}


def _describe_library(library: Library, model: ModelConfig, num_classes: int) -> dict[str, Any]:
    """Return a library's versions, and how it prepares images for a network."""
    name, options = MODELS.within(model.name), {**model.options(), "num_classes": num_classes}
    with below("model"):
        facts = library.input(name, options)
    return {"library": library.versions(), "input": facts.document()}


def _describe_published(model: ModelConfig, num_classes: int) -> dict[str, Any]:
    """Return what a library publishes of a network with its own weights, if anything."""
    name, options = MODELS.within(model.name), {**model.options(), "num_classes": num_classes}
    library: Library = MODELS.library(model.name)
    with below("model"):
        published = library.published(name, options)
    return {"published": asdict(published)} if published else {}


def _describe_outputs(built: nn.Module, facts: DataFacts) -> dict[str, str]:
    """Return that the outputs are objects whose logits count; nothing for all other networks.

    One that can't be asked here is told of by `try_network`.
    """
    source = torch.Generator().manual_seed(0)
    with suppress(Exception), judging(built), torch.no_grad(), torch.random.fork_rng(devices=[]):
        # Without hooks, by which networks of libraries take the logits themselves.
        answer = built.forward(torch.rand(2, *facts.image_shape, generator=source))
        if logits_of(answer) is not answer:
            return {"outputs": "logits"}
    return {}


def _standardisation(network: nn.Module) -> dict[str, Any]:
    """Return the constants that are in no state dict, as a part of what a network is."""
    found = constants_of(network)
    return {"standardisation": found} if found else {}


def _describe_surrogate(
    surrogate: SurrogateConfig | None, built: nn.Module
) -> bool | dict[str, Any]:
    """Return whether the network offers one; where one is named, what that is."""
    if surrogate is None:
        return callable(getattr(built, "surrogate", None))
    described = surrogate.model_dump(mode="json", exclude_none=True)
    whole = _attackable(built, described)
    if surrogate.function is not None:
        described["code_sha256"] = _code_digest(surrogate.function, whole)
    return described


def _attackable(built: nn.Module, surrogate: Mapping[str, Any]) -> Attackable:
    """Put a named surrogate, or one that a user's function makes, beside a network."""
    options = dict(surrogate["options"])
    if "function" in surrogate:
        arguments = {"network": built} | options
        return WithSurrogate(built, _call(surrogate["function"], arguments, "surrogate"))
    try:
        return put_surrogate(built, surrogate["name"], surrogate.get("modules"), **options)
    except ValueError as error:
        raise ManifestError(str(error), path="surrogate") from error


def build_network(network: Mapping[str, Any]) -> nn.Module:
    """Build a network from its description, before its weights are loaded.

    Raises
    ------
    UserError
        If the description is of no possible network, or the function can't be found or fails.
    """
    if "factory" in network:
        built = _call(network["factory"], network["arguments"], "factory")
    else:
        config = ModelConfig.model_validate(network["model"])
        options = config.options()
        if MODELS.library(config.name):  # its weights come from a file, like all others
            options["trained"] = False
        try:
            built = create_model(
                config.name,
                num_classes=network["num_classes"],
                in_channels=network["in_channels"],
                **options,
            )
        except (ValueError, TypeError) as error:
            raise ManifestError(str(error), path="model") from error
    if "standardisation" in network:
        check_recorded(network["standardisation"], constants_of(built), "another robustray's plan")
    if network.get("outputs") == "logits":
        built = TakesLogits(built)
    around = network["preprocessing"]
    if around is not None:
        wrapper = _WithSurrogate if callable(getattr(built, "surrogate", None)) else Standardized
        built = wrapper(built, around["mean"], around["std"])
    surrogate = network.get("surrogate")
    return _attackable(built, surrogate) if isinstance(surrogate, Mapping) else built


def try_network(
    model: nn.Module,
    facts: DataFacts,
    name: str,
    device: torch.device | str = "cpu",
    compute_shape: int | None = None,
) -> None:
    """Ask a network about two images, and refuse it if it does not give logits of their classes.

    One that fails on two is asked about a whole physical batch: it may be made for no other.

    Parameters
    ----------
    model : nn.Module
        With its weights; left as it was.
    facts : DataFacts
        Shape and classes of the images that it is to judge.
    name : str
        What these are called.
    device : torch.device or str
        Where images go to a network without parameters.
    compute_shape : int, optional
        The physical batch; by default that of the network's device.

    Raises
    ------
    UserError
        If it fails, changes what it is given or itself, or returns anything else.
    """
    network = Network(model, torch.device(device))
    whole = compute_shape or default_compute_shape(network.device)
    words = f"the network fails on images {facts.image_shape} of {name}"
    try:
        with judging(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
            classes = _classes_of_either(network, facts, whole)
    except (torch.OutOfMemoryError, torch.AcceleratorError, MemoryError):
        raise
    except ValueError as error:
        raise UserError(f"{words}: {error}") from error
    except Exception as error:  # a user's code
        raise UserError(f"{words}: {told(error)}") from error
    if classes != facts.num_classes:
        raise UserError(
            f"the network gives logits of {classes} classes, and {name} has {facts.num_classes}"
        )


def _classes_of_either(network: Network, facts: DataFacts, whole: int) -> int:
    """Return the classes of two images, else of a whole batch; if both fail, the first error."""
    try:
        return _classes(network, facts, 2)
    except (torch.OutOfMemoryError, torch.AcceleratorError, MemoryError):
        raise
    except Exception:  # a user's code
        with suppress(Exception):
            return _classes(network, facts, whole)
        raise


def _classes(network: Network, facts: DataFacts, count: int) -> int:
    """Return how many classes a network has logits for, from so many random images."""
    source = torch.Generator().manual_seed(0)
    images = torch.rand(count, *facts.image_shape, generator=source)
    return network(images.to(network.device)).shape[1]


def build_function(function: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Return the network that a user's ``package.module:function`` makes.

    It may lie in the working folder.

    Raises
    ------
    UserError
        If it can't be found, does not take the arguments, fails, or makes no network.
    """
    return _call(function, arguments, "model")


def inner_network(model: nn.Module) -> nn.Module:
    """Return the network that weights are loaded into, within surrogates and preprocessing."""
    model = model.model if isinstance(model, Attackable) else model  # type: ignore[assignment]
    for wrapper in (Standardized, TakesLogits):
        model = model.network if isinstance(model, wrapper) else model
    return model


def state_digest(model: nn.Module) -> str:
    """Return the SHA-256 of a state dict: names, types, shapes and values."""
    parts = []
    for name, tensor in sorted(model.state_dict().items()):
        plain = tensor.detach().cpu().contiguous()
        data = plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
        parts.append([name, str(plain.dtype), list(plain.shape), sha256_bytes(data)])
    return sha256_bytes(canonical_json(parts))


def _call(function: str, arguments: Mapping[str, Any], section: str) -> nn.Module:
    with below(f"{section}.function"):
        make = load_reference(function)
        if not callable(make):
            raise ManifestError(f"{function} is no function")
    try:
        built = call(function, make, arguments)
    except ManifestError as error:
        place = f"{section}.{error.path or 'function'}"
        raise ManifestError(error.message, path=place) from error
    if not isinstance(built, nn.Module):
        raise UserError(f"{function} returns a {type(built).__name__}, not a torch.nn.Module")
    return built


def _code_digest(function: str, built: nn.Module) -> str:
    """Hash the source of the function, of its helpers, and of all classes that it built from."""
    classes = (type(part).__module__ for part in built.modules())
    return digest_code([function.partition(":")[0]], classes)


def _plain(preprocessing: Preprocessing | None) -> dict[str, list[float]] | None:
    if preprocessing is None:
        return None
    return {"mean": list(preprocessing.mean), "std": list(preprocessing.std)}
