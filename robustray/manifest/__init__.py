"""What a YAML manifest may say, and how it is read, overridden, hashed and printed."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
