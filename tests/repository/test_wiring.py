"""dvc.yaml, the commands, the params, the modules, the Makefile and the README say the same."""

import ast
import re
import tomllib
from typing import get_type_hints

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pipeline import cli
from pipeline.params import Params
from pipeline.sources.registry import DATASETS
from tests.helpers.workspace import REPOSITORY

STAGES = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
TABLES = ("classes.csv", "images.csv", "near_duplicates.csv", "pixels.csv")
README = (REPOSITORY / "README.md").read_text()
COMMANDS = {command.callback.__name__ for command in cli.app.registered_commands}


def entries(stage, *kinds):
    """Names of what a stage lists, whether as a string or as a mapping with settings."""
    listed = [entry for kind in kinds for entry in STAGES[stage].get(kind, [])]
    return {entry if isinstance(entry, str) else next(iter(entry)) for entry in listed}


def imported_files(name, seen=()):
    """The files of the package that a module imports, itself and all that they import included."""
    path = REPOSITORY / "pipeline" / f"{name}.py"
    if name in seen or not path.exists():
        return set()
    files = {"pipeline/__init__.py", f"pipeline/{name}.py"}
    tree = ast.parse(path.read_text())
    for_types_only = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node not in for_types_only:
            assert node.level == 0, "imports are absolute"
            modules = [node.module] if node.module != "pipeline" else [f"pipeline.{alias.name}" for alias in node.names]
            for module in modules:
                if module.startswith("pipeline."):
                    files |= imported_files(module.removeprefix("pipeline."), (*seen, name))
        elif isinstance(node, ast.Import):
            assert not any(alias.name.startswith("pipeline") for alias in node.names)
    if "PackageLoader" in path.read_text():
        files.add("pipeline/templates")
    return files


def test_a_stage_is_one_word_in_four_places():
    assert {*STAGES, "verify"} == COMMANDS
    for stage, settings in STAGES.items():
        assert settings["cmd"] == f"python -m pipeline {stage}"
        assert settings["desc"]
        assert (REPOSITORY / "pipeline" / f"{stage}.py").exists()


@pytest.mark.parametrize("stage", STAGES)
def test_the_code_deps_of_a_stage_are_what_its_module_imports(stage):
    assert {dep for dep in entries(stage, "deps") if dep.startswith("pipeline/")} == imported_files(stage)


def test_data_flow_through_the_paths_of_the_commands():
    outs = {stage: entries(stage, "outs", "metrics", "plots") for stage in STAGES}
    raw, stats, shards, report = (str(path) for path in (cli.RAW_DIR, cli.STATS_PATH, cli.SHARDS_DIR, cli.REPORT_DIR))
    assert outs == {
        "download": {raw},
        "stats": {stats},
        "normalize": {shards},
        "report": {f"{report}/{name}" for name in ("metrics.json", "report.html", "report.md", *TABLES)},
    }
    data_deps = {stage: {dep for dep in entries(stage, "deps") if dep.startswith("data/")} for stage in STAGES}
    assert data_deps == {"download": set(), "stats": {raw}, "normalize": {raw, stats}, "report": {raw, shards}}


def test_metrics_are_json_in_git_and_large_outs_in_the_cache():
    listed = {
        name: settings
        for stage in STAGES.values()
        for kind in ("outs", "metrics", "plots")
        for entry in stage.get(kind, [])
        for name, settings in entry.items()
    }
    assert all(settings["desc"] for settings in listed.values())
    in_git = {name for name, settings in listed.items() if settings.get("cache") is False}
    tables = {f"data/report/{name}" for name in TABLES}
    assert in_git == {"data/stats.json", "data/report/metrics.json", "data/report/report.md", *tables}
    assert entries("stats", "metrics") | entries("report", "metrics") == {"data/stats.json", "data/report/metrics.json"}


def test_each_param_is_read_by_the_stage_that_lists_it():
    source = (REPOSITORY / "pipeline/cli.py").read_text()
    functions = {node.name: ast.unparse(node) for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
    for stage in STAGES:
        assert set(re.findall(r"params\.(\w+)", functions[stage])) == entries(stage, "params")
    assert set().union(*(entries(stage, "params") for stage in STAGES)) == set(Params.__struct_fields__)


def test_every_dataset_is_pinned():
    for dataset in DATASETS.values():
        assert re.fullmatch("[0-9a-f]{64}", dataset.content_sha256)
        if dataset.archive:
            assert re.fullmatch("[0-9a-f]{64}", dataset.archive.sha256)
            assert all(url.startswith("https://") for url in dataset.archive.urls)
            assert dataset.archive.urls[-1].startswith("https://www.cs.toronto.edu/")


def test_the_archive_is_the_one_that_torchvision_knows():
    from torchvision.datasets import CIFAR10

    archive = DATASETS["cifar10"].archive
    assert archive.file_name == CIFAR10.filename
    assert archive.urls[-1] == CIFAR10.url


def test_the_commands_of_the_readme_exist():
    makefile = (REPOSITORY / "Makefile").read_text()
    shell = "\n".join(re.findall(r"```(?:bash|sh|console)\n(.*?)```", README, re.DOTALL))
    targets = set(re.findall(r"(?:^|`)make ([\w-]+)", README, re.MULTILINE))
    assert {"repro", "test", "demo", "check"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    assert set(re.findall(r"python -m pipeline (\w+)", shell + README)) <= COMMANDS


def test_the_readme_names_every_stage_param_and_output():
    for name in (*STAGES, *set().union(*(entries(stage, "outs", "metrics", "plots") for stage in STAGES))):
        assert f"`{name}`" in README, name
    for section, model in get_type_hints(Params).items():
        for key in getattr(model, "__struct_fields__", [section]):
            assert f"`{section}.{key}`" in README or f"`{key}`" in README


def test_the_pinned_versions_satisfy_the_open_ranges():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    constraints = (REPOSITORY / "constraints.txt").read_text()
    assert not re.search(r"://|@ |^-", constraints, re.MULTILINE)
    pinned = {
        canonicalize_name(name): version for name, version in re.findall(r"^(\S+)==(\S+)$", constraints, re.MULTILINE)
    }
    for extra in (project["dependencies"], *project["optional-dependencies"].values()):
        for requirement in map(Requirement, extra):
            if requirement.name != project["name"]:
                assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement
