"""croissant.json: a shard set described in the Croissant format, for programs."""

from pipeline.card.origins import ORIGINS, Origin
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
    return render_json(_describe(manifest))


def _describe(manifest: Manifest) -> dict[str, object]:
    origin = ORIGINS.get(manifest.dataset)
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": manifest.dataset,
        "description": f"{origin.description if origin else manifest.dataset} {manifest.summary()}.",
        **(_about(origin) if origin else {}),
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": file.path,
                "name": file.path,
                "contentUrl": file.path,
                "contentSize": f"{file.bytes} B",
                "encodingFormat": "application/x-npy",
                "sha256": file.sha256,
            }
            for file in manifest.shard_files()
        ],
        "recordSet": [_class_records(manifest)],
    }


def _about(origin: Origin) -> dict[str, object]:
    return {
        "url": origin.url,
        "creator": [{"@type": "sc:Person", "name": name} for name in origin.creators],
        "datePublished": origin.published,
        "license": "unknown",
        "citeAs": origin.citation,
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
