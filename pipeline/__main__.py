"""`python -m pipeline`."""

import signal
import sys

# Before the imports, which take long enough for Ctrl-C to fall into them. Both signals end the process by an exception,
# so that what is not whole is removed first; where a shell has them ignored, they stay so.
for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
    if signal.getsignal(number) is default:
        signal.signal(number, lambda number, _: sys.exit(128 + number))

from pipeline.cli import main  # noqa: E402

main()
