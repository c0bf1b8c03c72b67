"""Whisper (Radford et al. 2022): the layers of mBART; the encoder reads log-mel features of speech.

No module yields what enters the encoder's layers. `adapters` puts invertible adapters behind the encoder's last norm.
"""

from __future__ import annotations

from . import mbart
from .architecture import Architecture, EmbeddingNames, HeadName

ROW = Architecture(
    name="whisper",
    model_types=("whisper",),
    prefixes=("model",),
    layers=(mbart.ENCODER, mbart.DECODER),
    norms=("encoder.layer_norm", "decoder.layer_norm"),
    embeddings=(
        EmbeddingNames(path="encoder.layer_norm", tokens=None, width=("d_model",), stack="encoder", adapters="encoder"),
    ),
    heads=(HeadName(classes=("WhisperForConditionalGeneration",), kind="seq2seq_lm", linears=("proj_out",)),),
    may_lack=("encoder", "decoder"),
    reads="eos",
)
