"""Coverage-guided fuzzing of one reader: `python -m tests.soak.guided TARGET SECONDS`, with atheris installed.

The targets are those of fuzz.py. atheris prints the number of inputs, and the first input that is handled wrongly.
"""

import sys
import tempfile
from pathlib import Path

import atheris  # type: ignore[import-untyped, import-not-found, unused-ignore]

with atheris.instrument_imports(include=["pipeline", "shardset"]):
    from tests.soak.fuzz import attempt, make_targets


def main() -> None:
    name, seconds = sys.argv[1:]
    corpus = Path(tempfile.mkdtemp())
    read, expected, samples = make_targets(corpus)[name]
    (corpus / "inputs").mkdir()
    for index, sample in enumerate(samples):
        (corpus / "inputs" / str(index)).write_bytes(sample)

    def test(content: bytes) -> None:
        if fault := attempt(read, expected, content):
            raise AssertionError(fault)

    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", str(corpus / "inputs")], test)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
