"""Copies of tensors in files of PEFT that belong to tied weights: the embeddings, and an output layer that shares them.

With `ensure_weight_tying`, and for trained tokens always, PEFT keeps one tensor for both and saves it twice, although
the configuration names only the embeddings. What a file says twice must be the same.

Source: PEFT 0.21.2, tuners/tuners_utils.py and tuners/lora/model.py (`_add_targets_to_tie`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ...adapter import JSON
from ...architectures.architecture import named
from ..values import identical
from .families import Naming
from .keys import Split
from .targets import TRAINABLE_TOKENS

if TYPE_CHECKING:
    import torch

ACROSS = (("lora_embedding_A", "lora_B"), ("lora_embedding_B", "lora_A"))
"""Leaves at an embedding, and those that are their transposes at the output layer."""


def faults(document: Mapping[str, JSON], found: Split, names: Naming) -> list[str]:
    """Return a sentence for each pair of copies that differ."""
    own = [*_texts(document.get("target_modules")), *_texts(document.get("modules_to_save"))]
    if document.get("peft_type") == TRAINABLE_TOKENS:
        return _rows(own, found)
    if document.get("ensure_weight_tying") is not True:
        return []
    return [
        f"{out} and {table} are tied, and their tensors differ"
        for out, one, table, other in _pairs(found, names)
        if out not in own and not identical(one, other)
    ]


def _rows(own: list[str], found: Split) -> list[str]:
    """Return a sentence for each copy of trained rows that differs from those of the modules that are named."""
    tables = {path: tensor for (path, _), tensor in found.own.items()}
    wanted = [path for path in tables if any(path == name or path.endswith(f".{name}") for name in own)]
    return [
        f"{path} and {wanted[0]} are tied, and their tensors differ"
        for path, tensor in tables.items()
        if wanted and path not in wanted and not identical(tensor, tables[wanted[0]])
    ]


def _texts(value: JSON) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _pairs(found: Split, names: Naming) -> Iterator[tuple[str, torch.Tensor, str, torch.Tensor]]:
    """Yield (output layer, its tensor, embedding, what that tensor has to be)."""
    outer = sorted({path for path, _ in found.own if path.partition(".")[0] in names.outer})
    tables = sorted({path for path, leaf in found.own if leaf == ACROSS[0][0]})
    for out in outer:
        for table in tables:
            for theirs, ours in ACROSS:
                if (out, ours) in found.own and (table, theirs) in found.own:
                    yield out, found.own[out, ours], table, found.own[table, theirs].t()
    saved = {key.removesuffix(".weight"): tensor for key, tensor in found.saved.items() if key.endswith(".weight")}
    words = [path for path in saved if any(named(one.tokens or "", names.ours(path)) for one in names.row.embeddings)]
    for out in (path for path in saved if path.partition(".")[0] in names.outer):
        for table in words:
            yield out, saved[out], table, saved[table]
