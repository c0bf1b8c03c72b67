"""The fingerprint of a base model: a few weights of some of its layers, compared within what a dtype can lose.

It tells a model from another one, and from a fine-tuned copy of itself, and recognises it again in bf16 or fp16.
Sampling reads some dozens of numbers, whatever the model's size.
"""

from __future__ import annotations

from torch import Tensor

from ..adapter import Fingerprint
from ..converters.fingerprints import dtype_name, sampled, samples
from ..errors import BaseMismatchError
from ..methods.linear_maps import holds_numbers
from .layout import Ground

LAYERS = 8
"""At most so many layers are sampled, evenly spread, first and last among them."""

_LOSS = {"float64": 1e-6, "float32": 1e-6, "float16": 2.0**-10, "bfloat16": 2.0**-7}
"""Relative error that storing in a dtype may cause; float32 values are kept with seven digits."""


def fingerprint(ground: Ground) -> Fingerprint:
    """Return the fingerprint of the bare base model: two matrices of each sampled layer and the input embeddings."""
    return sampled(_weights(ground))


def sampled_names(ground: Ground) -> list[str]:
    """Return the paths of the weights that a fingerprint is made of."""
    return list(_weights(ground))


def check_fingerprint(expected: Fingerprint, ground: Ground, what: str) -> None:
    """Hold the model against a fingerprint.

    Raises:
        BaseMismatchError: a sampled tensor is missing, has another shape, or holds other values.
    """
    present = {}
    for name, shape in expected.shapes.items():
        weight = ground.parameter(name)
        if weight is not None and not holds_numbers(weight):
            continue  # quantised; some are packed into another shape
        if weight is None or tuple(weight.shape) != tuple(shape):
            found = "is missing" if weight is None else f"has shape {tuple(weight.shape)}"
            _refuse(what, f"{name} {found}, expected {tuple(shape)}")
        else:
            present[name] = weight
    for (name, weight), values in zip(present.items(), samples(list(present.values())), strict=True):
        if not _same(expected.samples[name], values, _loss(expected.dtype, dtype_name(weight))):
            _refuse(what, f"{name} holds other values")


def _refuse(what: str, why: str) -> None:
    raise BaseMismatchError(
        f"{what} was made for another base model: {why}",
        hint="load the model it was trained on, or pass allow_base_mismatch (--allow-base-mismatch)",
    )


def _weights(ground: Ground) -> dict[str, Tensor]:
    layers = [f"{block.path}." for block in ground.layout.blocks]
    weights = {name: ground.parameter(name) for name in ground.owners}
    matrices = {name: p for name, p in weights.items() if p is not None and p.ndim >= 2 and holds_numbers(p)}
    by_layer = [[name for name in matrices if name.startswith(layer)] for layer in layers]
    present = [names for names in by_layer if names]
    step = max(1, -(-(len(present) - 1) // (LAYERS - 1)))
    chosen = present[::step] + ([present[-1]] if (len(present) - 1) % step else [])
    names = [name for names in chosen for name in dict.fromkeys((names[0], names[-1]))]
    embeddings = {id(weight) for module in ground.input_embeddings() for weight in module.parameters()}
    names += [name for name, weight in matrices.items() if id(weight) in embeddings]
    return {name: matrices[name] for name in sorted(names)}


def _loss(*dtypes: str) -> float:
    return max(_LOSS.get(dtype, 2.0**-7) for dtype in dtypes)


def _same(expected: tuple[float, ...], values: tuple[float, ...], loss: float) -> bool:
    return expected == values or all(
        abs(a - b) <= loss * max(abs(a), abs(b)) + 1e-7 for a, b in zip(expected, values, strict=True)
    )
