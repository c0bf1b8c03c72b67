"""The types of PEFT: which are read, and why the others are not.

docs/peft-types.md shows this table; a test makes it from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ...adapter import MethodConfig
from ...errors import UnsupportedError
from ...methods import ParametersConfig
from . import adalora, bottleneck, ia3, lora, maps, norms, oft, prompts, randlora, tokens, vera
from .codec import Codec
from .prompts import PromptCodec

State = Literal["native", "converted", "refused"]
"""Read and run; read once PEFT has made a LoRA of it; not read."""

ALONG: tuple[Codec, ...] = (norms.CODEC, tokens.CODEC)
"""Types whose configuration may also stand beside that of another type."""

CODECS: tuple[Codec, ...] = (
    lora.CODEC,
    ia3.CODEC,
    vera.CODEC,
    adalora.CODEC,
    oft.CODEC,
    randlora.CODEC,
    *maps.CODECS,
    *ALONG,
    *bottleneck.CODECS,
)

CONVERT = "make a LoRA of it with peft.save_as_lora, whose rank says how exact it is, and load that"
MERGE = "merge it into its base model with PEFT (merge_and_unload), and use that model"
STAY = "use it with PEFT"


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a type is not read.

    Attributes:
        reason: behind "an adapter of this type is not read: ".
        instead: what to do.
    """

    reason: str
    instead: str

    @property
    def state(self) -> State:
        """Whether PEFT itself turns it into something that is read."""
        return "converted" if self.instead == CONVERT else "refused"


REFUSED: Mapping[str, Refused] = {
    "ADAMSS": Refused(
        "its subspaces are clusters of the base model's singular vectors, found with scikit-learn", MERGE
    ),
    "ADAPTION_PROMPT": Refused("its prompts have an attention of their own beside the model's", STAY),
    "FROD": Refused("it replaces a weight by one in a basis that is made of the base model's weights", MERGE),
    "LILY": Refused("its update of one text depends on the other texts of the batch", STAY),
    "MULTITASK_PROMPT_TUNING": Refused("every call has to say which task each text is of", STAY),
    "OSF": Refused("it replaces singular vectors of the base model's weights, which its file does not hold", MERGE),
    "POLY": Refused("every call has to say which task each text is of", STAY),
    "PSOFT": Refused("it turns singular vectors of the base model's weights, which its file does not hold", CONVERT),
    "PVERA": Refused("its update is drawn at random while it trains", MERGE),
    "SHADOW": Refused("it is a second model that runs along with the base model", STAY),
    "TINYLORA": Refused("what its numbers multiply are singular vectors of the base model's weights", CONVERT),
    "UNILORA": Refused("its file holds one vector, and says nothing of the modules that it is spread over", CONVERT),
    "XLORA": Refused("it mixes several LoRA adapters by what the model says of each text", STAY),
}
"""Type → why it is not read."""


AnyCodec = Codec | PromptCodec


def codec_of(kind: str) -> AnyCodec:
    """Return the codec of a type.

    Raises:
        UnsupportedError: this version does not read it; says why.
    """
    every: tuple[Codec | PromptCodec, ...] = (*CODECS, *prompts.CODECS)
    for codec in every:
        if codec.type == kind:
            return codec
    refused = REFUSED[kind]
    raise UnsupportedError(f"an adapter of PEFT's type {kind} is not read: {refused.reason}", hint=refused.instead)


def parted(configs: Sequence[MethodConfig]) -> tuple[MethodConfig, list[MethodConfig], AnyCodec]:
    """Return the configuration that gives the type, those that are saved along with it, and the codec of the first.

    Raises:
        UnsupportedError: PEFT has no type for them together.
    """
    every: tuple[Codec | PromptCodec, ...] = (*CODECS, *prompts.CODECS)
    writers = {codec.config: codec for codec in reversed(every)}
    mains = [(config, writers[type(config)]) for config in configs if type(config) in writers]
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
