"""The journal of a process, and the way from records to MLflow.

Work writes events into a `Journal`; their segments enter the store with each checkpoint. From what
is in the store, anybody can make `RunRecord`s, and an `Uploader` brings them to MLflow whenever it
answers. Sending a record twice changes nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
