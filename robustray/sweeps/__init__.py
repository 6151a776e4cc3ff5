"""Sweeps: grids, what they cost, and running them on Ray Tune from the store's state."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
