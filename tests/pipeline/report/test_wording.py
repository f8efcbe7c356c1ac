import pytest

from pipeline.report.wording import agreeing, counted, megabytes, share


@pytest.mark.parametrize(
    ("number", "expected"), [(0, "0 pairs have"), (1, "1 pair has"), (2, "2 pairs have"), (1234, "1,234 pairs have")]
)
def test_nouns_and_verbs_agree_with_their_number(number, expected):
    assert f"{counted(number, 'pair')} {agreeing(number, 'has', 'have')}" == expected


@pytest.mark.parametrize(
    ("number", "total", "expected"),
    [
        (0, 7, "0%"),
        (478, 10_000, "4.8%"),
        (1, 1, "100%"),
        (1, 8, "12%"),
        (1, 50, "2.0%"),
        (1, 3000, "0.033%"),
        (999, 10_000, "10.0%"),
    ],
)
def test_share_has_at_least_two_digits(number, total, expected):
    assert share(number, total) == expected


@pytest.mark.parametrize(
    ("num_bytes", "expected"),
    [(737_761_536, "738 MB"), (1_234_567_890, "1,235 MB"), (9_940_000, "9.9 MB"), (1536, "0.0015 MB")],
)
def test_size_is_in_megabytes(num_bytes, expected):
    assert megabytes(num_bytes) == expected
