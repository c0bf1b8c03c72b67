"""What LoRA, (IA)³, VeRA and MTL-LoRA have in common in files of `adapters`: where they stand and how they are scaled.

All of them are one configuration there, LoRAConfig. It says which matrices of the attentions are adapted, and which
layers of the feed-forward blocks. How alpha is used differs: with a gate it is left out, and before 1.1.0 it was left
out everywhere but in merged projections. Our configurations say what acts.

Source: adapters 1.3.0, configuration/adapter_config.py (LoRAConfig), methods/lora.py and loading.py; 1.0.1 for alpha.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from ...adapter import JSON
from ...architectures import Architecture
from ...errors import FormatError, UsageError
from ...methods.targets import JOINT
from ...sites import Projection
from ..joint import is_joint, mixed
from .codec import Entry, Fields, Source

if TYPE_CHECKING:
    import torch

DEFAULTS: Mapping[str, JSON] = {
    "selfattn_lora": True,
    "intermediate_lora": False,
    "output_lora": False,
    "leave_out": [],
    "r": 8,
    "alpha": 8,
    "dropout": 0.0,
    "attn_matrices": ["q", "v"],
    "composition_mode": "add",
    "init_weights": "lora",
    "init_weights_seed": None,
    "use_gating": False,
    "use_dora": False,
    "vera_d": None,
    "vera_b": None,
    "dtype": None,
}
"""What a field means that a configuration leaves out."""

FLAGS = ("selfattn_lora", "intermediate_lora", "output_lora", "use_gating", "use_dora")
DTYPES = (None, "float16", "bfloat16", "float32", "float64", "half", "float", "double")
MATRICES: Mapping[str, Projection] = {"q": "query", "k": "key", "v": "value"}
GATE = (("gate.weight", "gate.weight"), ("gate.bias", "gate.bias"))


def values(fields: Fields) -> dict[str, JSON]:
    """Return a configuration with what it leaves out.

    Raises:
        UsageError: a field that no method checks has a wrong value.
    """
    found = {**DEFAULTS, **fields}
    faults = [f"{name} is {found[name]!r}, expected true or false" for name in FLAGS if type(found[name]) is not bool]
    if found["dtype"] not in DTYPES:
        faults.append(f"dtype is {found['dtype']!r}, expected the name of a floating-point type")
    numbers = {name: found[name] for name in ("alpha", "vera_d", "vera_b")}
    faults += [
        f"{name} is {value!r}, expected a number"
        for name, value in numbers.items()
        if type(value) not in (int, float) and not (value is None and name != "alpha")
    ]
    if faults:
        raise UsageError(f"the lora configuration cannot be used: {'; '.join(faults)}")
    return found


def has_vera(fields: Fields) -> bool:
    """Return whether a configuration is one of VeRA: numbers with a point switch it on, whole ones do not."""
    return isinstance(fields.get("vera_d"), float) or isinstance(fields.get("vera_b"), float)


def targets(found: Fields, row: Architecture) -> list[Projection]:
    """Return the projections that a configuration adapts.

    Raises:
        UsageError: attn_matrices names something else.
    """
    letters = found["attn_matrices"]
    if not isinstance(letters, list) or not all(isinstance(x, str) and x in MATRICES for x in letters):
        raise UsageError(f"attn_matrices is {letters!r}, expected letters of {', '.join(MATRICES)}")
    chosen = [MATRICES[letter] for letter in MATRICES if letter in letters] if found["selfattn_lora"] else []
    wide, narrow = feed_forward(row)
    return chosen + [wide] * found["intermediate_lora"] + [narrow] * found["output_lora"]


def where(chosen: Iterable[str], row: Architecture) -> dict[str, JSON]:
    """Return the fields that say which projections are adapted."""
    wide, narrow = feed_forward(row)
    letters = [letter for letter, role in MATRICES.items() if role in chosen]
    return {
        "selfattn_lora": bool(letters),
        "attn_matrices": letters or ["q", "v"],
        "intermediate_lora": wide in chosen,
        "output_lora": narrow in chosen,
    }


def feed_forward(row: Architecture) -> tuple[Projection, Projection]:
    """Return what intermediate_lora and output_lora mean in a family."""
    return ("output", "intermediate") if row.swapped else ("intermediate", "output")


def beyond(chosen: Iterable[str]) -> list[str]:
    """Return why the format has no word for some targets."""
    known = (*MATRICES.values(), "intermediate", "output")
    return [f"target {target!r} has no name in it" for target in chosen if target not in known]


def hint(chosen: Iterable[str], otherwise: str) -> str:
    """Return what to do about targets that the format has no name for."""
    if not any("." in target for target in chosen):
        return otherwise
    return "queries, keys, values and feed-forward maps of some layers convert where the base model is named: --base"


def factors(found: Fields, source: Source, unscaled: JSON) -> dict[str, JSON]:
    """Return alpha as it acts, and the alphas of projections where another one does.

    unscaled: the alpha that changes nothing.
    """
    if found["use_gating"]:
        return {"alpha": unscaled}
    if not before_1_1(source.version):
        return {"alpha": found["alpha"]}
    return {"alpha": unscaled, "alphas": dict.fromkeys(_scaled(targets(found, source.row), source.row), found["alpha"])}


def alpha_of(
    alpha: float, alphas: Mapping[str, float], chosen: Iterable[str], source: Source, *, unscaled: float, gating: bool
) -> float | None:
    """Return the alpha of the file with which factors gives these, None where there is none."""
    if gating or before_1_1(source.version):
        if alpha != unscaled:
            return None
        parts = [] if gating else _scaled(chosen, source.row)
        one = next(iter(alphas.values()), alpha)
        return one if alphas == dict.fromkeys(parts, one) else None
    return None if alphas else alpha


def before_1_1(version: str | None) -> bool:
    """Return whether a file is of the library `adapters` before 1.1.0, which did not scale plain maps.

    >>> [before_1_1(version) for version in ("adapters.1.0.1", "adapters.1.1.0.dev0", "adapters.1.1.0", "3.2.1")]
    [True, True, False, False]
    """
    found = _RELEASE.match(version or "")
    if found is None:
        return False
    numbers = [int(number or 0) for number in found.groups()[:3]]
    return numbers < [1, 1, 0] or (numbers == [1, 1, 0] and found["pre"] is not None)


_RELEASE = re.compile(
    r"adapters\.([0-9]+)(?:\.([0-9]+))?(?:\.([0-9]+))?(?P<pre>[._-]?(?:a|b|c|rc|alpha|beta|pre|dev)[0-9]*)?"
)


def merged(row: Architecture) -> tuple[str, ...]:
    """Return the projections that one module computes side by side."""
    return ("query", "key", "value") if any(map(is_joint, row.layers)) else ()


def _scaled(chosen: Iterable[str], row: Architecture) -> list[str]:
    """Return what was scaled before 1.1.0 too: merged projections, by their names where no stack has others."""
    parts = [role for role in chosen if role in merged(row)]
    return [JOINT] if parts and mixed(row) else parts


def whole_number(value: float) -> JSON:
    """Return a number as `adapters` writes it, 8 for 8.0.

    >>> whole_number(8.0), whole_number(0.5)
    (8, 0.5)
    """
    # -0.0 is no whole number: it would lose its sign.
    return int(value) if value == int(value) and str(value) != "-0.0" else value


def entries(
    chosen: Iterable[str], row: Architecture, leaves: Iterable[tuple[str, str]], left_out: tuple[int, ...]
) -> Iterator[Entry]:
    """Yield the names of the tensors at every linear map that computes one of the chosen projections.

    leaves: (their parameter name, ours) pairs.
    """
    wanted, names = set(chosen), tuple(leaves)
    for stack in row.layers:
        for path, (roles, _) in stack.projections().items():
            ours = f"{stack.path}.{path}"
            theirs = f"{row.past(ours)}.loras.{{name}}"
            if wanted & set(roles):
                yield from (Entry(f"{theirs}.{a}", f"{ours}.{b}", left_out=left_out) for a, b in names)


def squeezed(tensors: dict[str, torch.Tensor], leaf: str) -> dict[str, torch.Tensor]:
    """Return tensors with the columns of this name as vectors.

    Raises:
        FormatError: one is no column; all are listed.
    """
    columns = [key for key in tensors if key.endswith(f".{leaf}")]
    faults = [
        f"tensor {key!r} has shape {tuple(tensors[key].shape)}, expected a column"
        for key in columns
        if tensors[key].shape[1:] != (1,)
    ]
    if faults:
        raise FormatError("the weights of the adapter are wrong", faults=faults, hint="fetch the adapter again")
    return {**tensors, **{key: tensors[key].squeeze(1) for key in columns}}


def unsqueezed(tensors: dict[str, torch.Tensor], leaf: str) -> dict[str, torch.Tensor]:
    """Return tensors with the vectors of this name as columns."""
    return {key: t.unsqueeze(1) if key.endswith(f".{leaf}") else t for key, t in tensors.items()}
