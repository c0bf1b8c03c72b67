"""Arrangement: a composition whose adapters are pinned by digest, as a composition file holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from . import schemas
from .composition import Node, build, leaves, to_json
from .errors import SchemaError, UsageError

JSON: TypeAlias = Any

FORMAT = 1
SCHEMA = "urn:adapterhub:schema:composition:1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """Which adapter a name in a composition stands for.

    Attributes:
        digest: digest of its artifact.
        reference: where to find it, or "".
    """

    digest: str
    reference: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """A composition with its adapters pinned by digest: what a composition file holds.

    Attributes:
        composition: how they work together.
        adapters: each name in it → what it is.
        name: name of the arrangement, "" before it has one.
        version: SemVer, "" before it is published.
        summary: one line for people.
        extra: fields that this version does not interpret, kept.
    """

    composition: Node
    adapters: Mapping[str, Pin]
    name: str = ""
    version: str = ""
    summary: str = ""
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
        named, pinned = set(leaves(composition)), set(data["adapters"])
        faults = [f"adapters: lacks {name!r}, which is in the composition" for name in sorted(named - pinned)]
        faults += [f"adapters: {name!r} is not in the composition" for name in sorted(pinned - named)]
        if faults:
            raise SchemaError(what, faults)
        known = {key: value for key, value in data.items() if key not in {"$schema", "format"}}
        pins = {name: Pin(**pin) for name, pin in data["adapters"].items()}
        return cls(**{**known, "composition": composition, "adapters": pins})

    def to_json(self) -> JSON:
        """Return the arrangement as a composition file has it, without empty fields."""
        pins = {
            name: {"digest": pin.digest, **({"reference": pin.reference} if pin.reference else {})}
            for name, pin in self.adapters.items()
        }
        texts = {"name": self.name, "version": self.version, "summary": self.summary, "extra": dict(self.extra)}
        known = {key: value for key, value in texts.items() if value}
        return {
            "$schema": SCHEMA,
            "format": FORMAT,
            **known,
            "composition": to_json(self.composition),
            "adapters": pins,
        }
