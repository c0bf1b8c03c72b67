"""What `adapters` 1.3.0 makes of prefixes of different lengths side by side; attach(compat="adapters").

Shorter ones are filled up in front with keys and values of `pad_token_id`, or 0 where a configuration has none. Whether
the rows see the filling depends on how their attention takes a mask there:

    raised    it is seen, and its scores are 1 higher: the number that stands for "hidden" joins a mask that is added
    given     so where the model is given a mask, seen with its own scores where it is not
    padded    so where some row of the batch has padding, seen with its own scores where none has
    plain     it is seen with its own scores
    hidden    it is not seen

In T5 the mask is made together with the position bias, and serves later layers too; see combined_prefixes.Filled.
Decoders are as under eager attention: under sdpa `adapters` masks their prefixes out.

Source: adapters 1.3.0, methods/prefix_tuning.py (pad_and_concat) and models/; transformers 4.57.6, models/.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import torch

from ..errors import UnsupportedError
from . import prefix_masks as masks

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig

    from ..methods import PrefixOp
    from ..sites import Attention
    from .stack_inputs import StackInputs

Rule = Literal["raised", "given", "padded", "plain", "hidden"]

WITH_BOTH = ("bert", "roberta", "xlm-roberta", "albert")
EAGER_ONLY = ("electra", "bert-generation", "xmod", "t5", "mt5", "gptj")
WITH_DECODER = ("bart", "mbart", "plbart", "whisper")
IMAGES = ("vit", "beit", "clip_vision_model")

RULES: Mapping[str, tuple[Rule, Rule]] = {
    **dict.fromkeys(WITH_BOTH, ("raised", "padded")),
    **dict.fromkeys(EAGER_ONLY, ("raised", "raised")),
    **dict.fromkeys(WITH_DECODER, ("given", "padded")),
    **dict.fromkeys(IMAGES, ("plain", "plain")),
    **dict.fromkeys(("deberta", "deberta-v2"), ("hidden", "hidden")),
    "distilbert": ("hidden", "plain"),
}
"""Model type → rule under eager and sdpa attention, for encoders and for cross-attentions."""

CAUSAL = ("gpt2", "llama", "mistral", "clip_text_model")
"""Model types whose every attention is causal."""


class Filling:
    """What shorter prefixes are filled up with at one attention.

    Attributes:
        value: of keys and values.
        rules: under eager and sdpa attention.
    """

    __slots__ = ("crosses", "inputs", "rules", "value")

    def __init__(self, place: Attention, config: PreTrainedConfig, inputs: StackInputs, *, causal: bool) -> None:
        """Make it.

        config: of the stack around the attention; inputs: what remembers what that was called with; causal: whether
        the attention sees nothing behind a token.

        Raises:
            UnsupportedError: `adapters` has no prefixes in such models.
        """
        kind = config.model_type
        self.inputs = inputs
        self.crosses = place.stack == "cross"
        self.value = float(vars(config).get("pad_token_id") or 0)
        if self.crosses and kind == "electra":
            self.rules: tuple[Rule, Rule] = ("plain", "plain")  # its cross-attention is given no mask
        elif causal or kind in CAUSAL:
            self.rules = ("raised", "raised")
        elif kind in RULES:
            self.rules = RULES[kind]
        else:
            raise UnsupportedError(
                f"`adapters` has no prefixes in {kind} models, so none of different lengths side by side",
                hint="attach without compat",
            )

    def put(self, prefix: Tensor, seen: Tensor) -> Tensor:
        """Return keys or values (batch, heads, length, head size) with the filling; seen: (batch, 1, 1, length)."""
        return prefix.masked_fill(~seen.transpose(2, 3), self.value)

    def widened(
        self, mask: Tensor | None, query: Tensor, key: Tensor, op: PrefixOp, seen: Tensor, implementation: str
    ) -> Tensor | None:
        """Return the mask of the text with columns for prefix and filling in front; see prefix_masks.widened."""
        rule = self.rules[implementation != "eager"]
        if rule == "hidden":
            return masks.widened(mask, query, key, op, seen)
        own = op.padded_bonus if implementation == "sdpa" else 0.0
        plain = rule == "plain" or (rule == "given" and not self._is_given())
        filling = 0.0 if plain else 1.0
        if not (own or filling):
            return masks.widened(mask, query, key, op, None)
        if mask is None:
            mask = torch.ones(1, 1, 1, key.shape[-2], dtype=torch.bool, device=query.device)
        mask = masks.additive(mask, query.dtype)
        columns = masks.raised(mask, op.length, own)
        filled = masks.raised(mask, op.length, filling) if rule == "padded" else torch.full_like(columns, filling)
        return masks.joined(torch.where(seen, columns, filled), mask)

    def _is_given(self) -> bool:
        entered = self.inputs.entered()
        return entered.knows_memory if self.crosses else entered.mask is not None
