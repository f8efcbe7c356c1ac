"""SHA256SUMS: the hashes of the audit's files, by which the report finds damage. `sha256sum --check` reads it too."""

from pathlib import Path

from pipeline.runtime.files import hash_file, write_synced
from shardset.errors import CorruptDataError

SUMS_NAME = "SHA256SUMS"
SUFFIXES = (".csv", ".json")


def write_sums(audit_dir: Path) -> None:
    """Write SHA256SUMS, a line for each table and for details.json."""
    write_synced(audit_dir / SUMS_NAME, "".join(_render_lines(audit_dir)))


def check_sums(audit_dir: Path) -> None:
    """Raise CorruptDataError, which names a file, unless all are as SHA256SUMS says."""
    path = audit_dir / SUMS_NAME
    try:
        written = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        raise CorruptDataError(f"{path}: no such file") from None
    found = [line.encode() for line in _render_lines(audit_dir)]
    if differing := [line for line in found if line not in written]:
        name = differing[0].decode().split()[1]
        raise CorruptDataError(f"{audit_dir / name}: has changed since the audit, or {path} has")
    if found != written:
        raise CorruptDataError(f"{path}: names other files than {audit_dir} holds")


def _render_lines(audit_dir: Path) -> list[str]:
    names = sorted(path.name for path in audit_dir.iterdir() if path.suffix in SUFFIXES)
    return [f"{hash_file(audit_dir / name)}  {name}\n" for name in names if not name.startswith(".")]
