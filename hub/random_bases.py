"""Tiny base models with random weights and the sizes of an adapter, to run both sides of a conversion."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..adapter import Adapter
from ..architectures import Architecture, Layers, by_name, encoder_decoder
from ..converters import accounting, layers
from ..errors import AdapterHubError, UsageError
from ..sites import Layout
from .base_models import from_config, quiet_transformers

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

LARGEST = 200_000_000
"""So many parameters a base model that is made up may have."""

VOCABULARY = 128
POSITIONS = 64
USUAL = 32
"""Hidden size where no tensor tells it."""

IDS = {
    "pad_token_id": 0,
    "bos_token_id": 1,
    "cls_token_id": 1,
    "decoder_start_token_id": 1,
    "eos_token_id": 2,
    "sep_token_id": 2,
}
"""Tokens with a meaning, all of them in the small vocabulary."""

IMAGE = {"image_size": 16, "patch_size": 8}
"""Pixels of the side of an image, and of a patch, for a tower of images."""


def random_base(adapter: Adapter) -> PreTrainedModel:
    """Return a base model that an adapter fits.

    Raises:
        UsageError: its tensors do not tell enough, or such a model would be large.
    """
    from ..loader.account import check_account
    from ..loader.layout import survey

    row = by_name(adapter.manifest.base.architecture)
    shapes = {key: tuple(tensor.shape) for key, tensor in adapter.tensors.items()}
    layout = accounting.layout(adapter.config, shapes, row)
    indices = layers.found(shapes, row.layers)
    try:
        if row.name == encoder_decoder.ROW.name:
            made = _made(row, {}, _of_both(row, layout, indices, shapes))
        else:
            tied = row.layers[0].heads == (row.layers[0].query_heads,)
            sizes = _sizes(layout, [_count(stack, layout) for stack in row.layers], _embedded(shapes), tied=tied)
            sizes |= {**_feed_forwards(row, layout, shapes), **_groups(indices[0])}
            made = _made(row, _of_towers(row, layout, indices) or sizes)
        check_account(adapter, survey(made).layout)
    except (AdapterHubError, AssertionError, ValueError, TypeError, KeyError, AttributeError) as error:
        # transformers says in any of these ways that sizes make no model.
        raise _impossible(row, str(error)) from error
    return _settled(made)


def _impossible(row: Architecture, why: str) -> UsageError:
    return UsageError(
        f"no random {row.name} can be made up that the adapter fits: {' '.join(why.split())[:200]}",
        hint="name its base model with --base",
    )


def _count(stack: Layers, layout: Layout) -> int:
    """Return how many layers a stack has; those that the adapter leaves out count."""
    indices = (stack.index(block.path) for block in layout.blocks)
    return max((index[0] for index in indices if index is not None), default=-1) + 1


def _groups(indices: set[layers.Index]) -> dict[str, int]:
    """Return how many groups of layers there are, and how many are in one, for families that have groups."""
    pairs = [index for index in indices if len(index) == 2]
    if not pairs:
        return {}
    groups, inner = (max(numbers) + 1 for numbers in zip(*pairs, strict=True))
    return {"num_hidden_groups": groups, "inner_group_num": inner, "num_hidden_layers": groups}


def _embedded(shapes: Mapping[str, tuple[int, ...]], front: str = "") -> int:
    """Return the size of the embeddings where a norm of theirs tells it, else 0; front: of the paths of their model."""
    norms = [shape[0] for key, shape in shapes.items() if key.startswith(f"{front}embeddings.LayerNorm") and shape]
    return norms[0] if norms else 0


def _sizes(layout: Layout, counts: list[int], embedded: int, *, tied: bool = False) -> dict[str, Any]:
    """Return what the configuration of the base model says, by the names that most families have.

    tied: whether queries have as many heads as keys, whatever the model's width is.
    """
    outputs = {linear.roles[0]: linear.outputs for linear in reversed(layout.linears) if len(linear.roles) == 1}
    held = next((at.heads * at.head_size for at in layout.attentions), 0)
    # What has no tensors is taken to be as wide as the model.
    told = (size for size in (outputs.get("key"), outputs.get("value"), held) if size and size != layout.width)
    keys = min(told, default=layout.width) or USUAL
    width = layout.width or keys
    queries = outputs.get("query") or width
    queries = keys if tied and queries == layout.width else queries
    size = _head_size(queries, keys)
    wide = _inner(layout, width)
    count = max(1, *counts)
    words = max((linear.inputs for linear in layout.linears if linear.kind == "embedding"), default=0)
    found: dict[str, Any] = {
        "hidden_size": width,
        "num_hidden_layers": counts[0] or count,
        "num_attention_heads": queries // size,
        "num_key_value_heads": keys // size,
        "head_dim": size,
        "d_kv": size,
        "rotary_dim": size,
        "intermediate_size": wide,
        "n_inner": wide,
        "hidden_dim": wide,
        "vocab_size": words or VOCABULARY,
        "max_position_embeddings": POSITIONS,
        **IDS,
    }
    found |= {"embedding_size": embedded} if embedded else {}
    if len(counts) > 1:
        found |= {"encoder_layers": counts[0] or count, "decoder_layers": counts[1] or count}
        found |= {"num_layers": counts[0] or count, "num_decoder_layers": counts[1] or count}
        found |= dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), queries // size)
        found |= dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "d_ff"), wide)
    return found


def _feed_forwards(row: Architecture, layout: Layout, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Return the sizes inside the feed-forward sublayers of encoder and decoder, where tensors tell them."""
    if len(row.layers) != 2:
        return {}
    named = {key.rpartition(".")[0] for key in shapes}
    layout = replace(layout, linears=tuple(one for one in layout.linears if one.path in named))
    found = zip(("encoder_ffn_dim", "decoder_ffn_dim"), row.layers, strict=True)
    sizes = {name: _inner(_inside(stack, layout), layout.width, 0) for name, stack in found}
    return {name: size for name, size in sizes.items() if size}


def _inner(layout: Layout, width: int, default: int | None = None) -> int:
    """Return the size between the two halves of a feed-forward sublayer; maps without tensors say `width`."""
    said = [one.outputs for one in layout.linears if one.roles in (("intermediate",), ("gate",))]
    said += [one.inputs for one in layout.linears if one.roles == ("output",)]
    usual = 2 * width if default is None else default
    return next((size for size in said if size not in (0, width)), said[0] if said and said[0] else usual)


def _of_towers(row: Architecture, layout: Layout, indices: Sequence[set[layers.Index]]) -> dict[str, Any]:
    """Return what each configuration inside that of the base model says, {} for models of one tower."""
    found = {}
    for stack, named in zip(row.layers, indices, strict=True):
        name, dot, _ = stack.width.partition(".")
        if not dot:
            return {}
        # A tower that the adapter leaves alone has no layers, so that it lacks no tensors.
        count = _count(stack, layout) if named else 0
        found[name] = {**_sizes(_inside(stack, layout), [count], 0), "num_hidden_layers": count, **IMAGE}
    return found


def _inside(stack: Layers, layout: Layout) -> Layout:
    """Return what of a layout lies in a stack."""
    blocks = [block for block in layout.blocks if stack.index(block.path) is not None]
    return replace(
        layout,
        width=blocks[0].width if blocks else layout.width,
        linears=tuple(one for one in layout.linears if stack.index(one.path) is not None),
        attentions=tuple(one for one in layout.attentions if stack.index(one.path) is not None),
    )


def _of_both(
    row: Architecture,
    layout: Layout,
    indices: Sequence[set[layers.Index]],
    shapes: Mapping[str, tuple[int, ...]],
) -> PretrainedConfig:
    """Return the configuration of an encoder and a decoder, each of the family whose layers the adapter names."""
    from .random_pairs import configuration, front

    found = {
        stack: {
            **_sizes(_inside(stack, layout), [_count(stack, layout)], _embedded(shapes, front(stack))),
            **_groups(named),
        }
        for stack, named in zip(row.layers, indices, strict=True)
        if named
    }
    return configuration(found, _known)


def _head_size(queries: int, keys: int) -> int:
    """Return a size of one head that divides both, even where possible and small."""
    size = math.gcd(queries, keys)
    while size > 16 and size % 4 == 0:
        size //= 2
    return size


def _made(row: Architecture, sizes: Mapping[str, Any], config: PretrainedConfig | None = None) -> PreTrainedModel:
    """Return the model of the family's plain class, without its weights being settled; config: the whole of it.

    Raises:
        UsageError: it would be large.
    """
    import torch

    with quiet_transformers():
        config = _configuration(row, sizes) if config is None else config
        with torch.device("meta"):
            count = from_config(config).num_parameters()
        if count > LARGEST:
            raise UsageError(f"it would have {count:,} parameters")
        return from_config(config)


def _configuration(row: Architecture, sizes: Mapping[str, Any]) -> PretrainedConfig:
    from transformers import AutoConfig

    config_class = type(AutoConfig.for_model(row.model_types[0]))
    if not config_class.sub_configs.keys() <= sizes.keys():
        raise UsageError("such a model is made of several")
    towers = {name: _known(part, sizes[name]) for name, part in config_class.sub_configs.items()}
    made: PretrainedConfig = config_class(**(towers or _known(config_class, sizes)))
    return made


def _known(config_class: Any, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a class of configurations can be told, by its own names."""
    known = {config_class.attribute_map.get(name, name): value for name, value in sizes.items()}
    taken = set(vars(config_class())) | set(config_class.attribute_map)
    return {name: value for name, value in known.items() if name in taken}


def _settled(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model in evaluation mode, with weights that all matter for what it computes."""
    import torch

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_scale = parameter.dim() < 2 and not name.endswith("bias")
            parameter.copy_(1 + 0.2 * noise if is_scale else noise / math.sqrt(parameter.shape[-1]))
    made: PreTrainedModel = model.eval()
    return made
