import pytest
import yaml
from dvc.utils.serialize import modify_yaml  # type: ignore[import-untyped]
from ruamel.yaml import YAML

from pipeline.params import load_params
from pipeline.project.files import (
    NAMES,
    PLOTS,
    TEMPLATES_DIR,
    add_missing_lines,
    find_outs,
    read_template,
    render_params,
)
from pipeline.project.suggest import Suggestion
from tests.helpers.project_templates import derive_template
from tests.helpers.workspace import REPOSITORY

SUGGESTION = Suggestion(224, 256, 212, "uint8", (3, 224, 224))
UNRESIZED = Suggestion(28, None, 10_000, "float32", (1, 28, 28))
MAX_LINE = 120


@pytest.mark.parametrize("name", [*NAMES, *PLOTS])
def test_template_is_what_the_own_file_gives(name):
    # To write them again: python -m tests.helpers.project_templates
    assert read_template(name) == derive_template(name)
    assert max(map(len, read_template(name).splitlines())) <= MAX_LINE


def test_every_template_is_written():
    assert len([*TEMPLATES_DIR.iterdir()]) == len(NAMES) + len(PLOTS)


def test_templates_name_nothing_of_this_repository():
    texts = "".join(map(read_template, (*NAMES, *PLOTS)))
    assert "${images.source}" in texts
    for part in ("python -m", "pipeline/", "shardset", "docs/", "/examples", "/build", "for CIFAR-10"):
        assert part not in texts, part


def test_params_are_those_suggested(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(render_params("data/images", SUGGESTION))
    params, own = load_params(path), load_params(REPOSITORY / "params.yaml")
    assert params.dataset == "images"
    assert (params.images.source, params.images.size, params.images.resize) == ("data/images", 224, 256)
    assert (params.normalize.dtype, params.normalize.samples_per_shard) == ("uint8", 212)
    assert (params.normalize.scheme, params.report) == (own.normalize.scheme, own.report)


def test_missing_resize_is_null(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(render_params("data/images", UNRESIZED))
    assert load_params(path).images.resize is None


@pytest.mark.parametrize("suggestion", [SUGGESTION, UNRESIZED])
def test_dvc_changes_one_line_of_params_yaml(suggestion, tmp_path):
    text = render_params("data/images", suggestion)
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with modify_yaml(str(path)) as params:  # as `dvc exp run --set-param` does
        params["normalize"]["scheme"] = "imagenet"
    assert path.read_text() == text.replace("  scheme: dataset\n", "  scheme: imagenet\n")


@pytest.mark.parametrize(
    "source",
    [
        *(
            "data/images",
            "../images",
            "/srv/my images",
            "images.tar",
            "caf\xe9/\u56fe\u50cf/\U0001f600",
            "a " * 99 + "a",
        ),
        *("1e5", ".5", "010", "0x1f", "1_000", "1:30", "2024-01-01", "-1", "inf", ".inf", "NaN"),
        *("no", "null", "~", "true", "a: b", "a #b", "#a", "- a", "it's", 'a "b"', "[a]", "{a}", "*a", "&a", "%a"),
        *(" a", "a ", "\ufeff", "\u200b", "$source", "${source}", "\\"),
    ],
)
def test_any_source_is_read_back_by_pipeline_and_dvc(source, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(render_params(source, SUGGESTION), encoding="utf-8", newline="\n")
    assert load_params(path).images.source == source
    assert YAML(typ="safe").load(path)["images"]["source"] == source  # as DVC reads it


def test_source_is_written_as_people_write_it():
    assert "\n  source: my caf\xe9/\u56fe\u50cf\n" in render_params("my caf\xe9/\u56fe\u50cf", SUGGESTION)


def test_outs_are_those_of_dvc_yaml():
    stages = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
    assert {"data/raw", "data/stats.json", "data/shards", "data/report/report.html"} <= {*find_outs()}
    assert len(find_outs()) == sum(
        len(stage.get(kind, ())) for stage in stages.values() for kind in ("outs", "metrics", "plots")
    )


def test_missing_lines_follow_those_of_the_user():
    text = "# Mine\n/secret\n__pycache__/"  # without a line break at the end
    lines = add_missing_lines(text, ".gitignore").splitlines()
    assert lines[:4] == ["# Mine", "/secret", "__pycache__/", ""]
    assert {"/.venv/", "/data/archives/", ".*.tmp"} <= {*lines[4:]}
    assert "__pycache__/" not in lines[4:]


def test_attributes_of_the_user_win():
    text = "*.bat eol=crlf\n"
    assert add_missing_lines(text, ".gitattributes").endswith(f"binary\n{text}")


@pytest.mark.parametrize("name", [".dvcignore", ".gitignore", ".gitattributes"])
@pytest.mark.parametrize("before", ["", "\n", "# Mine\n", "mine\r\n"])
def test_lines_are_added_once(name, before):
    once = add_missing_lines(before, name)
    assert before.strip() in once
    assert add_missing_lines(once, name) == once


def test_file_that_lacks_only_comments_is_unchanged():
    text = "* text=auto eol=lf\n*.png binary\n"
    assert add_missing_lines(text, ".gitattributes") == text
