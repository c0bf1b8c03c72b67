"""The documents of `adapters` folders around the method: checks, what they say, and how their source spelled them.

Source: adapters 1.3.0, configuration/model_adapters_config.py (`build_full_config`).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence

from ... import schemas
from ...adapter import JSON, Base, Manifest, Provenance, from_json, to_json
from ...architectures import Architecture, by_model_type
from ...errors import FormatError, SchemaError, UnsupportedError
from ..identity import hub_id, manifest_name, own_version
from ..spelling import Kept, kept, restored
from .codec import WRITES
from .config import members

CONFIG = "adapter_config.json"
HEAD_CONFIG = "head_config.json"
FUSION_CONFIG = "adapter_fusion_config.json"

NAME = "adapters"

OURS = "adapterhub"
"""Key under which a document carries what `adapters` has no word for; that library ignores it."""

LONGEST_NAME = 500
"""Characters that an adapter's name may have."""

Meaning = Callable[[Mapping[str, JSON]], Mapping[str, JSON]]


def check(documents: Mapping[str, JSON]) -> Mapping[str, JSON]:
    """Return the first document, all of them found to be sound around their configurations.

    Raises:
        FormatError: with every fault.
        UnsupportedError: a document is of something that this version does not read.
    """
    faults: list[str] = []
    for file, document in documents.items():
        if not isinstance(document, dict):
            raise FormatError(f"{file} is no JSON object", hint=_AGAIN)
        faults += [f"{file}: {fault}" for fault in _faults(document)]
    found = list(documents.values())
    for field in ("model_type", "name"):
        values = {document[field] for document in found if isinstance(document.get(field), str)}
        if len(values) > 1:
            faults.append(f"{' and '.join(documents)} have different values of {field}: {', '.join(sorted(values))}")
    if faults:
        raise FormatError("the documents of the adapter are wrong", faults=faults, hint=_AGAIN)
    first: Mapping[str, JSON] = found[0]
    return first


def kept_version(spelling: Mapping[str, JSON]) -> JSON:
    """Return the version that a document spelled like this will have."""
    top = spelling.get("top", {})
    return None if "version" in top.get("absent", ()) else top.get("set", {}).get("version", WRITES)


def manifest(
    document: Mapping[str, JSON], row: Architecture, labels: Sequence[str], digest: str, extra: Mapping[str, JSON]
) -> Manifest:
    """Return what a document says about an adapter.

    Raises:
        FormatError: what it carries for us breaks the manifest's schema.
    """
    found = Manifest(
        name=manifest_name(document.get("name"), "head"),
        base=Base(architecture=row.name, id=hub_id(document.get("model_name"))),
        labels=tuple(labels),
        provenance=Provenance(
            format=NAME, version=document.get("version") or "", digest=digest, converter=f"adapterhub {own_version()}"
        ),
        extra={NAME: extra} if extra else {},
    )
    return found if OURS not in document else _with_ours(found, document[OURS])


def kept_of(manifest: Manifest) -> Mapping[str, JSON]:
    """Return what a manifest keeps of the spelling of an adapter's source.

    Raises:
        FormatError: it is not what this module puts there.
    """
    extra = manifest.extra.get(NAME, {})
    texts = (
        [extra.get(name, "") for name in ("prefix", "container", "fixed_head", "fusion", "head_name")]
        if isinstance(extra, dict)
        else [0]
    )
    for name in ("head_absent", "head_copies"):
        listed = extra.get(name, []) if isinstance(extra, dict) else []
        texts += listed if isinstance(listed, list) else [0]
    files = [extra.get(name, {}) for name in (CONFIG, HEAD_CONFIG, FUSION_CONFIG)] if isinstance(extra, dict) else []
    sound = all(isinstance(text, str) for text in texts) and all(_is_spelling(file) for file in files)
    if not sound or not _are_copies(extra.get("copies", False)):
        raise FormatError(
            f"extra[{NAME!r}] of adapter {manifest.name!r} is not what reading such a folder leaves there",
            hint="take it out of the manifest; the adapter is then written in the current spelling",
        )
    found: Mapping[str, JSON] = extra
    return found


def plain(manifest: Manifest, row: Architecture, width: int) -> dict[str, JSON]:
    """Return the fields around a configuration in the current spelling."""
    family = next((name for head in row.heads for name in head.classes), "").partition("For")[0].removesuffix("Decoder")
    return {
        "hidden_size": width or None,
        "model_class": f"{family}AdapterModel" if family else None,
        "model_name": manifest.base.id or None,
        "model_type": row.model_types[0],
        "name": manifest.name,
        "version": WRITES,
    }


def spelling(source: Mapping[str, JSON], built: Mapping[str, JSON]) -> dict[str, JSON]:
    """Return what restores a source document from the one built in the current spelling, {} if nothing does."""
    top, outer, inner = _split(source)
    built_top, built_outer, built_inner = _split(built)
    found: dict[str, JSON] = {"top": kept(top, built_top), "outer": kept(outer, built_outer)}
    configs = [kept(a, b) for a, b in zip(inner, built_inner, strict=True)]
    return {key: value for key, value in (found | {"configs": configs if any(configs) else []}).items() if value}


def respelled(
    built: Mapping[str, JSON], spelling: Mapping[str, JSON], config_meaning: Meaning, *, first: bool = True
) -> dict[str, JSON]:
    """Return a document in its source's spelling, wherever that still means the same.

    first: whether it is the document that tells the base model.
    """
    top, outer, inner = _split(built)
    document = restored(top, spelling.get("top", {}), _top_meaning if first else _beside_meaning)
    kept_inner: list[Kept] = spelling.get("configs", [])
    if len(kept_inner) == len(inner):
        inner = [restored(config, one, config_meaning) for config, one in zip(inner, kept_inner, strict=True)]
    if outer:
        outer = restored(outer, spelling.get("outer", {}), _outer_meaning)
        return document | {"config": {**outer, "configs": inner}}
    return document | {"config": inner[0]} if inner else document


_AGAIN = "fetch the adapter again, or save it again with the library that made it"
_LATER = "it reads bottleneck adapters, unions of them and classification heads of adapters and adapter-transformers"
_VERSION = re.compile(
    r"(?:adapters\.)?[0-9]+(?:\.[0-9]+)*(?:[._-]?(?:a|b|c|rc|alpha|beta|pre)[0-9]*)?(?:\.post[0-9]*)?(?:\.?dev[0-9]*)?"
    r"(?:\+[0-9A-Za-z.]+)?\Z"
)
"""How the libraries write their versions; a long number would be none."""


def _is_spelling(value: JSON) -> bool:
    """Return whether value has the shape of what spelling returns."""
    if not isinstance(value, dict) or not isinstance(value.get("configs", []), list):
        return False
    parts = [value.get("top", {}), value.get("outer", {}), *value.get("configs", [])]
    return all(
        isinstance(part, dict) and isinstance(part.get("set", {}), dict) and isinstance(part.get("absent", []), list)
        for part in parts
    )


def _are_copies(value: JSON) -> bool:
    """Return whether value has the shape of keys.Naming.copies."""
    if isinstance(value, bool):
        return True
    lists = [value.get(name, []) for name in ("with", "without")] if isinstance(value, dict) else [0]
    return all(isinstance(found, list) and all(isinstance(key, str) for key in found) for found in lists)


def _faults(document: Mapping[str, JSON]) -> list[str]:
    """Return what is wrong with the fields around a configuration."""
    if "peft_type" in document:
        raise UnsupportedError("this is an adapter of PEFT, which this version does not read", hint=_LATER)
    if document.get("prediction_head"):
        raise UnsupportedError("the adapter has a prediction head within its own weights", hint=_LATER)
    faults = []
    if not isinstance(document.get("model_type"), str):
        faults.append(f"model_type is {document.get('model_type')!r}, expected a text")
    name, fixed_head = document.get("name"), document.get("config") is None
    if not (isinstance(name, str) and name) and not (name is None and fixed_head):
        faults.append(f"name is {name!r}, expected a text")
    if isinstance(name, str) and len(name) > LONGEST_NAME:
        faults.append(f"name has {len(name)} characters, allowed are {LONGEST_NAME}")
    version = document.get("version", "1")
    if not (isinstance(version, str) and len(version) <= 100 and _VERSION.match(version)):
        faults.append(f"version {repr(version)[:100]} is none of adapters or adapter-transformers")
    size = document.get("hidden_size")
    if size is not None and type(size) is not int:
        faults.append(f"hidden_size is {size!r}, expected a whole number")
    return faults


def _with_ours(found: Manifest, ours: JSON) -> Manifest:
    """Return a manifest with the fields that a document carries for us."""
    fields = ours if isinstance(ours, dict) else {OURS: ours}
    faults = [f"{name}: not a field of the manifest" for name in fields if name in ("$schema", "format", "config")]
    data = to_json(found)
    try:
        schemas.check({**data, **fields, "format": 1, "config": [{"method": "bottleneck"}]}, "manifest")
        carried = from_json(Manifest, {**data, **fields}) if not faults else found
        if carried.base.architecture != found.base.architecture:
            faults.append(f"base.architecture: {carried.base.architecture}, model_type says {found.base.architecture}")
    except SchemaError as error:
        faults += error.faults
    if faults:
        raise FormatError(f"the key {OURS} of the adapter's document is wrong", faults=faults)
    return dataclasses.replace(carried, extra={**carried.extra, **found.extra})


def _split(document: Mapping[str, JSON]) -> tuple[dict[str, JSON], dict[str, JSON], list[dict[str, JSON]]]:
    """Return the fields around the configuration, those around a union's members, and the configurations."""
    config = document.get("config")
    # A head of a class of transformers has null there, or nothing.
    top = {key: value for key, value in document.items() if key != OURS and (key != "config" or config is None)}
    if config is None:
        return top, {}, []
    union = config.get("architecture") == "union"
    outer = {key: value for key, value in config.items() if key != "configs"} if union else {}
    return top, outer, members(config)


def _outer_meaning(outer: Mapping[str, JSON]) -> dict[str, JSON]:
    return {"architecture": outer.get("architecture")}


def _top_meaning(document: Mapping[str, JSON]) -> dict[str, JSON]:
    return {**_beside_meaning(document), "model_name": hub_id(document.get("model_name"))}


def _beside_meaning(document: Mapping[str, JSON]) -> dict[str, JSON]:
    name, model_type = document.get("name"), document.get("model_type")
    return {
        "name": None if name is None else manifest_name(name, "head"),
        "model_type": by_model_type(model_type).name if isinstance(model_type, str) else None,
    }
