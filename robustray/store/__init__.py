"""Where bytes are kept: a local folder or a bucket, content addresses, atomic commits."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
