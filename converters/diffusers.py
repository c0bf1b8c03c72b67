"""LoRA files of diffusers: one safetensors file for all parts of a pipeline.

A key is `<part>.<module path>.<leaf>`, the part `unet`, `text_encoder` or `text_encoder_2`. The leaves were spelled in
several ways over the years; newer files are in PEFT's and may have its configuration in the header, without which the
scale is 1.

Source: diffusers 0.42, utils/state_dict_utils.py, utils/peft_utils.py (`get_peft_kwargs`, `_create_lora_config`) and
loaders/lora_base.py.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..adapter import JSON, Manifest
from ..errors import FormatError, UnsupportedError
from . import diffusion, json_text
from .diffusion import PARTS, PIPELINE
from .format import Format, Parts
from .low_rank import tensor_files, updates
from .low_rank.dialect import GROUP, Dialect, Joined, Split
from .low_rank.tensor_files import METADATA
from .low_rank.updates import Means, Place, Sorting, Updates
from .peft.families import Naming
from .peft.pattern import Ends

if TYPE_CHECKING:
    pass

NAME = "diffusers"
CONFIG = "lora_adapter_metadata"
"""Key of the header, and document: the configurations of PEFT, each field with its part in front."""

STYLES: Mapping[str, tuple[str, str]] = {
    "peft": (".lora_A.weight", ".lora_B.weight"),
    "lora": (".lora.down.weight", ".lora.up.weight"),
    "linear_layer": (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
    "processor": ("_lora.down.weight", "_lora.up.weight"),
}
"""Name of a spelling → the leaves of A and B; in the last one `processor.` stands in front of the module."""

OFF: Mapping[str, tuple[JSON, ...]] = {
    "use_dora": (False, None),
    "lora_bias": (False, None),
    "bias": ("none", None),
    "modules_to_save": (None, []),
    "fan_in_fan_out": (False, None),
    "layer_replication": (None, []),
}
"""Field that has to be off → how."""

MEANS = Means(library="diffusers", convolutions=True)

_PROCESSED = re.compile(r"(?P<before>.+)\.processor\.(?P<last>to_[qkv]|to_out)")


def detect(path: Path) -> bool:
    """Return whether path is a file with keys as diffusers writes them."""
    ends = tuple(end for pair in STYLES.values() for end in pair)
    return tensor_files.detect(path, lambda header: any(_is_key(key, ends) for key in header.tensors))


def _is_key(key: str, ends: tuple[str, ...]) -> bool:
    return key.partition(".")[0] in PARTS and key.endswith(ends)


def read(path: Path) -> Parts:
    """Return tensors, texts of the header, configurations and note of a file.

    Raises:
        NotFoundError: there is no such file.
        FormatError: it is malformed or hostile.
    """
    parts = tensor_files.read(path)
    texts = dict(parts.documents[METADATA])
    said = texts.pop(CONFIG, None)
    documents = {**parts.documents, METADATA: texts}
    if said is not None:
        documents[CONFIG] = json_text.loads(str(said).encode("utf-8", "surrogatepass"), f"{CONFIG} in {path}")
    return dataclasses.replace(parts, documents=documents)


def write(parts: Parts, path: Path, force: bool = False) -> Path:
    """Write one file, whole or not at all, and return its path.

    Raises:
        StateError: the file exists and force is not set, or cannot be written.
    """
    documents = dict(parts.documents)
    said = documents.pop(CONFIG, None)
    if said:
        documents[METADATA] = {**documents[METADATA], CONFIG: json.dumps(said, indent=2, sort_keys=True)}
    return tensor_files.write(dataclasses.replace(parts, documents=documents), path, force)


def split(parts: Parts) -> Split:
    """Return what a file says.

    Raises:
        FormatError: a key is none of such a file, or the header is wrong.
        UnsupportedError: the header says what is not computed.
    """
    sorting = Sorting()
    styles: dict[str, str] = {}
    for key, tensor in parts.tensors[GROUP].items():
        place, style = _place(key)
        if place is None:
            sorting.faults.append(f"key {key[:80]!r} is of no update in unet, text_encoder or text_encoder_2")
            continue
        kind = _kind(place.path)
        if styles.setdefault(kind, style) != style:
            sorting.faults.append(f"key {key[:80]!r} is spelled otherwise than those of other layers")
        sorting.put(key, place, tensor)
    tensors = sorting.done("the file")
    ranks = updates.ranks_of(Updates(tensors, {}))
    said = parts.documents.get(CONFIG)
    found = Updates(tensors, _alphas(ranks, said))
    kept: dict[str, JSON] = {} if set(styles.values()) == {"peft"} else {"styles": styles}
    return Split(*diffusion.chosen(found, parts.options), kept=kept | ({} if said else {"plain": True}))


def join(found: Updates, names: Naming, manifest: Manifest, kept: Mapping[str, JSON]) -> Joined:
    """Return the file.

    Raises:
        UnsupportedError: a module belongs to no part of a pipeline.
    """
    odd = [path for path in found.paths if path.partition(".")[0] not in PARTS]
    if odd:
        raise UnsupportedError(f"{odd[0]} is in no part of a pipeline", hint=updates.NATIVE)
    styles = kept.get("styles", {})
    tensors = {_key(place, styles.get(_kind(place.path), "peft")): tensor for place, tensor in found.tensors.items()}
    ranks = updates.ranks_of(found)
    documents: dict[str, dict[str, JSON]] = {METADATA: {"format": "pt"}}
    if not kept.get("plain") or any(found.alphas[path] != r for path, r in ranks.items()):
        documents[CONFIG] = {}
        for part in PARTS:
            mine = [path for path in found.paths if path.startswith(f"{part}.")]
            fields = _fields({path: ranks[path] for path in mine}, found.alphas, part) if mine else {}
            documents[CONFIG] |= {f"{part}.{field}": value for field, value in fields.items()}
    return Joined(documents, tensors)


def _place(key: str) -> tuple[Place | None, str]:
    """Return the place of a key and the name of its spelling, None where it is none."""
    if key.partition(".")[0] in PARTS:
        for style, ends in STYLES.items():
            for end, leaf in zip(ends, ("lora_A", "lora_B"), strict=True):
                path = key.removesuffix(end)
                if path != key and style == "processor":
                    match = _PROCESSED.fullmatch(path)
                    last = {"to_out": "to_out.0"}.get(match["last"], match["last"]) if match else ""
                    return (Place(f"{match['before']}.{last}", leaf) if match else None), style
                if path != key and path.count("."):
                    return Place(path, leaf), style
    return None, ""


def _key(place: Place, style: str) -> str:
    """Return a key; the reverse of _place."""
    end = STYLES[style][0 if place.leaf == "lora_A" else 1]
    if style != "processor":
        return f"{place.path}{end}"
    before, _, last = place.path.removesuffix(".0").rpartition(".")
    return f"{before}.processor.{last}{end}"


def _kind(path: str) -> str:
    """Return what modules have in common that are spelled alike: their part and the words at the end of their path."""
    words = [word for word in path.split(".") if not word.isdigit()]
    return ".".join([words[0], *words[-2:]])


def _alphas(ranks: Mapping[str, int], said: JSON) -> dict[str, float]:
    """Return module path → alpha."""
    found = {}
    if said is not None and not isinstance(said, dict):
        raise FormatError(f"{CONFIG} in the header is no object", hint=updates.AGAIN)
    for part in PARTS:
        mine = {path: r for path, r in ranks.items() if path.startswith(f"{part}.")}
        fields = {key.removeprefix(f"{part}."): v for key, v in (said or {}).items() if key.startswith(f"{part}.")}
        if fields:
            found |= _said(mine, fields, part)
        else:
            found |= {path: float(r) for path, r in mine.items()}
    return found


def _said(ranks: Mapping[str, int], fields: Mapping[str, JSON], part: str) -> dict[str, float]:
    """Return module path → alpha for one part, as its configuration says it.

    Raises:
        FormatError: the configuration is wrong.
        UnsupportedError: it says what is not computed.
    """
    on = [name for name, off in OFF.items() if name in fields and fields[name] not in off]
    if on:
        raise UnsupportedError(
            f"{CONFIG}: {part}.{on[0]} is {fields[on[0]]!r}, which is not computed", hint=updates.NATIVE
        )
    alpha, patterns = fields.get("lora_alpha", 8), fields.get("alpha_pattern") or {}
    numbers = [alpha, *(patterns.values() if isinstance(patterns, dict) else [None])]
    if any(isinstance(n, bool) or not isinstance(n, (int, float)) or not math.isfinite(n) for n in numbers):
        raise FormatError(f"{CONFIG}: lora_alpha or alpha_pattern of {part} is no number", hint=updates.AGAIN)
    known = Ends(patterns)
    found = {}
    for path, r in ranks.items():
        pattern = known.first(path.removeprefix(f"{part}."))
        own = alpha if pattern is None else patterns[pattern]
        found[path] = own * math.sqrt(r) if fields.get("use_rslora") is True else float(own)
    return found


def _fields(ranks: Mapping[str, int], alphas: Mapping[str, float], part: str) -> dict[str, JSON]:
    """Return the configuration of one part."""
    inside = {path: path.removeprefix(f"{part}.") for path in ranks}
    r, other_ranks = updates.usual({inside[path]: rank for path, rank in ranks.items()})
    alpha, other_alphas = updates.usual({inside[path]: _number(alphas[path]) for path in ranks})
    return {
        "r": r,
        "lora_alpha": alpha,
        "rank_pattern": {_anchored(path): value for path, value in other_ranks.items()},
        "alpha_pattern": {_anchored(path): value for path, value in other_alphas.items()},
        "target_modules": sorted(inside.values()),
        "use_rslora": False,
        "use_dora": False,
        "lora_bias": False,
    }


def _anchored(path: str) -> str:
    return "^" + path.replace(".", r"\.")


def _number(value: float) -> JSON:
    return int(value) if value == int(value) else value


DIALECT = Dialect(name=NAME, means=MEANS, split=split, join=join, naming=diffusion.naming_for, rows=(PIPELINE,))

FORMAT = Format(
    name=NAME,
    detect=detect,
    read=read,
    decode=DIALECT.decode,
    encode=DIALECT.encode,
    write=write,
    rewritten=diffusion.rewritten,
    options=diffusion.OPTIONS,
)
