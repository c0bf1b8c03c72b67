"""The types of PEFT: which are read, and why the others are not.

docs/peft-types.md shows this table; a test makes it from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from ...adapter import MethodConfig
from ...errors import UnsupportedError
from ...methods import ParametersConfig
from . import adalora, ia3, lora, maps, norms, oft, prompts, tokens, vera
from .codec import Codec
from .prompts import PromptCodec

State = Literal["native", "converted", "refused"]
"""Read and written; read once PEFT has made a LoRA of it, exactly or nearly; not read."""

ALONG: tuple[Codec, ...] = (norms.CODEC, tokens.CODEC)
"""Types whose configuration may also stand beside that of another type."""

CODECS: tuple[Codec, ...] = (lora.CODEC, ia3.CODEC, vera.CODEC, adalora.CODEC, oft.CODEC, *maps.CODECS, *ALONG)

CONVERT = "make a LoRA of it with peft.convert_to_lora and save that"
MERGE = "merge it into its base model with PEFT (merge_and_unload)"

REFUSED: Mapping[str, tuple[State, str, str]] = __import__("collections").defaultdict(
    lambda: ("refused", "not yet", "")
)
"""Type → state, the reason, what to do instead."""


def codec_of(kind: str) -> Codec | PromptCodec:
    """Return the codec of a type.

    Raises:
        UnsupportedError: this version does not read it; says why.
    """
    for codec in (*CODECS, *prompts.CODECS):
        if codec.type == kind:
            return codec
    _, reason, instead = REFUSED[kind]
    raise UnsupportedError(f"an adapter of PEFT's type {kind} is not read: {reason}", hint=instead)


def parted(configs: Sequence[MethodConfig]) -> tuple[MethodConfig, list[MethodConfig], Codec | PromptCodec]:
    """Return the configuration that gives the type, those that are saved along with it, and the codec of the first.

    Raises:
        UnsupportedError: PEFT has no type for them together.
    """
    every = (*CODECS, *prompts.CODECS)
    mains = [(config, codec) for codec in every for config in configs if isinstance(config, codec.config)]
    alone = [pair for pair in mains if pair[1] not in ALONG]
    trained = [(config, norms.CODEC) for config in configs if isinstance(config, ParametersConfig)]
    chosen = alone or mains[:1] or trained[:1]
    if len(chosen) != 1:
        words = ", ".join(config.method for config in configs)
        raise UnsupportedError(
            f"PEFT has no type for {words}" + (" together" if chosen else ""), hint="write it in the native format"
        )
    ((main, codec),) = chosen
    return main, [config for config in configs if config is not main], codec


def placed(codec: Codec, key: str) -> tuple[str, str]:
    """Return module path and parameter name of a canonical key of a codec's method; of shared ones ("shared", name)."""
    if key.startswith("shared."):
        return "shared", key.removeprefix("shared.")
    leaf = max((leaf for leaf in codec.leaves.values() if key.endswith(f".{leaf}")), key=len)
    return key.removesuffix(f".{leaf}"), leaf
