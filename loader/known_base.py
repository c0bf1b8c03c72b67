"""What converting an adapter may have to know of its base model: maps of a live one, and how it turns positions."""

from __future__ import annotations

import inspect
import math
from functools import cached_property

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..architectures import Architecture
from ..errors import NotFoundError, UnsupportedError
from ..sites import Attention, Layout
from .layout import Ground, setting, survey

WINDOW = "sliding_window"
"""What configurations call how far an attention reaches back, where it does not reach all."""

ACTIVATIONS = ("dense_act_fn", "activation_function", "hidden_act", "hidden_activation", "activation")
"""What configurations call the activation of the feed-forward blocks."""


class KnownBase:
    """A live base model, as converters/format.py and merging/request.py ask for it."""

    def __init__(self, model: nn.Module, architecture: Architecture | None = None) -> None:
        """Take a model of transformers; it is looked at when something is asked.

        A question raises UsageError where it is none, and UnsupportedError where its family is unknown.
        """
        self._model = model
        self._architecture = architecture

    @cached_property
    def _ground(self) -> Ground:
        return survey(self._model, self._architecture)

    @cached_property
    def _attentions(self) -> dict[str, Attention]:
        return {attention.path: attention for attention in self._ground.layout.attentions}

    @property
    def layout(self) -> Layout:
        """Its places."""
        return self._ground.layout

    def parameter(self, path: str) -> Tensor:
        """Return a parameter as its module keeps it.

        Raises:
            NotFoundError: there is none of this path.
        """
        found = self._ground.parameter(path)
        if found is None:
            raise NotFoundError(f"the base model has no parameter {path}")
        return found.detach()

    def linear(self, path: str) -> tuple[Tensor, Tensor | None]:
        """Return the weight (outputs, inputs[, kernel]) and the bias of a linear map, None where it has none."""
        module = self._ground.modules[path]
        weight, bias = module.get_parameter("weight").detach(), module._parameters.get("bias")
        return (weight.t() if isinstance(module, Conv1D) else weight), bias

    def activation(self) -> str:
        """Return what its configuration calls the activation of the feed-forward blocks, "" where it does not."""
        found = (setting(self._ground.bare.config, name) for name in ACTIVATIONS)
        return next((name for name in found if isinstance(name, str)), "")

    def turned(self, path: str, keys: Tensor, places: int) -> Tensor:
        """Return keys (length, heads · size) of an attention as they are so many places further on.

        Raises:
            UnsupportedError: the attention does not turn its keys by their positions, or does not reach all of them.
        """
        attention = self._attentions[path]
        module = self._ground.modules.get(attention.positions) if attention.positions else None
        if module is None or not _is_rotation(module):
            raise UnsupportedError(f"{path} does not turn its keys by their positions, or in a way of its own")
        window, longest = (setting(self._ground.bare.config, name) for name in (WINDOW, "max_position_embeddings"))
        if window is not None and window < (longest or math.inf):
            raise UnsupportedError(
                f"{path} reaches {window} positions back, and a prefix that counts among them is out of its reach",
                hint="write it in the native format",
            )
        split = keys.detach().double().view(len(keys), -1, attention.head_size)
        with torch.no_grad():
            cosine, sine = module(split.new_zeros(1, 1, 1), torch.tensor([[abs(places)]]))
        cosine, sine = cosine.double().flatten(), sine.double().flatten()
        # Some models scale their rotations; what is put in a cache is scaled already.
        scale = (cosine**2 + sine**2).sqrt()
        cosine, sine = cosine / scale, sine / scale * (1 if places > 0 else -1)
        part, rest = split[..., : len(cosine)], split[..., len(cosine) :]
        first, second = part.chunk(2, dim=-1)
        turned = part * cosine + torch.cat([-second, first], dim=-1) * sine
        return torch.cat([turned, rest], dim=-1).view(keys.shape).to(keys.dtype)

    def heads(self) -> tuple[int, int]:
        """Return how many heads queries and keys have in each attention.

        Raises:
            UnsupportedError: the configuration does not say one number for all.
        """
        said = self._ground.bare.config.to_dict()
        queries = said.get("num_attention_heads")
        keys = said.get("num_key_value_heads") or queries
        if type(queries) is not int or type(keys) is not int:
            raise UnsupportedError(
                "the configuration of the base model does not say how many heads its attentions have"
            )
        return queries, keys


def _is_rotation(module: nn.Module) -> bool:
    """Return whether a module makes cosines and sines of the numbers of positions, the same for every layer."""
    taken = tuple(inspect.signature(module.forward).parameters)
    return taken == ("x", "position_ids")
