"""Adaptive smoothing: an accurate and a robust network mixed, trained, attacked and certified."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
