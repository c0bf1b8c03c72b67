"""Model families, one row of data each.

A new family is one file with a ROW and one entry in ARCHITECTURES.
"""

from __future__ import annotations

from ..errors import UnsupportedError
from . import bert, distilbert, roberta, xlm_roberta
from .architecture import (
    Architecture,
    AttentionNames,
    EmbeddingNames,
    FeedForwardNames,
    HeadName,
    Layers,
    Sublayer,
    from_json,
    to_json,
)

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "AttentionNames",
    "EmbeddingNames",
    "FeedForwardNames",
    "HeadName",
    "Layers",
    "Sublayer",
    "by_model_type",
    "by_name",
    "from_json",
    "to_json",
]

ARCHITECTURES: tuple[Architecture, ...] = (bert.ROW, roberta.ROW, xlm_roberta.ROW, distilbert.ROW)


def by_name(name: str) -> Architecture:
    """Return the row called name.

    Raises:
        UnsupportedError: no row has this name.
    """
    for row in ARCHITECTURES:
        if row.name == name:
            return row
    raise UnsupportedError(f"no architecture is called {name!r}", hint=f"known are {_known()}")


def by_model_type(model_type: str) -> Architecture:
    """Return the row for a `model_type` of config.json.

    Raises:
        UnsupportedError: no row covers it.
    """
    for row in ARCHITECTURES:
        if model_type in row.model_types:
            return row
    raise UnsupportedError(
        f"models of type {model_type!r} are not known",
        hint=f"known are {_known()}; describe another one with adapterhub.architectures.Architecture",
    )


def _known() -> str:
    return ", ".join(row.name for row in ARCHITECTURES)
