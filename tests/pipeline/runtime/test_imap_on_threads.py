import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from pipeline.runtime.tasks import AHEAD, imap_on_threads
from shardset.errors import InputError
from tests.helpers.workspace import REPOSITORY


@pytest.fixture(autouse=True)
def three_threads(monkeypatch):
    monkeypatch.setenv("PIPELINE_THREADS", "3")


def slow_square(item):
    time.sleep(0.001 * (item % 3))
    return item * item


def test_results_are_in_the_order_of_the_items():
    assert [*imap_on_threads(slow_square, range(100))] == [item * item for item in range(100)]
    assert [*imap_on_threads(slow_square, [])] == []
    assert [*imap_on_threads(slow_square, iter([3]))] == [9]


def test_several_threads_work_at_the_same_time():
    barrier = threading.Barrier(3, timeout=10)
    assert len({*imap_on_threads(lambda _: (barrier.wait(), threading.get_ident())[1], range(3))}) == 3


def test_only_a_few_items_are_taken_ahead():
    taken = []

    def items():
        for item in range(10_000):
            taken.append(item)
            yield item

    results = imap_on_threads(slow_square, items())
    assert taken == []  # nothing starts before the first result is asked for
    for number in range(1, 200):
        next(results)
        assert len(taken) <= number + AHEAD * 3
    results.close()


def test_nothing_is_done_ahead_while_the_consumer_rests():
    done: list[int] = []
    results = imap_on_threads(done.append, range(10_000))
    next(results)
    time.sleep(0.2)
    assert len(done) <= 1 + AHEAD * 3
    results.close()


def test_error_in_the_function_stops_it_and_cancels_the_rest():
    done = []

    def divide(item):
        done.append(item)
        time.sleep(0.01)
        return 1 // item

    results = imap_on_threads(divide, [2, 1, 0, *range(1, 1000)])
    assert (next(results), next(results)) == (0, 1)
    with pytest.raises(ZeroDivisionError):
        next(results)
    num_done = len(done)
    assert num_done <= 3 + AHEAD * 3
    time.sleep(0.1)
    assert len(done) == num_done
    with pytest.raises(StopIteration):
        next(results)


def test_error_in_the_items_is_raised():
    def items():
        yield 1
        raise InputError("no more")

    with pytest.raises(InputError, match="no more"):
        [*imap_on_threads(slow_square, items())]


def divide_by_zero(results):
    for _ in results:
        1 / 0  # noqa: B018


@pytest.mark.parametrize("how", ["close", "error", "del"])
def test_consumer_that_stops_early_leaves_no_thread(how):
    started = []

    def work(item):
        started.append(item)
        time.sleep(0.05)

    before = threading.active_count()
    results = imap_on_threads(work, range(1000))
    start = time.perf_counter()
    next(results)
    if how == "close":
        results.close()
    elif how == "error":
        with pytest.raises(ZeroDivisionError):
            divide_by_zero(results)
        del results
    else:
        del results
    assert time.perf_counter() - start < 2
    assert threading.active_count() == before
    assert len(started) <= 2 + AHEAD * 3


def test_wrong_number_of_threads_is_refused(monkeypatch):
    monkeypatch.setenv("PIPELINE_THREADS", "two")
    with pytest.raises(InputError, match="PIPELINE_THREADS: should be a whole number"):
        next(imap_on_threads(str, [1]))


INTERRUPTED = """
import time
from pipeline.runtime.tasks import imap_on_threads

def work(item):
    print(item, flush=True)
    time.sleep(0.3)

for _ in imap_on_threads(work, range(10_000)):
    pass
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_interrupt_ends_it_promptly():
    command = (sys.executable, "-c", INTERRUPTED)
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert [process.stdout.readline() for _ in range(5)]
        process.send_signal(signal.SIGINT)
        start = time.perf_counter()
        out, err = process.communicate(timeout=30)
    assert time.perf_counter() - start < 2  # what runs is finished, nothing else begins
    assert process.returncode == -signal.SIGINT
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert len(out.splitlines()) <= 3
