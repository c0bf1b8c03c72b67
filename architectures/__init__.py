"""Model families, one row of data each.

A new family is one file with a row and one entry in ARCHITECTURES. A family that is not here can be described with
Architecture, or with the same in JSON.
"""

from __future__ import annotations

from ..errors import UnsupportedError
from . import (
    albert,
    bart,
    bert,
    bert_generation,
    clip,
    deberta,
    deberta_v2,
    distilbert,
    electra,
    encoder_decoder,
    gemma,
    gpt2,
    gptj,
    llama,
    mbart,
    mistral,
    modernbert,
    phi,
    qwen,
    roberta,
    t5,
    vit,
    whisper,
    xlm_roberta,
    xmod,
)
from .architecture import (
    Architecture,
    AttentionNames,
    EmbeddingNames,
    FeedForwardNames,
    HeadName,
    Layers,
    Sublayer,
    inside,
    named,
)
from .row_json import from_json, to_json

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "AttentionNames",
    "EmbeddingNames",
    "FeedForwardNames",
    "HeadName",
    "Layers",
    "Sublayer",
    "by_model_type",
    "by_name",
    "from_json",
    "inside",
    "named",
    "to_json",
]

ARCHITECTURES: tuple[Architecture, ...] = (
    bert.ROW,
    roberta.ROW,
    xlm_roberta.ROW,
    distilbert.ROW,
    albert.ROW,
    electra.ROW,
    deberta.ROW,
    deberta_v2.ROW,
    xmod.ROW,
    bert_generation.ROW,
    modernbert.ROW,
    gpt2.ROW,
    gptj.ROW,
    llama.ROW,
    mistral.ROW,
    qwen.QWEN2,
    qwen.QWEN3,
    gemma.GEMMA2,
    gemma.GEMMA3_TEXT,
    gemma.GEMMA3,
    phi.ROW,
    t5.T5,
    t5.MT5,
    bart.BART,
    mbart.ROW,
    bart.PLBART,
    whisper.ROW,
    vit.VIT,
    vit.BEIT,
    clip.CLIP,
    clip.TEXT,
    clip.VISION,
    encoder_decoder.ROW,
)


def by_name(name: str) -> Architecture:
    """Return the row called name.

    Raises:
        UnsupportedError: no row has this name.
    """
    for row in ARCHITECTURES:
        if row.name == name:
            return row
    raise UnsupportedError(f"no architecture is called {name!r}", hint=f"known are {_known()}")


def by_model_type(model_type: str) -> Architecture:
    """Return the row for a `model_type` of config.json.

    Raises:
        UnsupportedError: no row covers it.
    """
    for row in ARCHITECTURES:
        if model_type in row.model_types:
            return row
    raise UnsupportedError(
        f"models of type {model_type!r} are not known",
        hint=f"known are {_known()}; describe another one with adapterhub.architectures.Architecture",
    )


def _known() -> str:
    return ", ".join(row.name for row in ARCHITECTURES)
