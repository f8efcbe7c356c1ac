"""Signals that wait until a block of code has finished."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import Any


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Defer SIGINT and SIGTERM until the block exits.

    A signal mask would not work, because Python runs its handlers in the main thread whichever thread got the signal.
    """
    if current_thread() is not main_thread():
        yield
        return
    arrived: list[int] = []
    handlers: dict[int, Any] = {}
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is not None:  # a handler installed by C code can't be restored
                handlers[number] = signal.signal(number, lambda number, _: arrived.append(number))
        yield
    finally:
        for restored, handler in handlers.items():  # SIGINT last, since it may arrive again
            signal.signal(restored, handler)
        for deferred in arrived:
            signal.raise_signal(deferred)
