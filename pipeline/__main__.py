"""`python -m pipeline` and `cifar-pipeline`.

SIGINT and SIGTERM end the process by an exception, so that incomplete files are removed first.
"""

import os
import sys
from types import FrameType


def exit_wrong_python(problem: str) -> None:
    """Exit with one line. `dvc repro` takes the first `python` on the PATH, which may not be the project's."""
    sys.exit(
        f"Error: {sys.executable}: {problem}. Run `source .venv/bin/activate` first, or `make repro`. "
        "`dvc repro` then restores what it removed. Outside of a clone, install cifar-pipeline with its dependencies."
    )


if sys.version_info < (3, 11, 4):
    exit_wrong_python(f"Python 3.11.4 or later is required, but this is {sys.version.split()[0]}")

# The stages start a thread for each CPU. BLAS, which numpy loads, would start as many again.
for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ.setdefault(variable, "1")

received: list[int] = []


def exit_on_signal(number: int, _: FrameType | None) -> None:
    """Exit with the code that shells expect after a signal."""
    received.append(number)
    sys.exit(128 + number)


def exit_if_dropped(unraisable: "sys.UnraisableHookArgs") -> None:
    """Exit at once where Python drops the exception of a signal handler, such as in a weakref's callback."""
    if received and isinstance(unraisable.exc_value, SystemExit):
        os._exit(128 + received[0])
    sys.__unraisablehook__(unraisable)


# Installed before all other imports, which take long enough for Ctrl-C to arrive during them. Signals that the shell
# set to ignore stay ignored.
try:
    import signal

    sys.unraisablehook = exit_if_dropped
    for signal_number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(signal_number) is default:
            signal.signal(signal_number, exit_on_signal)
except KeyboardInterrupt:
    sys.exit(130)


def main() -> None:
    """Run the command line."""
    try:
        from pipeline.cli import main as run

        run()
    except Exception as error:
        # The code that the signal interrupted may have turned SystemExit into another exception.
        if received:
            sys.exit(128 + received[0])
        if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith(("pipeline", "shardset")):
            exit_wrong_python(str(error))
        raise
    finally:
        # During interpreter shutdown, a handler's exception would be printed.
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is exit_on_signal:
                signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    main()
