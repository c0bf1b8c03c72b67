"""Prefixes and prompts in files of PEFT: one tensor, `prompt_embeddings`, whatever made it while it was trained.

A prefix is (length, layers · 2 · size): key and value of every layer in turn. In an encoder-decoder the layers of the
decoder take pair 0, 2, 4, … of the sequence and begin again at its end; what none of them takes is kept beside.
Nothing in such a file names a module, so the model family has to be known from elsewhere.

Source: PEFT 0.21.2, peft_model.py (`get_prompt`), tuners/prefix_tuning, tuners/prompt_tuning and tuners/p_tuning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...adapter import JSON, MethodConfig
from ...architectures import Architecture
from ...errors import FormatError, UnsupportedError
from ...methods import PrefixTuningConfig, PromptTuningConfig, PTuningConfig
from ...methods.p_tuning import ejected
from ...methods.prefix_tuning import SPARE, flattened
from ...sites import Layout
from ..layers import MOST_LAYERS
from .codec import ConfigClass, Fields

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

KEY = "prompt_embeddings"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptCodec:
    """One type whose file has one tensor.

    Attributes:
        type: the value of `peft_type`.
        config: the class of our configuration.
        idle: fields that cannot change what a trained adapter computes.
        decode: fields, tensor and family → our configuration and tensors. Raises FormatError, UnsupportedError.
        encode: those and the layout → fields and the tensor. Raises UnsupportedError.
    """

    type: str
    config: ConfigClass
    idle: tuple[str, ...]
    decode: Callable[[Fields, torch.Tensor, Architecture], tuple[MethodConfig, Tensors]]
    encode: Callable[[Any, Mapping[str, torch.Tensor], Layout], tuple[dict[str, JSON], torch.Tensor]]
    meant: tuple[str, ...] = ("num_virtual_tokens", "num_layers", "num_transformer_submodules")

    def understands(self) -> Sequence[str]:
        """Return the fields of the type that may have any value."""
        return (*self.meant, *self.idle)

    def refused(self, fields: Fields) -> list[str]:
        """Return why this adapter is not read, one phrase each."""
        return []


def _number(fields: Fields, name: str, most: int) -> int:
    value = fields.get(name)
    if type(value) is not int or not 1 <= value <= most:
        raise FormatError(f"adapter_config.json: {name} is {value!r}, expected a number from 1 to {most}")
    return value


def _attentions(row: Architecture, layers: int) -> list[str]:
    """Return the self-attentions that PEFT gives a prefix to: those of the last stack.

    Raises:
        UnsupportedError: its layers share their attentions.
    """
    stack = row.layers[-1]
    if stack.path.count("{i}") != 1:
        raise UnsupportedError(
            f"layers of {row.name} models share their weights: a prefix has no place of its own there"
        )
    own = [part.path for part in stack.attentions if not part.cross]
    return [f"{stack.layer((index,))}.{path}" for index in range(layers) for path in own[:1]]


def _pairs(count: int, layers: int, *, joint: bool) -> list[int]:
    """Return which pair of keys and values each layer takes; joint: in an encoder-decoder."""
    return [(2 * layer) % count if joint else layer for layer in range(layers)]


def decode_prefix(fields: Fields, tensor: torch.Tensor, row: Architecture) -> tuple[MethodConfig, Tensors]:
    """Return the prefixes that a tensor holds."""
    import torch

    layers = _number(fields, "num_layers", MOST_LAYERS)
    joint = fields.get("num_transformer_submodules") == 2
    if tensor.ndim != 2 or tensor.shape[1] % (2 * layers) or (joint and len(row.layers) < 2):
        raise FormatError(f"{KEY} has shape {tuple(tensor.shape)}, which are no keys and values of {layers} layers")
    size = tensor.shape[1] // (2 * layers)
    columns = tensor.split(size, dim=1)
    taken = _pairs(layers, layers, joint=joint)
    found: Tensors = {}
    for pair, path in zip(taken, _attentions(row, layers), strict=True):
        found[f"{path}.prefix_key"] = columns[2 * pair].contiguous()
        found[f"{path}.prefix_value"] = columns[2 * pair + 1].contiguous()
    rest = [columns[2 * pair + k] for pair in range(layers) if pair not in taken for k in (0, 1)]
    if rest:
        found[SPARE] = torch.cat(rest, dim=1)
    config = PrefixTuningConfig(
        encoder_prefix=False,
        cross_prefix=False,
        flat=True,
        prefix_length=tensor.shape[0],
        positions="shifted",
        spare=len(rest) * size,
    )
    return config, found


def encode_prefix(
    config: PrefixTuningConfig, tensors: Mapping[str, torch.Tensor], layout: Layout
) -> tuple[dict[str, JSON], torch.Tensor]:
    """Return fields and tensor of a prefix; what a network makes is written as it is made.

    Raises:
        UnsupportedError: with every reason.
    """
    import torch

    taken = [attention.path for attention in layout.attentions if config.takes(attention)]
    own = [attention.path for attention in layout.attentions if attention.stack == "self"]
    reasons = ["its gates depend on the input"] if config.use_gating else []
    if config.positions != "shifted":
        reasons.append("PEFT counts the text's positions on behind the prefix, it does not")
    if taken != own:
        reasons.append("PEFT gives a prefix to every self-attention of the decoder and to nothing else")
    if config.padded_bonus:
        reasons.append("it weighs the prefix otherwise beside padding")
    if reasons:
        raise UnsupportedError(f"PEFT cannot say this prefix: {'; '.join(reasons)}")
    made = tensors if config.flat else flattened(config, tensors, layout)
    size = made[f"{own[0]}.prefix_key"].shape[1]
    joint = len({attention.stack for attention in layout.attentions}) > 1
    pairs = _pairs(len(own), len(own), joint=joint)
    columns: dict[int, torch.Tensor] = {}
    for pair, path in zip(pairs, own, strict=True):
        for k, name in enumerate(("key", "value")):
            column = made[f"{path}.prefix_{name}"]
            if not torch.equal(columns.setdefault(2 * pair + k, column), column):
                raise UnsupportedError(f"PEFT gives {path} the prefix of another layer, and this one differs from that")
    spare = [place for pair in range(len(own)) if pair not in pairs for place in (2 * pair, 2 * pair + 1)]
    kept = tensors[SPARE].split(size, dim=1) if SPARE in tensors else []
    for number, place in enumerate(spare):
        columns[place] = kept[number] if number < len(kept) else torch.zeros_like(columns[0])
    whole = torch.cat([columns[place] for place in range(2 * len(own))], dim=1)
    found: dict[str, JSON] = {"num_virtual_tokens": config.prefix_length, "num_layers": len(own)}
    return {**found, "num_transformer_submodules": 2 if joint else 1}, whole


def _entrance(row: Architecture) -> str:
    """Return the module whose output a prompt joins.

    Raises:
        UnsupportedError: the family reads no tokens, or has several such modules.
    """
    tokens = [names.tokens for names in row.embeddings]
    if len(tokens) != 1 or tokens[0] is None:
        raise UnsupportedError(
            f"{row.name} models have no one embedding of tokens that a prompt could stand in front of"
        )
    return tokens[0]


def decode_prompt(fields: Fields, tensor: torch.Tensor, row: Architecture) -> tuple[MethodConfig, Tensors]:
    """Return the prompt that a tensor holds."""
    length, spare = _lengths(fields, tensor)
    return (
        PromptTuningConfig(prompt_length=length, place="tokens", spare=spare),
        {f"{_entrance(row)}.prompt": tensor},
    )


def decode_p_tuning(fields: Fields, tensor: torch.Tensor, row: Architecture) -> tuple[MethodConfig, Tensors]:
    """Return the prompt that a tensor holds, which a network made."""
    length, spare = _lengths(fields, tensor)
    return PTuningConfig(prompt_length=length, encoder="none", spare=spare), {f"{_entrance(row)}.prompt": tensor}


def _lengths(fields: Fields, tensor: torch.Tensor) -> tuple[int, int]:
    length = _number(fields, "num_virtual_tokens", 65_536)
    if tensor.ndim != 2 or tensor.shape[0] % length:
        raise FormatError(f"{KEY} has shape {tuple(tensor.shape)}, which are no prompts of {length} vectors")
    return length, tensor.shape[0] - length


def encode_prompt(
    config: PromptTuningConfig, tensors: Mapping[str, torch.Tensor], layout: Layout
) -> tuple[dict[str, JSON], torch.Tensor]:
    """Return fields and tensor of a prompt.

    Raises:
        UnsupportedError: it stands behind the embeddings, without positions.
    """
    if config.place != "tokens":
        raise UnsupportedError(
            "PEFT cannot say this prompt: it stands behind the embedding module, where PEFT's has positions and norms"
        )
    vectors = _vectors(tensors)
    return _fields(config.prompt_length, config.spare, vectors), vectors


def encode_p_tuning(
    config: PTuningConfig, tensors: Mapping[str, torch.Tensor], layout: Layout
) -> tuple[dict[str, JSON], torch.Tensor]:
    """Return fields and tensor of a prompt; what a network makes is written as it is made."""
    from torch import nn

    if config.encoder != "none":
        tensors = ejected(config, tensors, nn.Identity().eval())
    vectors = _vectors(tensors)
    return _fields(config.prompt_length, config.spare, vectors), vectors


def _fields(length: int, spare: int, vectors: torch.Tensor) -> dict[str, JSON]:
    """Return the fields of a prompt.

    PEFT looks for the size of tokens and the number of heads by itself, but not under the names of every family; the
    second must be a number, and only prefixes depend on it.
    """
    found = {"num_virtual_tokens": length, "num_transformer_submodules": 1 + spare // length}
    return {**found, "token_dim": vectors.shape[1], "num_attention_heads": 1}


def _vectors(tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return next(tensor for key, tensor in tensors.items() if key.endswith(".prompt"))


SIZES = ("token_dim", "num_attention_heads")

CODECS: tuple[PromptCodec, ...] = (
    PromptCodec(
        type="PREFIX_TUNING",
        config=PrefixTuningConfig,
        idle=(*SIZES, "init_weights", "encoder_hidden_size", "prefix_projection"),
        decode=decode_prefix,
        encode=encode_prefix,
    ),
    PromptCodec(
        type="PROMPT_TUNING",
        config=PromptTuningConfig,
        idle=(*SIZES, "prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path", "tokenizer_kwargs"),
        decode=decode_prompt,
        encode=encode_prompt,
    ),
    PromptCodec(
        type="P_TUNING",
        config=PTuningConfig,
        idle=(
            *SIZES,
            "encoder_reparameterization_type",
            "encoder_hidden_size",
            "encoder_num_layers",
            "encoder_dropout",
        ),
        decode=decode_p_tuning,
        encode=encode_p_tuning,
    ),
    # These two make their prompt and prefix in a way of their own while they train; what they save are just those.
    PromptCodec(
        type="CPT",
        config=PromptTuningConfig,
        idle=(
            *SIZES,
            *("cpt_token_ids", "cpt_mask", "cpt_tokens_type_mask", "opt_weighted_loss_type", "opt_loss_decay_factor"),
            *("opt_projection_epsilon", "opt_projection_format_epsilon", "tokenizer_name_or_path"),
        ),
        decode=decode_prompt,
        encode=encode_prompt,
    ),
    PromptCodec(
        type="CARTRIDGE",
        config=PrefixTuningConfig,
        idle=(*SIZES, "num_frozen_tokens"),
        decode=decode_prefix,
        encode=encode_prefix,
    ),
)
