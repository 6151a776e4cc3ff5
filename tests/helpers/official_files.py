"""Small files in the official layouts, written without the code that reads them."""

import gzip
import pickle
import struct

import numpy as np


def python2_pickle(record):
    """Write {bytes: uint8 array or list of ints} with the opcodes of Python 2's protocol 2."""
    out = [b"\x80\x02}("]
    for key, value in record.items():
        out.append(_string(key))
        if isinstance(value, np.ndarray):
            shape = b"(" + b"".join(_int(n) for n in value.shape) + b"t"
            dtype = b"cnumpy\ndtype\n" + _string(b"u1") + _int(0) + _int(1) + b"\x87R"
            dtype += b"(" + _int(3) + _string(b"|") + b"NNN" + _int(-1) * 2 + _int(0) + b"tb"
            out.append(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n")
            out.append(_int(0) + b"\x85" + _string(b"b") + b"\x87R")
            out.append(b"(" + _int(1) + shape + dtype + b"\x89" + _string(value.tobytes()) + b"tb")
        else:
            out.append(b"](" + b"".join(_int(v) for v in value) + b"e")
    return b"".join([*out, b"u."])


def _string(text):
    return b"T" + struct.pack("<i", len(text)) + text


def _int(value):
    return b"J" + struct.pack("<i", value)


def cifar_record(count=5, label_key=b"labels", classes=10):
    """Return random images and classes as a CIFAR batch holds them."""
    source = np.random.default_rng(0)
    x = source.integers(0, 256, (count, 3072), dtype=np.uint8)
    return {b"data": x, label_key: source.integers(0, classes, count).tolist()}


def idx(array, kind=8):
    """Write LeCun's idx format."""
    return (
        bytes([0, 0, kind, array.ndim])
        + struct.pack(f">{array.ndim}I", *array.shape)
        + (array.tobytes())
    )


def gzipped_idx(array):
    return gzip.compress(idx(array), mtime=0)


class Bomb:
    """Unpickled by anything that obeys pickles, it calls ``function(*args)``."""

    def __init__(self, function, *args):
        self._reduced = (function, args)

    def __reduce__(self):
        return self._reduced


def bomb(function, *args, protocol=2):
    return pickle.dumps({b"data": Bomb(function, *args)}, protocol)
