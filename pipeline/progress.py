"""What a command shows while it works: lines that it logs and, on a terminal, a bar for each thing that it does."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import TaskID

    from pipeline.runtime.tasks import Progress


@contextmanager
def show_progress() -> Iterator["Progress"]:
    """Print on stderr what the stage logs, and yield what shows its progress, with the rate and the time left."""
    if sys.stderr.isatty():
        with _open_bar() as update:  # first, so that lines go above the bar
            _print_log()
            yield update
    else:
        from shardset.threads import ignore

        _print_log()
        yield ignore


def _print_log() -> None:
    logging.basicConfig(format="%(message)s")
    logging.getLogger("pipeline").setLevel(logging.INFO)
    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # its messages don't name the file


@contextmanager
def _open_bar() -> Iterator["Progress"]:
    # Imported here, because it takes longer than some commands.
    from rich import progress
    from rich.console import Console

    from pipeline.runtime.tasks import FETCHING

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TextColumn("{task.fields[amount]}"),
        progress.TimeRemainingColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:

        def update(action: str, done: int, total: int) -> None:
            if action not in tasks:
                tasks[action] = bar.add_task(action, total=total, amount="")
            speed = bar.tasks[tasks[action]].speed or 0
            amount = (
                f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB, {speed / 1e6:.1f} MB/s"
                if action == FETCHING
                else f"{done:,} of {total:,}, {speed:,.0f} images/s"
            )
            bar.update(tasks[action], completed=done, amount=amount)

        yield update
