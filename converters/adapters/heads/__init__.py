"""Prediction heads in files of `adapters`: flexible heads of any era, and the heads of transformers' own classes.

kinds.py and converters/class_heads.py know what the documents mean and what the tensors are called; this file reads and
writes them.

Source: adapters 1.3.0, heads/ and head_utils.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ....adapter import JSON
from ....architectures import Architecture, HeadName
from ....errors import FormatError, UnsupportedError, UsageError
from ....methods import HeadConfig, Shapes
from ... import class_heads
from ...values import identical
from ..codec import WRITES, Source
from ..keys import of_an_adapter
from . import kinds

if TYPE_CHECKING:
    import torch

    Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A head, decoded.

    Attributes:
        config: what it computes.
        tensors: canonical key → tensor.
        labels: names of the classes, () where the file has none that fit.
        fixed: name of the class with this fixed head, or "" for a flexible one.
        absent: keys that such a class has for what stands under another key, and that this file lacks.
        copies: keys of the adapter's own weights that stand in the file too, as the prefixes of T5 do.
        base: path in the base model → weights of it that stand in the file too, as those of T5 do.
        others: number of weights of other adapters in the file.
        faults: what is wrong with its keys and sizes.
    """

    config: HeadConfig
    tensors: Tensors
    labels: tuple[str, ...]
    fixed: str
    absent: tuple[str, ...]
    copies: tuple[str, ...]
    base: Tensors
    others: int
    faults: tuple[str, ...]


def decode(document: Mapping[str, JSON], tensors: Tensors, row: Architecture, adapter: Tensors) -> Head:
    """Return the head that a head_config.json and its weights describe.

    adapter: the weights of the adapter beside it, {} where there are none.

    Raises:
        FormatError: a field is missing or has a wrong value.
        UnsupportedError: it is of an unknown kind or class.
    """
    fields = document.get("config")
    if fields is None:
        return _decode_fixed(document, tensors, row, adapter)
    if not isinstance(fields, dict) or not isinstance(document.get("name"), str):
        raise FormatError("head_config.json: expected an object as config and a text as name", hint=kinds.AGAIN)
    draft = kinds.decode(fields, row, {})
    found, faults = _renamed(tensors, _flexible(draft, document["name"]))
    config = kinds.decode(fields, row, _shapes(found))
    labels = _labels(fields.get("label2id"), config.labels)
    return Head(config, found, labels, "", (), (), {}, 0, (*faults, *_miscounted(config, found)))


def encode(config: HeadConfig, labels: Sequence[str], tensors: Tensors, wanted: str, source: Source) -> dict[str, JSON]:
    """Return what a head_config.json has besides the fields of all documents.

    wanted: name of the class whose head it shall be written as if that is one, or "".
    source: the version is that of the document.

    Raises:
        UnsupportedError: no head of the format computes this.
    """
    label2id = {label: number for number, label in enumerate(labels)} or None
    if wanted:
        head = _named(wanted, source.row)
        if config == _fixed(head, source.version, config.labels or None, _shapes(tensors)):
            count = {"num_labels": config.labels} if config.labels else {}
            return {"config": None, "label2id": label2id, "model_class": wanted, "name": None, **count}
    return {"config": {**kinds.encode(config, source.row, _shapes(tensors)), "label2id": label2id}}


def of_class(config: HeadConfig, tensors: Tensors, row: Architecture) -> tuple[str, HeadConfig] | None:
    """Return the class of transformers whose head this is, and how that is written, where no flexible one can be it."""
    try:
        kinds.encode(config, row, _shapes(tensors))
    except UnsupportedError:
        pass
    else:
        return None
    own = {key for key in tensors if key.startswith("head.")}
    for head in row.heads:
        made = _made(head, config.labels, _shapes(tensors)) if class_heads.fits(head, own) else None
        if made is not None and class_heads.answer(made) == class_heads.answer(config):
            return head.classes[0], made
    return None


def _made(head: HeadName, labels: int, have: Shapes) -> HeadConfig | None:
    """Return what the head of a class computes, None where the sizes are not its own."""
    try:
        return _fixed(head, WRITES, labels or None, have)
    except FormatError:
        return None


def meaning(fields: Mapping[str, JSON], row: Architecture, tensors: Tensors) -> dict[str, JSON]:
    """Return field → what a flexible head's `config` says about it, {} if it says nothing right."""
    try:
        config = kinds.decode(fields, row, _shapes(tensors))
    except (FormatError, UnsupportedError):
        return {}
    return {**config.to_json(), "label2id": list(_labels(fields.get("label2id"), config.labels))}


def written(
    config: HeadConfig, tensors: Tensors, document: Mapping[str, JSON], absent: Sequence[str], row: Architecture
) -> dict[str, torch.Tensor]:
    """Return foreign key → tensor of the head that a head_config.json describes.

    absent: keys that its source did not have.
    """
    if document.get("config") is not None:
        names = _flexible(config, document["name"])
        return {name: tensors[key] for key, (name,) in names.items() if key in tensors}
    head = _named(document.get("model_class"), row)
    last = f"head.{len(head.linears) - 1}.bias"
    own = {key: tensor.reshape(1, -1) if head.bias_row and key == last else tensor for key, tensor in tensors.items()}
    return {
        name: own[key]
        for key, names in class_heads.places(head).items()
        for name in names
        if key in own and name not in absent
    }


def _decode_fixed(document: Mapping[str, JSON], tensors: Tensors, row: Architecture, adapter: Tensors) -> Head:
    """Return the head of a class of transformers."""
    head = _named(document.get("model_class"), row)
    places = class_heads.places(head)
    # Such a file has tensors of adapters only where the class saves the whole model with its head.
    is_whole = head.own_base or any(_in_base(key, row) for key in tensors)
    beside = {key: tensor for key, tensor in tensors.items() if is_whole and of_an_adapter(key)}
    tensors = {key: tensor for key, tensor in tensors.items() if key not in beside}
    base = {path: tensor for key, tensor in tensors.items() if (path := _in_base(key, row))}
    found, faults = _renamed({key: t for key, t in tensors.items() if not _in_base(key, row)}, places)
    copies = tuple(key for key in beside if key in adapter)
    faults += [
        f"key {key!r} of the head repeats a tensor of the adapter with other values"
        for key in copies
        if not identical(beside[key], adapter[key])
    ]
    last = f"head.{len(head.linears) - 1}.bias"
    if head.bias_row and last in found and found[last].ndim == 2 and len(found[last]) == 1:
        found[last] = found[last].reshape(-1)
    config = _fixed(head, document.get("version"), document.get("num_labels"), _shapes(found))
    absent = tuple(name for key in found for name in places[key] if name not in tensors)
    labels = _labels(document.get("label2id"), config.labels)
    faults += _miscounted(config, found)
    others = len(beside) - len(copies)
    return Head(config, found, labels, str(document["model_class"]), absent, copies, base, others, tuple(faults))


def _named(name: JSON, row: Architecture) -> HeadName:
    """Return how a class names the layers of its head.

    Raises:
        UnsupportedError: the class is not one whose head is known.
    """
    for head in row.heads:
        if name in head.classes:
            return head
    raise UnsupportedError(
        f"the adapter has the head of a {name}, which this version does not run",
        hint="take head_config.json and its weights out of a copy of the folder to read the adapter alone",
    )


def _fixed(head: HeadName, version: JSON, num_labels: JSON, have: Shapes) -> HeadConfig:
    """Return what the head of a class computes; version: of the library that wrote the file.

    Raises:
        FormatError: a size is wrong.
    """
    inverts = head.inverts or not str(version).startswith("adapters.")
    try:
        return class_heads.decode(head, num_labels, have, inverts=inverts)
    except UsageError as error:
        raise FormatError(f"head_config.json: {error.message}", hint=kinds.AGAIN) from None


def _in_base(key: str, row: Architecture) -> str:
    """Return the path of a weight of the base model, "" if the key is none of a base model."""
    prefix = next((f"{word}." for word in row.prefixes if key.startswith(f"{word}.")), None)
    return "" if prefix is None else row.present(key.removeprefix(prefix))


def _flexible(config: HeadConfig, name: str) -> dict[str, tuple[str, ...]]:
    return {key: (f"heads.{name}.{place}",) for key, place in kinds.places(config).items()}


def _shapes(tensors: Tensors) -> Shapes:
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


def _renamed(tensors: Tensors, names: Mapping[str, Sequence[str]]) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Return canonical key → tensor, and a fault for each key without a name or with another's values."""
    ours = {name: key for key, all_names in names.items() for name in all_names}
    found: dict[str, torch.Tensor] = {}
    faults: list[str] = []
    for key, tensor in tensors.items():
        if key not in ours:
            faults.append(f"key {key!r} is none of the head of head_config.json")
        elif ours[key] in found and not identical(found[ours[key]], tensor):
            faults.append(f"key {key!r} repeats another tensor of the head with other values")
        else:
            found[ours[key]] = tensor
    return found, faults


def _miscounted(config: HeadConfig, tensors: Tensors) -> list[str]:
    """Return a fault if the weights are of another number of classes than the document says."""
    known = config.to_json()
    last = tensors.get(f"head.{known.get('layers', 0) - 1}.weight")
    wanted = known.get("num_labels")
    if last is None or wanted is None or last.shape[0] == wanted:
        return []
    return [f"head_config.json: num_labels is {wanted}, the weights are of {last.shape[0]}"]


def _labels(label2id: JSON, count: int) -> tuple[str, ...]:
    """Return the labels in the order of their ids, or () if the ids are not 0 … count - 1."""
    if not count or not isinstance(label2id, dict) or any(type(number) is not int for number in label2id.values()):
        return ()
    ordered = sorted(label2id, key=lambda label: label2id[label])
    return tuple(ordered) if [label2id[label] for label in ordered] == list(range(count)) else ()
