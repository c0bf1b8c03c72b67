"""Make tests/data/uneven-cases.tar.gz: prefixes of different lengths side by side, as the library `adapters` has them.

    python make_uneven_cases.py [ARCHIVE]    needs adapters 1.3.0 and transformers 4.57.6, a minute

The weights of the bases follow from their names (families.py), so that only adapters and outputs are kept.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from families import FAMILIES, batch, configuration, settle, values
from make_bottleneck_cases import pack_listed
from make_composition_cases import node
from make_family_cases import output, without_made_up_biases
from reference_models import CRASHES, stand_in_for_torchvision

ARCHIVE = Path(__file__).parent.parent / "data" / "uneven-cases.tar.gz"

Options = dict[str, Any]

FLAT: Options = {"architecture": "prefix_tuning", "flat": True}
ADAPTERS: dict[str, Options] = {
    "short": FLAT | {"prefix_length": 2},
    "long": FLAT | {"prefix_length": 4},
    "gated": {
        "architecture": "prefix_tuning",
        "prefix_length": 3,
        "bottleneck_size": 4,
        "use_gating": True,
        "leave_out": [1],
    },
}
"""Name → configuration."""

SETUPS: dict[str, Any] = {
    "rows": {"batch_split": ["short", "long"], "batch_sizes": [1, 1]},
    "rows-gated": {"batch_split": ["long", "gated"], "batch_sizes": [1, 1]},
    "parallel": {"parallel": ["short", "long"]},
    "parallel-three": {"parallel": ["long", "gated", "short"]},
    "parallel-of-stack": {"parallel": ["long", {"stack": ["short", "gated"]}]},
    "stack-of-parallel": {"stack": ["short", {"parallel": ["long", "short"]}]},
    "stack-below": {"stack": [{"parallel": ["long", "short"]}, "short"]},
}
MASKS: dict[str, bool | None] = {"": True, "-full": False, "-none": None}
"""What is behind an output's name → whether the batch has padding, None for no mask at all."""

WITHOUT_PREFIX = ("modernbert", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi")
"""Families that the library hooks from outside, where it has no prefixes."""

EAGER = ("gpt2", "gptj", "llama", "mistral", "bart", "mbart", "plbart", "whisper", "t5", "mt5")
"""Families with decoders: their prefixes are masked out in the library under sdpa attention."""

BOTH = ("bert", "roberta", "albert", "distilbert", "vit", "clip_vision_model")
"""Families that are asked under both."""

CHANGES = {"decoder_attention_heads": 4, "use_relative_position_bias": False}
"""Where the library fails with a single prefix: heads that differ, and BEiT's bias."""


def attentions() -> list[tuple[str, str | None]]:
    """Return each family with the attention that it is asked under, None for that of the library's choice."""
    found: list[tuple[str, str | None]] = []
    for name in FAMILIES:
        if name not in WITHOUT_PREFIX:
            eager = name in EAGER or name.startswith("encoder-decoder")
            found += [(name, "eager" if eager else None)]
            found += [(name, "eager")] if name in BOTH else []
    return found


def inputs_of(plain: Any, padded: bool | None) -> Options:
    """Return a batch with padding, with a mask that hides nothing, or without a mask."""
    found = batch(plain, padded=bool(padded))
    return {key: value for key, value in found.items() if padded is not None or key != "attention_mask"}


def plain(family: str, attention: str | None, rename: Callable[[str], str] = str) -> Any:
    """Return the model without adapters; a padding token that is not 0 shows what the filling is made of.

    rename gives the names of parameters in transformers 4.57.6.
    """
    import transformers

    config = configuration(family)
    for name, value in CHANGES.items():
        if hasattr(config, name):
            setattr(config, name, value)
    for part in (config, *(getattr(config, name, None) for name in ("text_config", "encoder", "decoder"))):
        if part is not None:
            part.pad_token_id = 1
    cls = getattr(transformers, FAMILIES[family].model)
    return settle(cls._from_config(config, **({} if attention is None else {"attn_implementation": attention})), rename)


def prepared(family: str, attention: str | None, root: Path) -> Any:
    """Return the model with all adapters, which are saved."""
    import adapters
    import torch
    from adapters import AdapterConfig

    model = plain(family, attention)
    adapters.init(model)
    without_made_up_biases(model)
    for name, options in ADAPTERS.items():
        model.add_adapter(name, config=AdapterConfig.load(options))
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if f".{name}." in key:
                    parameter.copy_(values(f"{family} {key.rpartition('.pool.')[2]}", parameter.shape, 0.75))
        model.save_adapter(str(root / f"{family}-{name}"), name, use_safetensors=False, with_head=False)
    return model.eval()


def make(archive: Path) -> None:
    """Make all cases and pack them."""
    import torch

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    stand_in_for_torchvision()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        cases: list[Options] = []
        refused: list[Options] = []
        expected: Options = {}
        for family, attention in attentions():
            model, asked = prepared(family, attention, root), plain(family, attention)
            for setup, data in SETUPS.items():
                case = f"{family}{'' if attention is None else '-' + attention} {setup}"
                made = []
                for behind, padded in MASKS.items():
                    if padded and not FAMILIES[family].padded:
                        continue
                    try:
                        model.set_active_adapters(node(data))
                        expected[case + behind] = output(model, inputs_of(asked, padded))
                        made.append(behind)
                    except (*CRASHES, NotImplementedError, IndexError) as error:
                        text = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:100]}"
                        refused.append({"case": case + behind, "error": text})
                if made:
                    known = {"id": case, "family": family, "attention": attention, "active": data, "masks": made}
                    cases.append(known)
        pack_listed(root, archive, "uneven-cases", cases, refused, expected)


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else ARCHIVE)
