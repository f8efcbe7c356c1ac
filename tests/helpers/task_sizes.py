"""How large tasks are when a cluster carries them."""

import pickle
from collections.abc import Callable, Iterable
from typing import Any

from pipeline.runtime.tasks import map_tasks
from shardset.threads import MapTasks, ignore


def recording_sizes(sizes: list[int]) -> MapTasks:
    """Map tasks on threads, and add the bytes of each task and its result, pickled, to `sizes`."""

    def record(function: Callable[[Any], Any], items: Iterable[Any], done: Callable[[Any], None] = ignore) -> list[Any]:
        items = list(items)
        results = map_tasks(function, items, done)
        sizes.extend(len(pickle.dumps((function, *task))) for task in zip(items, results, strict=True))
        return results

    return record
