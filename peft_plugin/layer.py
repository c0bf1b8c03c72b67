"""BottleneckLayer: the tensors of every adapter at one site, in the shape in which PEFT looks for them.

It stands beside the base model's modules, not in place of one: no module of the base model changes its name, and no
forward pass goes through it. What acts in the forward pass is put there by board.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, cast

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from ..converters.peft.bottleneck import LAYER, PARAMETERS, SHARED
from ..errors import UnsupportedError

if TYPE_CHECKING:
    import torch

    from ..methods import BottleneckConfig
    from .board import Board

MERGE = "PEFT cannot merge a bottleneck adapter into the base model's weights, because it is not linear in its input"


class BottleneckLayer(nn.Module, BaseTunerLayer):  # type: ignore[misc]
    """What PEFT calls a layer: containers of tensors, each with one item for each adapter.

    Attributes:
        configs: name of an adapter → what it computes; one mapping for all layers of a model.
        frozen: name of an adapter → its tensors that stay as they are in training.
        board: what puts the adapters of the model on its forward path.
    """

    other_param_names = ("configs",)

    def __init__(self, board: Board, module: nn.Module, names: Collection[str]) -> None:
        """Make an empty one that stands in a module, for tensors that may have these names, as they stand in a file."""
        super().__init__()
        self._home = (module,)  # in a tuple, so that it is no child
        self.board = board
        self.configs: dict[str, BottleneckConfig] = board.configs
        self.frozen: dict[str, frozenset[str]] = {}
        self.adapter_layer_names = tuple(dict.fromkeys(name.partition(".")[0] for name in names))
        grouped = {name.partition(".")[0] for name in names if "." in name}
        for name in self.adapter_layer_names:
            self.add_module(name, nn.ModuleDict() if name in grouped else nn.ParameterDict())

    def add(self, adapter: str, tensors: Mapping[str, Tensor], frozen: Iterable[str]) -> None:
        """Take the tensors of an adapter, by their names in a file."""
        self.frozen[adapter] = frozenset(frozen)
        for name, tensor in tensors.items():
            container, _, leaf = name.partition(".")
            items = self._modules[container]
            if isinstance(items, nn.ParameterDict):
                items[adapter] = nn.Parameter(self._placed(tensor))
            elif isinstance(items, nn.ModuleDict):
                if adapter not in items:
                    items[adapter] = Group()
                items[adapter].register_parameter(leaf, nn.Parameter(self._placed(tensor)))

    def owners(self, adapter: str) -> Iterator[tuple[str, nn.Module, str]]:
        """Yield (name in a file, the module that has it, its name there) of each tensor of an adapter."""
        for container in self.adapter_layer_names:
            items = self._modules[container]
            if isinstance(items, nn.ParameterDict) and adapter in items:
                yield container, items, adapter
            elif isinstance(items, nn.ModuleDict) and adapter in items:
                group = items[adapter]
                yield from ((f"{container}.{leaf}", group, leaf) for leaf in group._parameters)

    def set_adapter(self, adapter_names: str | list[str], inference_mode: bool = False) -> None:
        """Make an adapter the active one.

        Raises:
            UnsupportedError: several bottleneck adapters are to be active at once.
        """
        names = [adapter_names] if isinstance(adapter_names, str) else adapter_names
        check_alone(names, self.configs)
        super().set_adapter(adapter_names, inference_mode=inference_mode)
        self._freeze()

    def set_requires_grad(self, adapter_names: str | list[str], requires_grad: bool = True) -> None:
        """Let adapters be trained or not, but for what never is."""
        super().set_requires_grad(adapter_names, requires_grad)
        self._freeze()

    def get_base_layer(self) -> nn.Module:
        """Return the module that this one stands in."""
        return self._home[0]

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refuse.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError(MERGE)

    def forward(self) -> None:
        """Do nothing; it only keeps parameters."""

    def _placed(self, tensor: Tensor) -> Tensor:
        """Return a tensor where the weights beside it are, in their dtype."""
        near = next(p for name, p in self._home[0].named_parameters() if LAYER not in name.split("."))
        return tensor.to(near.device, near.dtype if near.is_floating_point() else None)

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        for _, owner, leaf in self.owners(adapter_name):
            parameter = cast("nn.Parameter", owner._parameters[leaf])
            if not parameter.is_meta:
                placed = self._placed(parameter.data)
                parameter.data = placed if device is None else placed.to(device)

    def _freeze(self) -> None:
        for adapter, frozen in self.frozen.items():
            for name, owner, leaf in self.owners(adapter):
                if name in frozen:
                    cast("nn.Parameter", owner._parameters[leaf]).requires_grad_(False)


class Group(nn.Module):
    """The tensors of one adapter in one container."""

    def forward(self) -> None:
        """Do nothing; it only keeps parameters."""


def check_alone(names: Iterable[str], known: Collection[str]) -> None:
    """Refuse names of several known adapters.

    Raises:
        UnsupportedError: they are several.
    """
    mine = [name for name in names if name in known]
    if len(mine) > 1:
        raise UnsupportedError(
            f"several bottleneck adapters cannot be active at once in PEFT: {', '.join(mine)}",
            hint="adapterhub.attach(model) stacks, fuses and averages them",
        )


SITE = tuple(PARAMETERS)
ROOT = tuple(SHARED)
