"""Running attacks: physical batches, slots, the networks that are asked, verdicts."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
