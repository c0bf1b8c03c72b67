"""Which modules an adapter of PEFT adapts: what its tensors say, held against what its configuration says.

The tensors say where the adapter is; `target_modules` is not needed to find that out. But PEFT puts an adapter only
where its configuration says so, so both must agree.

Source: PEFT 0.21.2, tuners/tuners_utils.py (`check_target_module_exists`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

from ...adapter import JSON
from ...architectures import Architecture, Layers, inside
from ...errors import FormatError, UnsupportedError
from ...methods.targets import JOINT
from ...sites import PROJECTIONS
from ..joint import is_joint, mixed
from ..layers import refuse_many
from .families import Naming, layers_of
from .pattern import Fuel, matches

ALL = "all-linear"
TRAINABLE_TOKENS = "TRAINABLE_TOKENS"


def faults(document: Mapping[str, JSON], names: Naming, paths: Sequence[str]) -> list[str]:
    """Return where tensors and configuration disagree, one sentence each.

    paths: module paths that have tensors, as the keys call them.
    """
    fuel = Fuel()
    return [
        *(
            f"the file has tensors of {path}, which target_modules does not name"
            for path in paths
            if not _named(document, path, fuel) and not _follows(document, names, path)
        ),
        *_missing(document, names, paths, fuel),
    ]


def words(row: Architecture, paths: Collection[str], named: Callable[[str], bool]) -> tuple[str, ...]:
    """Return what is adapted, as short as can be: projections where every layer has them, else module paths of ours.

    named: whether the configuration would adapt a module of this path of ours, if the model had it.
    """
    left = ordered(paths)
    places = {path: place for path in paths if (place := layers_of(row, path)) is not None}
    if _is_partly_joint(row, places) or not all(named(path) for path in _further(places)):
        return tuple(left)
    chosen: list[str] = []
    for role in (*PROJECTIONS, JOINT):
        mine = list(_of_role(row, role, places, named))
        if mine and all(path in left for path in mine):
            chosen.append(role)
            left = [path for path in left if path not in mine]
    return (*chosen, *left)


def naming_by(document: Mapping[str, JSON], names: Naming) -> Callable[[str], bool]:
    """Return what tells of a path of ours whether a document puts an adapter there, no where that is not evaluated."""
    wanted = document.get("target_modules")
    if not isinstance(wanted, (list, str)) or wanted == ALL or document.get("target_parameters"):
        return lambda path: False
    fuel = Fuel()
    return lambda path: _named(document, names.theirs(path), fuel, doubting=True)


def ordered(paths: Iterable[str]) -> list[str]:
    """Return paths sorted, layer 2 before layer 10.

    >>> ordered(["h.10.a", "h.2.b", "h.2.a"])
    ['h.2.a', 'h.2.b', 'h.10.a']
    """
    return sorted(
        paths, key=lambda path: [(word.isdigit(), int(word) if word.isdigit() else 0, word) for word in path.split(".")]
    )


Places = Mapping[str, tuple[Layers, tuple[int, ...]]]
"""Module path of ours → the stack and the index of the layer that it lies in."""


def _is_partly_joint(row: Architecture, places: Places) -> bool:
    """Return whether the model may have joint projections in one stack and separate ones in another.

    A projection then means a part of the joint ones too, which PEFT never adapts alone.
    """
    if not mixed(row):
        return False
    seen = [stack for stack, _ in places.values()]
    tops = {stack.path.partition(".")[0] for stack in row.layers}
    return tops != {stack.path.partition(".")[0] for stack in seen} or any(is_joint(stack) for stack in seen)


def _further(places: Places) -> set[str]:
    """Return what paths in layers would be in a layer behind those that they name."""
    last = max((number for _, index in places.values() for number in index), default=0)
    return {
        stack.layer((last + 1,) * len(index)) + path.removeprefix(stack.layer(index))
        for path, (stack, index) in places.items()
    }


def _of_role(row: Architecture, role: str, places: Places, named: Callable[[str], bool]) -> Iterator[str]:
    """Yield the maps that compute a projection and nothing else, or are joint, in every layer that the paths name.

    Of stacks without any path the maps that the configuration leaves alone: models have them, as far as is known.
    """
    tops = {stack.path.partition(".")[0] for stack, _ in places.values()}
    for stack in row.layers:
        indices = {index for other, index in places.values() if other is stack}
        sizes = [max(numbers) + 1 for numbers in zip(*indices, strict=True)]
        for path, (roles, _) in stack.projections().items():
            if not (len(roles) > 1 if role == JOINT else roles == (role,)):
                continue
            if indices:
                maps = [f"{stack.layer(index)}.{path}" for index in _indices(sizes)]
                # What some models of the family lack counts only if this one has it.
                if any(one in places for one in maps) or not inside(path, stack.may_lack):
                    yield from maps
            elif stack.path.partition(".")[0] not in tops:
                one = f"{stack.layer((0,) * stack.path.count('{i}'))}.{path}"
                yield from [] if named(one) else [one]


def _indices(sizes: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the indices of all layers.

    Raises:
        FormatError: they are more than models have.
    """
    refuse_many(tuple(sizes))
    found: list[tuple[int, ...]] = [()]
    for size in sizes:
        found = [(*index, number) for index in found for number in range(size)]
    return found


def _follows(document: Mapping[str, JSON], names: Naming, path: str) -> bool:
    """Return whether a module is adapted because its weight is that of the embeddings, which are."""
    if path.partition(".")[0] in names.outer:
        return document.get("ensure_weight_tying") is True or document.get("peft_type") == TRAINABLE_TOKENS
    # The encoder and the decoder of a model have the table under names of their own.
    return document.get("peft_type") == TRAINABLE_TOKENS and path.endswith(".embed_tokens")


def _named(document: Mapping[str, JSON], path: str, fuel: Fuel, *, doubting: bool = False) -> bool:
    """Return whether the configuration puts an adapter at a module; doubting: what is not evaluated says no."""
    wanted = document.get("target_modules")
    parameters = document.get("target_parameters")
    if isinstance(parameters, list) and _ends(path, [_module(item) for item in parameters if isinstance(item, str)]):
        return True
    if _excluded(document.get("exclude_modules"), path, fuel, doubting=doubting):
        return False
    if wanted is None or wanted == ALL:
        return True
    if isinstance(wanted, str):
        return _matches(wanted, path, fuel, otherwise=not doubting)
    if _ends(path, wanted) and path in wanted:
        return True  # what is named in full is meant in whichever layer it is
    within = _in_layers(document, path)
    return _ends(path, wanted) and (not doubting if within is None else within)


def _module(parameter: str) -> str:
    return parameter.rpartition(".")[0]


def _excluded(excluded: JSON, path: str, fuel: Fuel, *, doubting: bool) -> bool:
    if isinstance(excluded, str) and excluded:
        return _matches(excluded, path, fuel, otherwise=doubting)
    return isinstance(excluded, list) and _ends(path, excluded)


def _matches(pattern: str, path: str, fuel: Fuel, *, otherwise: bool) -> bool:
    """Return whether a pattern means a path; otherwise: the answer where it is not evaluated."""
    try:
        return matches(pattern, path, fuel)
    except UnsupportedError:
        return otherwise


def _ends(path: str, wanted: JSON) -> bool:
    if not isinstance(wanted, list) or not all(isinstance(item, str) for item in wanted):
        raise FormatError("adapter_config.json: target_modules is no list of names and no pattern", hint="correct it")
    words = path.split(".")
    return not _set(tuple(wanted)).isdisjoint(".".join(words[k:]) for k in range(len(words)))


@lru_cache(maxsize=16)
def _set(names: tuple[str, ...]) -> frozenset[str]:
    return frozenset(names)


_FIRST_INDEX = re.compile(r".*?\.[^.]*\.([0-9]+)\.")


def _in_layers(document: Mapping[str, JSON], path: str) -> bool | None:
    """Return whether layers_to_transform lets a path pass, None where that is not evaluated."""
    layers, pattern = document.get("layers_to_transform"), document.get("layers_pattern")
    if layers in (None, []):
        return True
    places = [pattern] if isinstance(pattern, str) else pattern
    index = None
    if not places:
        match = _FIRST_INDEX.match(path)
        index = int(match[1]) if match else None
    elif isinstance(places, list) and all(isinstance(place, str) and re.fullmatch(r"\w+", place) for place in places):
        words = path.split(".")
        pairs = [(a, b) for a, b, _ in zip(words, words[1:], words[2:], strict=False) if b.isdigit()]
        index = next((int(b) for place in places for a, b in pairs if a == place), None)
    else:
        return None
    return index in (layers if isinstance(layers, list) else [layers])


def _missing(document: Mapping[str, JSON], names: Naming, paths: Sequence[str], fuel: Fuel) -> list[str]:
    """Return a sentence for each module without tensors that target_modules names as it does in other layers."""
    wanted = document.get("target_modules")
    if not isinstance(wanted, list) or document.get("layers_to_transform") not in (None, []):
        return []
    known = {names.ours(path) for path in paths}
    absent = [names.theirs(path) for path in alike(names.row, known) if path not in known]
    return [
        f"target_modules names {path}, the file has no tensor of it" for path in absent if _named(document, path, fuel)
    ]


def alike(row: Architecture, known: Collection[str]) -> Iterator[str]:
    """Yield what the known paths of some layer would be in the other layers of its stack that the paths name."""
    for stack in row.layers:
        found = [
            (place[1], path) for path in known if (place := layers_of(row, path)) is not None and place[0] == stack
        ]
        indices = _indices([max(numbers) + 1 for numbers in zip(*{index for index, _ in found}, strict=True)])
        for rest in sorted({path.removeprefix(stack.layer(index)) for index, path in found}):
            yield from (f"{stack.layer(index)}{rest}" for index in indices)
