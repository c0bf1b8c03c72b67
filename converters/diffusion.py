"""Diffusion models of Stable Diffusion's kind as places of adapters: their parts, and how their modules are called.

A pipeline has a UNet and one or two CLIP text encoders. An adapter of the first text encoder alone is one of the
family `clip_text_model`; what acts in the UNet or in several parts belongs to a pipeline, whose module paths begin with
the part: `unet.down_blocks.0.…`, `text_encoder.text_model.encoder.…`. Module paths are those of diffusers' UNet;
Stability's own UNet, which files for SDXL are made with, calls the same modules otherwise.

Source: diffusers 0.42, models/unets/unet_2d_condition.py; kohya-ss sd-scripts, library/sdxl_original_unet.py.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

from ..adapter import JSON, Adapter
from ..architectures import Architecture, clip
from ..errors import UnsupportedError, UsageError
from .format import KnownBase
from .low_rank.dialect import naming_of
from .low_rank.updates import NATIVE, Updates
from .options import Option
from .peft import equal
from .peft.families import Naming

PIPELINE = Architecture(name="diffusion_pipeline", model_types=(), prefixes=(), layers=())
"""The family of adapters that act in several parts; nothing can be attached to it as a whole."""

UNET, TEXT, TEXT_2 = "unet", "text_encoder", "text_encoder_2"
PARTS = (UNET, TEXT, TEXT_2)

WORDS = frozenset(
    (
        *("down_blocks", "up_blocks", "mid_block", "attentions", "transformer_blocks", "attn1", "attn2"),
        *("to_q", "to_k", "to_v", "to_out", "ff", "net", "proj", "proj_in", "proj_out"),
        *("resnets", "conv1", "conv2", "conv", "conv_shortcut", "time_emb_proj", "downsamplers", "upsamplers"),
        *("conv_in", "conv_out", "time_embedding", "add_embedding", "linear_1", "linear_2"),
        *("text_model", "encoder", "layers", "self_attn", "q_proj", "k_proj", "v_proj", "out_proj"),
        *("mlp", "fc1", "fc2", "text_projection"),
        *("input_blocks", "middle_block", "output_blocks", "in_layers", "out_layers", "emb_layers"),
        *("skip_connection", "op", "time_embed", "label_emb", "out"),
    )
)
"""Words between the dots of module paths, besides numbers."""

LONGEST = max(word.count("_") for word in WORDS) + 1

_NUMBER = re.compile(r"0|[1-9][0-9]{0,2}", re.ASCII)


def dotted(joined: str) -> str | None:
    """Return the module path that was joined with underscores, None where a word of it is not known.

    Law: dotted(path.replace(".", "_")) == path, for paths of these words.

    >>> dotted("down_blocks_0_attentions_1_proj_in")
    'down_blocks.0.attentions.1.proj_in'
    """
    pieces = joined.split("_")
    words = []
    while pieces:
        sizes = range(min(LONGEST, len(pieces)), 0, -1)
        size = next((size for size in sizes if _is_word("_".join(pieces[:size]))), None)
        if size is None:
            return None
        words.append("_".join(pieces[:size]))
        pieces = pieces[size:]
    return ".".join(words)


def _is_word(text: str) -> bool:
    return text in WORDS or _NUMBER.fullmatch(text) is not None


def names_of(paths: Sequence[str]) -> Naming:
    """Return how module paths are written that begin with a part."""
    for former, inside in ((True, f"{TEXT}.text_model.encoder."), (False, f"{TEXT}.encoder.")):
        if all(path.startswith(inside) for path in paths):
            return naming_of(clip.TEXT, TEXT, former=former)
    return naming_of(PIPELINE, "")


def text_naming(kept: Mapping[str, JSON]) -> Naming:
    """Return how module paths are written of an adapter of a text encoder alone; kept: see Dialect."""
    prefix = kept.get("prefix", TEXT)
    # A source says it; what comes from elsewhere is called as other programs do, after transformers 4.
    former = kept.get("former") is True if "prefix" in kept else True
    return naming_of(clip.TEXT, prefix if prefix in PARTS else TEXT, former=former)


def naming_for(row: Architecture, kept: Mapping[str, JSON]) -> Naming:
    """Return how module paths are written of an adapter of a family.

    Raises:
        UnsupportedError: no part of a diffusion model is of this family.
    """
    if row == clip.TEXT:
        return text_naming(kept)
    if row == PIPELINE:
        return naming_of(PIPELINE, "")
    raise UnsupportedError(f"{row.name} is no part of a diffusion model", hint=NATIVE)


def rewritten(adapter: Adapter, base: KnownBase | None) -> Adapter:
    """Return an adapter that computes the same as a LoRA, where that can be; see Format."""
    return adapter if adapter.manifest.base.architecture == PIPELINE.name else equal.rewritten(adapter, base)


def chosen(found: Updates, options: Mapping[str, JSON]) -> tuple[Updates, Naming]:
    """Return the updates of the part that the caller names, or all, and how their module paths are written.

    Raises:
        UsageError: there is no such part.
    """
    part = options.get("part")
    if part is None:
        return found, names_of(found.paths)
    tensors = {place: tensor for place, tensor in found.tensors.items() if place.path.startswith(f"{part}.")}
    if part not in PARTS or not tensors:
        here = ", ".join(dict.fromkeys(path.partition(".")[0] for path in found.paths))
        raise UsageError(f"the adapter has no part {part!r}", hint=f"it has {here}")
    alphas = {path: alpha for path, alpha in found.alphas.items() if path.startswith(f"{part}.")}
    former = all(path.split(".")[1] == "text_model" for path in alphas)
    names = naming_of(PIPELINE, "") if part == UNET else naming_of(clip.TEXT, str(part), former=former)
    return dataclasses.replace(found, tensors=tensors, alphas=alphas), names


OPTIONS: Mapping[str, Option] = {
    "part": Option("unet, text_encoder or text_encoder_2: read this one alone, so that it can be attached to its model")
}


# Stability's UNet

_RESNET = {
    "in_layers.2": "conv1",
    "out_layers.3": "conv2",
    "emb_layers.1": "time_emb_proj",
    "skip_connection": "conv_shortcut",
}
_OUTSIDE = {
    "input_blocks.0.0": "conv_in",
    "out.2": "conv_out",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
}
STABILITY = ("input_blocks", "middle_block", "output_blocks", *(path.partition(".")[0] for path in _OUTSIDE))
"""First words of paths in Stability's UNet."""

PER_BLOCK = 2
"""Layers in each block on the way down; one more on the way up."""


def from_stability(path: str) -> str | None:
    """Return what diffusers calls a module of Stability's UNet, None where there is none.

    >>> from_stability("input_blocks.4.1.transformer_blocks.0.attn1.to_q")
    'down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q'
    """
    if path in _OUTSIDE:
        return _OUTSIDE[path]
    words = path.split(".", 3)
    if words[0] == "middle_block" and len(words) > 2:
        return _from_middle(words[1], path.split(".", 2)[2])
    if len(words) < 4 or not (words[1].isdigit() and words[2].isdigit()):
        return None
    number, inner, rest = int(words[1]), int(words[2]), words[3]
    if words[0] == "input_blocks":
        block, layer = divmod(number - 1, PER_BLOCK + 1)
        if layer == PER_BLOCK:
            return f"down_blocks.{block}.downsamplers.0.conv" if (inner, rest) == (0, "op") else None
        return None if number < 1 else _from_inner(f"down_blocks.{block}", layer, inner, rest)
    if words[0] == "output_blocks":
        block, layer = divmod(number, PER_BLOCK + 1)
        if (layer, inner, rest) == (PER_BLOCK, 2, "conv"):
            return f"up_blocks.{block}.upsamplers.0.conv"
        return _from_inner(f"up_blocks.{block}", layer, inner, rest)
    return None


def _from_middle(number: str, rest: str) -> str | None:
    places: Mapping[str, tuple[int, int]] = {"0": (0, 0), "1": (1, 0), "2": (0, 1)}
    if number not in places:
        return None
    inner, layer = places[number]
    return _from_inner("mid_block", layer, inner, rest)


def _from_inner(block: str, layer: int, inner: int, rest: str) -> str | None:
    """Return a path in a residual block (0) or in a transformer (1)."""
    if inner == 0:
        return f"{block}.resnets.{layer}.{_RESNET[rest]}" if rest in _RESNET else None
    return f"{block}.attentions.{layer}.{rest}" if inner == 1 else None


def to_stability(path: str) -> str | None:
    """Return what Stability's UNet calls a module of diffusers', None where there is none.

    Law: to_stability(from_stability(path)) == path.
    """
    outside = next((theirs for theirs, ours in _OUTSIDE.items() if ours == path), None)
    match = _BLOCK.fullmatch(path)
    if outside is not None or match is None:
        return outside
    where, block, kind, layer, rest = match["where"], match["block"], match["kind"], int(match["layer"]), match["rest"]
    inner = 1 if kind == "attentions" else 0
    if kind.endswith("samplers"):
        if rest != "conv" or layer:
            return None
        number = (PER_BLOCK + 1) * (int(block) + 1)
        return f"input_blocks.{number}.0.op" if where == "down" else f"output_blocks.{number - 1}.2.conv"
    back = {ours: theirs for theirs, ours in _RESNET.items()}
    rest = rest if inner else back.get(rest, "")
    if not rest:
        return None
    if where == "mid":
        return f"middle_block.{1 if inner else 2 * layer}.{rest}"
    number = (PER_BLOCK + 1) * int(block) + layer
    most = PER_BLOCK if where == "down" else PER_BLOCK + 1
    ahead = f"input_blocks.{number + 1}" if where == "down" else f"output_blocks.{number}"
    return f"{ahead}.{inner}.{rest}" if layer < most else None


_BLOCK = re.compile(
    r"(?P<where>down|mid|up)_blocks?(?:\.(?P<block>[0-9]+))?\.(?P<kind>resnets|attentions|downsamplers|upsamplers)"
    r"\.(?P<layer>[0-9]+)\.(?P<rest>.+)"
)
