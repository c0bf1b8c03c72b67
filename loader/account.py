"""The account of an adapter's tensors: every one present, of the right shape, finite, and none left over."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..adapter import Adapter
from ..converters.values import not_finite
from ..errors import BaseMismatchError, FormatError, UsageError
from ..methods import Shapes, shapes
from ..sites import Layout


def check_account(adapter: Adapter, layout: Layout) -> None:
    """Hold every tensor of an adapter against what its configuration asks for on this base model.

    Raises:
        FormatError: a tensor is missing, left over, of another shape, or not finite; all are listed.
        BaseMismatchError: every fault is one of shape or number of layers: the adapter is whole, but for another model.
    """
    name = adapter.manifest.name
    try:
        wanted = shapes(adapter.config, layout)
    except UsageError as error:
        raise FormatError(f"adapter {name!r} does not fit the model", faults=[error.message]) from error
    faults = shape_faults(adapter.tensors, wanted)
    if faults:
        if all(" has shape " in fault for fault in faults):
            raise BaseMismatchError(
                f"adapter {name!r} has other sizes than the base model: {faults[0]}"
                + (f" (and {len(faults) - 1} more)" if faults[1:] else ""),
                hint="load it onto the model it was trained on",
            )
        raise FormatError(
            f"the tensors of adapter {name!r} do not match its configuration on this model",
            faults=faults,
            hint="the file is incomplete, or was made for another model",
        )
    odd = not_finite(adapter.tensors)
    if odd:
        raise FormatError(
            f"adapter {name!r} holds values that are not finite",
            faults=odd,
            hint="the training diverged, or it is damaged",
        )


def shape_faults(tensors: Mapping[str, Tensor], wanted: Shapes) -> list[str]:
    """Return what is missing, left over or misshapen, one phrase each, sorted by key."""
    faults = []
    for key in sorted(tensors.keys() | wanted.keys()):
        if key not in tensors:
            faults.append(f"tensor {key!r} is missing")
        elif key not in wanted:
            faults.append(f"tensor {key!r} belongs to nothing in the configuration")
        elif tuple(tensors[key].shape) != wanted[key]:
            faults.append(f"tensor {key!r} has shape {tuple(tensors[key].shape)}, expected {wanted[key]}")
    return faults


def check_architecture(adapter: Adapter, layout: Layout) -> None:
    """Refuse an adapter that was made for another family of models.

    Raises:
        BaseMismatchError: the families differ.
    """
    found = adapter.manifest.base.architecture
    if layout.architecture in (found, *adapter.manifest.base.others):
        return
    base = adapter.manifest.base
    raise BaseMismatchError(
        f"adapter {adapter.manifest.name!r} was made for a {found} model"
        + (f" ({base.id})" if base.id else "")
        + f", this one is a {layout.architecture}",
        hint="load it onto the model it was trained on",
    )
