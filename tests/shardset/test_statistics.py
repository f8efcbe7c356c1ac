import json

import pytest
from msgspec import to_builtins

from pipeline.stages.stats import write_stats
from shardset.errors import InputError
from shardset.statistics import load_stats, read_statistics


@pytest.fixture(scope="module")
def tiny_stats(tiny_raw, tmp_path_factory):
    """The path of the tiny dataset's stats.json, and what it holds."""
    path = tmp_path_factory.mktemp("stats") / "stats.json"
    return path, write_stats(tiny_raw, path)


def test_written_statistics_are_read_back(tiny_stats):
    path, stats = tiny_stats
    assert read_statistics(path) == stats
    written = json.loads(path.read_bytes())
    assert written == to_builtins(stats)
    for name in ("mean", "std", "std_per_image", "min", "max"):
        assert list(written[name]) == ["red", "green", "blue"]


def test_load_stats_gives_mean_and_std_by_channel(tiny_stats):
    path, stats = tiny_stats
    assert load_stats(path) == load_stats(str(path)) == (tuple(stats.mean.values()), tuple(stats.std.values()))


def test_summary_shows_mean_and_std(tiny_stats):
    _, stats = tiny_stats
    shown = [" ".join(f"{value:.4f}" for value in values.values()) for values in (stats.mean, stats.std)]
    assert stats.summary() == f"tiny train, 100 images, mean {shown[0]}, std {shown[1]} (red, green, blue)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": 0.5}, "mean: should be a mapping of keys to values, got 0.5"),
        ({"extra": 1}, "extra: unknown key"),
        ({"split": "valid"}, "split: should be 'train' or 'val' or 'test', got \"valid\""),
        ({"std": {"red": 0.5}}, "std: should have the channels of mean"),
        ({"max": {"red": 1, "green": 1, "blue": 1, "alpha": 1}}, "max: should have the channels of mean"),
    ],
)
def test_invalid_value_is_named_with_its_key(change, message, tiny_stats, tmp_path):
    _, stats = tiny_stats
    path = tmp_path / "stats.json"
    path.write_text(json.dumps(to_builtins(stats) | change))
    with pytest.raises(InputError) as caught:
        load_stats(path)
    assert str(caught.value).startswith(f"{path}: {message}")


@pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 200_000, b"null"])
def test_malformed_file_is_refused_in_one_line(content, tmp_path):
    (tmp_path / "stats.json").write_bytes(content)
    with pytest.raises(InputError, match=r"^[^\n]*stats\.json: [^\n]+$"):
        load_stats(tmp_path / "stats.json")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"absent\.json: no such file"):
        load_stats(tmp_path / "absent.json")


def test_unreadable_file_raises_os_error(tmp_path):
    with pytest.raises((IsADirectoryError, PermissionError)):  # the latter on Windows
        load_stats(tmp_path)
