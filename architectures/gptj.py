"""GPT-J (Wang & Komatsuzaki 2021), a decoder whose attention and feed-forward block run side by side.

Both read the same normalised input, and both outputs are added to the residual stream. In `adapters` the stream that
enters the feed-forward site has the output of the attention, and of the adapter there, in it already.
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
    name="gptj",
    model_types=("gptj",),
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
                    residual="ln_1",
                    beside="attn.resid_dropout",
                    adapters="output_adapters",
                ),
            ),
            norms=("ln_1",),
            attentions=(
                AttentionNames(
                    path="attn", query="attn.q_proj", key="attn.k_proj", value="attn.v_proj", output="attn.out_proj"
                ),
            ),
            feed_forward=FeedForwardNames(intermediate="mlp.fc_in", output="mlp.fc_out"),
            positions="",
            form="gptj",
        ),
    ),
    norms=("ln_f",),
    embeddings=(EmbeddingNames(path="drop", tokens="wte"),),
    heads=(
        HeadName(classes=("GPTJForSequenceClassification",), linears=("score",), pooling="last"),
        HeadName(classes=("GPTJForQuestionAnswering",), kind="question_answering", linears=("qa_outputs",)),
        HeadName(classes=("GPTJForCausalLM",), kind="causal_lm", linears=("lm_head",)),
    ),
    reads="last",
)
