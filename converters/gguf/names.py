"""What llama.cpp calls the maps of a model family, and in which order it keeps their rows.

A name is `blk.<layer>.<projection>.weight`; the row of the family says which module that projection is. Queries and
keys of Llama and Mistral are turned in pairs of neighbours there, and in transformers in halves of a head, so that
their rows are in another order.

Source: the package gguf 0.19.0, constants.py and tensor_mapping.py; llama.cpp, convert_hf_to_gguf.py
(`LlamaModel.permute`).
"""

from __future__ import annotations

import re
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
    ("attention_output",): "attn_output",
    ("intermediate",): "ffn_up",
    ("gate",): "ffn_gate",
    ("output",): "ffn_down",
}
"""What a linear map is → what llama.cpp calls it. Cross-attentions are not there: it runs them in T5 alone."""

OUTPUT, HEAD = "output", "lm_head"
"""What llama.cpp and transformers call the output embeddings."""


_NAME = re.compile(r"blk\.(0|[1-9][0-9]{0,4})\.([a-z_]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Family:
    """A model family in llama.cpp.

    Attributes:
        arch: value of `general.architecture`.
        turned: projections whose rows are in another order.
    """

    arch: str
    turned: tuple[str, ...] = ()


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
}
"""Name of a row → the family in llama.cpp."""


def rows_of(arch: str) -> list[Architecture]:
    """Return the rows of a value of `general.architecture`."""
    return [row for row in ARCHITECTURES if row.name in FAMILIES and FAMILIES[row.name].arch == arch]


def theirs(row: Architecture, path: str) -> str | None:
    """Return what llama.cpp calls a module path of ours, without `.weight`; None where it does not adapt it."""
    if path == HEAD:
        return OUTPUT
    (stack,) = row.layers
    index = stack.index(path)
    name = None if index is None else _named(stack).get(path.removeprefix(f"{stack.layer(index)}."))
    return None if index is None or name is None else f"blk.{index[0]}.{name}"


def ours(row: Architecture, name: str) -> str | None:
    """Return the module path of ours that llama.cpp calls so, None where there is none.

    Law: theirs(row, ours(row, name)) == name.
    """
    if name == OUTPUT:
        return HEAD
    match = _NAME.fullmatch(name)
    (stack,) = row.layers
    path = None if match is None else next((path for path, known in _named(stack).items() if known == match[2]), None)
    return None if match is None or path is None else f"{stack.layer((int(match[1]),))}.{path}"


def _named(stack: Layers) -> dict[str, str]:
    """Return path in a layer → what llama.cpp calls it."""
    found = {}
    for path, (roles, cross) in stack.projections().items():
        name = None if cross else PROJECTIONS.get(roles)
        if name is not None:
            found[path] = name
    return found


def in_pairs(rows: Tensor, heads: int) -> Tensor:
    """Return rows (heads · size, …) in the order of llama.cpp: the two of a pair side by side."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def in_halves(rows: Tensor, heads: int) -> Tensor:
    """Return rows (heads · size, …) in the order of transformers; in_halves(in_pairs(t, n), n) == t."""
    return rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)
