"""Format: the contract between a file format and the rest of the house.

`read → decode → Adapter → encode → write`: read and write touch the disk and nothing else; decode and encode are pure
functions between what the files hold (Parts) and the Adapter. Laws, for what a format covers:

    encode(decode(parts)) == parts      documents value for value, tensors bit for bit
    decode(encode(adapter)) == adapter  but for its provenance
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..adapter import JSON, Adapter
from ..architectures import Architecture
from ..sites import Layout

if TYPE_CHECKING:
    import torch

    from .options import Option
    from .outline import Outline


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What the files of one adapter hold, before it is known what it means.

    Attributes:
        documents: name of a JSON document → its value.
        tensors: name of a group of tensors (`adapter`, `head`) → key → tensor.
        digest: `sha256:<hex>` of the source, or "" where nothing was read.
        name: what the source is called, for formats that give adapters no name, or "".
        row: the model family that the adapter is to meet, for formats that do not say theirs, or None.
        options: what the caller says of the files because they do not say it themselves; see Format.options.
        base: the base model that the adapter is to meet, if known.
    """

    documents: Mapping[str, JSON]
    tensors: Mapping[str, Mapping[str, torch.Tensor]] = field(default_factory=dict)
    digest: str = ""
    name: str = ""
    row: Architecture | None = None
    options: Mapping[str, JSON] = field(default_factory=dict)
    base: KnownBase | None = None


class KnownBase(Protocol):
    """What a format may ask of the base model, where that is known."""

    @property
    def layout(self) -> Layout:
        """Its places."""
        ...

    def linear(self, path: str) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the weight (outputs, inputs[, kernel]) and the bias of a linear map, None where it has none."""
        ...

    def activation(self) -> str:
        """Return what its configuration calls the activation of the feed-forward blocks, "" where it does not."""
        ...

    def turned(self, path: str, keys: torch.Tensor, places: int) -> torch.Tensor:
        """Return keys (length, heads · size) of an attention as they are so many places further on.

        Raises:
            UnsupportedError: the attention does not turn its keys by their positions.
        """
        ...

    def heads(self) -> tuple[int, int]:
        """Return how many heads queries and keys have in each attention.

        Raises:
            UnsupportedError: not every attention has the same.
        """
        ...


def _same(adapter: Adapter, base: KnownBase | None) -> Adapter:
    return adapter


def _counted(adapter: Adapter) -> None:
    """Leave the account to decode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One row of FORMATS.

    Attributes:
        name: the format's name on the command line and in provenance.
        detect: whether a path looks like this format; cheap, and True does not mean that it is correct.
        read: path → what its files hold. Raises NotFoundError, FormatError.
        decode: that → the adapter. Raises FormatError with every fault, UnsupportedError.
        account: holds a decoded adapter's tensors against its configuration, where decoding does not do it on the way.
            Raises FormatError with every fault.
        encode: the adapter → what its files would hold. Raises UnsupportedError with every reason.
        rewritten: the adapter and, if known, the base model → one that computes the same, nearer to what the
            format can say. What writing does before it encodes.
        write: writes that to a path and returns it; overwrites only if told to. Raises StateError.
        files: that → name and size in bytes of every file that write would write; "" is a path that is a file itself.
            None where that is not known before.
        outline: path → the same as read, with outlines in place of tensors. Raises as read, and NeedsValues where the
            tensors do not lie in files of safetensors. None for formats that have none such.
        advice: the adapter, what its files hold and where they lie → the words that a server is to be started with.
            None where there is none to give.
        options: what a caller may or must say besides, by name; see options.py.
    """

    name: str
    detect: Callable[[Path], bool]
    read: Callable[[Path], Parts]
    decode: Callable[[Parts], Adapter]
    encode: Callable[[Adapter], Parts]
    write: Callable[[Parts, Path, bool], Path]
    account: Callable[[Adapter], None] = _counted
    rewritten: Callable[[Adapter, KnownBase | None], Adapter] = _same
    files: Callable[[Parts], Mapping[str, int]] | None = None
    outline: Callable[[Path], Outline] | None = None
    advice: Callable[[Adapter, Parts, Path], tuple[str, ...]] | None = None
    options: Mapping[str, Option] = field(default_factory=dict)
