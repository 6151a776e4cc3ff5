"""What a YAML manifest may say, and how it is read, overridden, hashed and printed.

Frozen pydantic models, which refuse unknown keys, describe a run everywhere: in YAML, in
`fit(model, data, recipe)`, in the hash that names a study. Numbers such as ``8/255`` may be written
as fractions.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
