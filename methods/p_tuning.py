"""P-tuning: a prompt that a small network makes while it is trained (Liu et al. 2021).

    P = R(E),      E: length × width

    mlp    R = three linear layers with ReLU between them (PEFT's default, from NeMo)
    lstm   R = two linear layers with ReLU between them behind a bidirectional LSTM (the paper)
    none   R = identity: what is left of a trained one, whose network was applied once and dropped

It stands in front of the word embeddings; see methods/prompt_tuning.py.

Sources: Liu et al. 2021 (arXiv 2103.10385) §3.2; PEFT 0.21.2, tuners/p_tuning and peft_model.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..errors import UsageError
from ..sites import Layout
from .config import Config
from .method import Binding, Facts, Live, Method, Roles, Shapes
from .prompt_tuning import Place, entrance, is_prompt, length_faults

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

WIDEST = 65_536
MOST_LAYERS = 64


@dataclass(frozen=True, kw_only=True)
class PTuningConfig(Config):
    """How long the prompt is and what makes it.

    Attributes:
        prompt_length: number of vectors.
        encoder: `mlp`, `lstm` or `none`.
        hidden_size: width of the network's hidden layers, of each direction in an LSTM; None for that of the prompt.
        lstm_layers: number of layers of the LSTM.
        lstm_dropout: probability, between the layers of the LSTM, while training.
        spare: further vectors in the tensor that nothing reads; PEFT saves such for encoder-decoder models.
        init_weights_seed: seed of the start values, or None for torch's global generator.
    """

    method: ClassVar[str] = "p_tuning"

    prompt_length: int = 20
    encoder: Literal["none", "mlp", "lstm"] = "mlp"
    hidden_size: int | None = None
    lstm_layers: int = 2
    lstm_dropout: float = 0.0
    spare: int = 0
    init_weights_seed: int | None = None

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        faults = length_faults(self.prompt_length, self.spare)
        if self.hidden_size is not None and not 1 <= self.hidden_size <= WIDEST:
            faults.append(f"hidden_size is {self.hidden_size}, expected 1 to {WIDEST}")
        if not 1 <= self.lstm_layers <= MOST_LAYERS:
            faults.append(f"lstm_layers is {self.lstm_layers}, expected 1 to {MOST_LAYERS}")
        if not 0 <= self.lstm_dropout < 1:
            faults.append("lstm_dropout must lie in [0, 1)")
        return faults


def shapes(config: PTuningConfig, layout: Layout) -> Shapes:
    """Return canonical key → shape of embeddings and network."""
    embedding, path = entrance(layout, "tokens")
    width = embedding.width
    found: Shapes = {f"{path}.prompt": (config.prompt_length + config.spare, width)}
    for name, shape in _lstm_shapes(config, width).items():
        found[f"{path}.prompt_lstm.{name}"] = shape
    for k, (outputs, inputs) in enumerate(_mlp_sizes(config, width)):
        found |= {f"{path}.prompt_mlp.{k}.weight": (outputs, inputs), f"{path}.prompt_mlp.{k}.bias": (outputs,)}
    return found


def _lstm_shapes(config: PTuningConfig, width: int) -> Shapes:
    """Return parameter name of torch.nn.LSTM → shape, in the order in which torch takes them."""
    if config.encoder != "lstm":
        return {}
    h, found = config.hidden_size or width, Shapes()
    for k in range(config.lstm_layers):
        for way in ("", "_reverse"):
            found |= {
                f"weight_ih_l{k}{way}": (4 * h, 2 * h if k else width),
                f"weight_hh_l{k}{way}": (4 * h, h),
                f"bias_ih_l{k}{way}": (4 * h,),
                f"bias_hh_l{k}{way}": (4 * h,),
            }
    return found


def _mlp_sizes(config: PTuningConfig, width: int) -> tuple[tuple[int, int], ...]:
    """Return outputs and inputs of the linear layers."""
    h = config.hidden_size or width
    return {
        "none": (),
        "mlp": ((h, width), (h, h), (width, h)),
        "lstm": ((2 * h, 2 * h), (width, 2 * h)),
    }[config.encoder]


def initial(config: PTuningConfig, layout: Layout, base: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """Return start values, float32: embeddings N(0, 1), layers as torch starts them."""
    import torch

    seed = config.init_weights_seed
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    found = shapes(config, layout)
    return {key: _start(key, shape, found, generator) for key, shape in found.items()}


def _start(key: str, shape: tuple[int, ...], all_shapes: Shapes, generator: torch.Generator | None) -> Tensor:
    import torch

    tensor = torch.empty(shape)
    if key.endswith(".prompt"):
        return tensor.normal_(generator=generator)
    path = key.rpartition(".")[0]
    fan = shape[0] // 4 if path.endswith("prompt_lstm") else all_shapes[f"{path}.weight"][1]
    return tensor.uniform_(-1 / math.sqrt(fan), 1 / math.sqrt(fan), generator=generator)


def facts(config: PTuningConfig, have: Shapes, roles: Roles) -> Facts:
    """Return the size of the embeddings."""
    return Facts(embedding=max((shape[1] for key, shape in have.items() if is_prompt(key, shape)), default=0))


def bind(config: PTuningConfig, tensors: Mapping[str, Tensor], live: Live) -> Binding:
    """Return the prompt on the given tensors themselves, so that training reaches them."""
    embedding, path = entrance(live.layout, "tokens")
    return Binding(prompts={embedding.path: EncodedPrompt(config, tensors, path, live.mode)})


def ejected(config: PTuningConfig, tensors: Mapping[str, Tensor], mode: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of the prompt without a network that computes the same in evaluation mode.

    mode: a module in evaluation mode.

    Raises:
        UsageError: the tensors have no prompt.
    """
    key = next((key for key, t in tensors.items() if is_prompt(key, tuple(t.shape))), None)
    if key is None:
        raise UsageError("the tensors hold no prompt")
    return {key: EncodedPrompt(config, tensors, key.removesuffix(".prompt"), mode).encoded()}


class EncodedPrompt:
    """The prompt in the forward pass."""

    __slots__ = ("config", "length", "lstm", "mlp", "mode", "vectors")

    place: Place = "tokens"
    after_first = False
    sees_padding = False
    padded_bonus = 0.0

    def __init__(self, config: PTuningConfig, tensors: Mapping[str, Tensor], path: str, mode: nn.Module) -> None:
        self.config = config
        self.length = config.prompt_length
        self.mode = mode
        self.vectors = tensors[f"{path}.prompt"]
        self.lstm = [tensors[f"{path}.prompt_lstm.{name}"] for name in _lstm_shapes(config, 1)]
        self.mlp = [
            (tensors[f"{path}.prompt_mlp.{k}.weight"], tensors[f"{path}.prompt_mlp.{k}.bias"])
            for k in range(len(_mlp_sizes(config, 1)))
        ]

    def __call__(self) -> Tensor:
        """Return the prompt (length, width)."""
        return self.encoded()[: self.length]

    def encoded(self) -> Tensor:
        """Return all vectors, spare ones too (length + spare, width)."""
        from torch.nn.functional import linear

        h = self._recurrent(self.vectors) if self.lstm else self.vectors
        for k, (weight, bias) in enumerate(self.mlp):
            h = linear(h.relu() if k else h, weight, bias)
        return h

    def _recurrent(self, vectors: Tensor) -> Tensor:
        import torch

        size = self.lstm[1].shape[1]
        zeros = vectors.new_zeros(2 * self.config.lstm_layers, 1, size)
        output: Tensor = torch.lstm(
            vectors.unsqueeze(0),
            (zeros, zeros),
            self.lstm,
            True,
            self.config.lstm_layers,
            self.config.lstm_dropout,
            self.mode.training,
            True,
            True,
        )[0]
        return output.squeeze(0)


METHOD = Method(
    config=PTuningConfig,
    presets={"p_tuning": PTuningConfig()},
    shapes=shapes,
    initial=initial,
    bind=bind,
    facts=facts,
)
