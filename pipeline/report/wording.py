"""Figures in words."""

TWO_DIGITS = 10  # from here on, a number has two digits before the decimal point


def counted(number: int, noun: str) -> str:
    """Write a number with its noun."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def agreeing(number: int, singular: str, plural: str) -> str:
    """Choose the form of a word that agrees with a number."""
    return singular if number == 1 else plural


def share(number: int, total: int) -> str:
    """Write a part of a total in percent, with two digits or more."""
    percent = 100 * number / total
    return f"{percent:.0f}%" if percent >= TWO_DIGITS else f"{percent:.1f}%" if percent >= 1 else f"{percent:.2g}%"


def megabytes(num_bytes: int) -> str:
    """Write a size in megabytes, with two digits or more."""
    size = num_bytes / 1e6
    return f"{size:,.0f} MB" if size >= TWO_DIGITS else f"{size:.2g} MB"
