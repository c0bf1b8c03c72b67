"""Arrangement: a composition whose adapters are pinned by digest, as a composition file holds it.

A composition file is JSON, or the `composition.json` of a folder in which some of its adapters lie. One arrangement has
one sequence of bytes, so its digest is its identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias

from . import adapter, schemas
from .adapter import Base, Manifest, Probe
from .composition import Node, build, fusions, leaves, to_json
from .composition_file import LARGEST, document_of
from .errors import FormatError, NotFoundError, SchemaError, UsageError

JSON: TypeAlias = Any

FORMAT = 1
SCHEMA = "urn:adapterhub:schema:composition:1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """Which adapter a name in a composition stands for.

    Attributes:
        digest: digest of its artifact.
        reference: where to find it: `sst2-bert@1.0.0`, or `./file` for one beside the composition file; or "".
    """

    digest: str
    reference: str = ""

    @property
    def beside(self) -> str:
        """The file beside the composition file that holds it, "" where it comes from elsewhere."""
        return self.reference.removeprefix("./") if self.reference.startswith("./") else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """A composition with its adapters pinned by digest: what a composition file holds.

    Law: Arrangement.loads(a.dumps()) == a, and equal arrangements have equal bytes.

    Attributes:
        composition: how they work together.
        adapters: each name in it, also those of fusion layers and the head → what it is.
        name: name of the arrangement, "" before it has one.
        version: SemVer, "" before it is published.
        summary: one line for people.
        task: `<task>/<subtask>`.
        labels: names of the classes of the head that answers.
        license: SPDX expression.
        language: BCP 47 codes.
        metrics: name → value on held-out data.
        base: the base model that all adapters are for, or None where it is not said.
        head: name of the adapter whose head answers, "" where the heads follow the composition.
        rules: "adapters" where it is to compute what `adapters` 1.3.0 does, "" for the papers' mathematics.
        probe: inputs and answers, or None.
        extra: fields that this version does not interpret, kept.
    """

    composition: Node
    adapters: Mapping[str, Pin]
    name: str = ""
    version: str = ""
    summary: str = ""
    task: str = ""
    labels: tuple[str, ...] = ()
    license: str = ""
    language: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    base: Base | None = None
    head: str = ""
    rules: str = ""
    probe: Probe | None = None
    extra: Mapping[str, JSON] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: JSON, what: str = "the composition") -> Arrangement:
        """Return the arrangement that a composition file describes; `what` names it in errors.

        Raises:
            SchemaError: it breaks the schema, nests what may not be nested, or leaves a name without a pin.
        """
        schemas.check(data, "composition", what=what)
        try:
            composition = build(data["composition"])
        except UsageError as error:
            raise SchemaError(what, [f"composition: {error.message}"], hint=error.hint) from error
        named, pinned = {*used(composition, data.get("head", ""))}, set(data["adapters"])
        faults = [_lacking(name) for name in sorted(named - pinned)]
        faults += [f"adapters: {name!r} is not in the composition" for name in sorted(pinned - named)]
        if faults:
            raise SchemaError(what, faults)
        known = {key: value for key, value in data.items() if key not in {"$schema", "format"}}
        records = {key: adapter.from_json(_RECORDS[key], known[key]) for key in _RECORDS if key in known}
        lists = {key: tuple(known[key]) for key in ("labels", "language") if key in known}
        pins = {name: Pin(**pin) for name, pin in data["adapters"].items()}
        return cls(**{**known, **records, **lists, "composition": composition, "adapters": pins})

    def to_json(self) -> JSON:
        """Return the arrangement as a composition file has it, without empty fields."""
        pins = {
            name: {"digest": pin.digest, **({"reference": pin.reference} if pin.reference else {})}
            for name, pin in self.adapters.items()
        }
        rest = [f.name for f in fields(self) if f.name not in ("composition", "adapters")]
        known = {key: adapter.to_json(value) for key in rest if (value := getattr(self, key))}
        return {
            "$schema": SCHEMA,
            "format": FORMAT,
            **known,
            "composition": to_json(self.composition),
            "adapters": pins,
        }

    @classmethod
    def loads(cls, data: bytes, what: str = "the composition") -> Arrangement:
        """Return the arrangement that data write.

        Raises:
            FormatError: they are no JSON.
            SchemaError: as from_json.
        """
        return cls.from_json(schemas.loads(data, what), what)

    def dumps(self, what: str = "the composition") -> bytes:
        """Return the bytes of the composition file.

        Raises:
            SchemaError: a field holds what the schema does not allow.
        """
        document = self.to_json()
        schemas.check(document, "composition", what=what)
        return schemas.dumps(document)

    @property
    def manifest(self) -> Manifest:
        """What is known about it, as of an adapter."""
        base = self.base or Base(architecture="")
        same = [f.name for f in fields(Manifest) if f.name in _FIELDS and f.name not in ("base", "name")]
        return Manifest(name=self.name, base=base, **{name: getattr(self, name) for name in same})


_RECORDS: Mapping[str, type[Base] | type[Probe]] = {"base": Base, "probe": Probe}
_FIELDS = frozenset(f.name for f in fields(Arrangement))


def used(node: Node, head: str = "") -> tuple[str, ...]:
    """Return the names that a composition uses, each once: adapters, fusion layers, and whose head answers.

    >>> from .composition import Fuse
    >>> used(Fuse("a", "b", name="both"), "c")
    ('a', 'b', 'both', 'c')
    """
    return tuple(dict.fromkeys((*leaves(node), *fusions(node), *([head] if head else []))))


def _lacking(name: str) -> str:
    if "," in name:
        return f"composition: fuse({name.replace(',', ', ')}) does not name its fusion layer"
    return f"adapters: lacks {name!r}, which is in the composition"


def read(path: Path) -> Arrangement:
    """Return the arrangement in a composition file, or in a folder that holds one.

    Raises:
        NotFoundError: there is none.
        FormatError, SchemaError: it is not valid.
    """
    document = document_of(path)
    if document is None:
        raise NotFoundError(f"there is no composition at {path}", hint="name a composition file, or its folder")
    if document.stat().st_size > LARGEST:
        raise FormatError(f"{document} is larger than a composition may be ({LARGEST:,} bytes)")
    return Arrangement.loads(document.read_bytes(), str(document))
