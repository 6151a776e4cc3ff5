"""What the first and the second Ctrl-C do to a run."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_STOPPING = "stopping after this step"
_AGAIN = "; press again to end now"


@contextmanager
def stopping_politely(stop: threading.Event) -> Iterator[None]:
    """Let the first SIGINT or SIGTERM end a run in order, and a second SIGINT end it at once.

    The first is answered on standard error as it comes, whatever the run is doing.

    Parameters
    ----------
    stop : threading.Event
        Set by the first signal; whoever does the work looks at it.

    Raises
    ------
    KeyboardInterrupt
        In the block, at the second Ctrl-C.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not stop.is_set():
            stop.set()
            words = _STOPPING + (_AGAIN if number == signal.SIGINT else "")
            with suppress(OSError):  # not through sys.stderr, which may be writing just now
                os.write(2, f"\n{words}\n".encode())

    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
