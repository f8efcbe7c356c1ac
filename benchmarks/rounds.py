"""How many times each contender runs, after a first time that is not counted."""

ROUNDS = 5
SLOW_ROUNDS = 3  # of contenders that take longer than
SLOW_SECONDS = 2.0


def is_due(number: int, seconds: float) -> bool:
    """Say whether a contender that took `seconds` the last time takes part in round `number`."""
    return number <= SLOW_ROUNDS or seconds <= SLOW_SECONDS
