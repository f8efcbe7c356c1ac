"""croissant.json: a shard set described in the Croissant format, for programs."""

from pipeline.card.origins import NO_ASSERTION, ORIGINS, SYNTHETIC_PUBLISHED, Origin
from shardset.manifest import Manifest
from shardset.models import render_json

# Copied from the specification of Croissant 1.0.
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def render_croissant(manifest: Manifest) -> str:
    """Render croissant.json, which lists the files and classes of a shard set."""
    files = [describe_file(file.path, file.bytes, file.sha256, "application/x-npy") for file in manifest.shard_files()]
    return render_json(describe_dataset(manifest, f"{manifest.summary()}.", files, []))


def describe_dataset(
    manifest: Manifest, summary: str, distribution: list[dict[str, object]], records: list[dict[str, object]]
) -> dict[str, object]:
    """Describe a dataset in the Croissant format, with the record sets of its images if they can be read.

    The version is that of the format of the shard set; its build metadata change with the content.
    """
    origin = ORIGINS.get(manifest.dataset)
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": manifest.dataset,
        "description": f"{origin.description if origin else manifest.dataset} {summary}",
        "version": f"{manifest.format_version}.0.0+{manifest.content_sha256[:12]}",
        **(_about(origin) if origin else _about_others(manifest)),
        "distribution": distribution,
        "recordSet": [_class_records(manifest), *records],
    }


def describe_file(path: str, num_bytes: int, sha256: str, media_type: str) -> dict[str, object]:
    """Describe a file of a dataset, by its path relative to croissant.json."""
    return {
        "@type": "cr:FileObject",
        "@id": path,
        "name": path,
        "contentUrl": path,
        "contentSize": f"{num_bytes} B",
        "encodingFormat": media_type,
        "sha256": sha256,
    }


def _about(origin: Origin) -> dict[str, object]:
    return {
        "url": origin.url,
        "creator": [{"@type": "sc:Person", "name": name} for name in origin.creators],
        "datePublished": origin.published,
        "license": origin.license,
        "citeAs": origin.citation,
    }


def _about_others(manifest: Manifest) -> dict[str, object]:
    # Only their owners know when images were published.
    return {
        **({"datePublished": SYNTHETIC_PUBLISHED} if manifest.dataset == "synthetic" else {}),
        "license": NO_ASSERTION,
        "citeAs": f"{manifest.dataset}, content SHA-256 {manifest.content_sha256}",
    }


def _class_records(manifest: Manifest) -> dict[str, object]:
    return {
        "@type": "cr:RecordSet",
        "@id": "classes",
        "name": "classes",
        "description": "The classes, by the index that labels hold.",
        "dataType": "sc:Enumeration",
        "key": {"@id": "classes/index"},
        "field": [
            {"@type": "cr:Field", "@id": "classes/index", "name": "classes/index", "dataType": "sc:Integer"},
            {"@type": "cr:Field", "@id": "classes/name", "name": "classes/name", "dataType": "sc:Text"},
        ],
        "data": [{"classes/index": index, "classes/name": name} for index, name in enumerate(manifest.classes)],
    }
