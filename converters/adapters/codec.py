"""Codec: what one of our methods is called in files of `adapters`, each fact once, for both directions.

A new method in this format is one file with a CODEC and one entry in CODECS (config.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...adapter import JSON, MethodConfig
from ...architectures import Architecture, Sublayer, encoder_decoder

if TYPE_CHECKING:
    import torch

    from ..layers import Run

    Tensors = dict[str, torch.Tensor]

WRITES = "adapters.1.3.0"
"""The version whose spelling is written."""

HOOKED = ("gemma2", "gemma3_text", "modernbert", "phi", "qwen2", "qwen3")
"""Families that the library knows by an interface alone: without prefixes, and without a class with flexible heads."""

Fields = Mapping[str, JSON]
"""One configuration of adapter_config.json: the whole `config`, or a member of a union."""


@dataclass(frozen=True, slots=True)
class Source:
    """What stands around a configuration and changes its meaning.

    Attributes:
        row: the model family.
        version: the `version` of the document, or None before adapter-transformers 3.
        unused_inverse: the file may name an invertible adapter that it does not hold.
    """

    row: Architecture
    version: str | None = None
    unused_inverse: bool = False

    @property
    def old_activations(self) -> bool:
        """Whether activations have the names that they had before adapter-transformers 3."""
        return self.version is None


@dataclass(frozen=True, slots=True)
class Container:
    """Names of the dictionaries of bottlenecks in one era.

    Attributes:
        attention: at the sublayers of attention.
        feed_forward: at the feed-forward sublayers; it names the era in what is kept.
        invertible: of the invertible adapters.
    """

    attention: str
    feed_forward: str
    invertible: str = "invertible_adapters"

    def at(self, part: Sublayer) -> str:
        """Return the name at a sublayer."""
        return self.feed_forward if part.role == "feed_forward" else self.attention


CONTAINERS = (
    Container("adapters", "adapters"),
    Container("attention_text_task_adapters", "layer_text_task_adapters"),
    Container("attention_text_lang_adapters", "layer_text_lang_adapters", "invertible_lang_adapters"),
    Container("attention_adapters", "layer_adapters"),
    Container("language_attention_adapters", "layer_language_adapters"),
)
"""Since adapter-transformers 2; two of 1.x; two before 1.0."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The two names of a tensor. `{i}` in both is the index of a layer; `{name}` is the adapter's name.

    Attributes:
        theirs: key without the prefix of the model class.
        ours: canonical key.
        optional: the theirs of a copy: a file may have it for every layer or lack it, and it is written only where the
            source had it. Ours then stands outside the layers.
        left_out: layers, counted through all stacks, in which the tensor belongs to another configuration.
    """

    theirs: str
    ours: str
    optional: bool = False
    left_out: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Places:
    """What is known of the model when the tensors of a file are divided or joined.

    Attributes:
        row: the model family.
        runs: the layers of each stack, as far as keys name them.
        width: hidden size that the document states, 0 if it does not.
        whole: whether every tensor stands in the file by all names that it must have, and copies name every layer.
    """

    row: Architecture
    runs: tuple[Run, ...]
    width: int = 0
    whole: bool = True


def at_base(row: Architecture, tower: str = "") -> Iterator[tuple[str, bool]]:
    """Yield where files keep what stands at a base model, or at a tower of it, and whether that is a copy.

    Two models in one share it, and each repeats it.
    """
    if row.name != encoder_decoder.ROW.name:
        yield (f"{tower}." if tower else ""), False
        return
    yield "encoder.", False
    yield "", True
    yield from ((f"decoder.{word}.", True) for word in encoder_decoder.DECODERS)


def _same(config: Any, tensors: Tensors, places: Places) -> Tensors:
    return tensors


def _alone(config: Any, fields: dict[str, JSON], source: Source) -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """One row of CODECS.

    Attributes:
        config: the class of our configuration.
        claims: whether a foreign configuration says something that this codec reads; several may claim one.
        decode: foreign configuration → ours. Raises UsageError for wrong values, UnsupportedError.
        encode: ours → foreign, complete. Raises UnsupportedError.
        amends: configuration and the foreign bottleneck in front of it → that with the configuration in it, or None
            where it has to stand alone.
        entries: names of every tensor that the configuration may have on a family; those of absent layers do no harm.
        read: tensors under our names, as they lay in the file → as we keep them.
        write: the reverse; write(read(t, places), places) == t.
    """

    config: type[Any]
    claims: Callable[[Fields], bool]
    decode: Callable[[Fields, Source], MethodConfig]
    encode: Callable[[Any, Source], dict[str, JSON]]
    amends: Callable[[Any, dict[str, JSON], Source], dict[str, JSON] | None] = _alone
    entries: Callable[[Any, Architecture, Container], Iterator[Entry]]
    read: Callable[[Any, Tensors, Places], Tensors] = _same
    write: Callable[[Any, Tensors, Places], Tensors] = _same
