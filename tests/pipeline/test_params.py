import gc
import re
import time

import pytest
import yaml
from msgspec import to_builtins

from pipeline.params import Params, load_params
from shardset.errors import InputError
from tests.helpers.workspace import REPOSITORY

TEXT = (REPOSITORY / "params.yaml").read_text()

# A line of params.yaml, its replacement, and what the message should contain: the key, part of the rule, the value.
BROKEN = [
    ("dataset: cifar10", "dataset: cifar", "dataset", "one of cifar10, cifar100, synthetic", '"cifar"'),
    ("dataset: cifar10", "dataset: 10", "dataset", "a string", "10"),
    ("dataset: cifar10", "data: cifar10", "data", "unknown key", ""),
    ("dataset: cifar10", "dataset: cifar10\nextra: 1", "extra", "unknown key", ""),
    ("dataset: cifar10", "dataset: cifar10\ndataset: synthetic", "dataset", "duplicate key", ""),
    ("  source: data/images", "  source: ''", "images.source", "a string of length >= 1", '""'),
    ("  size: 224", "  size: 0", "images.size", ">= 1", "0"),
    ("  size: 224", "  size: 5000", "images.size", "<= 4096", "5000"),
    ("  size: 224", "  size: 300", "images.resize", "at least size, 300", "256"),
    ("  orientation: exif", "  orientation: auto", "images.orientation", "'ignore'", '"auto"'),
    ("  unreadable: fail", "  unreadable: drop", "images.unreadable", "'skip'", '"drop"'),
    ("  test_fraction:", "  test_fraction: 0", "images.test_fraction", "> 0", "0"),
    ("  test_fraction:", "  test_fraction: 1.0", "images.test_fraction", "< 1", "1.0"),
    ("dataset: cifar10", "dataset: torchvision", "dataset", "images, torchvision:CLASS", '"torchvision"'),
    ("  max_leaked:", "  max_leaked: -1", "audit.max_leaked", "a whole number >= 0", "-1"),
    ("  max_leaked:", "  max_leaked: 2.5", "audit.max_leaked", "a whole number or null", "2.5"),
    ("  max_leaked:", "  max_leaked: 5%", "audit.max_leaked", "a whole number or null", '"5%"'),
    ("  max_leaked:", "  max_leaked: true", "audit.max_leaked", "a whole number or null", "true"),
    ("  max_leaked:", "", "audit.max_leaked", "missing key", ""),
    ("  max_exact_duplicates:", "  max_exact_duplicates: -1", "audit.max_exact_duplicates", ">= 0", "-1"),
    ("  max_label_conflicts:", "  max_label_conflicts: -1", "audit.max_label_conflicts", ">= 0", "-1"),
    ("  max_label_conflicts:", "  max_conflicts: 1", "audit.max_conflicts", "unknown key", ""),
    ("  ignore: data/not_duplicates.csv", "  ignore: ''", "audit.ignore", "a string of length >= 1", '""'),
    ("  ignore: data/not_duplicates.csv", "  ignore: [3]", "audit.ignore", "a string or null", "[3]"),
    ("  ignore: data/not_duplicates.csv", "  ignore: false", "audit.ignore", "a string or null", "false"),
    ("audit:", "audits:", "audits", "unknown key", ""),
    ("audit:", "audit: {}\naudit:", "audit", "duplicate key", ""),
    ("  scheme: dataset", "  scheme: zscore", "normalize.scheme", "'dataset_per_image'", '"zscore"'),
    ("  scheme: dataset", "  scheme: custom", "normalize.mean", "list of numbers", "null"),
    ("  scheme: dataset", "  shceme: dataset", "normalize.shceme", "unknown key", ""),
    ("  mean:", "  mean: [0.5, 0.5, 0.5]", "normalize.mean", "null with scheme 'dataset'", "[0.5, 0.5, 0.5]"),
    ("  std:", "  std: [0.5, 0.5, 0.5]", "normalize.std", "null with scheme 'dataset'", "[0.5, 0.5, 0.5]"),
    ("  dtype: float32", "  dtype: float64", "normalize.dtype", "'float16'", '"float64"'),
    ("  samples_per_shard: 10000", "  samples_per_shard: 0", "normalize.samples_per_shard", ">= 1", "0"),
    ("  samples_per_shard: 10000", "  samples_per_shard: -1", "normalize.samples_per_shard", ">= 1", "-1"),
    (
        "  samples_per_shard: 10000",
        "  samples_per_shard: 1e4",
        "normalize.samples_per_shard",
        "a whole number",
        "10000.0",
    ),
    (
        "  samples_per_shard: 10000",
        "  samples_per_shard: 010000",
        "normalize.samples_per_shard",
        "a whole number",
        "10000.0",
    ),
    (
        "  samples_per_shard: 10000",
        "  samples_per_shard: 1_000",
        "normalize.samples_per_shard",
        "a whole number",
        '"1_000"',
    ),
    (
        "  samples_per_shard: 10000",
        "  samples_per_shard: 1:30",
        "normalize.samples_per_shard",
        "a whole number",
        '"1:30"',
    ),
    (
        "  samples_per_shard: 10000",
        "  samples_per_shard: 10.0",
        "normalize.samples_per_shard",
        "a whole number",
        "10.0",
    ),
    (
        "  samples_per_shard: 10000",
        "  samples_per_shard: true",
        "normalize.samples_per_shard",
        "a whole number",
        "true",
    ),
    ("  samples_per_shard: 10000", "", "normalize.samples_per_shard", "missing key", ""),
    ("dataset: cifar10", "dataset: Cifar10", "dataset", "one of cifar10", '"Cifar10"'),
    ("dataset: cifar10", 'dataset: ""', "dataset", "one of cifar10", '""'),
    ("dataset: cifar10", "dataset: null", "dataset", "a string", "null"),
    ("dataset: cifar10", "dataset: ../cifar10", "dataset", "one of cifar10", '"../cifar10"'),
    ("dataset: cifar10", "dataset: [cifar10]", "dataset", "a string", '["cifar10"]'),
    ("dataset: cifar10", "dataset: {name: cifar10}", "dataset", "a string", ""),
    ("dataset: cifar10", "dataset: true", "dataset", "a string", "true"),
    ("dataset: cifar10", "dataset: 'cifar10\n\n  '", "dataset", "one of cifar10", '"cifar10'),
    ("dataset: cifar10", "dataset: !!binary Y2lmYXIxMA==", "dataset", "", ""),
    ("dataset: cifar10", "dataset: &a [*a]", "dataset", "a string", "[[[["),
    ("dataset: cifar10", "dataset: [{!!timestamp 2001-01-01: 1}]", "dataset", "a string", ""),
    ("dataset: cifar10", "Dataset: cifar10", "Dataset", "unknown key", ""),
    ("dataset: cifar10", "dataset: cifar10\n1: 2", "the file", "keys should be among the allowed names", ""),
    ("dataset: cifar10", "dataset: cifar10\nnull: 2", "the file", "keys should be among the allowed names", ""),
    ("dataset: cifar10", '"dataset ": cifar10', "dataset", "unknown key", ""),
    ("dataset: cifar10", "dataset: cifar10\n'\\e[2J': 1", "[2J", "unknown key", ""),
    ("normalize:", "normalise:", "normalise", "unknown key", ""),
    ("normalize:", "normalize: {}\nnormalize:", "normalize", "duplicate key", ""),
    ("report:", "reports:", "reports", "unknown key", ""),
    ("  scheme: dataset", "  scheme: null", "normalize.scheme", "a string", "null"),
    ("  scheme: dataset", "  scheme: 1", "normalize.scheme", "", "1"),
    ("  scheme: dataset", "  scheme: [dataset]", "normalize.scheme", "", '["dataset"]'),
    ("  scheme: dataset", "  scheme: DATASET", "normalize.scheme", "'dataset'", '"DATASET"'),
    ("  scheme: dataset", "  scheme: dataset\n  scheme: unit", "scheme", "duplicate key", ""),
    ("  dtype: float32", "  dtype: <f4", "normalize.dtype", "'float32'", '"<f4"'),
    ("  dtype: float32", "  dtype: object", "normalize.dtype", "'float32'", '"object"'),
    ("  dtype: float32", "  dtype: 32", "normalize.dtype", "", "32"),
    ("  samples_per_shard: 10000", "  samples_per_shard: .nan", "normalize.samples_per_shard", "whole number", "NaN"),
    ("  samples_per_shard: 10000", "  samples_per_shard: .inf", "normalize.samples_per_shard", "whole", "Infinity"),
    ("  samples_per_shard: 10000", "  samples_per_shard: null", "normalize.samples_per_shard", "whole number", "null"),
    ("  samples_per_shard: 10000", "  samples_per_shard: '10'", "normalize.samples_per_shard", "whole number", '"10"'),
    ("  samples_per_shard: 10000", "  samples_per_shard: [10]", "normalize.samples_per_shard", "whole number", "[10]"),
    ("  samples_per_shard: 10000", "  samples_per_shard: 0x10", "normalize.samples_per_shard", "whole", '"0x10"'),
    ("  samples_per_shard: 10000", "  samples_per_shard: 10 000", "normalize.samples_per_shard", "whole", '"10 000"'),
    ("  decimals: 4", "  decimals: 0", "report.decimals", ">= 1", "0"),
    ("  decimals: 4", "  decimals: -4", "report.decimals", ">= 1", "-4"),
    ("  decimals: 4", "  decimals: 4.5", "report.decimals", "whole number", "4.5"),
    ("  decimals: 4", "  decimals: four", "report.decimals", "whole number", '"four"'),
    ("  decimals: 4", "  decimals: 100000000000000000000000", "report.decimals", "<= 15", "1000"),
    ("  decimals: 4", "  places: 4", "report.places", "unknown key", ""),
    ("  decimals: 4", "  decimals: 16", "report.decimals", "<= 15", "16"),
    ("  decimals: 4", "  decimals: null", "report.decimals", "whole number", "null"),
]

# A key of scheme custom, its value, and part of the message.
BROKEN_CUSTOM = [
    ("mean", "[0.5, 0.5, 1.5]", "a number <= 1.0, got 1.5"),
    ("mean", "[125.3, 123.0, 113.9]", "a number <= 1.0, got 125.3"),
    ("mean", "[0.5, 0.5, .nan]", "a number >= 0.0, got NaN"),
    ("mean", "[]", "list of numbers"),
    ("mean", "[0.5, 0.5, true]", "a number, got true"),
    ("mean", "null", "list of numbers"),
    ("std", "[0.5, 0.5, 0]", "a number > 0.0, got 0"),
    ("std", "[0.5, 0.5, -0.1]", "a number > 0.0, got -0.1"),
    ("std", "[0.5, 0.5, .inf]", "a number <= 1.0, got Infinity"),
    ("std", "[0.5, 0.5, '0.5']", 'a number, got "0.5"'),
    ("std", "[0.5, 0.5]", "as many numbers as mean, 3"),
    ("mean", "[0.5, 0.5, -.inf]", "a number >= 0.0, got -Infinity"),
    ("mean", "[0.5, 0.5, null]", "a number, got null"),
    ("mean", "[[0.5], 0.5, 0.5]", "a number, got [0.5]"),
    ("mean", "{red: 0.5}", "should be a list or null"),
    ("mean", f"[1{'0' * 400}, 0.5, 0.5]", "a number that float64 can hold, got 1000"),
    ("mean", "[-0.0001, 0.5, 0.5]", "a number >= 0.0, got -0.0001"),
    ("std", "[0.5, 0.5, .nan]", "a number > 0.0, got NaN"),
    ("std", "[0.5, 0.5, 1e-400]", "a number > 0.0, got 0.0"),
    ("std", "[0.5, 0.5, 0.5, 0.5]", "as many numbers as mean, 3"),
    ("std", "[]", "list of numbers"),
    ("std", "0.5", "should be a list or null, got 0.5"),
]


def message_of(text, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    gc.freeze()  # so that what other tests keep is not searched for garbage in the time that is measured
    start = time.thread_time()  # threads that earlier tests left running don't count
    with pytest.raises(InputError) as raised:
        load_params(path)
    assert time.thread_time() - start < 1
    gc.unfreeze()
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 600
    assert list(tmp_path.iterdir()) == [path]
    return str(raised.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize(("line", "new_line", "key", "rule", "value"), BROKEN)
def test_broken_file_names_key_rule_and_value(line, new_line, key, rule, value, tmp_path):
    text, num_replaced = re.subn(rf"(?m)^{re.escape(line)}(?=$|  #)", lambda match: new_line, TEXT)
    assert num_replaced == 1
    message = message_of(text, tmp_path)
    assert key in message
    assert rule in message
    assert f"got {value}" in message or not value


@pytest.mark.parametrize(("key", "value", "rule"), BROKEN_CUSTOM)
def test_custom_scheme_needs_usable_mean_and_std(key, value, rule, tmp_path):
    custom = {"mean": "[0.5, 0.4, 0.3]", "std": "[0.25, 0.2, 0.1]"} | {key: value}
    text = TEXT.replace("scheme: dataset", "scheme: custom")
    for name in custom:
        text = text.replace(f"  {name}:", f"  {name}: {custom[name]}")
    message = message_of(text, tmp_path)
    assert message.startswith(f"normalize.{key}")
    assert rule in message


def nested_aliases(name, first, line):
    """YAML in which each line refers to the previous one several times, as in a "billion laughs" attack."""
    return "".join([f"{name}0: &a0 {first}\n", *(f"{name}{i}: &a{i} {line.format(i - 1)}\n" for i in range(1, 40))])


@pytest.mark.parametrize(
    "text",
    [
        nested_aliases("a", "[lol]", "[*a{0}, *a{0}, *a{0}, *a{0}, *a{0}, *a{0}, *a{0}, *a{0}, *a{0}]"),
        "dataset: " + "[" + ", ".join(["&a0 [x]", *(f"&a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40))]) + "]",
        nested_aliases("a", "{k: 1}", "{{<<: [*a{0}, *a{0}]}}"),
        nested_aliases("a", "{k: 1}", "{{!!merge <<: [*a{0}, *a{0}]}}"),
        "[" * 16_000,
        "{" * 16_000,
        "- " * 8000,
        "? " * 8000,
        "!" * 16_000,
        "&a " * 5000,
        "'" * 15_999,
        "".join(f"k{i}: 1\n" for i in range(1500)) + "k1: 1\n",
        TEXT + "#" * 20_000,
        "a: 1" + "0" * 5000,
        f"{TEXT}---\n{TEXT}",
        "%YAML 9.9\n---\n",
        "a: !!python/object/apply:os.system [true]",
        "\ta: 1",
        "*a",
        'a: "\\ud800"',
        "",
        "a: [",
        "a: b: c",
        "- 1",
        "just words",
        "{}",
        "a: &a [*a]",
        "? [1]\n: 2",
        "2026-99-99",
        "a: !!int x",
        'a: !!int ""',
        "a: !!bool maybe",
        "a: !!timestamp x",
        '{"a\\nb": 1}',
        "yes: 1\nyes: 2",
        "1: a\n0x1: b",
        "a: " + "[" * 9999,
        "\x00",
        TEXT.replace("mean:", "mean: !!set {0.1, 0.2, 0.3}").replace("scheme: dataset", "scheme: custom"),
        "!!python/name:os.system",
    ],
)
def test_malformed_file_is_one_line(text, tmp_path):
    assert message_of(text, tmp_path)


def test_mistake_is_reported_once(tmp_path):
    message = message_of(TEXT.replace("  mean:", '  mean: ["0.5"]').replace("dataset\n  #", "custom\n  #"), tmp_path)
    assert message.count("mean") == 1


def test_empty_section_is_rejected(tmp_path):
    message = message_of(TEXT.replace("  decimals: 4", ""), tmp_path)
    assert message == "report: should be a mapping of keys to values, got null"


def test_unreadable_file_is_named(tmp_path):
    for path, content in (
        (tmp_path / "latin1", "dataset: é".encode("latin1")),
        (tmp_path / "absent", None),
        (tmp_path, None),
    ):
        if content:
            path.write_bytes(content)
        with pytest.raises(InputError, match=re.escape(str(path))):
            load_params(path)


@pytest.mark.parametrize("limit", [0, 478, None])
def test_limits_of_the_audit_may_be_any_count_or_null(limit, tmp_path):
    written = "null" if limit is None else str(limit)
    text = TEXT.replace("ignore: data/not_duplicates.csv", "ignore: null")
    for key in ("max_leaked", "max_exact_duplicates", "max_label_conflicts"):
        text = text.replace(f"{key}:", f"{key}: {written}")
    (tmp_path / "params.yaml").write_text(text)
    audit = load_params(tmp_path / "params.yaml").audit
    assert audit.limits == dict.fromkeys(("max_leaked", "max_exact_duplicates", "max_label_conflicts"), limit)
    assert audit.ignore is None


def test_every_key_of_committed_file_has_a_comment():
    lines = TEXT.splitlines()
    for number, line in enumerate(lines):
        if re.match(r"\s*\w+:", line) and not re.match(r"\w+:$", line):
            assert "#" in line or lines[number - 1].lstrip().startswith("#"), line


def test_committed_file_has_every_key_of_the_model():
    params = load_params(REPOSITORY / "params.yaml")
    assert to_builtins(params) == yaml.safe_load(TEXT)
    assert set(Params.__struct_fields__) == set(yaml.safe_load(TEXT))
