"""Classification heads in files of `adapters`: flexible heads of any era, and the heads of transformers' own classes.

A flexible head is a sequence of dropout, linear, activation, dropout, linear …, so its k-th linear layer has the key
`heads.<name>.<1 + 3k>`, or `1 + 2k` without activation. A class with a fixed head has the keys of its modules, which
the architecture's row lists.

Source: adapters 1.3.0, heads/base.py and head_utils.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...adapter import JSON
from ...architectures import Architecture, HeadName
from ...errors import FormatError, UnsupportedError, UsageError
from ...methods import ClassificationHeadConfig
from ...methods.config import config_from_json

if TYPE_CHECKING:
    import torch

HEAD_TYPE = "classification"

DEFAULTS: Mapping[str, JSON] = {
    "num_labels": 2,
    "layers": 2,
    "activation_function": "tanh",
    "use_pooler": False,
    "bias": True,
    "dropout_prob": None,
}
"""What a field means that a flexible head's configuration leaves out."""

POOLINGS = ((True, "pooler"), (False, "first"))
"""use_pooler, ours."""


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A head, decoded.

    Attributes:
        config: what it computes.
        tensors: canonical key → tensor.
        labels: names of the classes, () where the file has none that fit.
        fixed: name of the class with this fixed head, or "" for a flexible one.
        faults: what is wrong with its keys.
    """

    config: ClassificationHeadConfig
    tensors: Mapping[str, torch.Tensor]
    labels: tuple[str, ...]
    fixed: str
    faults: tuple[str, ...]


def decode(document: Mapping[str, JSON], tensors: Mapping[str, torch.Tensor], row: Architecture) -> Head:
    """Return the head that a head_config.json and its weights describe.

    Raises:
        FormatError: a field is missing or has a wrong value.
        UnsupportedError: it is no classification head, or of an unknown class.
    """
    if document.get("config") is None:
        return _decode_fixed(document, tensors, row)
    fields = document["config"]
    if not isinstance(fields, dict) or not isinstance(document.get("name"), str):
        raise FormatError("head_config.json: expected an object as config and a text as name", hint=_AGAIN)
    config = meaning(fields)
    found, faults = _renamed(tensors, keys(config, document, row))
    return Head(config, found, _labels(fields.get("label2id"), config.num_labels), "", faults)


def encode(config: ClassificationHeadConfig, labels: Sequence[str]) -> dict[str, JSON]:
    """Return the `config` of a flexible head's head_config.json.

    Raises:
        UnsupportedError: such a head cannot pool like this.
    """
    pooler = {ours: theirs for theirs, ours in POOLINGS}.get(config.pooling)
    if pooler is None:
        raise UnsupportedError(
            f"the adapters format has no head with pooling {config.pooling!r}", hint="write it in the native format"
        )
    return {
        "activation_function": config.activation_function,
        "bias": config.bias,
        "dropout_prob": config.dropout_prob,
        "head_type": HEAD_TYPE,
        "label2id": _label2id(labels),
        "layers": config.layers,
        "num_labels": config.num_labels,
        "use_pooler": pooler,
    }


def fixed_fields(
    config: ClassificationHeadConfig, labels: Sequence[str], fixed: str, row: Architecture
) -> dict[str, JSON] | None:
    """Return what a head_config.json has besides for the class called fixed, or None if that has another head."""
    head = _fixed(fixed, row)
    if head is None or config != _fixed_config(head, config.num_labels, config.bias):
        return None
    return {"label2id": _label2id(labels), "model_class": fixed, "name": None, "num_labels": config.num_labels}


def keys(config: ClassificationHeadConfig, document: Mapping[str, JSON], row: Architecture) -> dict[str, str]:
    """Return foreign key → canonical key of the head that a head_config.json describes."""
    if document.get("config") is not None:
        return _keys([f"heads.{document['name']}.{place}" for place in _places(config)])
    head = _fixed(document.get("model_class"), row)
    return _keys(head.linears if head else ())


def meaning_or_nothing(fields: Mapping[str, JSON]) -> dict[str, JSON]:
    """Return field → what a flexible head's `config` says about it, {} if it says nothing right."""
    try:
        config = meaning(fields)
    except (FormatError, UnsupportedError):
        return {}
    use_pooler = {ours: theirs for theirs, ours in POOLINGS}[config.pooling]
    said = {name: value for name, value in config.to_json().items() if name in DEFAULTS}
    labels = list(_labels(fields.get("label2id"), config.num_labels))
    return {**said, "use_pooler": use_pooler, "label2id": labels}


def meaning(fields: Mapping[str, JSON]) -> ClassificationHeadConfig:
    """Return the configuration that a flexible head's `config` describes.

    Raises:
        FormatError: a field has a wrong value.
        UnsupportedError: it is no classification head.
    """
    kind = fields.get("head_type")
    if kind != HEAD_TYPE:
        raise UnsupportedError(
            f"the adapter has a head of type {kind!r}, which this version does not run",
            hint="take head_config.json and its weights out of a copy of the folder to read the adapter alone",
        )
    values = {name: fields.get(name, default) for name, default in DEFAULTS.items()}
    pooler = values.pop("use_pooler")
    if type(pooler) is not bool:
        raise FormatError("head_config.json: use_pooler must be true or false", hint=_AGAIN)
    return _config({**values, "pooling": dict(POOLINGS)[pooler]})


_AGAIN = "correct head_config.json, or save the head again with the library that made it"


def _decode_fixed(document: Mapping[str, JSON], tensors: Mapping[str, torch.Tensor], row: Architecture) -> Head:
    name = document.get("model_class")
    head = _fixed(name, row)
    if head is None or not isinstance(name, str):
        raise UnsupportedError(
            f"the adapter has the head of a {name}, which this version does not run",
            hint="take head_config.json and its weights out of a copy of the folder to read the adapter alone",
        )
    last = f"{head.linears[-1]}.weight"
    rows = tensors[last].shape[0] if last in tensors and tensors[last].ndim else 2
    config = _fixed_config(head, document.get("num_labels", rows), f"{head.linears[-1]}.bias" in tensors)
    found, faults = _renamed(tensors, _keys(head.linears))
    return Head(config, found, _labels(document.get("label2id"), config.num_labels), name, faults)


def _fixed(name: JSON, row: Architecture) -> HeadName | None:
    return next((head for head in row.heads if name in head.classes and head.kind == HEAD_TYPE), None)


def _fixed_config(head: HeadName, num_labels: JSON, bias: bool) -> ClassificationHeadConfig:
    return _config(
        {
            "num_labels": num_labels,
            "layers": len(head.linears),
            "activation_function": head.activation,
            "pooling": head.pooling,
            "bias": bias,
        }
    )


def _config(values: Mapping[str, JSON]) -> ClassificationHeadConfig:
    try:
        return config_from_json(ClassificationHeadConfig, {"method": ClassificationHeadConfig.method, **values})
    except UsageError as error:
        raise FormatError(f"head_config.json: {error.message}", hint=_AGAIN) from None


def _places(config: ClassificationHeadConfig) -> list[int]:
    """Return the places of the linear layers in a flexible head's sequence."""
    step = 3 if config.activation_function else 2
    return [1 + step * k for k in range(config.layers)]


def _keys(linears: Sequence[str]) -> dict[str, str]:
    """Return foreign key → canonical key."""
    return {f"{path}.{leaf}": f"head.{k}.{leaf}" for k, path in enumerate(linears) for leaf in ("weight", "bias")}


def _renamed(
    tensors: Mapping[str, torch.Tensor], names: Mapping[str, str]
) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """Return canonical key → tensor, and a fault for each key without a name."""
    found = {names[key]: tensor for key, tensor in tensors.items() if key in names}
    unknown = tuple(f"key {key!r} is none of the head of head_config.json" for key in tensors if key not in names)
    return found, unknown


def _label2id(labels: Sequence[str]) -> dict[str, int] | None:
    return {label: number for number, label in enumerate(labels)} or None


def _labels(label2id: JSON, count: int) -> tuple[str, ...]:
    """Return the labels in the order of their ids, or () if the ids are not 0 … count - 1."""
    if not isinstance(label2id, dict) or any(type(number) is not int for number in label2id.values()):
        return ()
    ordered = sorted(label2id, key=lambda label: label2id[label])
    return tuple(ordered) if [label2id[label] for label in ordered] == list(range(count)) else ()
