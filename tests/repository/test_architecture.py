"""The layers of the packages: imports point downwards only. Also limits on the length of functions and modules."""

import ast
from graphlib import TopologicalSorter

import pytest

from tests.helpers.workspace import REPOSITORY

# From the top. A module may import those of its own folder and of layers below, and `shardset` from anywhere.
LAYERS = (
    {"pipeline.cli", "pipeline.__main__"},
    {"pipeline.stages"},
    {"pipeline.params", "pipeline.progress", "pipeline.report", "pipeline.project", "pipeline.export"},
    {"pipeline.audit", "pipeline.card"},
    {"pipeline.sources", "pipeline.numerics", "pipeline.shards"},
    {"pipeline.runtime"},
    {"pipeline.errors"},
)
# The one import within a layer: `python -m pipeline` installs its signal handlers, then runs the commands.
ALLOWED = {("pipeline.__main__", "pipeline.cli")}
# The modules that print and exit. All others raise.
COMMAND_LINE = {"pipeline.cli", "pipeline.__main__"}
# The only modules that need torch, so that a reader of arrays doesn't.
TORCH_USERS = {"shardset.batch", "shardset.dataset"}
MAX_FUNCTION_LINES = 40
MAX_MODULE_LINES = 250


def module_name(path):
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


SOURCES = {
    module_name(path): path.read_text(encoding="utf-8")
    for package in ("pipeline", "shardset")
    for path in sorted((REPOSITORY / package).rglob("*.py"))
}


def imported_modules(source, modules=frozenset(SOURCES)):
    """All modules that a source text imports, also within functions and for type checkers alone."""
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module, "imports should be absolute"
            assert node.level == 0, "imports should be absolute"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                imported.add(submodule if submodule in modules else node.module)
    return imported


def folder_of(module):
    """The entry of LAYERS that a module belongs to: a folder, or a module at the top of the package."""
    return ".".join(module.split(".")[:2])


def layer_of(module):
    (layer,) = [number for number, folders in enumerate(LAYERS) if folder_of(module) in folders]
    return layer


def find_violations(module, source):
    """Imports of a module, given its name and source text, that the layers don't allow."""
    package = module.partition(".")[0]
    violations = []
    for imported in sorted(imported_modules(source)):
        target = imported.partition(".")[0]
        if target == "torch":
            allowed = module in TORCH_USERS
        elif target != "pipeline":
            allowed = True
        elif package == "shardset" or imported == "pipeline":
            allowed = False
        else:
            allowed = (
                folder_of(imported) == folder_of(module)
                or (module, imported) in ALLOWED
                or layer_of(imported) > layer_of(module)
            )
        if not allowed:
            violations.append(f"{module} imports {imported}")
    return violations


def long_functions(source):
    """Names of the functions with more lines than MAX_FUNCTION_LINES, signature and docstring included."""
    return [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION_LINES
    ]


def prints_and_exits(source):
    """The calls in a source text that print, or end the process."""
    calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)}
    return calls & {"print", "exit", "sys.exit", "os._exit", "typer.echo", "sys.stdout.write", "sys.stderr.write"}


def import_order(sources):
    """The modules, each after those that it imports. Raises graphlib.CycleError."""
    graph = {module: imported_modules(source, sources.keys()) & sources.keys() for module, source in sources.items()}
    return list(TopologicalSorter(graph).static_order())


def test_every_folder_belongs_to_one_layer():
    folders = {folder_of(module) for module in SOURCES if module.startswith("pipeline.")}
    assert sorted(folder for layer in LAYERS for folder in layer) == sorted(folders)


@pytest.mark.parametrize("module", SOURCES)
def test_imports_point_downwards(module):
    assert find_violations(module, SOURCES[module]) == []


def test_exceptions_are_needed():
    for module, imported in ALLOWED:
        assert imported in imported_modules(SOURCES[module])
    for module in TORCH_USERS:
        assert "torch" in imported_modules(SOURCES[module])


@pytest.mark.parametrize("module", SOURCES)
def test_only_the_command_line_prints_and_exits(module):
    assert bool(prints_and_exits(SOURCES[module])) == (module in COMMAND_LINE)


def test_errors_form_one_tree():
    bases = {
        node.name: {ast.unparse(base) for base in node.bases}
        for module in SOURCES
        if not module.endswith("__init__")
        for node in ast.walk(ast.parse(SOURCES[module]))
        if isinstance(node, ast.ClassDef) and node.name.endswith("Error")
    }
    assert bases.pop("ShardSetError") == {"Exception"}
    assert all(of_class & {*bases, "ShardSetError"} for of_class in bases.values()), bases


def test_no_imports_form_a_cycle():
    assert set(import_order(SOURCES)) == set(SOURCES)


@pytest.mark.parametrize("module", SOURCES)
def test_functions_and_modules_are_short(module):
    assert long_functions(SOURCES[module]) == []
    assert len(SOURCES[module].splitlines()) <= MAX_MODULE_LINES


@pytest.mark.parametrize(
    ("module", "source", "imported"),
    [
        ("pipeline.errors", "import pipeline.runtime.files", "pipeline.runtime.files"),
        ("pipeline.runtime.files", "from pipeline.shards.writer import plan_shards", "pipeline.shards.writer"),
        ("pipeline.shards.writer", "from pipeline.numerics.sums import PIXEL_MAX", "pipeline.numerics.sums"),
        ("pipeline.audit.survey", "from pipeline.report import tables", "pipeline.report.tables"),
        ("pipeline.card.card", "from pipeline.params import Params", "pipeline.params"),
        ("pipeline.report.page", "def render():\n    from pipeline.stages.raw import open_raw", "pipeline.stages.raw"),
        ("pipeline.stages.stats", "if TYPE_CHECKING:\n    from pipeline.cli import app", "pipeline.cli"),
        ("pipeline.stages.stats", "import pipeline", "pipeline"),
        ("pipeline.cli", "import pipeline.__main__", "pipeline.__main__"),
        ("pipeline.numerics.sums", "from torch import nn", "torch"),
        ("shardset.shards", "import torch.utils.data", "torch.utils.data"),
        ("shardset.errors", "from pipeline.errors import PipelineError", "pipeline.errors"),
    ],
)
def test_import_upwards_is_found(module, source, imported):
    assert find_violations(module, source) == [f"{module} imports {imported}"]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pipeline.cli", "from pipeline.sources.fetch import Progress"),
        ("pipeline.report.tables", "from pipeline.audit.survey import Survey"),
        ("pipeline.report.page", "from pipeline.report.tables import Band"),
        ("pipeline.errors", "from shardset.errors import ShardSetError"),
        ("shardset.dataset", "import torch"),
    ],
)
def test_import_downwards_is_allowed(module, source):
    assert find_violations(module, source) == []


def test_cycle_is_found():
    sources = {"shardset.a": "import shardset.b", "shardset.b": "def load():\n    from shardset import a"}
    with pytest.raises(ValueError, match="in a cycle"):
        import_order(sources)


def test_long_function_is_found():
    body = "    x = 1\n" * (MAX_FUNCTION_LINES - 1)
    assert long_functions(f"def short():\n{body}") == []
    assert long_functions(f"class A:\n    def long(self):\n{body.replace('    ', '        ')}        x = 2\n") == [
        "long"
    ]
