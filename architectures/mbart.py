"""mBART (Liu et al. 2020): BART with the norms in front of the sublayers, and one behind each stack."""

from __future__ import annotations

import dataclasses

from . import bart
from .architecture import Sublayer


def pre_norm(part: Sublayer) -> Sublayer:
    """Return a sublayer of BART with its norm in front instead of behind."""
    return dataclasses.replace(part, residual=part.norm or part.residual, norm=None)


ENCODER, DECODER = (
    dataclasses.replace(stack, sublayers=tuple(pre_norm(part) for part in stack.sublayers))
    for stack in (bart.ENCODER, bart.DECODER)
)

ROW = dataclasses.replace(
    bart.BART,
    name="mbart",
    model_types=("mbart",),
    layers=(ENCODER, DECODER),
    norms=(*bart.BART.norms, "encoder.layer_norm", "decoder.layer_norm"),
    heads=bart.heads("MBart"),
    wraps=True,
)
