"""Schemas: they equal the dataclasses, the fast checker agrees with jsonschema, faults are told in plain words."""

from __future__ import annotations

import copy
import dataclasses
import json
import subprocess
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any

import jsonschema
import pytest
import referencing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from referencing.jsonschema import DRAFT202012

from adapterhub import adapter, arrangement, composition, schemas
from adapterhub.errors import FormatError, SchemaError, UsageError
from adapterhub.registry import index, lock, records, snapshots
from adapterhub.schemas import checker, faults

STEADY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""Busy machines are slow; that is no fault."""

DIGEST = "sha256:" + "0123456789abcdef" * 4


def an_index() -> dict[str, Any]:
    """Return a valid index that has every field."""
    base = {"id": "google-bert/bert-base-uncased", "architecture": "bert", "revision": "main"}
    single = {"base": base, "method": "seq_bn", "format": "native", "url": "bundled:a.safetensors", "extra": {"x": [1]}}
    lists = {"sources": ["hf://a/b@1"], "aliases": ["sst-2"], "requires": ["en-wiki@1.0.0"], "summary": "s"}
    folder = {"base": base, "method": "seq_bn", "format": "peft", "url": "hf://user/repo@main", **lists}
    files = [
        {"path": "a/b.c", "digest": DIGEST, "size": 1},
        {"path": "adapter_config.json", "digest": DIGEST, "size": 0},
    ]
    artifacts = [{**single, "digest": DIGEST, "size": 9}, {**folder, "files": files}]
    release = {"published": "2026-11-23T10:00:00Z", "yanked": True, "reason": "r", "artifacts": artifacts, "extra": {}}
    entry = {
        "summary": "one line",
        "task": "sentiment/sst-2",
        "license": "Apache-2.0",
        "language": ["en", "pt-BR"],
        "aliases": ["sst-2", "@ukp/old_Name"],
        "versions": {"1.0.0-rc.1+b": release},
        "extra": {"any": None},
    }
    adapters = {"sst2-bert": entry, "other": {"versions": {"0.1.0": release}}}
    return {"$schema": "x", "format": 1, "layout": "sharded", "alias_of": ["me/a"], "adapters": adapters}


def a_manifest() -> dict[str, Any]:
    """Return a valid manifest that has every field."""
    fingerprint = {"shapes": {"w": [2, 3]}, "samples": {"w": [0.5, 1]}, "dtype": "float32"}
    return {
        "format": 1,
        "config": [{"method": "bottleneck", "anything": {"goes": 1}}],
        "name": "sst2-bert",
        "base": {"id": "", "architecture": "bert", "revision": "main", "fingerprint": fingerprint},
        "version": "1.0.0",
        "summary": "one line",
        "task": "sentiment/sst-2",
        "labels": ["negative", "positive"],
        "license": "MIT",
        "language": ["en"],
        "datasets": [
            {"name": "d", "source": "s", "license": "l", "citation": "c", "split": "s", "sizes": {"train": 3}}
        ],
        "metrics": {"accuracy": 0.9},
        "training": {"seeds": [1, 2]},
        "citation": "two\nlines",
        "probe": {
            "inputs": {"input_ids": [[1, 2]]},
            "output": "logits",
            "values": [[0.1]],
            "base_values": [],
            "atol": 1e-4,
        },
        "provenance": {
            "format": "adapters",
            "version": "adapters.1.3.0",
            "digest": "",
            "converter": "c",
            "exact": True,
            "difference": 0.0,
        },
        "extra": {"foreign": True},
    }


def a_composition() -> dict[str, Any]:
    """Return a valid composition file with every kind of node."""
    kinds = [
        "a",
        {"type": "fuse", "children": ["a", {"type": "stack", "children": ["b"]}], "name": "f"},
        {"type": "split", "children": ["a", "b"], "splits": [1, 2]},
        {"type": "batch_split", "children": ["a"], "batch_sizes": [4]},
        {"type": "parallel", "children": ["a"]},
        {"type": "average", "children": ["a", "b"], "weights": [0.5, -1]},
        {"type": "multi_task", "children": ["a"]},
    ]
    pins = {"a": {"digest": DIGEST, "reference": "a@1.0.0"}, "b": {"digest": DIGEST}, "f": {"digest": DIGEST}}
    texts = {"name": "both", "version": "1.0.0", "summary": "s", "task": "t/u", "license": "MIT", "head": "a"}
    known = {key: a_manifest()[key] for key in ("labels", "language", "metrics", "base", "probe")}
    rest = {**known, "rules": "adapters", "extra": {}}
    return {"format": 1, **texts, **rest, "composition": {"type": "stack", "children": kinds}, "adapters": pins}


def a_lock() -> dict[str, Any]:
    """Return a valid lock that has every field."""
    artifact = an_index()["adapters"]["sst2-bert"]["versions"]["1.0.0-rc.1+b"]["artifacts"][1]
    pinned = {"reference": "a@^1", "name": "me/a", "version": "1.0.0", "artifact": artifact, "registry": "https://host"}
    other = {"reference": "hf://a/b", "content": {"url": "hf://a/b@main", "files": artifact["files"]}}
    single = {"reference": "hf://a/c", "content": {"url": "hf://a/c@main", "digest": DIGEST, "size": 1}}
    pinned["copies"] = [{"url": "hf://a/d@main", "files": artifact["files"]}]
    base = {"architecture": "bert", "revision": "main", "files": artifact["files"]}
    adapters = {"a": {**pinned, "parts": {"b": other, "c": single}}}
    return {"format": 1, "adapters": adapters, "bases": {"google-bert/bert-base-uncased": base}}


def a_snapshot() -> dict[str, Any]:
    """Return a valid signed snapshot that has every field."""
    ancestors = [{"number": 1, "digest": DIGEST}]
    snapshot = {"number": 2, "time": "2026-11-23T10:00:00Z", "index": DIGEST, "size": 9, "ancestors": ancestors}
    return {"format": 1, "snapshot": snapshot, "signature": {"any": [1]}}


VALID = {
    "snapshot": a_snapshot,
    "index": an_index,
    "manifest": a_manifest,
    "composition": a_composition,
    "lock": a_lock,
}


# The schemas themselves.


@pytest.mark.parametrize("name", schemas.NAMES)
def test_each_schema_is_one_of_json_schema_2020_12(name: str) -> None:
    schema = schemas.load(name)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:adapterhub:schema:{name}:1"
    jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("name", schemas.NAMES)
def test_each_field_is_described(name: str) -> None:
    bare: list[str] = []

    def walk(schema: Any, path: str) -> None:
        for key, item in schema.get("properties", {}).items():
            constant = key == "type" and "const" in item
            if not constant and "description" not in {**resolved(item, name)[0], **item}:
                bare.append(f"{path}.{key}")
            walk(item, f"{path}.{key}")
        for key, item in schema.get("$defs", {}).items():
            walk(item, key)

    walk(schemas.load(name), name)
    assert bare == []


def resolved(schema: Any, home: str) -> tuple[Any, str]:
    """Return the definition that a schema refers to, and the name of the schema that it stands in."""
    if "$ref" not in schema:
        return schema, home
    document, _, definition = schema["$ref"].partition("#/$defs/")
    home = document.split(":")[3] if document else home
    return schemas.load(home)["$defs"][definition], home


@pytest.mark.parametrize("name", schemas.NAMES)
def test_a_document_with_every_field_is_valid(name: str) -> None:
    schemas.check(VALID[name](), name)


def test_an_unknown_schema_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no schema 'indx'; there are composition, index, lock, manifest, snapshot"):
        schemas.check({}, "indx")


# The schemas equal the dataclasses.

Shape = Any
"""A type as both sides write it: "string", …, "any", ("array", shape), ("object", shape) or a dataclass."""

RECORDS: dict[tuple[str, str], type] = {
    ("index", ""): index.Index,
    ("index", "entry"): records.Entry,
    ("index", "release"): records.Release,
    ("index", "artifact"): records.Artifact,
    ("index", "base"): records.ArtifactBase,
    ("index", "file"): records.ArtifactFile,
    ("manifest", ""): adapter.Manifest,
    ("manifest", "base"): adapter.Base,
    ("manifest", "fingerprint"): adapter.Fingerprint,
    ("manifest", "dataset"): adapter.Dataset,
    ("manifest", "probe"): adapter.Probe,
    ("manifest", "provenance"): adapter.Provenance,
    ("manifest", "parent"): adapter.Parent,
    ("lock", ""): lock.Lock,
    ("lock", "adapter"): lock.LockedAdapter,
    ("lock", "content"): records.Content,
    ("lock", "base"): lock.LockedBase,
    ("snapshot", ""): snapshots.Signed,
    ("snapshot", "snapshot"): snapshots.Snapshot,
    ("snapshot", "ancestor"): snapshots.Ancestor,
    ("composition", ""): arrangement.Arrangement,
    ("composition", "pin"): arrangement.Pin,
    **{("composition", kind.type): kind for kind in composition.KINDS},
}
CONSTANT = {"$schema", "format", "type"}
"""Fields that say what a document is; they are no data."""


def shape_of_hint(hint: Any) -> Shape:
    if hint is Any:
        return "any"
    if hint is index.Entries:
        return ("object", records.Entry)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in {typing.Union, types.UnionType}:
        kept = [a for a in args if a is not type(None)]
        return shape_of_hint(kept[0]) if len(kept) == 1 else "any"
    if origin is tuple:
        return ("array", shape_of_hint(args[0]))
    if origin is not None and issubclass(origin, Mapping):
        return ("object", shape_of_hint(args[1]))
    return {str: "string", int: "integer", float: "number", bool: "boolean"}.get(hint, hint)


def shape_of_schema(schema: Any, home: str) -> Shape:
    if "$ref" in schema:
        definition = schema["$ref"].partition("#/$defs/")[2]
        target, home = resolved(schema, home)
        if (home, definition) in RECORDS:
            return RECORDS[home, definition]
        if definition in {"node", "numbers", "extra"}:
            return ("object", "any") if definition == "extra" else "any"
        return shape_of_schema(target, home)
    if "anyOf" in schema:
        return shape_of_schema(schema["anyOf"][1], home)
    if schema["type"] == "array":
        return ("array", shape_of_schema(schema["items"], home) if "items" in schema else "any")
    if schema["type"] == "object":
        item = schema.get("additionalProperties")
        return ("object", shape_of_schema(item, home) if item else "any")
    return schema["type"]


@pytest.mark.parametrize(("home", "definition"), RECORDS)
def test_a_schema_has_the_fields_types_and_needs_of_its_dataclass(home: str, definition: str) -> None:
    record: Any = RECORDS[home, definition]
    schema = schemas.load(home)
    schema = schema["$defs"][definition] if definition else schema
    data_only = CONSTANT if not definition or home == "composition" else set()
    data_only = data_only | ({"config"} if record is adapter.Manifest else set())
    hints = typing.get_type_hints(record)
    fields = {f.name: f for f in dataclasses.fields(record) if f.name not in data_only | {"schema"}}
    properties = {key: item for key, item in schema["properties"].items() if key not in data_only}
    assert schema["additionalProperties"] is False
    assert {name: shape_of_hint(hints[name]) for name in fields} == {
        key: shape_of_schema(item, home) for key, item in properties.items()
    }
    always = {"children"} if home == "composition" and definition in composition._MAKERS else set()
    needed = {n for n, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING}
    if record not in {lock.Lock, index.Index}:
        assert needed - always == set(schema.get("required", ())) - data_only


def test_every_definition_with_fields_has_a_dataclass() -> None:
    with_fields = {
        (name, key)
        for name in schemas.NAMES
        for key, item in schemas.load(name)["$defs"].items()
        if "properties" in item
    }
    assert with_fields - {("composition", "block")} == {
        (home, definition) for home, definition in RECORDS if definition
    }


def test_the_records_of_an_index_keep_every_field() -> None:
    document = an_index()
    loaded = index.Index.loads(schemas.dumps(document))
    assert json.loads(loaded.dumps())["adapters"]["sst2-bert"]["versions"] == (
        without_empty(document["adapters"]["sst2-bert"]["versions"])
    )


def without_empty(value: Any) -> Any:
    """Return value without empty `extra` fields."""
    if isinstance(value, dict):
        return {key: without_empty(item) for key, item in value.items() if not (key == "extra" and item == {})}
    return [without_empty(item) for item in value] if isinstance(value, list) else value


def test_the_records_of_a_manifest_keep_every_field() -> None:
    document = {key: value for key, value in a_manifest().items() if key not in {"format", "config"}}
    manifest = adapter.from_json(adapter.Manifest, document)
    assert adapter.from_json(adapter.Manifest, adapter.to_json(manifest)) == manifest
    for name, value in document.items():
        assert json.loads(json.dumps(adapter.to_json(manifest).get(name, value))) is not None


# Faults in plain words.


def faults_of(document: Any, name: str = "index") -> list[str]:
    with pytest.raises(SchemaError) as caught:
        schemas.check(document, name, what="index.json")
    return list(caught.value.faults)


def test_every_fault_is_told_at_once_with_its_path_in_plain_words() -> None:
    document = an_index()
    release = document["adapters"]["sst2-bert"]["versions"]["1.0.0-rc.1+b"]
    release["published"] = "yesterday"
    release["yanked"] = 1
    artifact = release["artifacts"][0]
    artifact["digest"] = "md5:d41d8cd98f00b204e9800998ecf8427e"
    artifact["size"] = -1
    artifact["sise"] = 1
    del artifact["base"]["id"]
    release["artifacts"][1]["files"][0]["path"] = "../evil"
    document["adapters"]["other"]["versions"] = {}
    document["adapters"]["Bad Name"] = 5
    document["adapters"]["sst2-bert"]["aliases"] = ["x", "x", "x"]
    document["format"] = 2
    at = "adapters['sst2-bert'].versions['1.0.0-rc.1+b']"
    assert faults_of(document) == [
        "adapters: key 'Bad Name' is not a name "
        "(lower-case letters, digits, and . _ - within; may begin with an owner and /)",
        "adapters['Bad Name']: 5 is not an object",
        "adapters['other'].versions: is empty",
        "adapters['sst2-bert'].aliases: has 'x' more than once",
        f"{at}.artifacts[0]: unknown field 'sise'; did you mean 'size'?",
        f"{at}.artifacts[0].base: lacks 'id'",
        f"{at}.artifacts[0].digest: 'md5:d41d8cd98f00b204e9800998ecf8427e' is not "
        "a digest (sha256: and 64 lower-case hexadecimal digits)",
        f"{at}.artifacts[0].size: -1 is less than 0",
        f"{at}.artifacts[1].base: lacks 'id'",
        f"{at}.artifacts[1].files[0].path: '../evil' is not a relative path that stays in its folder",
        f"{at}.published: 'yesterday' is not a time (2026-11-23 or 2026-11-23T12:00:00Z)",
        f"{at}.yanked: 1 is not true or false",
        "format: 2 is not 1",
    ]


def test_the_error_names_the_document_and_counts_its_faults() -> None:
    with pytest.raises(SchemaError) as caught:
        schemas.check({"format": 1, "adapters": 3, "x": 1}, "index", what="my/index.json")
    assert str(caught.value) == (
        "my/index.json breaks its schema (2 faults):\n  unknown field 'x'\n  adapters: 3 is not an object"
    )


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"digest": None, "size": None}, "lacks 'digest' or 'files'"),
        ({"digest": None}, "has 'size' but lacks 'digest'"),
        ({"files": [{"path": "x", "digest": DIGEST, "size": 1}]}, "has 'digest' and 'files', of which one too many"),
    ],
)
def test_an_artifact_is_either_a_file_or_a_folder(change: dict[str, Any], fault: str) -> None:
    document = an_index()
    artifact = document["adapters"]["other"]["versions"]["0.1.0"]["artifacts"][0]
    artifact |= change
    for key in [key for key, value in artifact.items() if value is None]:
        del artifact[key]
    assert f"adapters['other'].versions['0.1.0'].artifacts[0]: {fault}" in faults_of(document)


@pytest.mark.parametrize(
    ("node", "fault"),
    [
        (5, "composition: 5 is none of the things that may stand here"),
        ({"type": "nix", "children": ["a"]}, "composition.type: 'nix' is none of 'stack', 'fuse', 'split', "
         "'batch_split', 'parallel', 'average', 'multi_task'"),
        ({"type": "split", "children": ["a"]}, "composition: lacks 'splits'"),
        ({"type": "stack", "children": [{"type": "fuse", "children": []}]},
         "composition.children[0].children: is empty"),
        ({"type": "stack", "children": ["a b"]},
         "composition.children[0]: 'a b' is not a name of an adapter (no spaces, brackets, commas, quotes or =)"),
    ],
)  # fmt: skip
def test_of_several_alternatives_the_one_that_was_meant_is_told(node: Any, fault: str) -> None:
    assert faults_of({**a_composition(), "composition": node}, "composition") == [fault]


@pytest.mark.parametrize("kind", ["stack", "nix"])
def test_the_time_to_check_a_nested_composition_does_not_explode(kind: str) -> None:
    node: Any = "a"
    for _ in range(40):
        node = {"children": [node], "type": kind}
    document = {**a_composition(), "composition": node}
    assert fast_verdict(document, "composition") is (kind == "stack")
    assert len(faults.find(document, schemas.load("composition"), schemas._documents())) == (
        0 if kind == "stack" else 40
    )


def test_a_document_that_is_nested_without_end_is_a_fault_not_a_crash() -> None:
    node: Any = "a"
    for _ in range(5000):
        node = {"type": "stack", "children": [node]}
    assert faults_of({**a_composition(), "composition": node}, "composition") == ["it is nested too deeply"]


def test_long_values_are_cut_in_a_fault() -> None:
    (fault,) = faults_of({"format": 1, "adapters": {}, "$schema": "x" * 2000})
    assert len(fault) < 160
    assert "x..." in fault


# The fast checker and jsonschema agree.


def reference_verdict(document: Any, name: str) -> bool:
    return faults.find(document, schemas.load(name), schemas._documents()) == []


def fast_verdict(document: Any, name: str) -> bool:
    return checker.compiled(schemas.load(name), schemas._documents())(document)


ODD_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 1.0, 0.5, 10**13, float("nan"), float("inf"),
    "", "a", "a\n", "A", "con", "con.x", " ", "x" * 300, "\u2028", "en", "en_US", "org/name", "stack",
    "../x", "/x", "a/../b", "a/..", "..", ".", "a//b", "a/", "C:x", "a\\b",
    DIGEST, DIGEST + "\n", DIGEST.upper(), "1.0.0", "01.0.0", "1.0", "1.0.0-01", "1.0.0\n",
    "2026-13-01", "2026-01-01", "2026-01-01T00:00:00Z",
    [], [1], ["a"], ["a", "a"], [[1, [2]]], [True], [1, 1.0],
    {}, {"a": 1}, {"method": "m"}, {"x": [0]}, {"type": "stack"}, {"type": "stack", "children": ["a"]},
    {"digest": DIGEST}, {"1.0.0": {}},
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values within value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in items for found in places(item, (*path, key)))]


def changed(document: Any, path: tuple[Any, ...], change: Any) -> Any:
    """Return a copy of document in which change(parent, key) was called for the value at path."""
    document = {"root": copy.deepcopy(document)}
    parent, key = document, "root"
    for part in path:
        parent, key = parent[key], part
    change(parent, key)
    return document.get("root")


def put(value: Any) -> Any:
    return lambda parent, key: parent.__setitem__(key, copy.deepcopy(value))


def remove(parent: Any, key: Any) -> None:
    del parent[key]


def rename(name: str) -> Any:
    def change(parent: Any, key: Any) -> None:
        parent[name] = parent.pop(key) if isinstance(parent, dict) else parent[key]

    return change


@pytest.mark.parametrize("name", schemas.NAMES)
def test_both_checkers_agree_on_every_field_removed_or_renamed(name: str) -> None:
    document = VALID[name]()
    verdicts = []
    for path in places(document)[1:]:
        for change in (remove, *map(rename, ("odd", "Odd Name", "con", "1.0.0", ""))):
            if isinstance(path[-1], int) and change is not remove:
                continue
            mutant = changed(document, path, change)
            verdicts.append(fast_verdict(mutant, name))
            assert verdicts[-1] == reference_verdict(mutant, name), path
    assert True in verdicts
    assert False in verdicts


@settings(STEADY, max_examples=250)
@given(data=st.data())
def test_both_checkers_agree_on_odd_values_at_any_place(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(schemas.NAMES))
    document = VALID[name]()
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(places(document)))
        document = changed(document, path, put(data.draw(st.sampled_from(ODD_VALUES))))
    assert fast_verdict(document, name) == reference_verdict(document, name)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(STEADY, max_examples=150)
@given(value=JSON_VALUES, data=st.data())
def test_both_checkers_agree_on_any_json_at_any_place(value: Any, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(schemas.NAMES))
    document = VALID[name]()
    document = changed(document, data.draw(st.sampled_from(places(document))), put(value))
    assert fast_verdict(document, name) == reference_verdict(document, name)


@pytest.mark.parametrize("name", schemas.NAMES)
def test_plain_jsonschema_accepts_what_we_accept(name: str) -> None:
    resources = [(key, DRAFT202012.create_resource(item)) for key, item in schemas._documents().items()]
    registry = referencing.Registry().with_resources(resources)
    jsonschema.Draft202012Validator(schemas.load(name), registry=registry).validate(VALID[name]())


@pytest.mark.parametrize(
    ("schema", "value", "fits"),
    [
        ({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}, {"a": 1, "b": 1}, False),
        ({"uniqueItems": True}, [1, {"a": 1}, {"a": 1}], False),
        ({"const": 1}, True, False),
        ({"additionalProperties": {"type": "integer"}}, {"x": "1"}, False),
        ({"properties": {"x": {"minimum": 3}}}, {"x": "text is no number"}, True),
        ({"pattern": "^a$"}, "a\n", False),
        ({"pattern": "^a$"}, 5, True),
        ({"type": "integer", "maximum": 3}, 4, False),
        ({}, None, True),
    ],
)
def test_a_keyword_concerns_values_of_its_type_only(schema: Any, value: Any, fits: bool) -> None:
    assert checker.compiled(schema, {})(value) is fits
    assert (faults.find(value, schema, {}) == []) is fits


def test_a_keyword_that_the_checker_does_not_know_is_refused_when_it_is_compiled() -> None:
    with pytest.raises(ValueError, match=r"\['multipleOf'\]"):
        checker.compiled({"type": "array", "items": {"multipleOf": 2}}, {})


def test_a_valid_document_needs_no_jsonschema() -> None:
    program = (
        "import json, sys; from adapterhub import schemas; schemas.check(json.loads(sys.argv[1]), 'index');"
        "sys.exit('jsonschema' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, json.dumps(an_index())], check=True)


def test_a_part_of_a_schema_can_be_checked_alone() -> None:
    schemas.check({"type": "stack", "children": ["a"]}, "composition", part="node")
    with pytest.raises(SchemaError, match="children: is empty"):
        schemas.check({"type": "stack", "children": []}, "composition", part="node")


# JSON as text.


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"a": 1, "a": 2}', "an object has 'a' twice"),
        (b'{"x": [{"b": 1, "c": 1, "b": 2}]}', "'b' twice"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b"[-Infinity]", "-Infinity is not a JSON number"),
        (b"[1e999]", "1e999 is larger than a number can be"),
        (b"[" + b"9" * 5000 + b"]", "Exceeds the limit"),
        (b'["\\ud800"]', "half of a surrogate pair"),
        (b'["\\uDfff"]', "half of a surrogate pair"),
        (b"\xff\xfe", "is not UTF-8: byte 0"),
        (b"{", "line 1, column 2"),
        (b"", "line 1, column 1"),
        (b"[1] x", "Extra data"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[" * 101 + b"]" * 101, "nested too deeply"),
        (b'[{"a": ' * 51 + b"1" + b"}]" * 51, "nested too deeply"),
    ],
)
def test_json_that_others_wave_through_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(FormatError, match="the file") as caught:
        schemas.loads(data, "the file")
    assert words in str(caught.value)


def test_a_whole_surrogate_pair_is_read() -> None:
    assert schemas.loads(b'["\\ud83d\\ude00"]', "it") == ["\N{GRINNING FACE}"]


FINITE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@STEADY
@given(value=FINITE)
def test_what_is_written_is_read_again_and_written_the_same(value: Any) -> None:
    for write in (schemas.dumps, schemas.canonical):
        assert schemas.loads(write(value), "it") == value
        assert write(schemas.loads(write(value), "it")) == write(value)


def test_nan_is_never_written() -> None:
    for write in (schemas.dumps, schemas.canonical):
        with pytest.raises(ValueError, match="Out of range"):
            write([float("nan")])


def test_what_is_nested_is_read_as_deep_on_every_interpreter_and_written_again() -> None:
    deep = schemas.loads(b'[{"a": ' * 50 + b"1" + b"}]" * 50, "a document")
    assert schemas.loads(schemas.dumps(deep), "a document") == deep
