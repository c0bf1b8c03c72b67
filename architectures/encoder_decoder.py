"""EncoderDecoderModel: an encoder and a decoder with cross-attention, each of another family, in one model.

The stacks are those of the other rows with `encoder.` and `decoder.` in front, and behind the latter the word that the
decoder's class has in front. `adapters` counts the layers of each from 0 and keeps the prefixes of each by themselves.
"""

from __future__ import annotations

import dataclasses

from . import albert, bert, distilbert, gpt2
from .architecture import Architecture, EmbeddingNames, Layers

DECODERS = {
    "bert": bert.LAYERS,
    "roberta": bert.LAYERS,
    "electra": bert.LAYERS,
    "transformer": gpt2.ROW.layers[0],
}
"""Word in front of the decoder's module paths → its layers."""


def encoder(stack: Layers) -> Layers:
    """Return a stack of an encoder as a part of the whole model."""
    moved = stack.moved("encoder.", config="encoder.")
    attentions = tuple(dataclasses.replace(part, prefix_stack="encoder") for part in moved.attentions if not part.cross)
    return dataclasses.replace(moved.without(moved.may_lack), attentions=attentions, may_lack=(), prefixes="encoder")


def decoder(word: str, stack: Layers) -> Layers:
    """Return a stack of a decoder as a part of the whole model."""
    moved = stack.moved(f"decoder.{word}.", config="decoder.")
    return dataclasses.replace(moved, restarts=True, prefixes=f"decoder.{word}", may_lack=())


ROW = Architecture(
    name="encoder-decoder",
    model_types=("encoder-decoder",),
    prefixes=(),
    layers=(
        *(encoder(row.layers[0]) for row in (bert.ROW, distilbert.ROW, albert.ROW)),
        *(decoder(word, stack) for word, stack in DECODERS.items()),
    ),
    norms=(
        "encoder.embeddings.LayerNorm",
        *(f"decoder.{word}.embeddings.LayerNorm" for word in ("bert", "roberta", "electra")),
        "decoder.transformer.ln_f",
    ),
    embeddings=(
        EmbeddingNames(
            path="encoder.embeddings",
            tokens="encoder.embeddings.word_embeddings",
            width=("encoder.embedding_size", "encoder.hidden_size"),
            stack="encoder",
            adapters="encoder",
            model="encoder",
            reader="decoder",
        ),
    ),
    may_lack=(
        "encoder.encoder.layer",
        "encoder.encoder.albert_layer_groups",
        "encoder.transformer",
        *(f"decoder.{word}" for word in DECODERS),
    ),
    reads="",
)
