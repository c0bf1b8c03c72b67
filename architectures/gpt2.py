"""GPT-2 (Radford et al. 2019), a pre-norm decoder; queries, keys and values come from one Conv1D.

`adapters` has no bottleneck behind a cross-attention of it, and no LoRA in one.
"""

from __future__ import annotations

from .architecture import (
    Architecture,
    AttentionNames,
    EmbeddingNames,
    FeedForwardNames,
    HeadName,
    Layers,
    Sublayer,
)

ROW = Architecture(
    name="gpt2",
    model_types=("gpt2",),
    prefixes=("transformer",),
    layers=(
        Layers(
            path="h.{i}",
            sublayers=(
                Sublayer(
                    role="attention",
                    path="attn",
                    output="attn.resid_dropout",
                    residual="ln_1",
                    adapters="attention_adapters",
                ),
                Sublayer(
                    role="feed_forward",
                    path="mlp",
                    output="mlp.dropout",
                    residual="ln_2",
                    adapters="output_adapters",
                ),
            ),
            norms=("ln_1", "ln_2", "ln_cross_attn"),
            attentions=(
                AttentionNames(
                    path="attn", query="attn.c_attn", key="attn.c_attn", value="attn.c_attn", output="attn.c_proj"
                ),
                AttentionNames(
                    path="crossattention",
                    query="crossattention.q_attn",
                    key="crossattention.c_attn",
                    value="crossattention.c_attn",
                    output="crossattention.c_proj",
                    prefix="cross_prefix",
                    cross=True,
                    named=False,
                ),
            ),
            feed_forward=FeedForwardNames(intermediate="mlp.c_fc", output="mlp.c_proj"),
            positions="wpe",
            may_lack=("crossattention", "ln_cross_attn"),
        ),
    ),
    norms=("ln_f",),
    embeddings=(EmbeddingNames(path="drop", tokens="wte"),),
    heads=(
        HeadName(classes=("GPT2ForSequenceClassification",), linears=("score",), pooling="last"),
        HeadName(classes=("GPT2ForTokenClassification",), kind="tagging", linears=("classifier",)),
        HeadName(classes=("GPT2ForQuestionAnswering",), kind="question_answering", linears=("qa_outputs",)),
        HeadName(classes=("GPT2LMHeadModel",), kind="causal_lm", linears=("lm_head",)),
    ),
    reads="last",
)
