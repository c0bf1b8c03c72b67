"""The families, heads and inputs of the cases in head-cases.tar.gz; names are those of `adapters`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Options = dict[str, Any]

PADDING, END, LENGTH, VOCABULARY = 1, 2, 6, 40
# Every name that some configuration has for these sizes; each takes those that it knows.
SIZES: Options = {
    **dict.fromkeys(("hidden_size", "dim", "n_embd", "d_model"), 16),
    **dict.fromkeys(("intermediate_size", "hidden_dim", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim"), 24),
    **dict.fromkeys(("num_hidden_layers", "n_layers", "n_layer", "encoder_layers", "decoder_layers", "num_layers"), 1),
    **dict.fromkeys(("num_attention_heads", "n_heads", "n_head", "num_heads"), 2),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads", "num_key_value_heads"), 2),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_source_positions", "max_target_positions"), 24),
    "vocab_size": VOCABULARY,
    "embedding_size": 8,
    "d_kv": 8,
    "rotary_dim": 4,
    "image_size": 8,
    "patch_size": 4,
    "num_mel_bins": 4,
    "pad_token_id": PADDING,
    "bos_token_id": 0,
    "eos_token_id": END,
    "decoder_start_token_id": END,
}


@dataclass(frozen=True)
class Family:
    """One model family.

    Attributes:
        stem: what its classes begin with.
        kinds: the flexible heads that its AdapterModel has.
        reads: `text`, `image`, `sound`, or `texts` where there is a decoder too.
        changes: settings of the model.
    """

    stem: str
    kinds: str
    reads: str = "text"
    changes: Options | None = None

    @property
    def plain(self) -> str:
        """Name of the class without a head."""
        return "BertGenerationEncoder" if self.stem == "BertGeneration" else f"{self.stem}Model"


CLASSES = "classification multilabel_classification"
ENCODER = f"{CLASSES} tagging multiple_choice question_answering"
ALL = f"{ENCODER} dependency_parsing masked_lm causal_lm"
DECODER = f"{CLASSES} tagging question_answering causal_lm"
BOTH = f"{CLASSES} question_answering seq2seq_lm"

FAMILIES: dict[str, Family] = {
    "bert": Family("Bert", ALL),
    "roberta": Family("Roberta", ALL),
    "xlm-roberta": Family("XLMRoberta", ALL),
    "distilbert": Family("DistilBert", ALL),
    "electra": Family("Electra", ALL),
    "albert": Family("Albert", f"{ENCODER} masked_lm"),
    "deberta": Family("Deberta", f"{ENCODER} masked_lm"),
    "deberta-v2": Family("DebertaV2", f"{ENCODER} masked_lm"),
    "xmod": Family("Xmod", ALL, changes={"default_language": "en_XX"}),
    "bert-generation": Family("BertGeneration", "masked_lm causal_lm"),
    "gpt2": Family("GPT2", DECODER),
    "gptj": Family("GPTJ", DECODER),
    "llama": Family("Llama", DECODER),
    "mistral": Family("Mistral", DECODER),
    "t5": Family("T5", BOTH, "texts"),
    "t5-v1_1": Family("T5", BOTH, "texts", {"tie_word_embeddings": False, "feed_forward_proj": "gated-gelu"}),
    "mt5": Family("MT5", BOTH, "texts"),
    "bart": Family("Bart", BOTH, "texts"),
    "mbart": Family("MBart", BOTH, "texts"),
    "plbart": Family("PLBart", BOTH, "texts"),
    "whisper": Family("Whisper", "seq2seq_lm", "sound"),
    "modernbert": Family("ModernBert", ""),
    "vit": Family("ViT", "image_classification", "image"),
    "beit": Family("Beit", "image_classification", "image"),
}

FURTHER: dict[str, str] = {
    "T5ForTokenClassification": "tagging",
    "MT5ForTokenClassification": "tagging",
    "ModernBertForSequenceClassification": "classification",
    "ModernBertForTokenClassification": "tagging",
    "ModernBertForQuestionAnswering": "question_answering",
    "ModernBertForMaskedLM": "masked_lm",
}
"""Classes whose heads the library saves and loads but has no flexible head for."""

LABELS: Options = {"id2label": {0: "low", 1: "middle", 2: "high"}}
DEEP: Options = {"layers": 3, "activation_function": "gelu"}
POOLER: Options = {"use_pooler": True}

# (name, kind, options); the first of each kind is made for every family, all of them for BERT
VARIANTS: list[tuple[str, str, Options]] = [
    ("classification", "classification", {"num_labels": 3}),
    ("classification-1layer", "classification", {"num_labels": 3, "layers": 1, **LABELS}),
    ("classification-3layers", "classification", {"num_labels": 4, **DEEP}),
    ("classification-linear", "classification", {"num_labels": 3, "layers": 3, "activation_function": None}),
    ("classification-pooler", "classification", {"num_labels": 3, **POOLER}),
    ("classification-nobias", "classification", {"num_labels": 3, "bias": False, "dropout_prob": 0.3}),
    ("regression", "classification", {"num_labels": 1}),
    ("multilabel", "multilabel_classification", {"num_labels": 3}),
    ("multilabel-1layer", "multilabel_classification", {"num_labels": 3, "layers": 1, **LABELS, **POOLER}),
    ("multilabel-3layers", "multilabel_classification", {"num_labels": 1, "bias": False, **DEEP}),
    ("tagging", "tagging", {"num_labels": 3}),
    ("tagging-2layers", "tagging", {"num_labels": 3, "layers": 2, **LABELS}),
    ("tagging-3layers", "tagging", {"num_labels": 5, "dropout_prob": 0.3, **DEEP}),
    ("tagging-linear", "tagging", {"num_labels": 3, "layers": 2, "activation_function": None}),
    ("choice", "multiple_choice", {"num_choices": 3}),
    ("choice-1layer", "multiple_choice", {"num_choices": 2, "layers": 1, **POOLER}),
    ("choice-3layers", "multiple_choice", {"num_choices": 3, **DEEP, **LABELS}),
    ("qa", "question_answering", {}),
    ("qa-2layers", "question_answering", {"layers": 2}),
    ("qa-3layers", "question_answering", {"dropout_prob": 0.3, **DEEP}),
    ("parsing", "dependency_parsing", {"num_labels": 4}),
    ("parsing-labels", "dependency_parsing", {"num_labels": 3, **LABELS}),
    ("masked", "masked_lm", {}),
    ("masked-1layer", "masked_lm", {"layers": 1}),
    ("masked-3layers", "masked_lm", {"layers": 3, "activation_function": "relu", "embedding_size": 12}),
    ("masked-nonorm", "masked_lm", {"layer_norm": False}),
    ("masked-nobias", "masked_lm", {"bias": False, "activation_function": None}),
    ("masked-shifted", "masked_lm", {"shift_labels": True, "vocab_size": 30}),
    ("causal", "causal_lm", {}),
    ("causal-2layers", "causal_lm", {"layers": 2, "activation_function": "gelu", "layer_norm": True, "bias": True}),
    ("causal-3layers", "causal_lm", {"layers": 3, "activation_function": "tanh", "embedding_size": 12, "bias": True}),
    ("causal-unshifted", "causal_lm", {"shift_labels": False, "dropout_prob": 0.3}),
    ("causal-linear", "causal_lm", {"layers": 2, "layer_norm": True}),
    ("seq2seq", "seq2seq_lm", {}),
    ("seq2seq-2layers", "seq2seq_lm", {"layers": 2, "activation_function": "gelu", "layer_norm": True, "bias": True}),
    ("image", "image_classification", {"num_labels": 3}),
    ("image-1layer", "image_classification", {"num_labels": 3, "layers": 1, **POOLER, **LABELS}),
    ("image-multilabel", "image_classification", {"num_labels": 3, "multilabel": True, "activation_function": None}),
    ("image-regression", "image_classification", {"num_labels": 1, "multilabel": True}),
]
PROMPTED = ("classification-pooler", "tagging", "qa", "masked", "causal", "choice")
"""Heads that are made beside a prompt too."""
INVERTED = (
    *((arch, "masked_lm") for arch in ("bert", "roberta", "distilbert", "electra", "albert", "deberta-v2")),
    *((arch, "causal_lm") for arch in ("bert", "gpt2", "gptj", "llama")),
    *((arch, "seq2seq_lm") for arch in ("t5", "t5-v1_1", "bart")),
)
"""Heads that are made beside an invertible adapter too."""

PREFIXED = (
    ("t5", "T5ForQuestionAnswering", "question_answering"),
    ("mt5", "MT5ForQuestionAnswering", "question_answering"),
    ("t5", "T5ForConditionalGeneration", "seq2seq_lm"),
    ("t5", "T5ForTokenClassification", "tagging"),
)
"""Classes whose heads are made beside prefixes, which the library saves with the head once more."""

# Those are made for every family whose classes have such a head, besides the first of each kind.
WIDELY = ("classification-3layers", "causal-2layers", "seq2seq-2layers", "masked-3layers", "qa-2layers")
IMAGES = tuple(name for name, kind, _ in VARIANTS if kind == "image_classification")


def variants(arch: str, family: Family) -> list[tuple[str, str, Options]]:
    """Return the heads that are made for a family."""
    found = []
    seen: set[str] = set()
    for name, kind, options in VARIANTS:
        if kind in family.kinds.split() and (kind not in seen or arch == "bert" or name in (*WIDELY, *IMAGES)):
            # A single layer of a head over the vocabulary reads hidden states; ELECTRA's embeddings are narrower.
            narrow = (
                arch == "electra"
                and kind.endswith("lm")
                and options.get("layers", 1 if kind != "masked_lm" else 2) == 1
            )
            found.append((name, kind, {**options, **({"embedding_size": 16} if narrow else {})}))
        seen.add(kind)
    return found


TEXTS = [[9, 26, 16, 25, 14, END], [36, 6, 28, END, PADDING, PADDING]]
MASKS = [[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]]
CHOICES = [[[23 + k, 9, 2 * k + 5, END] for k in range(3)], [[30 - k, 7, k + 8, END] for k in range(3)]]


def inputs(family: Family, kind: str, choices: int) -> Options:
    """Return argument → nested lists; pictures and sounds are drawn by the caller."""
    if family.reads in ("image", "sound"):
        return {} if family.reads == "image" else {"decoder_input_ids": [[END, 5, 9, 12], [END, 7, 30, 8]]}
    if kind == "multiple_choice":
        ids = [row[:choices] for row in CHOICES]
        return {"input_ids": ids, "attention_mask": [[[1] * 4 for _ in row] for row in ids]}
    found: Options = {"input_ids": TEXTS, "attention_mask": MASKS}
    if kind == "seq2seq_lm":
        found["decoder_input_ids"] = [[END, 5, 9, 12], [END, 7, 30, PADDING]]
    if kind == "dependency_parsing":
        found["word_starts"] = [[2, 3, 5, 6, PADDING, PADDING], [2, 3, 4, PADDING, PADDING, PADDING]]
    return found


def labels(kind: str, count: int, *, multilabel: bool = False, static: bool = False) -> Options:
    """Return argument → nested lists of what is right.

    count: how many classes or tokens there are; static: whether the head is that of a class of transformers.
    """
    if kind in ("classification", "image_classification") and count == 1:
        return {"labels": [0.5, -1.25]}
    if kind == "multilabel_classification" or multilabel:
        return {"labels": [[1.0, 0.0, 1.0][:count], [0.0, 0.0, 1.0][:count]]}
    if kind == "question_answering":
        return {"start_positions": [1, 2], "end_positions": [3, 9]}
    if kind == "tagging":
        # Flexible heads leave out what stands at padding; the classes of transformers do not.
        return {"labels": [[0, 1, 2, -100, 1, 0], [2, 1, 0, 1, *([-100, -100] if static else [0, 2])]]}
    if kind == "dependency_parsing":
        return {
            "labels_arcs": [[0, 2, 0, *[PADDING] * 3], [2, 0, *[PADDING] * 4]],
            "labels_rels": [[0, 2, 1, *[PADDING] * 3], [2, 0, *[PADDING] * 4]],
        }
    if kind == "seq2seq_lm":
        return {"labels": [[5, 9, 12, END], [7, 30 % count, END, -100]]}
    if kind in ("masked_lm", "causal_lm"):
        return {"labels": [[9, -100, 16, 25, 14, END], [-100, 6, 28, END, -100, -100]]}
    return {"labels": [1, 0]}
