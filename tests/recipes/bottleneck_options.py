"""The options, heads and old layouts that the cases cover; names are those of `adapters`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Options = dict[str, Any]

SEQ: Options = {"mh_adapter": False, "output_adapter": True, "reduction_factor": 8, "non_linearity": "relu"}
SEQ |= {"original_ln_before": True}
DOUBLE: Options = {"mh_adapter": True, "output_adapter": True, "reduction_factor": 8, "non_linearity": "swish"}
PAR: Options = SEQ | {"original_ln_before": False, "is_parallel": True, "scaling": 4.0}
PLUS: Options = SEQ | {"original_ln_after": False, "residual_before_ln": False, "scaling": "channel"}
PLUS |= {"init_weights": "houlsby", "stochastic_depth": 0.1, "non_linearity": "gelu"}
PRESETS = {"seq": SEQ, "double": DOUBLE, "par": PAR, "plus": PLUS}

# Every name that transformers' get_activation knows, the library's own leakyrelu, the old gelu_orig, and a capital.
GELUS = ["gelu", "gelu_new", "gelu_orig", "gelu_10", "gelu_fast", "gelu_python", "gelu_pytorch_tanh"]
GELUS += ["gelu_python_tanh", "gelu_accurate", "quick_gelu"]
RELUS = ["relu", "ReLU", "leaky_relu", "leakyrelu", "relu2", "relu6", "prelu", "xielu"]
ACTIVATIONS = [*GELUS, *RELUS, "laplace", "linear", "mish", "sigmoid", "silu", "swish", "tanh"]
WITH_WEIGHTS = ("prelu", "xielu")
CLIPPED = ("relu6", "gelu_10")
BOTH_NORMS: Options = {"ln_before": True, "ln_after": True}
AT_MH: Options = {"mh_adapter": True, "output_adapter": False}
AT_BOTH: Options = {"mh_adapter": True, "output_adapter": True}
BARE: Options = {"original_ln_after": False}

# (name, preset, what differs from the preset); `leave_out` and mappings run on the base with three layers
SINGLES: tuple[tuple[str, str, Options], ...] = (
    ("seq", "seq", {}),
    ("double", "double", {}),
    ("par", "par", {}),
    ("plus", "plus", {}),
    ("seq-mh", "seq", AT_MH),
    ("seq-both", "seq", AT_BOTH),
    ("double-mh", "double", AT_MH),
    ("double-output", "double", {"mh_adapter": False}),
    ("cross", "seq", {"cross_adapter": True}),
    ("plus-both", "plus", AT_BOTH),
    ("plus-rf96", "plus", {"reduction_factor": 96}),
    ("rf-float", "seq", {"reduction_factor": 2.5}),
    ("rf-int", "seq", {"reduction_factor": 16}),
    ("rf-half", "seq", {"reduction_factor": 0.5}),
    ("rf-0.8", "double", {"reduction_factor": 0.8}),
    ("rf-one", "seq", {"reduction_factor": 1}),
    ("rf-hidden", "seq", {"reduction_factor": 32}),
    ("rf-over", "double", {"reduction_factor": 64.0}),
    ("rf-map", "seq", {"reduction_factor": {"0": 4, "default": 16}}),
    ("rf-map-full", "double", {"reduction_factor": {"0": 4, "1": 8.5, "2": 16}}),
    ("rf-map-wide", "par", {"reduction_factor": {"1": 0.75, "default": 32.0}}),
    ("rf-map-leaveout", "seq", {"reduction_factor": {"1": 4, "2": 16}, "leave_out": [0]}),
    ("ln-before", "seq", {"ln_before": True}),
    ("ln-after", "seq", {"ln_after": True}),
    ("ln-both", "seq", BOTH_NORMS),
    ("ln-after-inside", "seq", {"ln_after": True, "adapter_residual_before_ln": True}),
    ("double-ln-before", "double", {"ln_before": True}),
    ("double-ln-after", "double", {"ln_after": True}),
    ("double-ln-both", "double", BOTH_NORMS),
    ("double-ln-both-inside", "double", BOTH_NORMS | {"adapter_residual_before_ln": True}),
    ("inside-without-ln", "seq", {"adapter_residual_before_ln": True}),
    *(
        (f"{preset}-scaling-{value}", preset, {"scaling": value})
        for preset in ("seq", "par")
        for value in (0.5, -0.5, 4.0, 1.0, "learned", "channel")
    ),
    ("double-scaling-learned", "double", {"scaling": "learned"}),
    ("double-scaling-channel-ln", "double", {"scaling": "channel", "ln_after": True}),
    ("gate-seq", "seq", {"use_gating": True}),
    ("gate-double", "double", {"use_gating": True}),
    ("gate-par", "par", {"use_gating": True}),
    ("gate-par-both", "par", AT_BOTH | {"use_gating": True}),
    ("gate-ln", "double", BOTH_NORMS | {"use_gating": True}),
    ("gate-par-ln", "par", BOTH_NORMS | {"use_gating": True}),
    ("gate-learned", "seq", {"use_gating": True, "scaling": "learned"}),
    ("gate-channel-par", "par", {"use_gating": True, "scaling": "channel"}),
    *(
        (f"par-{place}-{name}", "par", where | what)
        for place, where in (("mh", AT_MH), ("output", {}), ("both", AT_BOTH))
        for name, what in (
            ("plain", {"scaling": 1.0}),
            ("ln-before", {"ln_before": True}),
            ("ln-after", {"ln_after": True}),
            ("ln-both", BOTH_NORMS),
            ("bare", BARE),
            ("bare-ln-both", BOTH_NORMS | BARE),
        )
    ),
    ("par-ignores-ln", "par", {"original_ln_before": True}),
    ("par-ignores-post-add", "par", {"original_ln_before": True, "residual_before_ln": "post_add"}),
    ("par-ignores-residual", "par", {"residual_before_ln": False}),
    ("par-ignores-inside", "par", {"ln_after": True, "adapter_residual_before_ln": True}),
    ("leave-0", "seq", {"leave_out": [0]}),
    ("leave-1-double", "double", {"leave_out": [1]}),
    ("leave-02-par", "par", {"leave_out": [0, 2]}),
    ("leave-beyond", "seq", {"leave_out": [7]}),
    ("dropout", "seq", {"dropout": 0.5}),
    ("stochastic-depth", "seq", {"stochastic_depth": 0.2}),
    ("dropout-depth", "double", {"dropout": 0.1, "stochastic_depth": 0.3}),
    ("dropout-par", "par", {"dropout": 0.2, "stochastic_depth": 0.2}),
    ("init-mam", "seq", {"init_weights": "mam_adapter"}),
    ("init-houlsby", "double", {"init_weights": "houlsby"}),
    ("init-seed", "seq", {"init_weights_seed": 42}),
    *((f"act-{name}", "seq", {"non_linearity": name}) for name in ACTIVATIONS),
    *(
        (
            f"grid-{'b' if before else '-'}{'a' if after else '-'}-{str(residual).lower()}-{'in' if inside else 'out'}",
            "double",
            {"original_ln_before": before, "original_ln_after": after, "residual_before_ln": residual}
            | {"adapter_residual_before_ln": inside, "ln_after": True},
        )
        for before in (True, False)
        for after in (True, False)
        for residual in (True, False, "post_add")
        for inside in (True, False)
    ),
    *(
        (
            f"plain-grid-{'a' if after else '-'}-{str(residual).lower()}",
            "seq",
            {"residual_before_ln": residual, "original_ln_after": after},
        )
        for after in (True, False)
        for residual in (True, False, "post_add")
    ),
)

UNIONS: tuple[tuple[str, tuple[Options, ...]], ...] = (
    ("seq-par", (SEQ | AT_MH, PAR)),
    ("par-seq", (PAR | AT_MH, SEQ | {"non_linearity": "gelu_new", "reduction_factor": 4})),
    ("gate-ln", (DOUBLE | AT_MH | BOTH_NORMS, SEQ | {"use_gating": True, "scaling": "learned"})),
    ("plus-bare", (PLUS | AT_MH, PAR | BARE | {"scaling": "channel"})),
    ("wide-map", (SEQ | AT_MH | {"reduction_factor": 0.8}, SEQ | {"reduction_factor": {"0": 4, "default": 16}})),
    ("post-add", (SEQ | AT_MH | {"residual_before_ln": "post_add"}, DOUBLE | {"mh_adapter": False})),
    ("mh-layers", (SEQ | AT_MH | {"leave_out": [0]}, SEQ)),
    ("layers", (SEQ | {"leave_out": [0]}, PAR | {"leave_out": [1, 2]})),
    ("layers-both", (DOUBLE | {"leave_out": [1]}, SEQ | AT_BOTH | {"leave_out": [0, 2], "ln_before": True})),
)

# What a reader should refuse; whether the library does is written to refused.json, or printed where it does not.
INVALID: tuple[tuple[Options, ...], ...] = (
    (SEQ | {"scaling": 4},),
    (SEQ | {"scaling": "row"},),
    (SEQ | {"non_linearity": "nonsense"},),
    (SEQ | {"init_weights": "xavier"},),
    (SEQ | {"reduction_factor": 0},),
    (SEQ | {"reduction_factor": -2},),
    (SEQ | {"reduction_factor": "16"},),
    (SEQ | {"reduction_factor": {"0": 4}},),
    (SEQ | {"residual_before_ln": "post_ln"},),
    (SEQ | {"mh_adapter": False, "output_adapter": False},),
    (SEQ, DOUBLE),
)

FACTORS: dict[str, tuple[Any, ...]] = {
    "at": (AT_MH, {"mh_adapter": False, "output_adapter": True}, AT_BOTH),
    "reduction_factor": (8.0, 5, 16, 0.8, {"0": 4, "default": 16}),
    "non_linearity": ("relu", "gelu", "gelu_new", "swish", "silu", "leakyrelu", "tanh", "quick_gelu", "sigmoid"),
    "original_ln_before": (True, False),
    "original_ln_after": (True, False),
    "ln_before": (True, False),
    "ln_after": (True, False),
    "residual_before_ln": (True, False, "post_add"),
    "adapter_residual_before_ln": (True, False),
    "is_parallel": (True, False),
    "scaling": (1.0, 0.5, 4.0, "learned", "channel"),
    "use_gating": (True, False),
    "leave_out": ([], [1]),
    "dropout": (0.0, 0.1),
    "stochastic_depth": (0.0, 0.1),
    "init_weights": ("bert", "mam_adapter", "houlsby"),
}


@dataclass(frozen=True)
class Head:
    """A flexible classification head; the names are those of `adapters`."""

    num_labels: int = 2
    layers: int = 2
    activation_function: str | None = "tanh"
    id2label: dict[int, str] | None = None
    use_pooler: bool = False
    bias: bool = True
    dropout_prob: float | None = None


MOODS = {0: "negative", 1: "neutral", 2: "positive"}
# (name, head, preset of the adapter beside it or None for a head saved alone)
HEADS: tuple[tuple[str, Head, str | None], ...] = (
    *(
        (f"l{layers}-{act}", Head(num_labels=layers + 1, layers=layers, activation_function=act), "seq")
        for layers in (1, 2, 3)
        for act in ("tanh", "relu", "gelu", None)
    ),
    *((f"labels-{n}", Head(num_labels=n), "double") for n in (1, 2, 3, 4)),
    ("named", Head(num_labels=3, id2label=MOODS), "seq"),
    ("named-reversed", Head(num_labels=3, id2label={2: "c", 0: "a", 1: "b"}, layers=1), "par"),
    ("no-bias", Head(bias=False), "seq"),
    ("no-bias-l1", Head(bias=False, layers=1, num_labels=4), "double"),
    ("no-bias-l3", Head(bias=False, layers=3, num_labels=3, activation_function="relu"), "par"),
    ("dropout", Head(dropout_prob=0.3), "seq"),
    *((f"pooler-l{n}", Head(use_pooler=True, layers=n, num_labels=4 - n), "seq") for n in (1, 2, 3)),
    ("pooler-no-bias", Head(use_pooler=True, bias=False, layers=1, activation_function=None), "double"),
    ("plus", Head(num_labels=3, activation_function="gelu_new"), "plus"),
    ("leakyrelu", Head(num_labels=3, activation_function="leakyrelu"), "par"),
    ("alone", Head(num_labels=3), None),
    ("alone-l1", Head(num_labels=2, layers=1, id2label={0: "no", 1: "yes"}), None),
)

V1_FIELDS = ["mh_adapter", "output_adapter", "reduction_factor", "non_linearity", "leave_out"]
V1_FIELDS += ["original_ln_before", "original_ln_after", "ln_before", "ln_after"]
V1_FIELDS += ["residual_before_ln", "adapter_residual_before_ln"]
V1_EXTRA = {"attention_type": "sent-lvl-dynamic", "new_attention_norm": False, "invertible_adapter": None}
UPPER = {"ln_after": "LN_after", "ln_before": "LN_before"}
UPPER |= {"mh_adapter": "MH_Adapter", "output_adapter": "Output_Adapter"}
UNUSED_INVERTIBLE = {"block_type": "nice", "non_linearity": "relu", "reduction_factor": 2}
LATER_FIELDS = ("stochastic_depth", "init_weights_seed")
TASK = ("attention_text_task_adapters", "layer_text_task_adapters")
LANGUAGE = ("attention_text_lang_adapters", "layer_text_lang_adapters")
OLDEST = ("attention_adapters", "layer_adapters")
OLDEST_LANGUAGE = ("language_attention_adapters", "layer_language_adapters")
CURRENT = ("adapters", "adapters")


@dataclass(frozen=True)
class Legacy:
    """A bottleneck as an earlier release wrote it."""

    name: str
    era: str  # prev1, v1, v2, or a version string
    words: tuple[str, str]
    options: Options
    type: str | None = None
    prefix: bool = True
    extra: Options = field(default_factory=dict)


LEGACY: tuple[Legacy, ...] = (
    Legacy("v1-task-gelu", "v1", TASK, SEQ | {"non_linearity": "gelu"}, "text_task"),
    Legacy("v1-task-double", "v1", TASK, DOUBLE, "text_task"),
    Legacy("v1-task-double-gelu", "v1", TASK, DOUBLE | {"non_linearity": "gelu"}, "text_task"),
    Legacy("v1-lang", "v1", LANGUAGE, SEQ, "text_lang"),
    Legacy("v1-lang-double", "v1", LANGUAGE, DOUBLE | {"reduction_factor": 4}, "text_lang"),
    Legacy("v1-no-prefix", "v1", TASK, DOUBLE, "text_task", prefix=False),
    Legacy("v1-gelu-orig", "v1", TASK, SEQ | {"non_linearity": "gelu_orig"}, "text_task"),
    Legacy("v1-norms", "v1", TASK, DOUBLE | BOTH_NORMS | {"adapter_residual_before_ln": True}, "text_task"),
    Legacy("v1-residual", "v1", TASK, SEQ | {"residual_before_ln": False, "ln_after": True}, "text_task"),
    Legacy("v1-bare", "v1", TASK, SEQ | BARE, "text_task"),
    Legacy("v1-leave-out", "v1", TASK, DOUBLE | {"leave_out": [0]}, "text_task"),
    Legacy("v1-map", "v1", TASK, SEQ | {"reduction_factor": {"0": 4, "default": 16}}, "text_task"),
    Legacy("v1-unused-inv", "v1", TASK, SEQ, "text_task", extra={"invertible_adapter": UNUSED_INVERTIBLE}),
    Legacy("prev1-upper", "prev1", TASK, SEQ | {"non_linearity": "gelu"}, "text_task"),
    Legacy("prev1-upper-double", "prev1", TASK, DOUBLE, "text_task"),
    Legacy("prev1-upper-lang", "prev1", LANGUAGE, SEQ, "text_lang"),
    Legacy("prev1-oldest", "prev1", OLDEST, DOUBLE, "text_task"),
    Legacy("prev1-oldest-lang", "prev1", OLDEST_LANGUAGE, DOUBLE | {"non_linearity": "gelu"}, "text_lang"),
    Legacy("v2-gelu", "v2", CURRENT, SEQ | {"non_linearity": "gelu"}),
    Legacy("v2-double", "v2", CURRENT, DOUBLE, "text_task"),
    Legacy("v3-gelu", "3.2.1", CURRENT, SEQ | {"non_linearity": "gelu"}),
    Legacy("v3-par", "3.0.0", CURRENT, PAR),
    Legacy("v3-learned", "3.1.0", CURRENT, PAR | {"scaling": "learned"}),
    Legacy("v3-gate", "3.2.1", CURRENT, DOUBLE | {"use_gating": True}),
    Legacy("adapters-0.1.1", "adapters.0.1.1", CURRENT, SEQ | {"non_linearity": "gelu"}),
    Legacy("adapters-1.0.1", "adapters.1.0.1", CURRENT, PLUS | {"stochastic_depth": 0.0}),
)
LEGACY_HEADS: tuple[tuple[str, str, Head], ...] = (
    ("v1", "v1", Head(num_labels=3)),
    ("v1-gelu", "v1", Head(num_labels=2, activation_function="gelu")),
    ("v1-l1", "v1", Head(num_labels=1, layers=1)),
    ("v2", "v2", Head(num_labels=2, id2label={0: "no", 1: "yes"})),
    ("v3", "3.1.0", Head(num_labels=4, layers=3, activation_function="relu")),
)
