"""What is known about the files of samples after decoding them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import msgspec


class ImageFacts(NamedTuple):
    """What is known about the file of a sample; width and height as stored, in pixels; `mode` is Pillow's.

    `problem` says why it can't be decoded, or is None. `has_more_frames`: it is the first frame or page of several.
    """

    sha256: str
    width: int
    height: int
    orientation: int
    mode: str
    problem: str | None = None
    has_more_frames: bool = False


@dataclass(frozen=True)
class StoredFacts:
    """The facts of a split's samples, read shard by shard: `parts` returns those of each shard as msgpack."""

    parts: Callable[[], Iterable[bytes]]

    def __iter__(self) -> Iterator[ImageFacts]:
        for part in self.parts():
            yield from read_facts(part)


def read_facts(facts: bytes) -> list[ImageFacts]:
    """Read the facts of a shard."""
    return msgspec.msgpack.decode(facts, type=list[ImageFacts])
