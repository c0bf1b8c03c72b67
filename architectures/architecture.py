"""Architecture: one model family as data.

A row holds names only. It can be written to and read from JSON, so that a family which this package does not know can
be described by its user.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ..errors import SchemaError
from ..sites import Role, Site

ROLES: tuple[Role, ...] = ("attention", "feed_forward", "cross_attention")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sublayer:
    """Names of one sublayer; every path is relative to its layer.

    Attributes:
        role: the sublayer's kind.
        path: names the site in tensor keys.
        output: module whose output is the sublayer's, after its last projection and dropout.
        residual: module whose first argument is the residual stream that enters the sublayer.
        norm: the layer norm after the residual connection, or None in pre-norm models.
        adapters: where files of `adapters` keep the bottlenecks of this site (FORMATS §2.2).
    """

    role: Role
    path: str
    output: str
    residual: str
    norm: str | None = None
    adapters: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """A stack of equal layers.

    Attributes:
        path: path of one layer, with `{i}` for its index.
        sublayers: in the order of the forward pass.
        norms: layer norms of a layer, relative to it.
        width: attribute of the model's configuration that holds the hidden size.
    """

    path: str
    sublayers: tuple[Sublayer, ...]
    norms: tuple[str, ...]
    width: str = "hidden_size"

    @property
    def container(self) -> str:
        """Path of the module that holds the layers."""
        return self.path.partition(".{i}")[0]

    def sites(self, layer: str, index: int, width: int) -> tuple[Site, ...]:
        """Return the residual sites of one layer.

        layer: path of the layer; index: its number through all stacks; width: its hidden size.
        """
        return tuple(
            Site(
                path=f"{layer}.{part.path}",
                role=part.role,
                layer=index,
                width=width,
                output=f"{layer}.{part.output}",
                residual=f"{layer}.{part.residual}",
                norm=None if part.norm is None else f"{layer}.{part.norm}",
            )
            for part in self.sublayers
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadName:
    """How a class with a fixed head names the linear layers of that head.

    Attributes:
        classes: class names of transformers, e.g. `BertForSequenceClassification`.
        linears: module paths of the linear layers, in the order of the forward pass.
        pooling: what the first one reads: `first` token, or the `pooler`'s output.
        activation: between the linear layers, or None.
    """

    classes: tuple[str, ...]
    linears: tuple[str, ...]
    pooling: str
    activation: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """One model family.

    Attributes:
        name: name of the row.
        model_types: values of `model_type` in config.json that it covers.
        prefixes: words that classes with a head put in front of a module path (`bert.`).
        layers: the stacks of layers, in the order of the forward pass.
        norms: layer norms outside the layers.
        heads: the classification heads of its classes.
        pooler: module whose output a head with pooling `pooler` reads, or None.
    """

    name: str
    model_types: tuple[str, ...]
    prefixes: tuple[str, ...]
    layers: tuple[Layers, ...]
    norms: tuple[str, ...] = ()
    heads: tuple[HeadName, ...] = ()
    pooler: str | None = None


def to_json(row: Architecture) -> dict[str, Any]:
    """Return a row as a JSON object; from_json(to_json(row)) == row."""
    data: dict[str, Any] = _lists(dataclasses.asdict(row))
    return data


def from_json(data: dict[str, Any]) -> Architecture:
    """Return the row that a JSON object describes.

    Raises:
        SchemaError: a field is missing, unknown, or has the wrong type; every fault is listed.
    """
    faults: list[str] = []
    row: Architecture | None = _record(Architecture, data, "architecture", faults)
    if row is None:
        raise SchemaError("the description of the architecture", faults)
    return row


_PARTS: dict[tuple[type, str], type] = {
    (Architecture, "layers"): Layers,
    (Architecture, "heads"): HeadName,
    (Layers, "sublayers"): Sublayer,
}


def _record(cls: Any, data: Any, path: str, faults: list[str]) -> Any:
    """Return a record of type cls made from data, or None with what is wrong put into faults."""
    if not isinstance(data, dict):
        faults.append(f"{path}: expected an object")
        return None
    fields = {f.name: f for f in dataclasses.fields(cls)}
    before = len(faults)
    faults += [f"{path}.{name}: unknown field" for name in sorted(set(data) - set(fields))]
    values = {}
    for name, f in fields.items():
        if name in data:
            values[name] = _value(cls, f, data[name], f"{path}.{name}", faults)
        elif f.default is dataclasses.MISSING:
            faults.append(f"{path}.{name}: missing")
    return cls(**values) if len(faults) == before else None


def _value(cls: type, field: dataclasses.Field[Any], value: Any, path: str, faults: list[str]) -> Any:
    if str(field.type).startswith("tuple"):
        if not isinstance(value, list):
            faults.append(f"{path}: expected a list")
            return ()
        part = _PARTS.get((cls, field.name))
        if part is not None:
            return tuple(_record(part, item, f"{path}[{i}]", faults) for i, item in enumerate(value))
        faults += [f"{path}[{i}]: expected a text" for i, item in enumerate(value) if not isinstance(item, str)]
        return tuple(value)
    if field.name == "role" and value not in ROLES:
        faults.append(f"{path}: expected one of {', '.join(ROLES)}")
    elif not isinstance(value, str) and not (value is None and "None" in str(field.type)):
        faults.append(f"{path}: expected a text")
    return value


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, tuple) else value
