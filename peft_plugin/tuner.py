"""BottleneckModel: what PEFT makes around a base model for this type.

Source: PEFT 0.21.2, tuners/tuners_utils.py, for what is asked of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from peft.tuners.tuners_utils import BaseTuner
from torch import Tensor, nn

from ..converters.peft.bottleneck import PARAMETERS, PREFIX, SHARED
from ..errors import UnsupportedError, UsageError
from ..loader.layout import Ground, survey
from ..methods import method_of
from .board import Board, _reader, board_of
from .config import BottleneckConfig
from .layer import MERGE, BottleneckLayer, check_alone


@dataclass
class _Start:
    """What an adapter has at the beginning.

    Attributes:
        sites: path in the whole model → path in the base model.
        tensors: path in the base model, or `shared` → name in a file → tensor.
        frozen: the same → names that are never trained.
    """

    sites: Mapping[str, str]
    tensors: Mapping[str, Mapping[str, Tensor]]
    frozen: Mapping[str, tuple[str, ...]]


class BottleneckModel(BaseTuner):  # type: ignore[misc]
    """Puts bottlenecks on a model of transformers for PEFT."""

    prefix = PREFIX
    tuner_layer_cls = BottleneckLayer
    target_module_mapping: Mapping[str, Any] = {}

    def inject_adapter(
        self,
        model: nn.Module,
        adapter_name: str,
        autocast_adapter_dtype: bool = True,
        low_cpu_mem_usage: bool = False,
        state_dict: dict[str, Tensor] | None = None,
    ) -> None:
        """Add an adapter to the model; where it stands follows from its configuration, not from a state_dict."""
        super().inject_adapter(
            model,
            adapter_name,
            autocast_adapter_dtype=autocast_adapter_dtype,
            low_cpu_mem_usage=low_cpu_mem_usage,
        )
        # PEFT shortens long lists to the ends of paths.
        self.peft_config[adapter_name].target_modules = list(self._start.sites)
        self._board.refresh()

    @property
    def _board(self) -> Board:
        found = board_of(self.model)
        assert found is not None  # noqa: S101 — it is made with the first adapter
        return found

    def _prepare_adapter_config(self, peft_config: BottleneckConfig, model_config: dict[str, Any]) -> BottleneckConfig:
        return peft_config

    def _prepare_model(self, peft_config: BottleneckConfig, model: nn.Module) -> None:
        """Work out what the adapter has; nothing is put into the model before that is known."""
        ground = survey(model)
        self._start = _start(peft_config, ground)
        faults = list(_astray(peft_config, self._start.sites))
        if faults:
            raise UnsupportedError(
                f"the bottlenecks cannot stand where target_modules says: {'; '.join(faults)}",
                hint="load a folder onto the class of model that it was written for; in a new configuration leave "
                "target_modules out",
            )
        peft_config.target_modules = list(self._start.sites)
        peft_config.architecture = ground.architecture.name
        self._ground = ground

    def _check_target_module_exists(self, peft_config: BottleneckConfig, key: str) -> bool:
        return key in self._start.sites

    def _create_and_replace(
        self,
        peft_config: BottleneckConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
    ) -> None:
        """Give a site its tensors."""
        # What is put in before PEFT has looked at the model would count as an adapter that was there.
        board = board_of(self.model) or Board(self._ground)
        start = self._start
        if adapter_name not in board.configs:
            board.configs[adapter_name] = peft_config.bottlenecks()
            board.root.add(adapter_name, start.tensors.get("shared", {}), start.frozen.get("shared", ()))
        path = start.sites[current_key]
        board.layer(path, target).add(adapter_name, start.tensors[path], start.frozen.get(path, ()))

    def _mark_only_adapters_as_trainable(self, model: nn.Module) -> None:
        super()._mark_only_adapters_as_trainable(model)
        for module in model.modules():
            if isinstance(module, BottleneckLayer):
                module._freeze()

    def set_adapter(self, adapter_name: str | list[str], inference_mode: bool = False) -> None:
        """Make an adapter the active one.

        Raises:
            UnsupportedError: several bottleneck adapters are to be active at once.
        """
        names = [adapter_name] if isinstance(adapter_name, str) else adapter_name
        check_alone(names, self._board.configs)
        super().set_adapter(adapter_name, inference_mode=inference_mode)
        self._board.refresh()

    def delete_adapter(self, adapter_name: str) -> None:
        """Forget an adapter; another one becomes active."""
        super().delete_adapter(adapter_name)
        self._board.refresh()

    def _enable_adapter_layers(self, enabled: bool = True) -> None:
        super()._enable_adapter_layers(enabled)
        self._board.refresh()

    def merge_adapter(self, adapter_names: list[str] | None = None, safe_merge: bool = False) -> None:
        """Refuse.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError(MERGE)

    def _unload_and_optionally_merge(
        self,
        merge: bool = True,
        progressbar: bool = True,
        safe_merge: bool = False,
        adapter_names: list[str] | None = None,
    ) -> nn.Module:
        """Return the model without adapters."""
        if merge:
            raise UnsupportedError(MERGE)
        self._board.remove()
        found: nn.Module = super()._unload_and_optionally_merge(merge=False, progressbar=progressbar)
        return found


def _start(peft_config: BottleneckConfig, ground: Ground) -> _Start:
    config = peft_config.bottlenecks()
    method = method_of(config)
    found = method.initial(config, ground.layout, _reader(ground))
    theirs = {ours: name for name, ours in PARAMETERS.items()}
    shared = {ours: name for name, ours in SHARED.items()}
    tensors: dict[str, dict[str, Tensor]] = {}
    frozen: dict[str, tuple[str, ...]] = {}
    paths = ["shared", *(site.path for site in ground.layout.sites if config.takes(site))]
    for key, tensor in found.items():
        path = next(
            path for path in paths if key.startswith(f"{path}.") and key[len(path) + 1 :] in {**theirs, **shared}
        )
        name = (shared if path == "shared" else theirs)[key.removeprefix(f"{path}.")]
        tensors.setdefault(path, {})[name] = tensor
        if method.frozen(config, key):
            frozen[path] = (*frozen.get(path, ()), name)
    around = next(path for path, module in ground.model.named_modules() if module is ground.bare)
    sites = {f"{around}.{path}" if around else path: path for path in paths[1:]}
    if not sites:
        raise UsageError("the configuration has no bottleneck at any layer of this model")
    return _Start(sites, tensors, frozen)


def _astray(peft_config: BottleneckConfig, sites: Mapping[str, str]) -> list[str]:
    """Return where target_modules and the sites differ, one phrase each."""
    named = peft_config.target_modules
    if named is None:
        return []
    every = [named] if isinstance(named, str) else named
    return [f"it does not name {path}" for path in sites if path not in every] + [
        f"there is no bottleneck at {path}" for path in sorted(every) if path not in sites
    ]
