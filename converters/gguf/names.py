"""What llama.cpp calls the maps of a model family, and in which order it keeps their rows.

A name is `blk.<layer>.<projection>.weight`; the row of the family says which module that projection is. Queries and
keys of Llama and Mistral are turned in pairs of neighbours there, and in transformers in halves of a head, so that
their rows are in another order.

Source: the package gguf 0.19.0, constants.py and tensor_mapping.py; llama.cpp, convert_hf_to_gguf.py
(`LlamaModel.permute`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...architectures import ARCHITECTURES, Architecture, Layers
from ...sites import Projection

if TYPE_CHECKING:
    from torch import Tensor

PROJECTIONS: Mapping[tuple[Projection, ...], str] = {
    ("query",): "attn_q",
    ("key",): "attn_k",
    ("value",): "attn_v",
    ("query", "key", "value"): "attn_qkv",
    ("intermediate",): "ffn_up",
    ("gate",): "ffn_gate",
    ("output",): "ffn_down",
}
"""What a linear map is → what llama.cpp calls it; in a cross-attention with `cross_` in front."""

OUTPUT, HEAD = "output", "lm_head"
"""What llama.cpp and transformers call the output embeddings."""


@dataclass(frozen=True, slots=True)
class Family:
    """A model family in llama.cpp.

    Attributes:
        arch: value of `general.architecture`.
        blocks: for each stack of layers what stands in front of a projection.
        turned: projections whose rows are in another order.
        output: what the last map of an attention is called.
        crosses: whether llama.cpp runs its cross-attentions.
    """

    arch: str
    blocks: tuple[str, ...] = ("blk.{i}.",)
    turned: tuple[str, ...] = ()
    output: str = "attn_output"
    crosses: bool = False


_TURNED = ("attn_q", "attn_k")

FAMILIES: Mapping[str, Family] = {
    "llama": Family("llama", turned=_TURNED),
    "mistral": Family("llama", turned=_TURNED),
    "qwen2": Family("qwen2"),
    "qwen3": Family("qwen3"),
    "gemma2": Family("gemma2"),
    "gemma3_text": Family("gemma3"),
    "phi": Family("phi2"),
    "gpt2": Family("gpt2"),
    "bert": Family("bert"),
    "roberta": Family("bert"),
    "xlm-roberta": Family("bert"),
    "distilbert": Family("bert"),
    "t5": Family("t5", blocks=("enc.blk.{i}.", "dec.blk.{i}."), output="attn_o", crosses=True),
}
"""Name of a row → the family in llama.cpp."""


def rows_of(arch: str) -> list[Architecture]:
    """Return the rows of a value of `general.architecture`."""
    return [row for row in ARCHITECTURES if row.name in FAMILIES and FAMILIES[row.name].arch == arch]


def theirs(row: Architecture, path: str) -> str | None:
    """Return what llama.cpp calls a module path of ours, without `.weight`; None where it does not adapt it."""
    if path == HEAD:
        return OUTPUT
    family = FAMILIES[row.name]
    for stack, block in zip(row.layers, family.blocks, strict=True):
        index = stack.index(path)
        if index is not None:
            name = _named(stack, family).get(path.removeprefix(f"{stack.layer(index)}."))
            return None if name is None else block.format(i=index[0]) + name
    return None


def ours(row: Architecture, name: str) -> str | None:
    """Return the module path of ours that llama.cpp calls so, None where there is none.

    Law: theirs(row, ours(row, name)) == name.
    """
    if name == OUTPUT:
        return HEAD
    family = FAMILIES[row.name]
    for stack, block in zip(row.layers, family.blocks, strict=True):
        before, after = block.split("{i}")
        number, dot, rest = name.removeprefix(before).partition(after)
        if not (name.startswith(before) and dot and number.isascii() and number.isdigit() and len(number) < 6):
            continue
        path = next((path for path, known in _named(stack, family).items() if known == rest), None)
        if path is not None and number == str(int(number)):
            return f"{stack.layer((int(number),))}.{path}"
    return None


def _named(stack: Layers, family: Family) -> dict[str, str]:
    """Return path in a layer → what llama.cpp calls it."""
    found = {}
    for path, (roles, cross) in stack.projections().items():
        name = family.output if roles == ("attention_output",) else PROJECTIONS.get(roles)
        if name is not None and (family.crosses or not cross):
            found[path] = f"cross_{name}" if cross else name
    return found


def in_pairs(rows: Tensor, heads: int) -> Tensor:
    """Return rows (heads · size, …) in the order of llama.cpp: the two of a pair side by side."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def in_halves(rows: Tensor, heads: int) -> Tensor:
    """Return rows (heads · size, …) in the order of transformers; in_halves(in_pairs(t, n), n) == t."""
    return rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)
