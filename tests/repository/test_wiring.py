"""dvc.yaml, the commands, the params, the modules, the Makefile and the README agree."""

import ast
import difflib
import re
import shutil
import tomllib
from importlib.metadata import distribution
from typing import get_type_hints

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pipeline import cli
from pipeline.params import ImagesParams, Params, load_params
from pipeline.sources.registry import DATASETS
from tests.helpers.workspace import REPOSITORY, Workspace, assert_succeeds, make_repository

STAGES = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
TABLES = ("histograms.csv", "pixels.csv")
README = (REPOSITORY / "README.md").read_text()
COMMANDS = {command.callback.__name__ for command in cli.app.registered_commands if command.callback}
MAX_README_LINES = 130


def entries(stage, *kinds):
    """Names of what a stage lists, whether as a string or as a mapping with settings."""
    listed = [entry for kind in kinds for entry in STAGES[stage].get(kind, [])]
    return {entry if isinstance(entry, str) else next(iter(entry)) for entry in listed}


def module_path(name):
    """The file of a module of this repository, or None."""
    path = REPOSITORY.joinpath(*name.split("."))
    files = [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()]
    return files[0] if files else None


def matters(path):
    """Whether a change of the file can change a result. An `__init__.py` with nothing but a docstring can't."""
    return path.name != "__init__.py" or not all(
        isinstance(node, ast.Expr) for node in ast.parse(path.read_text()).body
    )


def runtime_imports(path):
    """Files of this repository that a module imports when it runs, with the packages that hold them."""
    tree = ast.parse(path.read_text())
    for_types_only = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for child in block.body
        for node in ast.walk(child)
    }
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node not in for_types_only:
            assert node.module, "imports should be absolute"
            assert node.level == 0, "imports should be absolute"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import) and node not in for_types_only:
            names |= {alias.name for alias in node.names}
    parents = {".".join(name.split(".")[:length]) for name in names for length in range(1, name.count(".") + 2)}
    return {file for name in parents if (file := module_path(name))}


def code_files(stage):
    """Files of this repository that the code of a stage consists of, relative to its top folder."""
    closure, pending = set(), [REPOSITORY / f"pipeline/stages/{stage}.py"]
    while pending:
        path = pending.pop()
        if path not in closure:
            closure.add(path)
            pending += runtime_imports(path)
            if "PackageLoader(" in path.read_text():
                closure |= {*(path.parent / "templates").iterdir()}
    return {path.relative_to(REPOSITORY).as_posix() for path in closure if matters(path)}


def listed_files(dep):
    """The files that a dep stands for: itself, or all that matter in the folder."""
    path = REPOSITORY / dep
    files = [path] if path.is_file() else [file for file in path.rglob("*.*") if "__pycache__" not in file.parts]
    return {file.relative_to(REPOSITORY).as_posix() for file in files if path.is_file() or matters(file)}


def code_deps(stage):
    return {dep for dep in entries(stage, "deps") if not dep.startswith("data/")}


def param_sections(stage):
    return {name.partition(".")[0] for name in entries(stage, "params")}


def changed_lines(before, after):
    return [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[0] in "+-"]


def test_stage_has_one_name_in_four_places():
    assert {*STAGES, "inspect", "init", "verify", "export"} == COMMANDS
    for stage, settings in STAGES.items():
        assert settings["cmd"] == f"python -m pipeline {stage}"
        assert settings["desc"]
        assert (REPOSITORY / f"pipeline/stages/{stage}.py").exists()
    sections = set().union(*map(param_sections, STAGES))
    assert sections - {*STAGES} == {"dataset", "images"}  # of `download`


@pytest.mark.parametrize("stage", STAGES)
def test_code_deps_of_a_stage_are_all_that_it_imports(stage):
    listed = set().union(*map(listed_files, code_deps(stage)))
    # So a folder is listed only where all of its modules are imported.
    assert listed == code_files(stage)


@pytest.mark.parametrize("stage", STAGES)
def test_code_deps_of_a_stage_are_sorted_and_disjoint(stage):
    deps = STAGES[stage]["deps"]
    assert deps == sorted(set(deps))
    assert not any(dep.startswith(f"{folder}/") for dep in deps for folder in deps)
    assert all((REPOSITORY / dep).is_file() for dep in deps if dep.startswith("shardset"))
    assert all((REPOSITORY / dep).is_dir() or matters(REPOSITORY / dep) for dep in code_deps(stage))


def test_type_only_imports_are_not_deps():
    assert "pipeline/params.py" not in code_files("normalize")
    assert "shardset/dataset.py" not in code_files("report")
    assert "shardset/__init__.py" in code_files("stats")


@pytest.mark.parametrize("stage", ["download", "stats"])
def test_report_and_card_are_not_deps_of_data_stages(stage):
    files = set().union(*map(listed_files, code_deps(stage)))
    assert not [file for file in files if file.startswith(("pipeline/report", "pipeline/card"))]
    assert {file for file in listed_files("pipeline/report") if file.endswith(".j2")} <= code_files("report")


def test_data_flows_through_the_paths_of_the_commands():
    outs = {stage: entries(stage, "outs", "metrics") for stage in STAGES}
    paths = (cli.RAW_DIR, cli.STATS_PATH, cli.AUDIT_DIR, cli.AUDIT_PATH, cli.SHARDS_DIR, cli.REPORT_DIR)
    raw, stats, audit, audit_metrics, shards, report = (path.as_posix() for path in paths)
    assert outs == {
        "download": {raw},
        "stats": {stats},
        "audit": {audit, audit_metrics},
        "normalize": {shards},
        "report": {f"{report}/{name}" for name in ("metrics.json", "report.html", "report.md", *TABLES)},
    }
    data_deps = {stage: {dep for dep in entries(stage, "deps") if dep.startswith("data/")} for stage in STAGES}
    assert data_deps == {
        "download": set(),
        "stats": {raw},
        "audit": {raw, load_params(REPOSITORY / "params.yaml").audit.ignore},
        "normalize": {raw, stats},
        "report": {raw, audit, shards},
    }


def test_small_results_are_in_git_and_large_outs_in_the_cache():
    listed = {
        name: settings
        for stage in STAGES.values()
        for kind in ("outs", "metrics")
        for entry in stage.get(kind, [])
        for name, settings in entry.items()
    }
    assert all(settings["desc"] for settings in listed.values())
    in_git = {name for name, settings in listed.items() if settings.get("cache") is False}
    metrics = {"data/audit.json", "data/report/metrics.json"}
    assert in_git == {"data/stats.json", "data/report/report.md", *metrics, *(f"data/report/{name}" for name in TABLES)}
    assert set().union(*(entries(stage, "metrics") for stage in STAGES)) == metrics


def test_plots_of_dvc_yaml_name_columns_of_the_tables():
    plots = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["plots"]
    columns: dict[str, set[str]] = {name: set() for name in TABLES}
    for settings in (settings for plot in plots for settings in plot.values()):
        ((path, y),) = settings["y"].items()
        columns[path.removeprefix("data/report/")] |= {settings["x"], y}
    for name, used in columns.items():
        header = (REPOSITORY / "data/report" / name).read_text().partition("\n")[0].split(",")
        assert used
        assert used <= set(header), name


@pytest.fixture
def dvc_repository(tmp_path) -> Workspace:
    """A repository with this project's dvc.yaml and .dvc/config."""
    repository = make_repository(tmp_path / "repository")
    for name in ("dvc.yaml", ".dvc/config"):
        shutil.copy(REPOSITORY / name, repository.path / name)
    return repository


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["stats", "report"])
def test_dvc_freeze_changes_one_line_of_dvc_yaml(stage, dvc_repository):
    path = dvc_repository.path / "dvc.yaml"
    before = path.read_bytes().decode()
    assert_succeeds(dvc_repository.run("dvc", "freeze", stage))
    frozen = path.read_bytes().decode()
    assert changed_lines(before, frozen) == ["+     frozen: true"]
    assert yaml.safe_load(frozen)["stages"][stage]["frozen"] is True


@pytest.mark.slow
def test_dvc_remote_modify_changes_one_line_of_the_config(dvc_repository):
    path = dvc_repository.path / ".dvc/config"
    before = path.read_bytes().decode()
    assert not re.search(r"^\s*[#;]", before, re.MULTILINE)  # DVC would drop comments
    assert_succeeds(dvc_repository.run("dvc", "remote", "modify", "storage", "url", "s3://bucket/shards"))
    removed, added = changed_lines(before, path.read_bytes().decode())
    assert (removed[:12], added) == ("-     url = ", "+     url = s3://bucket/shards")


def test_params_are_read_by_the_stages_that_list_them():
    source = (REPOSITORY / "pipeline/cli.py").read_text()
    functions = {node.name: ast.unparse(node) for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
    for stage in STAGES:
        assert set(re.findall(r"params\.(\w+)", functions[stage])) == param_sections(stage)
    assert set().union(*map(param_sections, STAGES)) == set(Params.__struct_fields__)


def test_params_that_dvc_overlooks_in_a_section_are_listed_by_themselves():
    # DVC takes two runs for the same one if only keys of these names differ. In a dotted name it sees the key.
    overlooked = {"size", "nfiles"}
    for stage in STAGES:
        for section in entries(stage, "params"):
            keys = getattr(get_type_hints(Params).get(section), "__struct_fields__", ())
            assert not overlooked & {*keys}, section
    assert entries("download", "params") == {"dataset", *(f"images.{key}" for key in ImagesParams.__struct_fields__)}


def test_params_yaml_has_every_param():
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    assert list(params) == list(Params.__struct_fields__)
    for section, model in get_type_hints(Params).items():
        if keys := getattr(model, "__struct_fields__", None):
            assert list(params[section]) == list(keys)


def test_every_dataset_is_pinned():
    for dataset in DATASETS.values():
        assert re.fullmatch("[0-9a-f]{64}", dataset.content_sha256 or dataset.archive.sha256)
        if dataset.archive:
            assert re.fullmatch("[0-9a-f]{64}", dataset.archive.sha256)
            assert all(url.startswith("https://") for url in dataset.archive.urls)
            assert dataset.archive.urls[-1].startswith("https://www.cs.toronto.edu/")
            assert all(re.fullmatch("[0-9a-f]{32}", md5) for md5 in dataset.archive.files.md5_by_name.values())


def test_readme_is_short():
    assert len(README.splitlines()) <= MAX_README_LINES


def test_readme_commands_exist():
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = set(re.findall(r"(?:^|[`$] ?)make ([\w-]+)", README, re.MULTILINE))
    assert {"repro", "demo"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    commands = set(re.findall(r"python -m pipeline (\w+)", README))
    assert "verify" in commands
    assert commands <= COMMANDS


def test_readme_names_every_stage_and_output_folder():
    for name in (*STAGES, "data/raw", "data/stats.json", "data/shards", "data/report"):
        assert f"`{name}`" in README or f" {name} " in README, name
    paths = {path.rstrip("/") for path in re.findall(r"\bdata/[\w./-]*\w", README)}
    outs = set().union(*(entries(stage, "outs", "metrics") for stage in STAGES))
    parts = ("train", "val", "test", "manifest.json", "README.md", "croissant.json", "test_without_leaks.csv")
    known = {*outs, "data/report", "data/archives", *(f"{out}/{part}" for out in outs for part in parts)}
    assert paths <= known


def test_readme_links_lead_to_files():
    targets = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", README)
    local = {target for target in targets if "://" not in target and not target.startswith("../../")}
    assert {target for target in local if not (REPOSITORY / target).exists()} == set()


PINS = re.findall(r"^(\S+)==(\S+)(?: ; .+)?$", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)


def test_pinned_versions_satisfy_the_open_ranges():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert not re.search(r"://|@ |^-", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)
    for extra in (project["dependencies"], *project["optional-dependencies"].values()):
        for requirement in map(Requirement, extra):
            if requirement.name != project["name"]:
                pinned = [version for name, version in PINS if name == canonicalize_name(requirement.name)]
                assert pinned, requirement
                assert all(map(requirement.specifier.contains, pinned)), requirement


def test_every_installed_dependency_is_pinned():
    pinned = {name for name, _ in PINS}
    found, queue = set(), [("cifar-pipeline", frozenset({"check"}))]
    while queue:
        name, extras = queue.pop()
        for requirement in map(Requirement, distribution(name).requires or ()):
            if not any(applies(requirement, extra) for extra in ("", *extras)):
                continue
            dependency = canonicalize_name(requirement.name), frozenset(requirement.extras)
            if dependency not in found:
                found.add(dependency)
                queue.append(dependency)
    dependencies = {name for name, _ in found}
    assert {"torch", "datasets", "mkdocs"} <= dependencies
    assert dependencies <= pinned


def applies(requirement, extra):
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})
