"""What older releases of PEFT compute otherwise, or fail at, although they know every field that says it.

Each line was found by loading what this version writes in the released packages (tests/recipes/make_peft_seen.py
tells how), and its reason read in their sources.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from ...adapter import JSON

Release = tuple[int, int]

FORMER_NAMES = (0, 18)
"""The release since which PEFT runs with transformers 5; before, modules have the names of transformers 4."""

FIRST = (0, 4)
"""The first release that reads safetensors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is to be written.

    Attributes:
        document: adapter_config.json.
        paths: the modules that have tensors of the method, as the keys call them.
        family: name of the base model's row.
        kinds: kinds of the maps that are adapted, as sites.Linear has them.
    """

    document: Mapping[str, JSON]
    paths: Collection[str]
    family: str
    kinds: Collection[str]


@dataclass(frozen=True, slots=True)
class Change:
    """One change in the history of PEFT.

    Attributes:
        types: the types that it is about.
        since: the first release that computes what today's does.
        reason: what is wrong with those before, behind the words "PEFT 0.9 cannot read this adapter:".
        meant: whether an adapter is concerned.
        after: the last release that is not concerned either, for what was wrong in some only.
    """

    types: tuple[str, ...]
    since: Release
    reason: str
    meant: Callable[[Facts], bool] = lambda facts: True
    after: Release = (0, 0)


def _is_dora(facts: Facts, kind: str) -> bool:
    return bool(facts.document.get("use_dora")) and kind in facts.kinds


def _is_scaled(facts: Facts) -> bool:
    said = facts.document
    return bool(said.get("alpha_pattern") or said.get("rank_pattern")) or not math.isclose(said["alpha"], said["r"])


CHANGES: tuple[Change, ...] = (
    Change(("OFT",), (0, 16), "its OFT has other tensors than that of 0.16 and later"),
    Change(
        ("OFT",),
        (0, 18),
        "its Neumann series for OFT has a term less",
        lambda facts: bool(facts.document.get("use_cayley_neumann")),
    ),
    # Where it is 1 they compute the same: tests/recipes/make_lokr_seen.py.
    Change(("LOKR",), (0, 14), "its LoKr leaves alpha / r out, which is not 1 here", _is_scaled),
    Change(
        ("LORA",),
        (0, 7),
        "its files have other names for biases",
        lambda facts: facts.document.get("bias") not in (None, "none"),
    ),
    Change(("LORA",), (0, 10), "it has no DoRA of convolutions", lambda facts: _is_dora(facts, "convolution")),
    Change(
        ("LORA",),
        (0, 11),
        "its DoRA fails at the transposed weights of gpt2",
        # Files do not tell that a weight is transposed.
        lambda facts: facts.family == "gpt2" and bool(facts.document.get("use_dora")),
    ),
    Change(("LORA",), (0, 13), "it has no DoRA of embeddings", lambda facts: _is_dora(facts, "embedding")),
    Change(
        ("ADALORA",),
        (0, 5),
        "its AdaLoRA fails without dropout",
        lambda facts: not facts.document.get("lora_dropout"),
    ),
    Change(
        ("PROMPT_TUNING", "P_TUNING"),
        (0, 6),
        "it gives encoders of sequence-to-sequence models a wrong mask",
        lambda facts: facts.document.get("task_type") == "SEQ_2_SEQ_LM",
    ),
    Change(
        ("LORA",),
        (0, 18),
        "it fails at trained rows of the output embeddings",
        lambda facts: "lm_head" in (facts.document.get("trainable_token_indices") or ()),
        after=(0, 15),
    ),
    Change(
        ("LORA",),
        (0, 19),
        "it does not adapt the output embeddings along with the input's",
        lambda facts: bool(facts.document.get("ensure_weight_tying")) and "embedding" in facts.kinds,
    ),
    Change(
        ("PROMPT_TUNING", "P_TUNING", "CPT"),
        FORMER_NAMES,
        "the Gemma 2 of transformers 4 scales what stands in front once more",
        lambda facts: facts.family == "gemma2",
    ),
    Change(
        ("PREFIX_TUNING", "CARTRIDGE"),
        (0, 20),
        "its prefixes get lost in the caches of sliding windows",
        lambda facts: facts.family in ("gemma2", "gemma3_text"),
    ),
)


def reasons(facts: Facts, number: Release) -> list[str]:
    """Return why a release would not compute what today's does, one phrase each."""
    kind = facts.document["peft_type"]
    return [
        change.reason
        for change in CHANGES
        if kind in change.types and change.after < number < change.since and change.meant(facts)
    ]
