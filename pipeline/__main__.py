"""`python -m pipeline`. Ctrl-C and SIGTERM end it by an exception, so that what is not whole is removed first."""

import os
import sys
from types import FrameType

stopped_by: list[int] = []


def stop(number: int, _: FrameType | None) -> None:
    """End the process as shells expect of a signal."""
    stopped_by.append(number)
    sys.exit(128 + number)


def stop_at_once(unraisable: "sys.UnraisableHookArgs") -> None:
    """End as if killed where Python drops the exception of a signal, such as in a weakref's callback."""
    if stopped_by and isinstance(unraisable.exc_value, SystemExit):
        os._exit(128 + stopped_by[0])
    sys.__unraisablehook__(unraisable)


# Before all other imports, which take long enough for Ctrl-C to fall into them. What a shell has ignored stays so.
try:
    import signal

    sys.unraisablehook = stop_at_once
    for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) is default:
            signal.signal(number, stop)
except KeyboardInterrupt:
    sys.exit(130)

try:
    from pipeline.cli import main

    main()
except Exception:
    # The code into which the signal fell may have made another exception of it.
    if not stopped_by:
        raise
    sys.exit(128 + stopped_by[0])
finally:
    # Python's own end would print an exception.
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is stop:
            signal.signal(number, signal.SIG_DFL)
