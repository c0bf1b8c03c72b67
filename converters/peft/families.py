"""Which model family the keys of a PEFT adapter belong to, and how module paths are written in them.

PEFT says the family nowhere but in `auto_mapping`, which it leaves out where a task type is set. So the paths decide;
among families with equal paths it is the model that the adapter is to meet, or the words of the base model's id, and
where these do not help either, the others are remembered.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ...adapter import JSON
from ...architectures import ARCHITECTURES, Architecture, Layers
from ...architectures.architecture import named
from ...errors import UnsupportedError
from ..layers import MOST_LAYERS


@dataclass(frozen=True, slots=True)
class Naming:
    """How module paths are written in the keys of one adapter.

    Attributes:
        row: the family.
        prefix: the word that the wrapped class puts in front of a path in the base model, or "".
        former: whether paths are those of releases of transformers before 5.
        older: whether they are those of releases before the last of these, see Architecture.older.
        others: names of rows with the same paths.
        outer: first words of paths around the base model, such as `lm_head`.
    """

    row: Architecture
    prefix: str = ""
    former: bool = False
    others: tuple[str, ...] = ()
    outer: frozenset[str] = frozenset()
    older: bool = False

    def ours(self, path: str) -> str:
        """Return the path in the base model of today, or in the whole model for what stands around that."""
        head = f"{self.prefix}." if self.prefix else ""
        inside = path.removeprefix(head) if path.startswith(head) else None
        return path if inside is None else self.row.present(inside)

    def theirs(self, path: str) -> str:
        """Return what the keys call a path of ours."""
        if self.prefix and path.partition(".")[0] in self.outer:
            return path
        written = self.row.oldest(path) if self.older else self.row.past(path) if self.former else path
        return f"{self.prefix}.{written}" if self.prefix else written


def naming(paths: Iterable[str], document: Mapping[str, JSON], wanted: Architecture | None) -> Naming:
    """Return the family of an adapter whose keys have these module paths.

    Args:
        paths: as they stand in the keys, behind `base_model.model.`.
        document: adapter_config.json.
        wanted: the family of the model that it is to meet, or None.

    Raises:
        UnsupportedError: no known family has such paths, or the document names another one.
    """
    seen = list(paths)
    rows = ARCHITECTURES if wanted is None or wanted in ARCHITECTURES else (wanted, *ARCHITECTURES)
    kinds = sorted({_INDEX.sub("0", path) for path in seen})
    scored = [(_score(row, prefix, kinds), row, prefix) for row in rows for prefix in ("", *row.prefixes)]
    best = max((score for score, _, _ in scored), default=0)
    fitting = [(row, prefix) for score, row, prefix in scored if score == best]
    if not best:
        raise UnsupportedError(
            f"none of the module paths in the keys is one of a known model family: {', '.join(kinds[:3])}",
            hint="describe the family with adapterhub.architectures.Architecture and attach it to the model",
        )
    row, prefix = _chosen(fitting, document, wanted)
    decided = row == wanted or _said(document)
    others = () if decided else tuple(dict.fromkeys(other.name for other, _ in fitting if other.name != row.name))
    if row.common and not decided and not _is_in_name(row, document):
        raise UnsupportedError(
            f"the module paths in the keys are those of {row.name}, and of other families; nothing says which it is",
            hint="load it onto its base model, or name that model's family",
        )
    insides = _insides(seen, prefix)
    former = any(row.present(inside) != inside for inside in insides)
    older = any(row.present(inside) != _by_former(row, inside) for inside in insides)
    return Naming(row, prefix, former, others, outer_words(row), older)


def told(document: Mapping[str, JSON], wanted: Architecture | None) -> Naming:
    """Return the family of an adapter whose keys name no module.

    Raises:
        UnsupportedError: nothing says which it is.
    """
    rows = ARCHITECTURES if wanted is None or wanted in ARCHITECTURES else (wanted, *ARCHITECTURES)
    hinted = wanted is not None or _said(document) or _plain(document.get("base_model_name_or_path"))
    named = [
        row
        for row in rows
        if any(_plain(kind) in _plain(document.get("base_model_name_or_path")) for kind in row.model_types)
    ]
    if not hinted or (wanted is None and not _said(document) and not named):
        raise UnsupportedError(
            "nothing in the adapter's files says what family its base model is of",
            hint="load it onto its base model, or name that model's family",
        )
    row, _ = _chosen([(row, "") for row in rows], document, wanted)
    return Naming(row, row.prefixes[0] if row.prefixes else "", outer=outer_words(row))


def outer_words(row: Architecture) -> frozenset[str]:
    """Return the first words of the paths that classes of a family with a head have around the base model."""
    return (_telling(row) | {path.partition(".")[0] for path in _outer(row)}) - _inner(row)


def _outer(row: Architecture) -> set[str]:
    """Return the paths of the modules around the base model that a row names."""
    return {path for head in row.heads for path in (*head.linears, head.norm) if path} | set(row.around)


def _inner(row: Architecture) -> frozenset[str]:
    return frozenset(path.partition(".")[0] for path in _places(row))


def _telling(row: Architecture) -> frozenset[str]:
    """Return the first words that many families have around the base model, and none but in its heads."""
    return frozenset(_USUAL) - _inner(row)


_INDEX = re.compile(r"(?<![^.])[0-9]+(?![^.])")
_USUAL = {"lm_head", "classifier", "score", "qa_outputs", "cls", "pre_classifier"}


def _score(row: Architecture, prefix: str, kinds: Sequence[str]) -> int:
    """Return how much of these paths a row knows with a prefix: 2 for each module that it names, 1 in its layers."""
    found = 0
    usual, around = _telling(row), _outer(row)
    for kind in kinds:
        inside = kind.removeprefix(f"{prefix}.") if prefix else kind
        if inside == kind and prefix:
            found += (kind in around) + (kind.partition(".")[0] in usual)
            continue
        found += _known(row, row.present(inside))
    return found


def _known(row: Architecture, path: str) -> int:
    for stack in row.layers:
        index = stack.index(path)
        if index is not None:
            if max(index) > MOST_LAYERS:
                return 0
            rest = path.removeprefix(stack.layer(index)).removeprefix(".")
            return 2 if rest in stack.projections() or rest in stack.norms else 1
    places = _places(row)
    return (
        2
        if any(named(place, path) for place in places)
        else int(path.startswith(tuple(f"{place}." for place in places)))
    )


def _places(row: Architecture) -> list[str]:
    """Return the paths that a row names, templates for those of layers."""
    embeddings = [path for names in row.embeddings for path in (names.path, names.tokens) if path]
    return [*(stack.path for stack in row.layers), *embeddings, *row.norms, *([row.pooler] if row.pooler else [])]


def _chosen(
    fitting: Sequence[tuple[Architecture, str]], document: Mapping[str, JSON], wanted: Architecture | None
) -> tuple[Architecture, str]:
    """Return the one of several fitting families that there is most reason for."""
    rows = [row for row, _ in fitting]
    said = _said(document)
    if said:
        kinds = {row.name: [_plain(kind) for kind in row.model_types] for row in rows}
        near = [row for row in rows if any(kind.startswith(said) for kind in kinds[row.name])]
        known = {
            len(kind): row for row in reversed(near) for kind in kinds[row.name] if _class(document).startswith(kind)
        }
        exact = [row for row in rows if said in kinds[row.name]]
        rows = [wanted] if wanted in near else [known[max(known)]] if known else exact or near
        if not rows:
            raise UnsupportedError(
                f"adapter_config.json says that the base model is a {said}, its keys are those of "
                f"{', '.join(sorted({row.name for row, _ in fitting}))}",
                hint="correct auto_mapping, or describe the family with adapterhub.architectures.Architecture",
            )
    if wanted in rows:
        rows = [row for row in rows if row == wanted]
    name = _plain(document.get("base_model_name_or_path"))
    words = {len(_plain(kind)): row for row in reversed(rows) for kind in row.model_types if _plain(kind) in name}
    row = words[max(words)] if words else rows[0]
    return next((found, prefix) for found, prefix in fitting if found == row)


def _by_former(row: Architecture, path: str) -> str:
    """Return today's name of a path, as far as it is not of a release before those that `former` is about."""
    return dataclasses.replace(row, older=()).present(path)


def _is_in_name(row: Architecture, document: Mapping[str, JSON]) -> bool:
    """Return whether the base model's id has a word for the family."""
    name = _plain(document.get("base_model_name_or_path"))
    return any(_plain(kind) in name for kind in row.model_types)


def _said(document: Mapping[str, JSON]) -> str:
    """Return what `auto_mapping` calls the family, in plain letters; "" where it is not there."""
    mapping = document.get("auto_mapping")
    library = mapping.get("parent_library") if isinstance(mapping, dict) else None
    words = library.split(".") if isinstance(library, str) else []
    return _plain(words[2]) if words[:2] == ["transformers", "models"] and len(words) > 2 else ""


def _class(document: Mapping[str, JSON]) -> str:
    """Return the class that `auto_mapping` names, in plain letters."""
    mapping = document.get("auto_mapping")
    return _plain(mapping.get("base_model_class")) if isinstance(mapping, dict) else ""


def _plain(value: JSON) -> str:
    return re.sub(r"[^a-z0-9]", "", value.lower()) if isinstance(value, str) else ""


def _insides(paths: Iterable[str], prefix: str) -> list[str]:
    """Return the paths in the base model, without the prefix."""
    head = f"{prefix}." if prefix else ""
    return [path.removeprefix(head) for path in paths if path.startswith(head)]


def layers_of(row: Architecture, path: str) -> tuple[Layers, tuple[int, ...]] | None:
    """Return the stack and the index of the layer that a path of ours lies in, or None."""
    for stack in row.layers:
        index = stack.index(path)
        if index is not None:
            return stack, index
    return None
