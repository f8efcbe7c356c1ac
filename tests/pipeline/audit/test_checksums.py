import hashlib
import re

import pytest

from pipeline.audit.checksums import check_sums, write_sums
from shardset.errors import CorruptDataError


@pytest.fixture
def audit_dir(tmp_path):
    (tmp_path / "details.json").write_text("{}\n")
    (tmp_path / "images.csv").write_text("split,index\ntrain,0\n")
    write_sums(tmp_path)
    return tmp_path


def test_sums_are_those_that_sha256sum_writes(audit_dir):
    assert (audit_dir / "SHA256SUMS").read_text().splitlines() == [
        f"{hashlib.sha256((audit_dir / name).read_bytes()).hexdigest()}  {name}"
        for name in ("details.json", "images.csv")
    ]
    check_sums(audit_dir)


@pytest.mark.parametrize("name", ["details.json", "images.csv", "SHA256SUMS"])
def test_each_flipped_bit_is_found(name, audit_dir):
    content = (audit_dir / name).read_bytes()
    for position in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[position // 8] ^= 1 << position % 8
        (audit_dir / name).write_bytes(flipped)
        with pytest.raises(CorruptDataError, match=name):
            check_sums(audit_dir)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: (path / "images.csv").unlink(), "SHA256SUMS: names other files than .* holds"),
        (lambda path: (path / "other.csv").touch(), r"other\.csv: has changed since the audit, or .*SHA256SUMS has"),
        (lambda path: (path / "SHA256SUMS").unlink(), "SHA256SUMS: no such file"),
        (lambda path: (path / "SHA256SUMS").write_text(""), r"details\.json: has changed since the audit, or "),
    ],
)
def test_missing_and_other_files_are_found(change, message, audit_dir):
    change(audit_dir)
    with pytest.raises(CorruptDataError, match=message) as failed:
        check_sums(audit_dir)
    assert re.fullmatch("[^\n]+", str(failed.value))


def test_litter_of_programs_is_ignored(audit_dir):
    for name in (".DS_Store", "._details.json", "Thumbs.db"):
        (audit_dir / name).touch()
    check_sums(audit_dir)
