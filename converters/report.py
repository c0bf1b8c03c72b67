"""What a conversion did, told by what was read and what is written.

Codecs say nothing of what they do. A tensor of the target with the bytes of one of the source was carried over, under
its name or another; a tensor with other bytes was transformed. A field that reading kept aside is in `extra`; one that
only our note in the target tells is one that the target has no word for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..adapter import JSON, Adapter, to_json
from .format import Parts
from .values import octets

if TYPE_CHECKING:
    import torch

NOTE = "adapterhub"
"""What a foreign format has no word for stands under this key, in a document or as one."""

MOST_ENTRIES = 50
"""An object with more entries, such as one of labels, counts as one field."""

DEEPEST = 6
"""So many objects inside each other are told apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One end of a conversion.

    Attributes:
        format: name of the format.
        path: where it lies.
        digest: `sha256:<hex>` of a source, "" where it is not known.
        version: version that a source names.
        files: file → its size in bytes, for a target; "" is a target that is one file.
    """

    format: str
    path: str
    digest: str = ""
    version: str = ""
    files: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensors:
    """What became of the tensors.

    Attributes:
        read: how many the source has.
        written: how many the target has.
        carried: how many have their name and their bytes still.
        renamed: name in the target → name in the source, of tensors with the same bytes.
        transformed: names in the target of tensors whose bytes are new.
        consumed: names in the source of tensors whose bytes are not in the target.
    """

    read: int
    written: int
    carried: int
    renamed: Mapping[str, str] = field(default_factory=dict)
    transformed: tuple[str, ...] = ()
    consumed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """What became of the fields of the source's documents, each `<document>: <field>`.

    Attributes:
        carried: those that are understood, and said in the words of the target or beside them.
        kept: those that are not, or were spelled in an unusual way; `extra` keeps them for the way back.
        beside: what the target has no words for: a note of ours in it tells it, which other programs do not read.
    """

    carried: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """Both sides, run on one base model.

    Attributes:
        base: the base model.
        random: whether it is a tiny one with random weights, because the adapter's own is not at hand.
        output: the output that was compared.
        difference: largest absolute difference.
        effect: largest absolute difference that the source makes to the base model's output, None where it has a head.
        tolerance: what the difference had to stay below, None where the conversion is an approximation.
    """

    base: str
    random: bool
    output: str
    difference: float
    effect: float | None = None
    tolerance: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerError:
    """How well a linear map is approximated.

    Attributes:
        path: the map.
        rank: ranks that are used for it.
        norm: Frobenius norm of the change that was to be approximated.
        error: Frobenius norm of what is missing of it, in relation to norm.
    """

    path: str
    rank: int
    norm: float
    error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a conversion did.

    Attributes:
        adapter: the adapter's name.
        methods: what it computes, in the target; what the adapters of a composition compute.
        composition: of a composition, how its adapters work together; else "".
        architecture: the model family.
        source, target: both ends.
        tensors, fields: what became of them.
        exact: whether the target computes what the source does, but for rounding.
        difference: largest difference of outputs that was ever measured on its way, None where none was.
        layers: for an approximation, how good it is at each linear map.
        verified: what came of running both sides, None where they were not run.
        streamed: whether the bytes were copied from file to file, without torch.
        written: whether the target is on the disk; not after a dry run.
        advice: the words that a server of the target is to be started with, () where there are none.
    """

    adapter: str
    methods: tuple[str, ...]
    architecture: str
    source: Side
    target: Side
    tensors: Tensors
    fields: Fields
    composition: str = ""
    exact: bool = True
    difference: float | None = None
    layers: tuple[LayerError, ...] = ()
    verified: Verified | None = None
    streamed: bool = False
    written: bool = True
    advice: tuple[str, ...] = ()

    def to_json(self) -> dict[str, JSON]:
        """Return the report as JSON values."""
        data = to_json(self)
        defaults = {"exact": self.exact, "streamed": self.streamed, "written": self.written}
        return {**data, **defaults, "difference": self.difference}


def tensors_of(source: Parts, target: Parts) -> Tensors:
    """Return what became of the tensors between source and target.

    What a tensor of the target is made of is looked for first where it lies in memory, then by its values.
    """
    old, new = _labelled(source), _labelled(target)
    places: dict[Any, list[str]] = {}
    for name, tensor in old.items():
        places.setdefault(_place(tensor), []).append(name)
    origins = {name: _origin(name, tensor, places) for name, tensor in new.items()}
    left = [name for name, origin in origins.items() if origin is None]
    origins |= _by_values(old, {name: new[name] for name in left})
    found = {name: origin for name, origin in origins.items() if origin is not None}
    kept = {_place(old[origin]) for origin in found.values()}
    values = {_values(old[origin]) for origin in found.values()} if left else set()
    consumed = [
        name
        for name, tensor in old.items()
        if _place(tensor) not in kept and not (values and _values(tensor) in values)
    ]
    return Tensors(
        read=len(old),
        written=len(new),
        carried=sum(name == origin for name, origin in found.items()),
        renamed={name: origin for name, origin in found.items() if name != origin},
        transformed=tuple(name for name in new if name not in found),
        consumed=tuple(consumed),
    )


def fields_of(adapter: Adapter, format_name: str, source: Parts, target: Parts) -> Fields:
    """Return what became of the fields of the documents; adapter is what was read from the source."""
    kept = set(_set_aside(adapter.manifest.extra.get(format_name, {})))
    every = [path for path in _leaves(source.documents) if f": {NOTE}" not in path and not path.startswith(f"{NOTE}: ")]
    aside = [path for path in every if kept & set(_words(path))]
    return Fields(
        carried=tuple(path for path in every if path not in aside),
        kept=tuple(aside),
        beside=tuple(sorted(_noted(target.documents))),
    )


def without_note(parts: Parts) -> Parts:
    """Return parts without what only we read in them."""
    documents = {
        file: {key: value for key, value in document.items() if key != NOTE} if isinstance(document, dict) else document
        for file, document in parts.documents.items()
        if file != NOTE
    }
    return replace(parts, documents=documents)


def _labelled(parts: Parts) -> dict[str, torch.Tensor]:
    """Return name → tensor through all groups; where two groups have the same name, with the group's in front."""
    found: dict[str, torch.Tensor] = {}
    for group, tensors in parts.tensors.items():
        found |= {f"{group}: {name}" if name in found else name: tensor for name, tensor in tensors.items()}
    return found


def _place(tensor: torch.Tensor) -> tuple[int, int]:
    """Return where the values of a tensor lie; empty ones lie nowhere and are told apart by themselves."""
    size = tensor.numel() * tensor.element_size()
    return (tensor.data_ptr() if size and tensor.is_contiguous() else -id(tensor), size)


def _origin(name: str, tensor: torch.Tensor, places: Mapping[Any, list[str]]) -> str | None:
    names = places.get(_place(tensor), ())
    return name if name in names else next(iter(names), None)


def _by_values(old: Mapping[str, torch.Tensor], new: Mapping[str, torch.Tensor]) -> dict[str, str | None]:
    """Return name in the target → name in the source of a tensor with the same bytes, None where there is none."""
    if not new:
        return {}
    known: dict[bytes, list[str]] = {}
    for name, tensor in old.items():
        known.setdefault(_values(tensor), []).append(name)
    found: dict[str, str | None] = {}
    for name, tensor in new.items():
        names = known.get(_values(tensor), [])
        found[name] = name if name in names else next(iter(names), None)
    return found


def _values(tensor: torch.Tensor) -> bytes:
    """Return a digest of the dtype and the bytes of a tensor."""
    import hashlib

    found = hashlib.sha256(str(tensor.dtype).encode())
    if tensor.numel():
        found.update(octets(tensor).numpy().data)
    return found.digest()


def _leaves(documents: Mapping[str, JSON]) -> Iterator[str]:
    """Yield `<document>: <field>` for every field of the documents, inner ones with dots."""
    for file, document in documents.items():
        yield from (f"{file}: {path}" for path in _paths(document, "", DEEPEST))


def _paths(value: JSON, path: str, depth: int) -> Iterator[str]:
    inner: Iterable[tuple[str, JSON]] = ()
    if depth and isinstance(value, dict) and 0 < len(value) <= MOST_ENTRIES:
        inner = ((f"{path}.{key}" if path else str(key), item) for key, item in value.items())
    elif depth and isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        inner = ((f"{path}[{place}]", item) for place, item in enumerate(value[:MOST_ENTRIES]))
    else:
        yield path
    for name, item in inner:
        yield from _paths(item, name, depth - 1)


def _words(path: str) -> list[str]:
    """Return the names of a field and of those that it lies in, without places in lists."""
    return [word.partition("[")[0] for word in path.partition(": ")[2].split(".")]


def _set_aside(value: JSON) -> Iterator[str]:
    """Yield the names of the fields in what reading kept of a document's spelling."""
    if isinstance(value, dict):
        inner = value.get("set")
        yield from inner if isinstance(inner, dict) else ()
        for key, item in value.items():
            if key != "set":
                yield from _set_aside(item)
    elif isinstance(value, list):
        for item in value:
            yield from _set_aside(item)


def _noted(documents: Mapping[str, JSON]) -> Iterator[str]:
    """Yield what only our note in a document, or beside the documents, tells."""
    for file, document in documents.items():
        note = document if file == NOTE else document.get(NOTE) if isinstance(document, dict) else None
        yield from (key for key in note if key not in ("provenance", "extra")) if isinstance(note, dict) else ()
