"""Real clients of the reader: does each train on the right samples, with what code, and how fast?

Each client is a function `epoch(ds, use)`: it loops over a dataset once and calls `use(images, labels)` with each batch
that a model would get. `ds` is a ShardDataset, or the TensorDataset that the client's speed is compared with.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

BATCH_SIZE = 256

os.environ.setdefault("KERAS_BACKEND", "torch")  # which Keras reads when it is imported

Use = Callable[[Any, Any], None]
# What the batches of an epoch should contain: each sample equally often; samples of the set, any number of times; or
# mixed samples, whose sums equal those of the set.
Check = Literal["each sample", "samples", "sums"]


@dataclass(frozen=True)
class Client:
    name: str
    package: str  # that has to be installed, by the name that is imported
    code: str  # the smallest that works, an excerpt from `epoch`
    epoch: Callable[[Any, Use], None]
    verdict: str  # whether it works the first time
    check: Check
    pixels: bool  # whether it needs `normalize=False`
    loops: bool  # whether it reads samples in a loop, which TensorDataset can do too


CLIENTS: dict[str, Client] = {}


def client(
    name: str,
    code: str,
    *,
    package: str = "torch",
    verdict: str = "yes",
    check: Check = "each sample",
    pixels: bool = False,
    loops: bool = True,
) -> Callable[[Callable[[Any, Use], None]], Callable[[Any, Use], None]]:
    """Register a client. The other parameters are the fields of `Client`."""

    def register(epoch: Callable[[Any, Use], None]) -> Callable[[Any, Use], None]:
        CLIENTS[name] = Client(name, package, code, epoch, verdict, check, pixels, loops)
        return epoch

    return register


# Each registers its clients, in the order of the table.
# isort: off
from tests.clients import loaders, trainers, libraries, arrays  # noqa: E402, F401
