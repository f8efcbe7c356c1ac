import signal
import threading
from contextlib import suppress

import pytest

from pipeline.runtime.signals import deferred_signals


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM])
def number(request):
    return request.param


@pytest.fixture
def events(number):
    """What happened, in order; the handler of `number` adds "signal"."""
    happened = []
    handler = signal.signal(number, lambda number, frame: happened.append("signal"))
    yield happened
    signal.signal(number, handler)


def test_signal_is_handled_after_the_block(number, events):
    with deferred_signals():
        signal.raise_signal(number)
        events.append("work")
    assert events == ["work", "signal"]
    signal.raise_signal(number)
    assert events == ["work", "signal", "signal"]


def test_every_signal_that_arrived_is_handled(number, events):
    with deferred_signals():
        signal.raise_signal(number)
        signal.raise_signal(number)
    assert events == ["signal", "signal"]


def test_signal_is_handled_after_a_failed_block(number, events):
    with suppress(ZeroDivisionError), deferred_signals():
        signal.raise_signal(number)
        raise ZeroDivisionError
    assert events == ["signal"]


def test_nested_blocks_defer_until_the_outer_one_exits(number, events):
    with deferred_signals():
        with deferred_signals():
            signal.raise_signal(number)
        events.append("work")
    assert events == ["work", "signal"]


def test_ignored_signal_stays_ignored(number):
    handler = signal.signal(number, signal.SIG_IGN)
    try:
        with deferred_signals():
            signal.raise_signal(number)
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, handler)


def test_other_threads_change_no_handler(number, events):
    handlers = []

    def work():
        with deferred_signals():
            handlers.append(signal.getsignal(number))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(number)]
