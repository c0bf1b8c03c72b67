"""Adapters drawn at random for one library that the other one may have words for; a case follows from its number."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any

from drawn_options import KINDS, MODELS, PRESETS, Draw, Options, attention, often, shape_of

ADAPTERS = (
    *("lora", "ia3", "prefix", "preset", "lora", "dora", "bottleneck", "ia3", "lora", "prefix"),
    *("preset", "vera", "lora", "compacter", "prefix", "prompt", "ia3", "mtl", "reft", "union"),
)
"""Kinds of adapters of `adapters`, as often as they come."""

PEFT = ("lora", "lora", "ia3", "prefix", "lora", "lora", "ia3", "prompt", "lora", "prefix")
"""Kinds of adapters of PEFT, as often as they come."""

LATER, BEGIN = ("adalora", "vera", "ia3-relu"), 10_000
"""Kinds that came later, and the number of the first case of PEFT that has them, so that no other case changes."""

RELU = ("t5", "mt5-plain")
"""Families whose feed-forward blocks let factors that are not negative through."""

CLASSES = ("bare", "head", "own", "answering", "flexible")
"""The bare model, a class with a head, the library's own class without and with a head, a class that answers."""

ATTENTIONS: tuple[str, ...] = ("query", "key", "value", "q_lin", "k_lin", "v_lin", "q_proj", "k_proj", "v_proj")
ATTENTIONS += ("query_proj", "key_proj", "value_proj", "in_proj", "q", "k", "v", "c_attn", "Wqkv")
FORWARDS: tuple[str, ...] = ("lin1", "lin2", "ffn", "ffn_output", "c_fc", "mlp.c_proj", "fc_in", "fc_out", "up_proj")
FORWARDS += ("down_proj", "wi", "wo", "wi_1", "fc1", "fc2", "Wi", "mlp.Wo", "intermediate.dense", "output.dense")
EMBEDDINGS = ("word_embeddings", "wte", "embed_tokens", "shared", "tok_embeddings", "token_embedding")
"""Last words of the paths of modules: where attentions and feed-forward sublayers read, and of embeddings."""


def adapters_case(number: int) -> Options:
    """Return a case that `adapters` is to make."""
    draw = Draw(f"pair adapters {number}")
    kind, family = ADAPTERS[number % len(ADAPTERS)], draw.choice([*MODELS])
    members = PRESETS[draw.choice([*PRESETS])] if kind == "preset" else KINDS[kind](draw)
    return {
        "family": family,
        "class": draw.choice(CLASSES),
        "answers": draw.choice(("SequenceClassification", "TokenClassification", "QuestionAnswering")),
        "head": {"layers": draw.choice((1, 2)), "use_pooler": draw.random() < 0.5, "bias": draw.random() < 0.7},
        "attention": attention(draw, family, members),
        "members": members,
        "shape": shape_of(draw),
        "what": kind,
    }


def peft_case(number: int) -> Options:
    """Return a case that PEFT is to make, but for its targets, which depend on the model."""
    draw = Draw(f"pair peft {number}")
    kinds = PEFT if number < BEGIN else LATER
    kind = kinds[number % len(kinds)]
    family = draw.choice(RELU if kind == "ia3-relu" else [*MODELS])
    found: Options = {
        "family": family,
        "class": draw.choice(("bare", "head", "answering")),
        "answers": draw.choice(("SequenceClassification", "TokenClassification", "QuestionAnswering")),
        "attention": "eager",
        "shape": shape_of(draw),
        "what": kind,
        "seed": draw.random(),
    }
    found["shape"] |= {} if MODELS[family].padded else {"padding": "none"}
    return found


def endings(paths: Sequence[str]) -> list[str]:
    """Return how the paths of modules in layers end, behind the last number in them."""
    found = (re.search(r"(?<=\.\d\.)(?!.*\.\d\.).*$", path) for path in paths)
    return sorted({match.group() for match in found if match})


def ending_with(paths: Sequence[str], words: Sequence[str]) -> list[str]:
    """Return the endings of paths that end with one of some words."""
    return [end for end in endings(paths) if any(f".{end}".endswith(f".{word}") for word in words)]


def targets_of(draw: random.Random, linears: Sequence[str], embeddings: Sequence[str]) -> Options:
    """Return on which modules a LoRA acts."""
    attentions, forwards = ending_with(linears, ATTENTIONS), ending_with(linears, FORWARDS)
    some = draw.sample(attentions, min(len(attentions), draw.choice((1, 2, 3))))
    way = draw.choice(("some", "some", "some", "both", "both", "regex", "paths", "all", "embedding", "any", "left"))
    if way == "both":
        return {"target_modules": [*some, *draw.sample(forwards, min(len(forwards), draw.choice((1, 2))))]}
    if way == "regex":
        names = "|".join(re.escape(name) for name in some)
        return {"target_modules": draw.choice((rf".*\.({names})", rf".*\.(0|2)\..*({names})", rf".*\b({names})$"))}
    if way == "paths":
        return {"target_modules": draw.sample([*linears], min(3, len(linears)))}
    if way == "all":
        return {"target_modules": "all-linear"}
    if way == "embedding" and embeddings:
        return {"target_modules": [*some[:1], draw.choice(embeddings)]}
    if way == "any":
        every = endings(linears)
        return {"target_modules": draw.sample(every, min(3, len(every)))}
    left = {"exclude_modules": some[-1:]} if way == "left" and len(some) > 1 else {}
    return {"target_modules": some} | left


def lora(draw: random.Random, linears: Sequence[str], embeddings: Sequence[str], others: Sequence[str]) -> Options:
    """Return the options of a LoRA; others: modules that can be saved in full."""
    found = targets_of(draw, linears, embeddings)
    named = found["target_modules"] if isinstance(found["target_modules"], list) else ending_with(linears, ATTENTIONS)
    found |= {
        "r": draw.choice((1, 2, 4, 8)),
        "lora_alpha": draw.choice((1, 3, 8, 16)),
        "use_rslora": often(draw, False, True),
        "use_dora": often(draw, False, False, True),
        "bias": often(draw, "none", "none", "all", "lora_only"),
        "lora_bias": often(draw, False, False, False, True),
        "rank_pattern": often(draw, {}, {named[0]: 3}, {draw.choice([*linears]): 2}),
        "alpha_pattern": often(draw, {}, {named[-1]: 7}, {draw.choice([*linears]): 5}),
    }
    if found["lora_bias"]:
        found |= {"bias": "none", "use_dora": False}
    if others and draw.random() < 0.2:
        found["modules_to_save"] = [draw.choice([*others])]
    if draw.random() < 0.2 and not isinstance(found["target_modules"], str):
        found["layers_to_transform"] = draw.choice(([0], [1], 1, [0, 2]))
    return found


def ia3(draw: random.Random, linears: Sequence[str]) -> Options:
    """Return the options of an (IA)³."""
    attentions, forwards = ending_with(linears, ATTENTIONS), ending_with(linears, FORWARDS)
    some = draw.sample(attentions, min(len(attentions), draw.choice((1, 2, 3))))
    last = draw.sample(forwards, min(len(forwards), draw.choice((0, 1, 1, 2))))
    way = draw.choice(("inputs", "inputs", "outputs", "mixed"))
    scaled = {"inputs": last, "outputs": [], "mixed": last[:1] + some[:1]}[way]
    return {"target_modules": [*some, *last], "feedforward_modules": scaled}


def low_rank(draw: random.Random, kind: str, linears: Sequence[str]) -> tuple[str, Options]:
    """Return class and options of a method whose factors are those of a LoRA."""
    attentions = ending_with(linears, ATTENTIONS)
    some = draw.sample(attentions, min(len(attentions), draw.choice((1, 2))))
    if kind == "vera":
        return "VeraConfig", {"target_modules": some, "r": draw.choice((2, 4, 8)), "d_initial": 0.3}
    r, alpha = draw.choice((2, 4)), draw.choice((1, 6, 8))
    return "AdaLoraConfig", {"target_modules": some, "init_r": r, "target_r": 2, "lora_alpha": alpha, "total_step": 10}


def prompt(draw: random.Random, kind: str) -> tuple[str, Options]:
    """Return class and options of a prefix or of a prompt."""
    if kind == "prefix":
        projected = {"prefix_projection": draw.random() < 0.3, "encoder_hidden_size": 8}
        return "PrefixTuningConfig", {"num_virtual_tokens": draw.choice((1, 2, 5))} | projected
    named: list[tuple[str, Options]] = [
        ("PromptTuningConfig", {"num_virtual_tokens": 3}),
        ("PromptEncoderConfig", {"num_virtual_tokens": 3, "encoder_hidden_size": 8}),
    ]
    return draw.choice(named)


def arguments_of(case: Options, modules: dict[str, list[str]]) -> tuple[str, Any]:
    """Return class and arguments of a configuration of PEFT.

    modules: paths of `linear` maps, `embedding` modules and `other` ones with weights, of the model that is wrapped.
    """
    draw = random.Random(f"{case['seed']}")
    if case["what"] in ("prefix", "prompt"):
        return prompt(draw, case["what"])
    if case["what"] in ("adalora", "vera"):
        return low_rank(draw, case["what"], modules["linear"])
    if case["what"] == "ia3-relu":
        some = draw.sample(("q", "k", "v"), draw.choice((1, 2)))
        return "IA3Config", {"target_modules": [*some, "wo"], "feedforward_modules": ["wo"]}
    if case["what"] == "ia3":
        return "IA3Config", ia3(draw, modules["linear"])
    return "LoraConfig", lora(draw, modules["linear"], modules["embedding"], modules["other"])
