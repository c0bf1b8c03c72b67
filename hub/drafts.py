"""What a person writes of a composition: text, a value, or a JSON or TOML file. Loads no torch."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import schemas
from ..composition import Node, from_json, parse
from ..composition_file import LARGEST
from ..errors import FormatError, NotFoundError, SchemaError
from ..registry import Reference

JSON = Any

ENDINGS = (".json", ".toml")
"""Of files that hold a draft."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A composition before its adapters are looked up.

    Attributes:
        composition: how they work together; its words are references, or names that `adapters` tells.
        adapters: word → reference, where it is another text than the word.
        digests: word → digest that the adapter must have, where it is said.
        folder: where relative paths begin.
        head: the word for the adapter whose head answers, "" where heads follow the composition.
        rules: "adapters" where it is to compute what `adapters` 1.3.0 does.
        fields: what is said of the composition: name, version, summary, task, license, language, metrics.
    """

    composition: Node
    adapters: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    folder: Path = Path()
    head: str = ""
    rules: str = ""
    fields: Mapping[str, JSON] = field(default_factory=dict)

    def reference(self, word: str) -> Reference:
        """Return what a word stands for, a path from the folder of the draft.

        Raises:
            UsageError: it is no reference.
        """
        parsed = Reference.parse(self.adapters.get(word, word))
        if parsed.scheme != "path" or parsed.path.is_absolute():
            return parsed
        path = self.folder / parsed.path
        return Reference.parse(str(path) if path.is_absolute() else f"./{path}")


CARD = ("name", "version", "summary", "task", "license", "language", "metrics")
"""Fields of a file that say something of the composition."""

_KNOWN = frozenset(
    {"$schema", "format", "composition", "adapters", "head", "rules", "base", "labels", "probe", "extra"}
)


def draft(source: str | Path | Node) -> Draft:
    """Return the draft in a text such as `stack(a, b)`, a value, or a file.

    Raises:
        UsageError: the text cannot be read, or nests what may not be nested.
        NotFoundError: there is no such file.
        FormatError, SchemaError: the file is not such a draft.
    """
    if isinstance(source, Path):
        return read_draft(source)
    if isinstance(source, str):
        if "(" not in source and source.endswith(ENDINGS):
            return read_draft(Path(source))
        return Draft(composition=parse(source))
    return Draft(composition=source)


def read_draft(path: Path) -> Draft:
    """Return the draft in a JSON or TOML file: as a composition file, but digests may be missing.

    `composition` may be text, and `adapters` may name references alone, or be left out.

    Raises:
        NotFoundError: there is no such file.
        FormatError: it is neither JSON nor TOML.
        SchemaError: a field is unknown or of a wrong kind; every fault is told.
    """
    data = _document(path)
    if not isinstance(data, dict):
        raise SchemaError(str(path), ["it is no object"])
    faults = [f"{key}: is not a field of a composition" for key in sorted(data.keys() - _KNOWN - set(CARD))]
    faults += ["composition: is missing"] if "composition" not in data else []
    adapters = data.get("adapters", {})
    if not isinstance(adapters, dict) or not all(map(_is_pin, adapters.values())):
        faults.append("adapters: is no object of references, or of objects with reference and digest")
    faults += [f"{key}: is no text" for key in ("head", "rules") if not isinstance(data.get(key, ""), str)]
    faults += ["rules: 'adapters' is the only one"] if data.get("rules", "adapters") != "adapters" else []
    if faults:
        raise SchemaError(str(path), faults)
    pins = {word: {"reference": pin} if isinstance(pin, str) else pin for word, pin in adapters.items()}
    return Draft(
        composition=_composition(data["composition"]),
        adapters={word: pin["reference"] for word, pin in pins.items() if pin.get("reference")},
        digests={word: pin["digest"] for word, pin in pins.items() if pin.get("digest")},
        folder=path.parent,
        head=data.get("head", ""),
        rules=data.get("rules", ""),
        fields={key: data[key] for key in CARD if key in data},
    )


def _document(path: Path) -> JSON:
    if not path.is_file():
        raise NotFoundError(f"there is no file {path}", hint="write the composition as text: 'stack(a, b)'")
    if path.stat().st_size > LARGEST:
        raise FormatError(f"{path} is larger than a composition may be ({LARGEST:,} bytes)")
    data = path.read_bytes()
    if path.suffix != ".toml":
        return schemas.loads(data, str(path))
    try:
        found = tomllib.loads(data.decode("utf-8"))
        return json.loads(json.dumps(found, allow_nan=False))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, TypeError, ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not TOML that can be used: {error}") from error


def _is_pin(value: JSON) -> bool:
    return isinstance(value, str) or (
        isinstance(value, dict)
        and value.keys() <= {"reference", "digest"}
        and all(isinstance(text, str) for text in value.values())
    )


def _composition(value: JSON) -> Node:
    return parse(value) if isinstance(value, str) and "(" in value else from_json(value)
