"""Merging: an adapter's changes of linear maps and norms written into the base model's weights, and taken out again.

A merged weight is a new Parameter in place of the old one, which is kept as it is; taking it out puts the old one back,
so the base model is the same bit for bit afterwards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..errors import StateError, UnsupportedError
from ..methods import Binding
from ..methods.linear_maps import holds_numbers
from .layout import Ground, setting


@dataclass(frozen=True, slots=True, eq=False)
class _Change:
    """One parameter of a module: what it was and what it is now; None where there is none."""

    module: nn.Module
    name: str
    before: nn.Parameter | None
    after: nn.Parameter | None


class Merge:
    """The weights that a merge has changed."""

    def __init__(self, ground: Ground, binding: Binding, what: str, *, untie: bool) -> None:
        """Work out the merged weights; nothing is changed yet.

        Raises:
            UnsupportedError: no weights can hold what the adapter computes, or they may not be changed; every reason.
        """
        self._config = ground.model.config
        self._unties = False
        reasons = list(unmergeable(binding))
        if not reasons:
            tied = set(_tied(ground))
            self._changes = list(_changes(ground, binding))
            both = sorted({ground_path for ground_path in _paths(ground, self._changes) if ground_path in tied})
            reasons = list(_locked(ground, self._changes))
            if both and not untie:
                reasons += [f"{path} shares its weight with another module" for path in both]
            self._unties = bool(both)
        if reasons:
            shown = "; ".join(reasons[:5]) + (f"; and {len(reasons) - 5} more" if reasons[5:] else "")
            tied_only = all("shares its weight" in reason for reason in reasons)
            raise UnsupportedError(
                f"{what} cannot be merged into the base model: {shown}",
                hint="pass untie=True to give the module a weight of its own" if tied_only else "keep it attached",
            )
        self._ties = setting(self._config, "tie_word_embeddings", False)

    def put(self) -> None:
        """Put the merged weights in."""
        for change in self._changes:
            change.module._parameters[change.name] = change.after
        if self._unties:
            # A model saved as tied would lose the merged weight without a word.
            self._config.tie_word_embeddings = False

    def take(self) -> None:
        """Put the weights back that were there before.

        Raises:
            StateError: somebody else has replaced a merged weight.
        """
        for change in self._changes:
            if change.module._parameters[change.name] is not change.after:
                raise StateError(
                    f"the merged {change.name} of a {type(change.module).__name__} was replaced by other code",
                    hint="load the base model again",
                )
        for change in self._changes:
            change.module._parameters[change.name] = change.before
        if self._unties:
            self._config.tie_word_embeddings = self._ties


def unmergeable(binding: Binding) -> Iterator[str]:
    """Yield why an adapter cannot become weights."""
    kinds = {
        "sites": "bottlenecks",
        "attentions": "prefixes",
        "prompts": "prompts",
        "blocks": "interventions behind layers",
        "embeddings": "changes of the embeddings' output",
        "fusions": "fusion layers",
    }
    for field, words in kinds.items():
        if getattr(binding, field):
            yield depending(words)


def depending(words: str) -> str:
    """Return why what has these words cannot become weights."""
    return f"it has {words}, which depend on their input"


@torch.no_grad()
def _changes(ground: Ground, binding: Binding) -> Iterator[_Change]:
    """Yield every parameter that is to change, with its merged value."""
    replaced = {(path, name): value for path, own in binding.parameters.items() for name, value in own.items()}
    for (path, name), value in replaced.items():
        if path not in binding.linears or name not in ("weight", "bias"):
            module = ground.modules[path]
            yield _Change(
                module, name, module._parameters[name], _like(value.detach().clone(), module._parameters[name])
            )
    for path, op in binding.linears.items():
        module = ground.modules[path]
        weight, bias = module._parameters.get("weight"), module._parameters.get("bias")
        if weight is None or not holds_numbers(weight):
            yield _Change(module, "weight", weight, weight)  # refused by _locked
            continue
        transposed = isinstance(module, (Conv1D, nn.Embedding))
        given, shift = replaced.get((path, "weight"), weight), replaced.get((path, "bias"), bias)
        w, b = op.merged(_oriented(given.detach(), transposed), None if shift is None else shift.detach().float())
        yield _Change(module, "weight", weight, _like(_oriented(w, transposed), weight))
        if b is not None:
            yield _Change(module, "bias", bias, _like(b, bias if bias is not None else weight))


def _oriented(weight: Tensor, transposed: bool) -> Tensor:
    """Return a weight in float32, (outputs, inputs) where the module has it the other way round, and back."""
    return weight.t().float() if transposed else weight.float()


def _like(value: Tensor, parameter: nn.Parameter | None) -> nn.Parameter:
    if parameter is None:
        return nn.Parameter(value, requires_grad=False)
    found = value.to(device=parameter.device, dtype=parameter.dtype).contiguous()
    return nn.Parameter(found, requires_grad=parameter.requires_grad)


def _locked(ground: Ground, changes: list[_Change]) -> Iterator[str]:
    """Yield which weights may not be changed."""
    for path, change in zip(_paths(ground, changes), changes, strict=True):
        before = change.before
        if change.name != "weight":
            continue
        if before is None:
            yield f"{path} has no parameter called weight ({type(change.module).__name__})"
        elif not holds_numbers(before) or type(before) is not nn.Parameter:
            yield f"{path} is quantised ({type(change.module).__name__}, {type(before).__name__}, {before.dtype})"
        elif before.device.type == "meta":
            yield f"the weight of {path} is not in memory"


def _paths(ground: Ground, changes: list[_Change]) -> list[str]:
    names = {id(module): path for path, module in ground.modules.items()}
    return [names.get(id(change.module), "?") for change in changes]


def _tied(ground: Ground) -> Iterator[str]:
    """Yield the paths of modules whose weight is another module's too."""
    owners = [(path, module._parameters.get("weight")) for path, module in ground.modules.items()]
    counts = Counter(id(weight) for _, weight in owners if weight is not None)
    yield from (path for path, weight in owners if weight is not None and counts[id(weight)] > 1)
