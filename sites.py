"""Site and Layout: where in a base model an adapter can act, as plain values.

An architecture (architectures/) and the shapes of a model give a Layout; a method (methods/) reads it to say which
tensors it has and what they do. Paths are module paths of transformers 5 in the *bare* base model, without the prefix
that a model with a head puts in front.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Role = Literal["attention", "feed_forward", "cross_attention"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One sublayer with its residual connection, the place of a bottleneck adapter.

    A transformer computes `LN(d + x)` (post-norm) or `d + x` (pre-norm) there: d is the sublayer's output after its
    last projection and dropout, x the residual stream that entered the sublayer.

    Attributes:
        path: names the site in tensor keys.
        role: the sublayer's kind.
        layer: index of the layer, counted through all stacks (decoder layers go on after the encoder's).
        width: size of the hidden dimension.
        output: module whose output is d.
        residual: module whose first argument is x.
        norm: module of the layer norm that follows, or None in pre-norm models.
    """

    path: str
    role: Role
    layer: int
    width: int
    output: str
    residual: str
    norm: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Norm:
    """One normalisation module of the base model.

    Attributes:
        path: its module path.
        layer: index of its layer, or None outside the layers.
        shapes: parameter name → shape, as the model has them (`weight` (d,), `bias` (d,)).
    """

    path: str
    layer: int | None
    shapes: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """All sites of one base model.

    Attributes:
        architecture: name of the row in architectures/.
        layers: number of layers, all stacks together.
        width: size of the hidden states that a prediction head reads.
        sites: the residual sites, in the order of the forward pass.
        norms: the normalisation modules, in the order of the model.
        pooler: whether the model has a pooler whose output a head can read.
    """

    architecture: str
    layers: int
    width: int
    sites: tuple[Site, ...]
    norms: tuple[Norm, ...]
    pooler: bool = False
