"""The networks that have a name: every module registers its own when it is imported."""

from robustray.models.catalogue import biggan, quantised, resnets, smoothing, wide

__all__ = ["biggan", "quantised", "resnets", "smoothing", "wide"]
