"""The networks that manifests name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import ConfigDict, Field, model_validator

from robustray.manifest.explaining import read_options
from robustray.manifest.fields import (
    Argument,
    Channels,
    ModelName,
    Number,
    PositiveNumber,
    Section,
    is_classifier,
)
from robustray.registry import MODELS


class MixingNetworkConfig(Section):
    """A mixing network: how second features come in, and four channels for each base."""

    version: Literal[3, 4] = 4
    accurate: Annotated[tuple[Channels, ...], Field(min_length=4, max_length=4)] | None = None
    robust: Annotated[tuple[Channels, ...], Field(min_length=4, max_length=4)] | None = None


class MixtureConstants(Section):
    """The seven numbers of a mixed classifier; see ``robustray.smoothing.Constants``."""

    gamma: Number | None = None
    gamma_scale: Number | None = None
    gamma_bias: Number | None = None
    alpha_scale: Annotated[Number, Field(ge=0, le=1)] | None = None
    alpha_bias: Annotated[Number, Field(ge=0, le=1)] | None = None
    std_scale: PositiveNumber | None = None
    rob_scale: PositiveNumber | None = None


class ModelConfig(Section):
    """The network: its name, and the options that stand beside it.

    A name of the catalogue (``robustray models``) has its options beside it; one that a user
    brings (``package.module:function``, or the entry point of an installed package) has them in
    ``arguments``. Classes and input channels come from the data set.
    """

    model_config = ConfigDict(extra="allow")

    name: ModelName = Field(default="preact_resnet", validate_default=False)
    arguments: dict[str, Argument] | None = None

    @model_validator(mode="before")
    @classmethod
    def _has_options_of_its_entry(cls, document: Any) -> Any:
        if not isinstance(document, dict):
            return document
        whole = cast(dict[str, Any], document)
        given = {k: value for k, value in whole.items() if value is not None or k == "name"}
        name: Any = given.pop("name", cls.model_fields["name"].default)
        known = isinstance(name, str) and MODELS.knows(name)
        if not given or not known or not is_classifier(name):
            return {"name": name, **given} if "name" in whole else given
        entry = _Brought if MODELS.is_brought(name) else MODELS.options(name)
        return {"name": name, **read_options(entry, given, "name")}

    def options(self) -> dict[str, Any]:
        """Return the options that were given, as keyword arguments of ``create_model``."""
        beside = self.model_dump(exclude={"name", "arguments"}, exclude_none=True)
        return beside | (self.arguments or {})

    def with_options(self, changes: Mapping[str, Any]) -> ModelConfig:
        """Return the same network with other values of some options, which are not checked."""
        if MODELS.is_brought(self.name):
            changes = {"arguments": {**(self.arguments or {}), **changes}}
        return self.model_copy(update=dict(changes))


class _Brought(Section):
    """What stands beside the name of a network that a user brings."""

    arguments: dict[str, Argument] | None = None
