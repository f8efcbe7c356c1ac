"""Command `inspect`: what would be taken from a source of images, by their headers alone."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.project.suggest import Suggestion, suggest_params
from pipeline.project.summary import render_summary
from pipeline.runtime.tasks import Progress
from pipeline.sources.images.catalog import Catalog, read_catalog
from pipeline.sources.images.tables import list_unreadable
from shardset.errors import InputError


@dataclass(frozen=True)
class Inspection:
    """What a source holds, as text too, and the params that suit it, if it holds an image."""

    source: Path
    catalog: Catalog
    suggestion: Suggestion | None
    summary: str

    @property
    def unreadable(self) -> str:
        """The images that can't be read, by name and reason, and what to do; empty if there are none."""
        if not self.catalog.unreadable:
            return ""
        listed = list_unreadable(self.catalog.unreadable.items())
        return f"{listed}\nRepair or remove them. With images.unreadable: skip in params.yaml, they are left out."

    def check(self, *, allow_unreadable: bool) -> Suggestion:
        """Return the suggestion. Raises InputError, which lists all problems, and unreadable images unless allowed."""
        problems = self.catalog.problems
        messages = ["\n  ".join([f"source {self.source} can't be used:", *problems])] if problems else []
        if self.unreadable and (messages or not allow_unreadable):
            messages.append(self.unreadable)
        if messages or self.suggestion is None:
            raise InputError("\n".join(messages) or f"source {self.source}: no images")
        return self.suggestion


def inspect_source(source: Path, progress: Progress, size: int | None = None) -> Inspection:
    """Look through a folder, an archive or parquet files; suggest params for images of `size`, if given.

    Images are not decoded.

    Raises InputError if `source` is none of these.
    """
    catalog = read_catalog(source, progress)
    headers = catalog.sample_headers()
    suggestion = suggest_params(headers, size) if headers else None
    summary = render_summary(catalog, headers, None if catalog.problems else suggestion)
    return Inspection(source, catalog, suggestion, summary)
