import sys
import tomllib

import pytest

from pipeline.export.formats import Format, load_writer
from shardset.errors import InputError
from tests.helpers.workspace import REPOSITORY

LIBRARIES = {Format.parquet: "pyarrow", Format.webdataset: "webdataset", Format.mds: "streaming"}


@pytest.mark.parametrize("export_format", Format)
def test_missing_library_names_the_extra(export_format, monkeypatch):
    library = LIBRARIES[export_format]
    monkeypatch.delitem(sys.modules, f"pipeline.export.{export_format}", raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InputError) as error:
        load_writer(export_format)
    assert str(error.value) == (
        f"--format {export_format} needs {library}. In a clone of cifar-pipeline: "
        f"pip install --constraint constraints.txt -e '.[{export_format}]'"
    )


def test_each_format_is_an_extra_and_has_a_writer():
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for export_format in Format:
        assert export_format in extras
        assert (REPOSITORY / f"pipeline/export/{export_format}.py").is_file()
