"""The networks that have a name: every module registers its own when it is imported."""

from robustray.models.catalogue import biggan, generators, quantised, resnets, smoothing, wide

__all__ = ["biggan", "generators", "quantised", "resnets", "smoothing", "wide"]
