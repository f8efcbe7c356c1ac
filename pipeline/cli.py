"""The commands: each loads its params, calls one function and prints one line."""

import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.export.formats import Format
from pipeline.progress import show_progress
from shardset.errors import InputError, ShardSetError, describe_os_error

if TYPE_CHECKING:
    from pipeline.stages.inspect import Inspection

# dvc.yaml names these too; a test compares them.
PARAMS_PATH = Path("params.yaml")
ARCHIVES_DIR = Path("data/archives")
RAW_DIR = Path("data/raw")
STATS_PATH = Path("data/stats.json")
AUDIT_DIR = Path("data/audit")
AUDIT_PATH = Path("data/audit.json")
SHARDS_DIR = Path("data/shards")
REPORT_DIR = Path("data/report")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Source = Annotated[
    str | None,
    typer.Option(
        envvar="PIPELINE_SOURCE",
        help="Where to get the dataset from: an http(s) or file URL, an archive, or a folder with the unpacked files.",
    ),
]

Size = Annotated[
    int | None,
    typer.Option(min=1, max=4096, help="Side of the stored squares in pixels, instead of what suits most images."),
]

Scheduler = Annotated[
    str | None,
    typer.Option(
        envvar="PIPELINE_SCHEDULER",
        metavar="tcp://HOST:PORT",
        help="A Dask scheduler whose workers see the same files. Without one, threads of this process do the work.",
    ),
]

Fresh = Annotated[
    bool, typer.Option("--fresh", help="Start over instead of going on where an earlier run was stopped.")
]

Images = Annotated[
    Path,
    typer.Argument(metavar="SOURCE", help="A folder of images, a .tar or .zip of one, or parquet files."),
]


@app.callback(invoke_without_command=True)  # for --version
def options(
    *, version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False
) -> None:
    """Download, measure, normalize and report on an image classification dataset."""
    if version:
        from importlib.metadata import version as installed_version

        typer.echo(f"cifar-pipeline {installed_version('cifar-pipeline')}")
        raise typer.Exit


@app.command()
def download(source: Source = None, scheduler: Scheduler = None, fresh: Fresh = False) -> None:
    """Fetch, verify and decode the dataset into data/raw."""
    from pipeline.params import load_params
    from pipeline.stages.download import download_dataset

    params = load_params(PARAMS_PATH)
    with show_progress() as progress:
        manifest = download_dataset(
            params.dataset, params.images, RAW_DIR, ARCHIVES_DIR, source, progress, scheduler, fresh=fresh
        )
    typer.echo(f"{RAW_DIR}: {manifest.summary()}")


@app.command()
def stats(scheduler: Scheduler = None) -> None:
    """Compute the channel statistics of the train split into data/stats.json."""
    from pipeline.stages.stats import write_stats

    with show_progress() as progress:
        statistics = write_stats(RAW_DIR, STATS_PATH, progress, scheduler)
    typer.echo(f"{STATS_PATH}: {statistics.summary()}")


@app.command()
def audit(scheduler: Scheduler = None, fresh: Fresh = False) -> None:
    """Look for near-duplicates, label conflicts and odd images, into data/audit."""
    from pipeline.params import load_params
    from pipeline.stages.audit import audit_images

    params = load_params(PARAMS_PATH)
    with show_progress() as progress:
        summary = audit_images(RAW_DIR, AUDIT_DIR, AUDIT_PATH, params.audit, progress, scheduler, fresh=fresh)
    typer.echo(f"{AUDIT_DIR}: {summary}")


@app.command()
def normalize(scheduler: Scheduler = None, fresh: Fresh = False) -> None:
    """Write the normalized shards of every split into data/shards."""
    from pipeline.params import load_params
    from pipeline.stages.normalize import normalize_shards

    params = load_params(PARAMS_PATH)
    with show_progress() as progress:
        manifest = normalize_shards(RAW_DIR, STATS_PATH, SHARDS_DIR, params.normalize, progress, scheduler, fresh=fresh)
    typer.echo(f"{SHARDS_DIR}: {manifest.summary()}")


@app.command()
def report(scheduler: Scheduler = None) -> None:
    """Verify the shards and write a report on them into data/report."""
    from pipeline.params import load_params
    from pipeline.stages.report import write_report

    params = load_params(PARAMS_PATH)
    with show_progress() as progress:
        write_report(RAW_DIR, AUDIT_DIR, SHARDS_DIR, REPORT_DIR, params.report.decimals, progress, scheduler)
    typer.echo(f"{REPORT_DIR}: report.html, report.md, metrics.json and tables")


@app.command()
def verify(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", exists=True, file_okay=False, help="A shard set, such as data/shards.")
    ],
) -> None:
    """Check every byte of a shard set against its manifest."""
    from pipeline.stages.verify import verify_set

    with show_progress() as progress:
        manifest = verify_set(directory, progress)
    typer.echo(f"{directory}: {manifest.summary()}: every file matches the manifest")


@app.command()
def export(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", exists=True, file_okay=False, help="A set of pixels, such as data/raw.")
    ],
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="A new folder.")],
    export_format: Annotated[Format, typer.Option("--format", help="The format to write.")],
) -> None:
    """Write a set of pixels as PNG files with labels, in the format of another library."""
    from pipeline.stages.export import export_set

    with show_progress() as progress:
        manifest = export_set(directory, destination, export_format, progress)
    typer.echo(f"{destination}: {manifest.dataset}, {manifest.sizes()}, as PNG in {export_format}")


@app.command()
def inspect(source: Images, size: Size = None) -> None:
    """Show what would be taken from a source of images, and what is wrong with it."""
    _inspect(source, size).check(allow_unreadable=False)


@app.command()
def init(source: Images, size: Size = None) -> None:
    """Set up the current folder of your own repository as a project for a source of images."""
    from pipeline.stages.init import check_project_dir, next_steps, write_project

    project_dir = Path.cwd()
    check_project_dir(project_dir, source)
    inspection = _inspect(source, size)
    written = write_project(project_dir, source, inspection.check(allow_unreadable=True))
    if inspection.unreadable:
        typer.echo(inspection.unreadable, err=True)
    typer.echo(f"Written: {', '.join(written)}\n{next_steps(project_dir, source)}")


def main() -> None:
    """Run a command. Errors are printed for the person who called it, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for paths that the locale can't encode
    try:
        app()
    except ShardSetError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(2 if isinstance(error, InputError) else 1)
    except OSError as error:
        typer.echo(f"Error: {error.filename or 'system'}: {describe_os_error(error)}", err=True)
        sys.exit(1)


def _inspect(source: Path, size: int | None) -> "Inspection":
    """Look through a source and print what it holds."""
    from pipeline.stages.inspect import inspect_source

    with show_progress() as progress:
        inspection = inspect_source(source, progress, size)
    if inspection.summary:
        typer.echo(inspection.summary)
    return inspection
