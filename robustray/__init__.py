"""robustray: how robust is this model, really, and what made it so."""

import lazy_loader

__version__ = "0.1.0"

# What a notebook begins with; each name is loaded when it is asked for. The rest is in packages.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
