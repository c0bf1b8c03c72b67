"""What callers may write, turned into values: methods, labels, the name of the base model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ..adapter import MethodConfig
from ..errors import UsageError
from ..methods import default_head, is_head, parse_method
from ..sites import Layout

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def configs(method: str | MethodConfig | Sequence[MethodConfig]) -> tuple[MethodConfig, ...]:
    """Return the configurations that a string, one value or several name."""
    if isinstance(method, str):
        return parse_method(method)
    return tuple(method) if isinstance(method, (tuple, list)) else (cast("MethodConfig", method),)


def with_head(configs: tuple[MethodConfig, ...], labels: tuple[str, ...], layout: Layout) -> tuple[MethodConfig, ...]:
    """Return the configurations with a linear head for the labels, if they have labels and no head.

    Raises:
        UsageError: there are two heads, or as many labels as the head does not have.
    """
    heads = [config for config in configs if is_head(config)]
    if len(heads) > 1:
        raise UsageError("an adapter has at most one head")
    if not labels:
        return configs
    if not heads:
        return (*configs, default_head(len(labels), layout))
    if heads[0].labels != len(labels):
        raise UsageError(f"the head has {heads[0].labels or 'no'} labels, and {len(labels)} names were given")
    return configs


def base_id(model: PreTrainedModel) -> str:
    """Return the Hub id that the model was loaded from, or "" for a local path."""
    name = str(model.config._name_or_path or "")
    return "" if not name or name.startswith((".", "/", "~")) or Path(name).exists() else name
