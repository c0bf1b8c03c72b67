"""Cases drawn at random, as data: adapters with options, compositions, families and inputs; nothing is loaded for it.

A case follows from its dimension and its number alone, so that any of them can be made again by itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from families import DISENTANGLED, FAMILIES, GROUPED, IDS, SEQ2SEQ, T5, TEXT, Family

Options = dict[str, Any]
Draw = random.Random

VARIANTS: dict[str, Family] = {
    "albert-shared": Family("albert", "AlbertModel", {**TEXT, "embedding_size": 16, "num_hidden_layers": 3}),
    "bart-scaled": Family("bart", "BartModel", {**SEQ2SEQ, "scale_embedding": True}),
    "deberta-plain": Family("deberta", "DebertaModel", {**TEXT, "relative_attention": False}),
    "deberta-v2-shared": Family(
        "deberta-v2",
        "DebertaV2Model",
        {**DISENTANGLED, "share_att_key": True, "position_buckets": 4, "norm_rel_ebd": "layer_norm"},
    ),
    "deberta-v2-convolved": Family("deberta-v2", "DebertaV2Model", {**DISENTANGLED, "conv_kernel_size": 3}),
    "electra-even": Family("electra", "ElectraModel", {**TEXT, "embedding_size": 32}),
    "llama-even": Family("llama", "LlamaModel", {**TEXT, "attention_bias": True, "mlp_bias": True}),
    "mistral-even": Family("mistral", "MistralModel", {**TEXT, "num_key_value_heads": 4, "sliding_window": None}),
    "qwen2-even": Family("qwen2", "Qwen2Model", {**TEXT, **IDS, "num_key_value_heads": 4}),
    "phi-normed": Family("phi", "PhiModel", {**GROUPED, "qk_layernorm": True}),
    "t5-gated": Family("t5", "T5Model", {**T5, "feed_forward_proj": "gated-gelu"}),
    "mt5-plain": Family("mt5", "MT5Model", {**T5, "feed_forward_proj": "relu"}),
    "encoder-decoder-mixed": Family("encoder-decoder", "EncoderDecoderModel", parts=("roberta", "gpt2")),
}
"""Further tiny models: the settings that change where things are computed."""

MODELS: dict[str, Family] = FAMILIES | VARIANTS

BN: Options = {
    "mh_adapter": False,
    "output_adapter": True,
    "reduction_factor": 16,
    "non_linearity": "relu",
    "original_ln_before": True,
}
DOUBLE: Options = {
    "mh_adapter": True,
    "output_adapter": True,
    "reduction_factor": 16,
    "non_linearity": "swish",
    "original_ln_before": False,
}
PAR: Options = BN | {"original_ln_before": False, "is_parallel": True, "scaling": 4.0, "init_weights": "mam_adapter"}
PLUS: Options = BN | {
    "original_ln_after": False,
    "residual_before_ln": False,
    "scaling": "channel",
    "init_weights": "houlsby",
    "stochastic_depth": 0.1,
    "non_linearity": "gelu",
}
PHM: Options = {"phm_layer": True, "phm_dim": 2, "reduction_factor": 8, "non_linearity": "gelu"}
NICE: Options = {"inv_adapter": "nice", "inv_adapter_reduction_factor": 2}
PREFIX: Options = {"architecture": "prefix_tuning", "prefix_length": 4, "bottleneck_size": 5}
PROMPT: Options = {"architecture": "prompt_tuning", "prompt_length": 3}
LORA: Options = {"architecture": "lora", "r": 3, "alpha": 5}
IA3: Options = {
    "architecture": "lora",
    "r": 1,
    "alpha": 1,
    "composition_mode": "scale",
    "init_weights": "ia3",
    "attn_matrices": ["k", "v"],
    "intermediate_lora": True,
}
VERA: Options = LORA | {"vera_d": 0.1, "vera_b": 0.0, "init_weights": "vera"}
MTL: Options = LORA | {"architecture": "mtl_lora", "n_up_projection": 2}
REFT: Options = {"architecture": "reft", "layers": "all", "prefix_positions": 3, "suffix_positions": 0, "r": 1}

PRESETS: dict[str, list[Options]] = {
    "seq_bn": [BN],
    "double_seq_bn": [DOUBLE],
    "par_bn": [PAR],
    "scaled_par_bn": [PAR | {"scaling": "learned"}],
    "adapterplus": [PLUS],
    "cross_adapter": [DOUBLE | {"cross_adapter": True}],
    "seq_bn_inv": [BN | NICE],
    "double_seq_bn_inv": [DOUBLE | NICE],
    "compacter": [DOUBLE | PHM],
    "compacter++": [BN | PHM],
    "prefix_tuning": [PREFIX],
    "prefix_tuning_flat": [PREFIX | {"flat": True}],
    "prompt_tuning": [PROMPT],
    "lora": [LORA],
    "dora": [LORA | {"use_dora": True}],
    "ia3": [IA3],
    "vera": [VERA],
    "dvora": [VERA | {"use_dora": True}],
    "mtl_lora": [MTL],
    "loreft": [REFT | {"orthogonality": True}],
    "noreft": [REFT | {"orthogonality": False}],
    "direft": [REFT | {"orthogonality": False, "subtract_projection": False}],
    "mam": [PREFIX | {"bottleneck_size": 8}, PAR],
    "unipelt": [PREFIX | {"use_gating": True}, BN | {"use_gating": True}, LORA | {"alpha": 2, "use_gating": True}],
}
"""Preset of the library → its members with small sizes."""

ACTIVATIONS = ("relu", "gelu", "gelu_new", "swish", "leakyrelu", "tanh", "sigmoid", "quick_gelu", "mish")


def often(draw: Draw, usual: Any, *others: Any) -> Any:
    """Return the usual value in two of three draws, else one of the others."""
    return usual if draw.random() < 0.66 else draw.choice(others)


def bottleneck(draw: Draw) -> list[Options]:
    """Return a bottleneck with random options."""
    mh, output = draw.choice(((True, True), (True, False), (False, True)))
    found: Options = {
        "mh_adapter": mh,
        "output_adapter": output,
        "reduction_factor": often(draw, 8, 5, 2.5, 0.8, {"0": 4, "default": 16}, {"2": 4, "1": 8, "default": 16}),
        "non_linearity": draw.choice(ACTIVATIONS),
        "original_ln_before": draw.random() < 0.5,
        "original_ln_after": often(draw, True, False),
        "ln_before": often(draw, False, True),
        "ln_after": often(draw, False, True),
        "residual_before_ln": often(draw, True, False, "post_add"),
        "adapter_residual_before_ln": often(draw, False, True),
        "is_parallel": often(draw, False, True),
        "scaling": often(draw, 1.0, 0.5, 4.0, "learned", "channel"),
        "use_gating": often(draw, False, True),
        "cross_adapter": draw.random() < 0.5,
        "leave_out": often(draw, [], [0], [1], [0, 2], [3]),
        "dropout": often(draw, 0.0, 0.1),
        "init_weights": often(draw, "bert", "mam_adapter", "houlsby"),
    }
    return [found | (NICE if draw.random() < 0.15 else {})]


def compacter(draw: Draw) -> list[Options]:
    """Return a Compacter with random options."""
    found = draw.choice((BN, DOUBLE, PAR)) | {
        "phm_layer": True,
        "phm_dim": often(draw, 2, 4),
        "reduction_factor": draw.choice((4, 8, {"0": 4, "default": 8})),
        "init_weights": "bert",
        "non_linearity": draw.choice(ACTIVATIONS),
        "factorized_phm_W": often(draw, True, False),
        "shared_W_phm": often(draw, False, True),
        "shared_phm_rule": often(draw, True, False),
        "factorized_phm_rule": often(draw, False, True),
        "phm_rank": often(draw, 1, 2),
        "phm_bias": often(draw, True, False),
        "phm_c_init": often(draw, "normal", "uniform"),
        "learn_phm": often(draw, True, False),
        "cross_adapter": draw.random() < 0.3,
        "leave_out": often(draw, [], [0], [1]),
        "ln_after": often(draw, False, True),
        "use_gating": often(draw, False, True),
    }
    return [found | (NICE if draw.random() < 0.1 else {})]


def invertible(draw: Draw) -> list[Options]:
    """Return a bottleneck with an invertible adapter."""
    return [
        draw.choice((BN, DOUBLE, PAR))
        | {
            "inv_adapter": "nice",
            "inv_adapter_reduction_factor": draw.choice((1, 2, 3.5, 4)),
            "non_linearity": draw.choice(ACTIVATIONS),
            "leave_out": often(draw, [], [0, 1, 2, 3, 4, 5]),
        }
    ]


def linears(draw: Draw) -> Options:
    """Return at which linear maps something acts."""
    return {
        "selfattn_lora": often(draw, True, False),
        "attn_matrices": draw.choice((["q"], ["k"], ["v"], ["q", "v"], ["v", "q"], ["k", "v"], ["q", "k", "v"])),
        "intermediate_lora": draw.random() < 0.5,
        "output_lora": draw.random() < 0.5,
        "leave_out": often(draw, [], [0], [1], [2]),
    }


def lora(draw: Draw) -> list[Options]:
    """Return a LoRA with random options."""
    own: Options = {
        "r": draw.choice((1, 2, 3, 8)),
        "alpha": draw.choice((1, 2, 5, 8)),
        "use_gating": often(draw, False, True),
        "init_weights": often(draw, "lora", "bert"),
        "dropout": often(draw, 0.0, 0.1),
    }
    return [LORA | linears(draw) | own]


def dora(draw: Draw) -> list[Options]:
    """Return a DoRA with random options."""
    gated = {"use_gating": often(draw, False, False, True)}
    return [
        LORA | linears(draw) | gated | {"use_dora": True, "r": draw.choice((1, 3)), "alpha": draw.choice((1, 3, 5))}
    ]


def ia3(draw: Draw) -> list[Options]:
    """Return an (IA)³ with random options."""
    return [
        IA3 | linears(draw) | {"alpha": often(draw, 1, 2, 3), "use_gating": often(draw, False, True)},
    ]


def vera(draw: Draw) -> list[Options]:
    """Return a VeRA or DVoRA with random options."""
    own: Options = {"vera_d": draw.choice((0.1, 1.0)), "vera_b": draw.choice((0.0, 0.5)), "r": draw.choice((2, 4))}
    kinds = {"use_dora": often(draw, False, True), "use_gating": often(draw, False, False, True)}
    return [VERA | linears(draw) | own | kinds | {"alpha": draw.choice((1, 4))}]


def mtl(draw: Draw) -> list[Options]:
    """Return an MTL-LoRA with random options."""
    own: Options = {
        "n_up_projection": draw.choice((1, 2, 3)),
        "weights_sharpness": draw.choice((0.05, 0.7)),
        "use_gating": often(draw, False, True),
    }
    return [MTL | linears(draw) | own]


def prefix(draw: Draw) -> list[Options]:
    """Return a prefix with random options."""
    return [
        PREFIX
        | {
            "encoder_prefix": often(draw, True, False),
            "cross_prefix": often(draw, True, False),
            "flat": draw.random() < 0.5,
            "prefix_length": draw.choice((1, 3, 6)),
            "non_linearity": draw.choice(("tanh", "relu", "gelu")),
            "use_gating": often(draw, False, True),
            "shared_gating": often(draw, True, False),
            "leave_out": often(draw, [], [0], [1], [2]),
            "dropout": often(draw, 0.0, 0.1),
        }
    ]


def prompt(draw: Draw) -> list[Options]:
    """Return a prompt with random options."""
    return [PROMPT | {"prompt_length": draw.choice((1, 2, 5)), "combine": draw.choice(("prefix", "prefix_after_bos"))}]


def reft(draw: Draw) -> list[Options]:
    """Return a ReFT with random options."""
    prefixed, suffixed = draw.choice(((3, 0), (0, 2), (1, 1), (2, 3), (2, 2)))
    return [
        REFT
        | {
            "layers": often(draw, "all", [0], [1], [0, 2]),
            "prefix_positions": prefixed,
            "suffix_positions": suffixed,
            "r": draw.choice((1, 2, 3)),
            "orthogonality": draw.random() < 0.5,
            "tied_weights": often(draw, False, True),
            "dropout": often(draw, 0.05, 0.0),
            "non_linearity": often(draw, None, "relu", "tanh"),
        }
    ]


KINDS: dict[str, Callable[[Draw], list[Options]]] = {
    "bottleneck": bottleneck,
    "compacter": compacter,
    "invertible": invertible,
    "lora": lora,
    "dora": dora,
    "ia3": ia3,
    "vera": vera,
    "mtl": mtl,
    "prefix": prefix,
    "prompt": prompt,
    "reft": reft,
}
"""Kind of method → what draws the members of an adapter."""


def union(draw: Draw) -> list[Options]:
    """Return a union of two or three methods that do not stand at the same places."""
    kinds = draw.sample(["bottleneck", "lora", "prefix", "reft", "prompt", "ia3", "compacter"], draw.choice((2, 2, 3)))
    if {"bottleneck", "compacter"} <= {*kinds}:
        kinds.remove("compacter")
    if {"lora", "ia3"} <= {*kinds}:
        kinds.remove("ia3")
    if len(kinds) < 2:
        kinds = ["prefix", "bottleneck"]
    return [member for kind in kinds for member in KINDS[kind](draw)]


KINDS["union"] = union


def shape_of(draw: Draw) -> Options:
    """Return how much the model is given: rows, tokens, padding, and in a decoder of its own."""
    return {
        "rows": draw.choice((1, 2, 3)),
        "tokens": draw.choice((6, 7, 9)),
        "decoder": draw.choice((4, 6, 9)),
        "padding": often(draw, "right", "none", "left", "unmasked"),
        "decoder_mask": draw.random() < 0.3,
    }


def attention(draw: Draw, family: str, members: list[Options]) -> str | None:
    """Return the implementation of attention; prefixes of decoders need the plain one in the library."""
    row = MODELS[family].row
    hidden = row in ("gpt2", "gptj", "llama", "mistral") or family in ("encoder-decoder-gpt2", "encoder-decoder-mixed")
    if any(m.get("architecture") == "prefix_tuning" for m in members) and (hidden or draw.random() < 0.5):
        return "eager"
    chosen: str | None = often(draw, None, "eager")
    return chosen


def default_case(number: int) -> Options:
    """Return a case of the presets on every model."""
    presets, families = [*PRESETS], [*MODELS]
    preset, family = presets[number % len(presets)], families[number // len(presets) % len(families)]
    draw = Draw(f"default {number}")
    return {
        "family": family,
        "class": draw.choice(("bare", "own", "head")),
        "attention": attention(draw, family, PRESETS[preset]),
        "adapters": {"task": PRESETS[preset]},
        "active": "task",
        "shape": shape_of(draw),
        "what": preset,
    }


def method_case(number: int) -> Options:
    """Return a case of one adapter with random options."""
    draw = Draw(f"method {number}")
    kinds = [*KINDS]
    kind = kinds[number % len(kinds)]
    family, members = draw.choice([*MODELS]), KINDS[kind](draw)
    return {
        "family": family,
        "class": draw.choice(("bare", "own", "head")),
        "attention": attention(draw, family, members),
        "adapters": {draw.choice(("task", "sst-2", "a b", "adapters")): members},
        "shape": shape_of(draw),
        "what": kind,
    }


NESTED: dict[str, tuple[str, ...]] = {
    "stack": ("fuse", "split", "parallel", "batch_split", "average"),
    "fuse": ("stack",),
    "split": ("split", "stack", "batch_split", "average"),
    "parallel": ("stack", "batch_split", "average"),
    "batch_split": ("stack", "split", "batch_split", "average"),
    "average": ("stack", "split", "batch_split"),
}
"""Kind of composition → those that the library lets stand in it."""

EVERY = tuple(NESTED)
BY_ROWS = ("stack", "parallel", "batch_split", "average")
POOLS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "bottleneck": (("bottleneck",), EVERY),
    "linear": (("lora", "ia3", "dora", "vera", "mtl"), BY_ROWS),
    "lora": (("lora",), BY_ROWS),
    "ia3": (("ia3",), BY_ROWS),
    "prefix": (("prefix",), BY_ROWS[:3]),
    "compacter": (("compacter", "bottleneck"), EVERY),
    "inverse": (("invertible", "bottleneck"), EVERY),
    "reft": (("reft", "bottleneck"), EVERY),
    "prompt": (("prompt", "bottleneck"), EVERY),
    "mixed": (("bottleneck", "lora", "ia3", "prefix", "invertible"), BY_ROWS[:3]),
    "union": (("union", "bottleneck"), BY_ROWS[:3]),
}
"""Name → the kinds of methods that a composition is made of, and of compositions that the library has of them."""

SHARED: tuple[str, ...] = (
    "mh_adapter",
    "output_adapter",
    "cross_adapter",
    "original_ln_after",
    "is_parallel",
    "leave_out",
)
SHARED += ("selfattn_lora", "attn_matrices", "intermediate_lora", "output_lora")
SHARED += ("encoder_prefix", "cross_prefix", "prefix_length")
"""Options that say where something stands; most adapters of a composition have them alike."""

WITH_PROMPT = (
    *("bert", "roberta", "xlm-roberta", "distilbert", "albert", "electra", "deberta", "deberta-v2", "xmod"),
    *("bert-generation", "vit", "beit"),
)
"""Families that can have a prompt in the library, and a prefix without other attention."""

SEQUENCES = {"vit": 10, "beit": 10, "clip": 10, "clip_vision_model": 10, "whisper": 8}
"""How many positions a model of a family has whatever it is asked."""


@dataclass
class Composing:
    """A composition in the making: the adapters that it has, and how long and wide what enters it is."""

    draw: Draw
    pool: tuple[str, ...]
    kinds: tuple[str, ...]
    alike: bool
    adapters: dict[str, list[Options]] = field(default_factory=dict)
    fusions: dict[str, Options] = field(default_factory=dict)

    def leaf(self) -> str:
        """Return the name of an adapter, mostly a new one."""
        if len(self.adapters) > 1 and self.draw.random() < 0.15:
            return self.draw.choice([*self.adapters])
        name = "abcdefghijkl"[len(self.adapters)]
        members = KINDS[self.draw.choice(self.pool)](self.draw)
        if self.alike:
            members = [member | self.shared_with(member) for member in members]
        self.adapters[name] = members
        return name

    def shared_with(self, member: Options) -> Options:
        """Return what a member takes over from those that are there, and what all runs well with."""
        found: Options = {"init_weights": "bert"} if member.get("phm_layer") else {}
        for other in reversed([one for members in self.adapters.values() for one in members]):
            if other.get("architecture") == member.get("architecture"):
                found |= {option: other[option] for option in SHARED if option in other and option in member}
        return found

    def node(self, rows: int, tokens: int, depth: int, kinds: tuple[str, ...]) -> Any:
        """Return a composition of one of the kinds, or an adapter's name."""
        usable = [
            kind
            for kind in kinds
            if kind in self.kinds and (kind != "split" or tokens > 1) and (kind != "batch_split" or rows > 1)
        ]
        if not usable or depth == 0 or len(self.adapters) > 3:
            return self.leaf()
        kind = self.draw.choice(usable)
        count = min(self.draw.choice((2, 2, 3)), tokens if kind == "split" else rows if kind == "batch_split" else 3)
        sizes = [(rows, tokens)] * count
        made: Options = {kind: []}
        if kind == "split":
            made["splits"] = parts(self.draw, tokens, count)
            sizes = [(rows, part) for part in made["splits"]]
        if kind == "batch_split":
            made["batch_sizes"] = parts(self.draw, rows, count)
            sizes = [(part, tokens) for part in made["batch_sizes"]]
        if kind == "average" and self.draw.random() < 0.7:
            made["weights"] = [self.draw.choice((0.5, 1.0, 2.0, 0.25)) for _ in range(count)]
            made["normalize_weights"] = self.draw.random() < 0.6
        for size in sizes:
            deeper = depth - 1 if self.draw.random() < 0.5 else 0
            made[kind].append(self.node(*size, deeper, NESTED[kind]))
        if kind == "fuse":
            self.fusions[",".join(last(child) for child in made[kind])] = fusion(self.draw)
        return made


def last(node: Any) -> str:
    """Return the last adapter of a composition."""
    while not isinstance(node, str):
        node = next(value for value in node.values() if isinstance(value, list))[-1]
    return node


def parts(draw: Draw, whole: int, count: int) -> list[int]:
    """Return so many positive numbers that add up to a whole."""
    cuts = sorted(draw.sample(range(1, whole), count - 1))
    return [end - start for start, end in zip([0, *cuts], [*cuts, whole], strict=True)]


def fusion(draw: Draw) -> Options:
    """Return what differs from the dynamic configuration of a fusion layer."""
    value = often(draw, True, False)
    return {
        "value": value,
        "value_initialized": value,
        "key": often(draw, True, False),
        "query": often(draw, True, False),
        "query_before_ln": often(draw, False, True),
        "residual_before": often(draw, False, True),
        "temperature": often(draw, False, True),
        "value_before_softmax": often(draw, True, False),
    }


def composition_case(number: int) -> Options:
    """Return a case of several adapters, of one method or of several, arranged at random."""
    draw = Draw(f"composition {number}")
    pools = [*POOLS]
    pool = pools[number % len(pools)]
    methods, kinds = POOLS[pool]
    kind = kinds[number // len(pools) % len(kinds)]
    rows = [*MODELS] if pool not in ("prompt", "prefix", "mixed", "union") else [*WITH_PROMPT]
    family = draw.choice(rows)
    shape = shape_of(draw) | {"rows": 3}
    tokens = SEQUENCES.get(MODELS[family].row) or int(shape["tokens"])
    shape |= {"tokens": tokens, "decoder": tokens}
    making = Composing(draw, methods, kinds, draw.random() < 0.8)
    active = making.node(shape["rows"], tokens, draw.choice((1, 2, 2, 3)), (kind,))
    members = [member for one in making.adapters.values() for member in one]
    return {
        "family": family,
        "class": draw.choice(("bare", "own", "head")),
        "attention": attention(draw, family, members),
        "adapters": making.adapters,
        "fusions": making.fusions,
        "active": active,
        "compat": "adapters",
        "shape": shape,
        "what": f"{kind}-{pool}",
    }


ERAS = ("v2", "3.1.0", "3.2.1", "adapters.0.1.1", "adapters.0.2.0", "adapters.1.0.1", "adapters.1.1.0")
"""What wrote a file: adapter-transformers 2, which said no version, and later releases."""

LATER: dict[str, tuple[str, ...]] = {
    "v2": ("init_weights_seed", "stochastic_depth", "dropout", "init_weights", "is_parallel", "scaling", "use_gating"),
    "3.": ("init_weights_seed", "stochastic_depth", "use_dora", "vera_d", "vera_b", "dtype"),
    "adapters.0": ("init_weights_seed", "stochastic_depth", "use_dora", "vera_d", "vera_b", "dtype"),
    "adapters.1.0": ("init_weights_seed", "use_dora", "vera_d", "vera_b", "dtype"),
    "adapters.1.1": ("use_dora", "vera_d", "vera_b"),
}
"""Beginning of an era → the fields that its files did not have."""


def dated_case(number: int) -> Options:
    """Return a case of one adapter in a file as an earlier release wrote it."""
    draw = Draw(f"dated {number}")
    era = ERAS[number % len(ERAS)]
    plain = ["bottleneck", "invertible"]
    kind = draw.choice(plain if era == "v2" else [*plain, "lora", "lora", "ia3", "prefix", "compacter"])
    family, members = draw.choice([*MODELS]), KINDS[kind](draw)
    if era == "v2":
        members = [member | V2 for member in members]
    return {
        "family": family,
        "class": draw.choice(("bare", "own", "head")),
        "attention": attention(draw, family, members),
        "adapters": {"task": members},
        "shape": shape_of(draw),
        "era": era,
        "what": f"{era}-{kind}",
    }


V2: Options = {"is_parallel": False, "scaling": 1.0, "use_gating": False, "init_weights": "bert", "dropout": 0.0}
"""What all adapters of adapter-transformers 2 had."""
