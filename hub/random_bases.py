"""Tiny base models with random weights and the sizes of an adapter, to run both sides of a conversion."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..adapter import Adapter
from ..architectures import Architecture, by_name
from ..converters import accounting, layers
from ..errors import AdapterHubError, UsageError
from ..sites import Layout
from .base_models import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LARGEST = 200_000_000
"""So many parameters a base model that is made up may have."""

VOCABULARY = 128
POSITIONS = 64


def random_base(adapter: Adapter) -> PreTrainedModel:
    """Return a base model that an adapter fits.

    Raises:
        UsageError: its tensors do not tell enough, or such a model would be large.
    """
    row = by_name(adapter.manifest.base.architecture)
    shapes = {key: tuple(tensor.shape) for key, tensor in adapter.tensors.items()}
    layout = accounting.layout(adapter.config, shapes, row)
    counts = [_count(indices) for indices in layers.found(shapes, row.layers)]
    try:
        made = _made(row, _sizes(row, layout, counts))
    except (AdapterHubError, ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError) as error:
        raise _impossible(row, str(error)) from error
    return _settled(made)


def _impossible(row: Architecture, why: str) -> UsageError:
    return UsageError(
        f"no random {row.name} can be made up that the adapter fits: {' '.join(why.split())[:200]}",
        hint="name its base model with --base",
    )


def _count(indices: set[tuple[int, ...]]) -> int:
    return max((index[0] for index in indices), default=-1) + 1


def _sizes(row: Architecture, layout: Layout, counts: list[int]) -> dict[str, Any]:
    """Return what the configuration of the base model says, by the names that most families have."""
    outputs = {
        role: linear.outputs for linear in reversed(layout.linears) for role in linear.roles if linear.roles[1:] == ()
    }
    width = layout.width or next((at.width for at in layout.attentions), 32)
    keys = outputs.get("key", next((at.heads * at.head_size for at in layout.attentions), width))
    queries = outputs.get("query", width)
    size = _head_size(queries, keys)
    wide = outputs.get("intermediate", outputs.get("gate", 2 * width))
    count = max(1, *counts)
    found: dict[str, Any] = {
        "hidden_size": width,
        "num_hidden_layers": counts[0] or count,
        "num_attention_heads": queries // size,
        "num_key_value_heads": keys // size,
        "head_dim": size,
        "intermediate_size": wide,
        "vocab_size": max(VOCABULARY, *(linear.inputs for linear in layout.linears if linear.kind == "embedding"), 1),
        "max_position_embeddings": POSITIONS,
    }
    if len(counts) > 1:
        found |= {"encoder_layers": counts[0] or count, "decoder_layers": counts[1] or count}
        found |= {"num_layers": counts[0] or count, "num_decoder_layers": counts[1] or count}
        found |= dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), queries // size)
        found |= dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "d_ff"), wide)
    return found


def _head_size(queries: int, keys: int) -> int:
    """Return a size of one head that divides both, even where possible and small."""
    size = math.gcd(queries, keys)
    while size > 16 and size % 4 == 0:
        size //= 2
    return size


def _made(row: Architecture, sizes: Mapping[str, Any]) -> PreTrainedModel:
    """Return the model of the family's plain class, without its weights being settled.

    Raises:
        UsageError: it would be large.
    """
    import torch
    from transformers import AutoConfig, AutoModel

    config_class = type(AutoConfig.for_model(row.model_types[0]))
    known = {config_class.attribute_map.get(name, name): value for name, value in sizes.items()}
    taken = set(vars(config_class())) | set(config_class.attribute_map)
    with quiet_transformers():
        config = config_class(**{name: value for name, value in known.items() if name in taken})
        with torch.device("meta"):
            count = AutoModel.from_config(config, trust_remote_code=False).num_parameters()
        if count > LARGEST:
            raise UsageError(f"it would have {count:,} parameters")
        made: PreTrainedModel = AutoModel.from_config(config, trust_remote_code=False)
    return made


def _settled(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model in evaluation mode, with weights that all matter for what it computes."""
    import torch

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_scale = parameter.dim() == 1 and not name.endswith("bias")
            parameter.copy_(1 + 0.2 * noise if is_scale else noise / math.sqrt(parameter.shape[-1]))
    made: PreTrainedModel = model.eval()
    return made
