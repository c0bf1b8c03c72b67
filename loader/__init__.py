"""The loader: puts adapters onto a model of transformers, stacks and swaps them, trains them, takes them off."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .adapter_set import AdapterSet
from .probe import Replay
from .summary import Summary

if TYPE_CHECKING:
    from torch import nn

    from ..architectures import Architecture

__all__ = ["AdapterSet", "Replay", "Summary", "attach"]


def attach(
    model: nn.Module,
    *,
    architecture: Architecture | None = None,
    base_id: str | None = None,
    compat: str | None = None,
) -> AdapterSet:
    """Return an empty set of adapters for a model, which computes what it did before.

    model: a model of transformers, with or without a head.
    architecture: describes a family that architectures/ does not know.
    base_id: Hub id of the base model, for manifests; found in the model's configuration if it came from the Hub.
    compat: "adapters" computes what `adapters` 1.3.0 does where that departs from the papers; None is the papers'.

    Raises:
        UsageError: it is not a model of transformers, or compat is unknown.
        UnsupportedError: its family is unknown.
        StateError: adapters are attached already.
    """
    return AdapterSet(model, architecture=architecture, base_id=base_id, compat=compat)
