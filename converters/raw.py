"""State dicts of LoRA: files of loralib, and other files that hold matrices `lora_A` and `lora_B` and nothing else.

A key is `<module path>.lora_A`, perhaps with a wrapper's words in front and `.weight` or an adapter's name behind, the
same for all keys. The file does not say the scale; whoever reads it says alpha. loralib's `MergedLinear` keeps the
updates of query, key and value apart: A has the rows of all, B their outputs, and its `enable_lora` says which.

Source: loralib 0.1.2, layers.py and utils.py (`lora_state_dict`); PEFT 0.21.2, tuners/lora/layer.py, for the names of
a whole model's state dict.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..adapter import JSON, Manifest
from ..architectures import Architecture, by_name
from ..architectures.architecture import named
from ..errors import FormatError, UnsupportedError, UsageError
from ..sites import PROJECTIONS, Projection
from . import torch_file
from .format import Format, Parts
from .low_rank import tensor_files
from .low_rank.dialect import GROUP, Dialect, Joined, Split, naming_of
from .low_rank.one_scale import rewritten
from .low_rank.tensor_files import METADATA
from .low_rank.updates import Means, Place, Sorting, Updates, ordered_words, padded, usual
from .options import Option
from .peft.families import Naming, layers_of, naming

if TYPE_CHECKING:
    from torch import Tensor

    Tensors = Mapping[Place, Tensor]

NAME = "raw"
ALPHA, STABLE = "lora_alpha", "use_rslora"
"""Texts of the header with which this package says what such files do not say."""

PICKLES = (".bin", ".pt", ".pth", ".ckpt")

OPTIONS: Mapping[str, Option] = {
    "alpha": Option("the numerator of the scale, as the library that trained was told it (lora_alpha)", "number"),
    "r": Option("the rank, if it is to be checked", "whole"),
    "rank_stabilised": Option("true if the scale is alpha / √r", "flag"),
    "targets": Option("projections of joint maps: query,value for enable_lora=[True, False, True]", "names"),
    "family": Option("the family of the base model, where several have the same module paths"),
}

MEANS = Means(library="a plain state dict", stable=True, embeddings=True, convolutions=True)

_KEY = re.compile(
    r"(?P<around>base_model\.model\.|module\.)?(?P<path>.+?)"
    r"\.(?P<kind>lora_(?:embedding_)?)(?P<factor>[AB])(?P<tail>(?:\.[^.]+){0,2})\Z"
)


def detect(path: Path) -> bool:
    """Return whether path is a file of tensors called lora_A or lora_B; of a pickle only its name is looked at."""
    if path.suffix in PICKLES:
        return path.is_file()
    return tensor_files.detect(path, lambda header: any(map(_KEY.match, header.tensors)))


def read(path: Path) -> Parts:
    """Return the tensors and the texts of the header of a file.

    Raises:
        NotFoundError: there is no such file.
        FormatError: it is malformed or hostile.
    """
    if path.suffix in PICKLES:
        tensors, digest = torch_file.load(path)
        return Parts({METADATA: {}}, {GROUP: tensors}, digest, name=path.stem)
    return tensor_files.read(path)


def split(parts: Parts) -> Split:
    """Return what a file and its reader's options say.

    Raises:
        FormatError: a key is none of such a file, or the options do not fit to the tensors.
        UsageError: an option is wrong, or one is missing.
        UnsupportedError: no known family has such module paths.
    """
    tensors, spelling = _sorted(parts.tensors[GROUP])
    names = naming([path for path, _ in tensors], {}, _row(parts))
    tensors = _embedded(tensors, names)
    targets = _targets(tensors, names, parts.options)
    joint = _joint(tensors, names) if targets else {}
    words = (*targets, *(names.ours(path) for path in _paths(tensors) if path not in joint)) if targets else ()
    alpha, stable = _scale(parts.documents[METADATA], parts.options)
    found = Updates(
        tensors=tensors,
        alphas=dict.fromkeys(_paths(tensors), alpha),
        rank_stabilised=stable,
        words=ordered_words(words),
    )
    _check_rank(found, parts.options)
    return Split(found, names, kept={**spelling, **({"targets": list(targets)} if targets else {})})


def join(found: Updates, names: Naming, manifest: Manifest, kept: Mapping[str, JSON]) -> Joined:
    """Return the file; alpha stands in its header, unless whoever reads it has to say it anyway.

    Raises:
        UnsupportedError: there are several values of alpha.
    """
    if len(set(found.alphas.values())) > 1 and not found.rank_stabilised:
        found = padded(found)
    alpha, others = usual(found.alphas)
    if others:
        raise UnsupportedError(
            f"a plain state dict has one alpha, this adapter has {len({alpha, *others.values()})}",
            hint="write it in the native format",
        )
    tails = kept.get("tails", {"lora_": ""})
    tensors = {}
    for (path, leaf), tensor in found.tensors.items():
        kind = leaf[:-1] if leaf[:-1] in tails else "lora_"
        tensors[f"{kept.get('around', '')}{path}.{kind}{leaf[-1]}{tails.get(kind, '')}"] = tensor
    options = kept.get("options", {})
    said: dict[str, JSON] = {} if "alpha" in options else {ALPHA: repr(float(alpha))}
    said |= {STABLE: "true"} if found.rank_stabilised and "rank_stabilised" not in options else {}
    return Joined({METADATA: said}, tensors)


def _naming(row: Architecture, kept: Mapping[str, JSON]) -> Naming:
    prefix = kept.get("prefix", row.prefixes[0] if row.prefixes else "")
    return naming_of(row, prefix, former=kept.get("former") is True)


def _sorted(tensors: Mapping[str, Tensor]) -> tuple[dict[Place, Tensor], dict[str, JSON]]:
    """Return the tensors by their places, and how the keys are spelled."""
    sorting = Sorting()
    arounds: set[str] = set()
    tails: dict[str, set[str]] = {}
    for key, tensor in tensors.items():
        match = _KEY.match(key)
        if match is None:
            also = ", and biases that were trained along are not read" if key.endswith(".bias") else ""
            sorting.faults.append(f"key {key!r} is of no lora_A and no lora_B{also}")
            continue
        arounds.add(match["around"] or "")
        tails.setdefault(match["kind"], set()).add(match["tail"])
        sorting.put(key, Place(match["path"], f"{match['kind']}{match['factor']}"), tensor)
    if len(arounds) > 1 or any(len(found) > 1 for found in tails.values()):
        sorting.faults.append("the keys are spelled in several ways, as if they came from several files")
    found = sorting.done("the file")
    spelling: dict[str, JSON] = {"tails": {kind: next(iter(tail)) for kind, tail in sorted(tails.items())}}
    around = next(iter(arounds), "")
    return found, {**spelling, **({"around": around} if around else {})}


def _embedded(tensors: Tensors, names: Naming) -> dict[Place, Tensor]:
    """Return the tensors with those of word embeddings called so, which loralib calls as those of linear maps."""
    tables = [embedding.tokens for embedding in names.row.embeddings if embedding.tokens]

    def place(found: Place) -> Place:
        is_table = any(named(table, names.ours(found.path)) for table in tables)
        return Place(found.path, f"lora_embedding_{found.leaf[-1]}") if is_table else found

    return {place(found): tensor for found, tensor in tensors.items()}


def _paths(tensors: Tensors) -> list[str]:
    return list(dict.fromkeys(path for path, _ in tensors))


def _joint(tensors: Tensors, names: Naming) -> dict[str, tuple[Projection, ...]]:
    """Return module path → projections of the maps that compute several side by side."""
    found = {}
    for path in _paths(tensors):
        ours = names.ours(path)
        at = layers_of(names.row, ours)
        roles = at[0].projections().get(ours.removeprefix(f"{at[0].layer(at[1])}."), ((), False))[0] if at else ()
        if len(roles) > 1:
            found[path] = roles
    return found


def _targets(tensors: Tensors, names: Naming, options: Mapping[str, JSON]) -> tuple[str, ...]:
    """Return the projections that were adapted apart from each other, () where joint maps are adapted as a whole.

    Raises:
        UsageError: the option is wrong, or the tensors do not tell it.
    """
    said = options.get("targets")
    joint = _joint(tensors, names)
    if said is not None:
        known = {role for roles in joint.values() for role in roles}
        if not isinstance(said, (list, tuple)) or not said or not set(map(str, said)) <= known:
            raise UsageError(
                f"option targets is {said!r}",
                hint=f"name some of {', '.join(role for role in PROJECTIONS if role in known)}"
                if known
                else "it is for models that compute query, key and value in one map",
            )
        return tuple(said)
    for path, roles in joint.items():
        a, b = tensors.get(Place(path, "lora_A")), tensors.get(Place(path, "lora_B"))
        if a is None or b is None or a.ndim != 2 or b.ndim != 2 or b.shape[1] == 0:
            continue
        parts = a.shape[0] // b.shape[1]
        if parts == len(roles):
            return tuple(roles)
        # One part alone looks like the whole of a narrower map.
        if parts > 1 or b.shape[0] == a.shape[1]:
            raise UsageError(
                f"the tensors of {path} are of {parts} of {len(roles)} projections, and do not say which",
                hint="say it with the option targets, such as targets=query,value",
            )
    return ()


def _scale(metadata: Mapping[str, JSON], options: Mapping[str, JSON]) -> tuple[float, bool]:
    """Return alpha, and whether the scale is rank-stabilised.

    Raises:
        UsageError: alpha is not known; a value is wrong.
        FormatError: the header says another one.
    """
    said = metadata.get(ALPHA)
    noted = None if said is None else _number(said)
    if said is not None and noted is None:
        raise FormatError(f"{ALPHA} in the header is {said!r}, which is no number", hint="correct it")
    alpha = options.get("alpha", noted)
    if alpha is None:
        raise UsageError(
            "the file does not say by which scale its updates are multiplied",
            hint="say the alpha that it was trained with: --alpha 16, or options={'alpha': 16}",
        )
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not math.isfinite(alpha):
        raise UsageError(f"option alpha is {alpha!r}", hint="give a number")
    if noted is not None and alpha != noted:
        raise UsageError(f"option alpha is {alpha!r}, and the file says {noted!r}", hint="leave the option out")
    stable = options.get("rank_stabilised", metadata.get(STABLE) == "true")
    if not isinstance(stable, bool):
        raise UsageError(f"option rank_stabilised is {stable!r}", hint="give true or false")
    return alpha, stable


def _number(text: JSON) -> float | None:
    try:
        found = float(text)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def _check_rank(found: Updates, options: Mapping[str, JSON]) -> None:
    """Compare the rank that the caller says with that of the tensors."""
    said = options.get("r")
    if said is None:
        return
    ranks = {path: t.shape[1] for (path, leaf), t in found.tensors.items() if leaf.endswith("_B") and t.ndim > 1}
    other = [f"{path} has rank {r}" for path, r in ranks.items() if r != said]
    if other:
        raise FormatError(f"the rank is not {said}", faults=other[:5], hint="correct the option r, or leave it out")


def _row(parts: Parts) -> Architecture | None:
    name = parts.options.get("family")
    if name is None:
        return parts.row
    if not isinstance(name, str):
        raise UsageError(f"option family is {name!r}", hint="give the name of a family, such as llama")
    return by_name(name)


DIALECT = Dialect(name=NAME, means=MEANS, split=split, join=join, naming=_naming)

FORMAT = Format(
    name=NAME,
    detect=detect,
    read=read,
    decode=DIALECT.decode,
    encode=DIALECT.encode,
    write=tensor_files.write,
    rewritten=rewritten,
    options=OPTIONS,
)
