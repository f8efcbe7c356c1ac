import sys
import tomllib

import pytest

from pipeline.export.formats import WRITERS, Format, find_writer, import_library
from shardset.errors import InputError
from tests.helpers.workspace import REPOSITORY


@pytest.mark.parametrize("target", Format)
def test_missing_library_names_the_extra(target, monkeypatch):
    package = WRITERS[target].partition(".")[0]
    monkeypatch.setitem(sys.modules, WRITERS[target], None)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError) as error:
        import_library(target)
    assert str(error.value) == (
        f"--format {target}: needs {package}: pip install --constraint constraints.txt -e '.[{target}]'"
    )


def test_each_format_is_an_extra_and_has_a_writer():
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for target in Format:
        assert target in extras
        assert find_writer(target).__module__ == f"pipeline.export.{target}"
