"""LoRA files of kohya-ss's sd-scripts, which most programs for diffusion models read.

A key is `<part>_<module path joined with underscores>.lora_down.weight`, `.lora_up.weight` or `.alpha`; the parts are
`lora_unet`, `lora_te` (`lora_te1`, `lora_te2` where there are two text encoders). A map without an alpha has a scale
of 1. The texts of the header tell of the training; none of them changes what the adapter computes.

Source: kohya-ss sd-scripts, networks/lora.py; diffusers 0.42, loaders/lora_conversion_utils.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..adapter import JSON, Manifest
from ..errors import FormatError, UnsupportedError
from . import diffusion
from .diffusion import PIPELINE, TEXT, TEXT_2, UNET
from .format import Format, Parts
from .low_rank import tensor_files, updates
from .low_rank.dialect import GROUP, Dialect, Joined, Split
from .low_rank.tensor_files import METADATA
from .low_rank.updates import Means, Place, Sorting, Updates
from .peft.families import Naming

if TYPE_CHECKING:
    import torch
    from torch import Tensor

NAME = "kohya"

PARTS: Mapping[str, str] = {"lora_unet": UNET, "lora_te": TEXT, "lora_te1": TEXT, "lora_te2": TEXT_2}
"""First word of a key → the part."""

LEAVES: Mapping[str, str] = {"lora_down.weight": "lora_A", "lora_up.weight": "lora_B"}

OTHERS = ("lora_mid.weight", "dora_scale", "hada_", "lokr_", "diff", "oft_", "on_input", "a1.weight", "norm", "w_norm")
"""Beginnings of leaves of other methods than LoRA, of LyCORIS and others."""

MEANS = Means(library="a file of kohya-ss", convolutions=True)

_KEY = re.compile(r"(?P<part>lora_unet|lora_te[12]?)_(?P<path>[^.]+)\.(?P<leaf>.+)")


def detect(path: Path) -> bool:
    """Return whether path is a file with keys as sd-scripts writes them."""
    return tensor_files.detect(path, lambda header: any(map(_KEY.fullmatch, header.tensors)))


def split(parts: Parts) -> Split:
    """Return what a file says.

    Raises:
        FormatError: a key is none of such a file, or an alpha is no number.
        UnsupportedError: it holds another method, or modules that are not known.
    """
    sorting, spelling = Sorting(), _Spelling()
    alphas: dict[str, Tensor] = {}
    unknown: list[str] = []
    others: set[str] = set()
    for key, tensor in parts.tensors[GROUP].items():
        match = _KEY.fullmatch(key)
        if match is None:
            sorting.faults.append(f"key {key[:80]!r} is of no part of a diffusion model")
            continue
        if match["leaf"].startswith(OTHERS):
            others.add(match["leaf"])
            continue
        path = spelling.path(match["part"], match["path"])
        if path is None:
            unknown.append(f"{match['part']}_{match['path']}")
        elif match["leaf"] == "alpha":
            alphas[path] = tensor
        elif match["leaf"] in LEAVES:
            sorting.put(key, Place(path, LEAVES[match["leaf"]]), tensor)
        else:
            sorting.faults.append(f"key {key[:80]!r} ends in no lora_down.weight, lora_up.weight or alpha")
    if others or unknown:
        raise _unsupported(others, unknown)
    tensors = sorting.done("the file")
    lone = sorted(set(alphas) - {path for path, _ in tensors})
    if lone:
        raise FormatError(f"the file has an alpha of {lone[0]}, and no update of it", hint=updates.AGAIN)
    found, kept = _scaled(tensors, alphas)
    return Split(*diffusion.chosen(found, parts.options), kept=spelling.kept() | kept)


def join(found: Updates, names: Naming, manifest: Manifest, kept: Mapping[str, JSON]) -> Joined:
    """Return the file.

    Raises:
        UnsupportedError: a module has no name in it.
    """
    spelling = _Spelling.of(found, kept)
    joined = {path: spelling.joined(path) for path in found.paths}
    unknown = [path for path, name in joined.items() if name is None]
    if unknown:
        raise _unsupported((), unknown)
    back = {ours: theirs for theirs, ours in LEAVES.items()}
    tensors = {f"{joined[path]}.{back[leaf]}": tensor for (path, leaf), tensor in found.tensors.items()}
    left_out = kept.get("without_alpha", [])
    ranks = updates.ranks_of(found)
    for path, alpha in found.alphas.items():
        if not (path in left_out and alpha == ranks[path]):
            tensors[f"{joined[path]}.alpha"] = _stored(alpha, kept)
    rank, alpha = updates.usual(ranks)[0], updates.usual(found.alphas)[0]
    said = {
        "format": "pt",
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(float(alpha)),
    }
    return Joined({METADATA: dict(said)}, tensors)


class _Spelling:
    """How a file calls parts and modules, found while it is read or told when it is written."""

    def __init__(self, text: str = "", *, stability: bool | None = None) -> None:
        self._text = text
        self._stability = stability

    @classmethod
    def of(cls, found: Updates, kept: Mapping[str, JSON]) -> _Spelling:
        """Return that of the source, or for an adapter from elsewhere the usual one."""
        both = any(path.startswith(f"{TEXT_2}.") for path in found.paths)
        return cls(kept.get("text", "lora_te1" if both else "lora_te"), stability=kept.get("stability") is True)

    def kept(self) -> dict[str, JSON]:
        """Return what is to be remembered."""
        text = {"text": self._text} if self._text else {}
        return {**text, **({"stability": True} if self._stability else {})}

    def path(self, word: str, joined: str) -> str | None:
        """Return the module path, None where it is not known, or spelled otherwise than in the rest of the file."""
        part, path = PARTS[word], diffusion.dotted(joined)
        if path is None:
            return None
        if part == TEXT:
            self._text = self._text or word
            return f"{part}.{path}" if self._text == word else None
        if part == UNET:
            stability = path.partition(".")[0] in diffusion.STABILITY
            self._stability = stability if self._stability is None else self._stability
            told = diffusion.from_stability(path) if stability else path
            return None if told is None or self._stability != stability else f"{part}.{told}"
        return f"{part}.{path}"

    def joined(self, path: str) -> str | None:
        """Return what stands in front of the leaf; the reverse of path."""
        part, _, inside = path.partition(".")
        told = diffusion.to_stability(inside) if part == UNET and self._stability else inside
        word = {UNET: "lora_unet", TEXT: self._text, TEXT_2: "lora_te2"}.get(part)
        if told is None or word is None or diffusion.dotted(told.replace(".", "_")) != told:
            return None
        return f"{word}_{told.replace('.', '_')}"


def _unsupported(others: set[str] | tuple[()], unknown: list[str]) -> UnsupportedError:
    """Return the error for what is not read or written."""
    reasons = [f"it has {leaf}, which is no LoRA" for leaf in sorted(others)[:3]]
    if unknown:
        reasons.append(f"{len(unknown)} modules have no name that is known, such as {unknown[0][:100]}")
    return UnsupportedError(
        f"the adapter is not one of modules that are known: {'; '.join(reasons)}", hint=updates.NATIVE
    )


def _scaled(tensors: Mapping[Place, Tensor], alphas: Mapping[str, Tensor]) -> tuple[Updates, dict[str, JSON]]:
    """Return the updates, and what is to be remembered of how the values of alpha are stored."""
    faults, values = [], {}
    for path, alpha in alphas.items():
        if alpha.numel() != 1 or not alpha.isfinite().all() or float(alpha) == 0:
            # sd-scripts takes 0 for the rank, diffusers for nothing.
            faults.append(f"the alpha of {path} is {alpha.tolist() if alpha.numel() < 4 else 'no number'}")
        else:
            values[path] = float(alpha)
    if faults:
        raise FormatError("the file has no usable scale", faults=faults[:50], hint=updates.AGAIN)
    ranks = updates.ranks_of(Updates(tensors, {}))
    without = sorted(ranks.keys() - values.keys())
    kinds = sorted({(str(alpha.dtype).removeprefix("torch."), tuple(alpha.shape)) for alpha in alphas.values()})
    if len(kinds) > 1:
        raise FormatError("the values of alpha are stored in several ways", hint=updates.AGAIN)
    kept: dict[str, JSON] = {"without_alpha": without} if without else {}
    kept |= {"alpha": [kinds[0][0], list(kinds[0][1])]} if kinds else {}
    return Updates(tensors, {path: values.get(path, float(r)) for path, r in ranks.items()}), kept


def _stored(alpha: float, kept: Mapping[str, JSON]) -> torch.Tensor:
    """Return an alpha as the source stores it, if that holds it."""
    import torch

    dtype, shape = kept.get("alpha", ["float32", []])
    types = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "int64": torch.int64}
    found = torch.tensor(alpha).to(types.get(dtype, torch.float32)).reshape(shape)
    return found if float(found) == alpha else torch.tensor(alpha, dtype=torch.float32)


DIALECT = Dialect(name=NAME, means=MEANS, split=split, join=join, naming=diffusion.naming_for, rows=(PIPELINE,))

FORMAT = Format(
    name=NAME,
    detect=detect,
    read=tensor_files.read,
    decode=DIALECT.decode,
    encode=DIALECT.encode,
    write=tensor_files.write,
    rewritten=diffusion.rewritten,
    options=diffusion.OPTIONS,
)
