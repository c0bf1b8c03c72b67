"""Prompt tuning: trained vectors that stand in the sequence in front of the text (Lester et al. 2021).

    x' = [P; x],      P: length × width

Two libraries put them at two places:

    embeddings   behind the whole embedding module, so that P gets no position, no norm and no token type, and the text
                 keeps its own positions; encoders only (`adapters` 1.3.0)
    tokens       in front of the word embeddings, so that all that follows treats P as tokens, whose positions come
                 before the text's (the paper; PEFT)

The output has as many positions more as the prompt has vectors.

Sources: Lester et al. 2021 (arXiv 2104.08691) §2; `adapters` 1.3.0, methods/prompt_tuning.py; PEFT 0.21.2,
tuners/prompt_tuning and peft_model.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..errors import UnsupportedError
from ..sites import Embedding, Layout
from .config import Config
from .method import Binding, Facts, Live, Method, Roles, Shapes

if TYPE_CHECKING:
    from torch import Tensor

Place = Literal["embeddings", "tokens"]

LONGEST = 65_536


@dataclass(frozen=True, kw_only=True)
class PromptTuningConfig(Config):
    """Where the prompt stands and how long it is.

    Attributes:
        prompt_length: number of vectors.
        place: `embeddings` or `tokens`.
        combine: in front of the text, or behind its first token (at `embeddings` only).
        sees_padding: at `embeddings`, let the positions of the prompt see the text's padding under sdpa attention, as
            in `adapters`; the output then depends on how much padding there is.
        padded_bonus: at `embeddings`, what is added to the attention scores of the prompt in a batch with padding under
            sdpa attention; `adapters` adds 1 in DistilBERT.
        spare: further vectors in the tensor that nothing reads; PEFT saves such for encoder-decoder models.
        init_tokens: ids whose word embeddings the vectors start from, again and again as far as needed; () for
            uniform start values.
        init_scale: bound of the uniform start values.
        init_weights_seed: seed of the start values, or None for torch's global generator.
    """

    method: ClassVar[str] = "prompt_tuning"

    prompt_length: int = 10
    place: Place = "embeddings"
    combine: Literal["prefix", "prefix_after_bos"] = "prefix"
    sees_padding: bool = False
    padded_bonus: float = 0.0
    spare: int = 0
    init_tokens: tuple[int, ...] = ()
    init_scale: float = 0.5
    init_weights_seed: int | None = None

    def faults(self) -> list[str]:
        """Return what is wrong with the values, one phrase each."""
        faults = length_faults(self.prompt_length, self.spare)
        if self.place == "tokens" and (self.combine != "prefix" or self.sees_padding or self.padded_bonus):
            faults.append("combine, sees_padding and padded_bonus have a meaning only with place 'embeddings'")
        if not math.isfinite(self.padded_bonus):
            faults.append(f"padded_bonus is {self.padded_bonus}, expected a finite number")
        if not 0 < self.init_scale < float("inf"):
            faults.append(f"init_scale is {self.init_scale}, expected a positive number")
        return faults


def length_faults(length: int, spare: int) -> list[str]:
    """Return what is wrong with the number of vectors of a prompt, one phrase each."""
    faults = [] if 1 <= length <= LONGEST else [f"prompt_length is {length}, expected 1 to {LONGEST}"]
    return faults if 0 <= spare <= LONGEST else [*faults, f"spare is {spare}, expected 0 to {LONGEST}"]


def entrance(layout: Layout, place: Place) -> tuple[Embedding, str]:
    """Return the embedding of a model whose text a prompt joins, and the module path under which its tensors stand.

    Raises:
        UnsupportedError: the model has several, or the place does not exist in it.
    """
    if len(layout.embeddings) != 1:
        raise UnsupportedError(f"{layout.architecture} models have {len(layout.embeddings)} inputs for a prompt, not 1")
    (embedding,) = layout.embeddings
    if place == "tokens":
        if embedding.tokens is None:
            raise UnsupportedError(
                f"{layout.architecture} models read no tokens that a prompt could stand in front of",
                hint="use place='embeddings'",
            )
        return embedding, embedding.tokens
    if not embedding.lengthens:
        raise UnsupportedError(
            f"{layout.architecture} models fix their length before {embedding.path}, where the prompt would be put",
            hint="use place='tokens'" if embedding.tokens else "",
        )
    return embedding, embedding.path


def shapes(config: PromptTuningConfig, layout: Layout) -> Shapes:
    """Return canonical key → shape of the prompt."""
    embedding, path = entrance(layout, config.place)
    return {f"{path}.prompt": (config.prompt_length + config.spare, embedding.width)}


def initial(config: PromptTuningConfig, layout: Layout, base: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """Return start values, float32."""
    import torch

    embedding, path = entrance(layout, config.place)
    (shape,) = shapes(config, layout).values()
    if config.init_tokens:
        ids = torch.tensor(config.init_tokens).repeat(-(-shape[0] // len(config.init_tokens)))[: shape[0]]
        table = base(f"{embedding.tokens}.weight").detach()
        scale = layout.linear[embedding.tokens or ""].scale
        return {f"{path}.prompt": table[ids.to(table.device)].float().cpu() * scale}
    seed = config.init_weights_seed
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    start = torch.empty(shape).uniform_(-config.init_scale, config.init_scale, generator=generator)
    return {f"{path}.prompt": start}


def facts(config: PromptTuningConfig, have: Shapes, roles: Roles) -> Facts:
    """Return the size of the embeddings."""
    return Facts(embedding=max((shape[1] for key, shape in have.items() if is_prompt(key, shape)), default=0))


def is_prompt(key: str, shape: tuple[int, ...]) -> bool:
    """Return whether a tensor holds the vectors of a prompt."""
    return key.endswith(".prompt") and len(shape) == 2


def bind(config: PromptTuningConfig, tensors: Mapping[str, Tensor], live: Live) -> Binding:
    """Return the prompt on the given tensor itself, so that training reaches it."""
    embedding, path = entrance(live.layout, config.place)
    return Binding(prompts={embedding.path: Prompt(config, tensors[f"{path}.prompt"])})


class Prompt:
    """The prompt in the forward pass."""

    __slots__ = ("after_first", "length", "padded_bonus", "place", "sees_padding", "vectors")

    def __init__(self, config: PromptTuningConfig, vectors: Tensor) -> None:
        self.length = config.prompt_length
        self.place: Place = config.place
        self.after_first = config.combine == "prefix_after_bos"
        self.sees_padding = config.sees_padding
        self.padded_bonus = config.padded_bonus
        self.vectors = vectors

    def __call__(self) -> Tensor:
        """Return the prompt (length, width)."""
        return self.vectors[: self.length]


METHOD = Method(
    config=PromptTuningConfig,
    presets={"prompt_tuning": PromptTuningConfig()},
    shapes=shapes,
    initial=initial,
    bind=bind,
    facts=facts,
)
