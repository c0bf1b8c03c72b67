"""Tensor keys in files of PEFT.

A key is `base_model.model.<path in the wrapped model>.<leaf>`; of what all modules share, `base_model.<name>`. The
leaves of a type are told by its codec; what has none of them was saved along: heads, norms, biases, embeddings.

Source: PEFT 0.21.2, utils/save_and_load.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .codec import Codec

if TYPE_CHECKING:
    import torch

WRAPPED = "base_model.model."
SHARED = "base_model."


@dataclass(slots=True)
class Split:
    """The tensors of a file by what they are.

    Attributes:
        own: (module path as in the key, our name of the parameter) → tensor.
        shared: our name → tensor.
        saved: key behind `base_model.model.` → tensor that was saved along.
        aliased: leaves of other releases that occur.
        faults: what is wrong with the keys, one sentence each.
    """

    own: dict[tuple[str, str], torch.Tensor] = field(default_factory=dict)
    shared: dict[str, torch.Tensor] = field(default_factory=dict)
    saved: dict[str, torch.Tensor] = field(default_factory=dict)
    aliased: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)

    @property
    def paths(self) -> list[str]:
        """Module paths of the method's tensors and of what was saved along, each once."""
        along = (key.rpartition(".")[0] for key in self.saved)
        return list(dict.fromkeys([path for path, _ in self.own] + [path for path in along if path]))


def split(tensors: Mapping[str, torch.Tensor], codec: Codec) -> Split:
    """Return the tensors of a file sorted by what they are."""
    found = Split()
    leaves = {**codec.leaves, **{old: codec.leaves[new] for old, new in codec.aliases.items()}}
    longest_first = sorted(leaves, key=len, reverse=True)
    for key, tensor in tensors.items():
        if key.startswith(SHARED) and key.removeprefix(SHARED) in codec.shared:
            found.shared[codec.shared[key.removeprefix(SHARED)]] = tensor
        elif key.startswith(WRAPPED):
            body = key.removeprefix(WRAPPED)
            leaf = next((leaf for leaf in longest_first if body.endswith(f".{leaf}")), None)
            if leaf is None:
                found.saved[body] = tensor
                continue
            found.aliased |= {leaf} & codec.aliases.keys()
            place = (body.removesuffix(f".{leaf}"), leaves[leaf])
            if place in found.own:
                found.faults.append(f"key {key!r} repeats another tensor of {place[0]}")
            found.own[place] = tensor
        else:
            found.faults.append(f"key {key!r} is none of a {codec.type} of PEFT")
    return found


def joined(found: Split, codec: Codec) -> dict[str, torch.Tensor]:
    """Return the tensors of a file; joined(split(tensors, codec), codec) == tensors."""
    old = {codec.leaves[codec.aliases[leaf]]: leaf for leaf in found.aliased if leaf in codec.aliases}
    leaves = {ours: theirs for theirs, ours in codec.leaves.items()} | old
    shared = {ours: theirs for theirs, ours in codec.shared.items()}
    return (
        {f"{WRAPPED}{path}.{leaves[leaf]}": tensor for (path, leaf), tensor in found.own.items()}
        | {f"{SHARED}{shared[name]}": tensor for name, tensor in found.shared.items()}
        | {f"{WRAPPED}{key}": tensor for key, tensor in found.saved.items()}
    )
