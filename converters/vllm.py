"""What vLLM makes of a folder of PEFT: the flags to serve it with, or what vLLM rejects or would get wrong.

vLLM reads `r`, `lora_alpha`, `use_rslora` and the tensors, and gives every map the one scale that follows from the
first three: patterns of ranks and alphas are passed over in silence. It takes the kinds of maps that its own model has,
by the last word of a module's path.

The format `vllm` is that of PEFT, written so that both libraries compute the same: where the maps have several scales,
each goes into its B. What vLLM would reject is refused with every reason.

Source: vLLM, lora/peft_helper.py, lora/lora_model.py, lora/utils.py and config/lora.py, as of November 2026.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..adapter import JSON, Adapter
from ..architectures import Architecture, by_name
from ..errors import UnsupportedError
from ..methods import LoraConfig
from ..methods.targets import Target, chosen
from . import peft
from .format import Format, KnownBase, Parts
from .low_rank.one_scale import of_one_scale
from .low_rank.updates import layout_of
from .peft.documents import CONFIG

NAME = "vllm"

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What `--max-lora-rank` may be, besides 1 in newer releases."""

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi")
"""Rows of the model families that vLLM serves adapters of, among those that are known here."""

OUTSIDE = ("embed_tokens", "lm_head")
"""Modules outside the layers that some families and releases of vLLM take, and others do not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What vLLM does with an adapter.

    Attributes:
        rank: the largest rank of a map.
        flags: words behind `vllm serve MODEL`, () where it is rejected.
        rejected: why vLLM does not serve it, or would serve something else; one phrase each.
    """

    rank: int
    flags: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()


def serving(adapter: Adapter, path: str | Path, name: str | None = None) -> Serving:
    """Return what vLLM does with an adapter once it is written for PEFT.

    Args:
        adapter: the adapter.
        path: where its folder lies, or is going to.
        name: what requests call it; None is its own name.
    """
    adapter = peft.FORMAT.rewritten(adapter, None)
    try:
        parts = peft.encode(adapter)
    except UnsupportedError as error:
        return Serving(rank=0, rejected=(error.message,))
    return _judged(adapter, parts, path, name or adapter.manifest.name)


def serving_folder(path: str | Path, name: str | None = None) -> Serving:
    """Return what vLLM does with a folder of PEFT.

    Raises:
        NotFoundError, FormatError, UnsupportedError: it is not read here.
    """
    parts = peft.FORMAT.read(Path(path))
    adapter = peft.decode(parts)
    return _judged(adapter, parts, path, name or adapter.manifest.name)


def rewritten(adapter: Adapter, base: KnownBase | None) -> Adapter:
    """Return an adapter that computes the same with one scale for all maps."""
    adapter = peft.FORMAT.rewritten(adapter, base)
    return of_one_scale(adapter, plain=True)


def encode(adapter: Adapter) -> Parts:
    """Return what the files of a folder hold.

    Raises:
        UnsupportedError: vLLM rejects it, with every reason.
        FormatError: the adapter's tensors are not those of its configuration.
    """
    parts = peft.encode(adapter)
    found = _judged(adapter, parts, "", adapter.manifest.name)
    if found.rejected:
        raise UnsupportedError(
            f"vLLM does not serve this adapter: {'; '.join(found.rejected)}",
            hint="see `adapterhub convert --approximate lora --rank R` for what is too large or no LoRA",
        )
    return parts


def advice(adapter: Adapter, parts: Parts, path: Path) -> tuple[str, ...]:
    """Return the words behind `vllm serve MODEL`."""
    return _judged(adapter, parts, path, adapter.manifest.name).flags


def _judged(adapter: Adapter, parts: Parts, path: str | Path, name: str) -> Serving:
    document = parts.documents[CONFIG]
    config = next((config for config in adapter.config if isinstance(config, LoraConfig)), None)
    if document.get("peft_type") != "LORA" or config is None:
        kind = str(document.get("peft_type")).rpartition(".")[2]
        return Serving(rank=0, rejected=(f"it serves LoRA, and no {kind}",))
    row = by_name(adapter.manifest.base.architecture)
    targets = chosen(config.targets, layout_of(adapter, row), leave_out=config.leave_out)
    ranks = [config.rank(target.linear) * max(1, len(target.parts)) for target in targets]
    rank = max(ranks)
    reasons = [*_options(document), *_modules(row, targets), *_scales(document, config, targets)]
    fits = next((most for most in RANKS if most >= rank), None)
    if fits is None:
        reasons.append(f"its rank is {rank}, and vLLM takes up to {RANKS[-1]}")
    if reasons or fits is None:
        return Serving(rank=rank, rejected=tuple(reasons))
    return Serving(rank=rank, flags=("--enable-lora", "--max-lora-rank", str(fits), "--lora-modules", f"{name}={path}"))


def _options(document: Mapping[str, JSON]) -> list[str]:
    """Return the options that vLLM rejects."""
    reasons = ["it is a DoRA"] if document.get("use_dora") else []
    if document.get("modules_to_save"):
        reasons.append(f"modules_to_save names {', '.join(map(str, document['modules_to_save']))}")
    if document.get("bias") not in (None, "none") or document.get("lora_bias"):
        reasons.append("it has biases")
    if document.get("trainable_token_indices"):
        reasons.append("it has trained rows of the embeddings, which vLLM passes over in silence")
    return reasons


def _modules(row: Architecture, targets: Sequence[Target]) -> list[str]:
    """Return the modules that vLLM's model does not take."""
    if row.name not in FAMILIES:
        return [f"it serves no adapters of {row.name} models"]
    served = {path.rpartition(".")[2] for stack in row.layers for path in stack.projections()}
    ends = {target.path.rpartition(".")[2] for target in targets}
    reasons = [f"it adapts {end}, which only some releases of vLLM serve" for end in OUTSIDE if end in ends]
    others = sorted(ends - served - set(OUTSIDE))
    return reasons + ([f"it adapts {', '.join(others)}, which vLLM does not"] if others else [])


def _scales(document: Mapping[str, JSON], config: LoraConfig, targets: Sequence[Target]) -> list[str]:
    """Return where the scale is another one than vLLM takes for all maps."""
    r = document["r"]
    taken = document["lora_alpha"] / (math.sqrt(r) if document.get("use_rslora") else r)
    other = [target.path for target in targets if not math.isclose(config.scale(target.linear), taken, rel_tol=1e-9)]
    if not other:
        return []
    return [f"{len(other)} maps have another scale than lora_alpha / r, such as {other[0]}, and vLLM has one for all"]


FORMAT = Format(
    name=NAME,
    # Every folder of it is one of PEFT.
    detect=lambda path: False,
    read=peft.FORMAT.read,
    decode=peft.decode,
    encode=encode,
    write=peft.FORMAT.write,
    rewritten=rewritten,
    files=peft.FORMAT.files,
    advice=advice,
)
