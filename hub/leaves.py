"""From the words of a composition to its adapters: each pulled, read and named, compositions put in their place."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .. import arrangement
from .. import registry as registries
from ..adapter import Adapter, Manifest
from ..arrangement import Pin, used
from ..composition import Composition, Fuse, Node, last
from ..composition_file import document_of
from ..errors import AdapterHubError, BaseMismatchError, DigestError, UnsupportedError, UsageError
from ..registry import Pulled, Reference
from ..registry.closure import together
from .base_models import is_folder
from .drafts import ENDINGS, Draft, read_draft

if TYPE_CHECKING:
    from ..loader.assembly import Assembly


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One adapter of a composition.

    Attributes:
        adapter: itself.
        pulled: where it came from.
        reference: how others find it, "" where only its bytes can be given along.
    """

    adapter: Adapter
    pulled: Pulled
    reference: str = ""

    @property
    def digest(self) -> str:
        """The digest of its artifact, "" where it has none."""
        return self.pulled.digest or ""

    def pin(self) -> Pin | None:
        """Return its pin, None where its bytes have to lie beside the composition."""
        return Pin(digest=self.digest, reference=self.reference) if self.reference and self.digest else None


@dataclass(frozen=True, slots=True)
class Search:
    """Where adapters are looked for.

    Attributes:
        base: Hub id or folder of the base model, or None.
        registry: the registry, or None for that of the settings.
        offline: whether the network is switched off; None asks the settings.
        within: names and files of the compositions that are being put together, to find one that contains itself.
    """

    base: str | None = None
    registry: registries.Registry | str | None = None
    offline: bool | None = None
    within: tuple[str, ...] = ()


@dataclass(slots=True)
class _Found:
    """What the words of a draft turned out to be."""

    nodes: dict[str, Node] = field(default_factory=dict)
    parts: dict[str, Part] = field(default_factory=dict)
    heads: list[str] = field(default_factory=list)
    rules: str = ""

    def add(self, wanted: str, part: Part) -> str:
        """Keep an adapter under a name that no other has, and return that."""
        name, number = wanted, 1
        while name in self.parts and not _same(self.parts[name], part):
            number += 1
            name = f"{wanted}@{part.pulled.version}" if number == 2 and part.pulled.version else f"{wanted}-{number}"
        self.parts[name] = part
        return name


def _same(one: Part, other: Part) -> bool:
    return one.digest == other.digest if one.digest else one.pulled.path == other.pulled.path


@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """A composition with its adapters.

    Attributes:
        node: how they work together.
        parts: name in it → adapter.
        head: name of the adapter whose head answers, or "".
        rules: "adapters", or "".
    """

    node: Node
    parts: Mapping[str, Part]
    head: str
    rules: str

    def assembly(self, manifest: Manifest) -> Assembly:
        """Return it as what the loader takes."""
        from ..loader.assembly import Assembly

        return Assembly(
            self.node, {name: part.adapter for name, part in self.parts.items()}, manifest, self.head, self.rules
        )

    def base_id(self) -> str:
        """Return the base model that the adapters name, "" if none does.

        Raises:
            BaseMismatchError: they name several.
        """
        owners: dict[str, str] = {}
        for name, part in self.parts.items():
            owners.setdefault(part.adapter.manifest.base.id, name)
        owners.pop("", None)
        if len(owners) > 1:
            said = ", ".join(f"{name!r} for {base}" for base, name in owners.items())
            raise BaseMismatchError(
                f"the adapters of {self.node} are for different base models: {said}",
                hint="name one with --base, for which all of them have an artifact",
            )
        return next(iter(owners), "")


def gather(draft: Draft, search: Search) -> Gathered:
    """Return a composition with all its adapters; what is wrong with them is told at once.

    Raises:
        NotFoundError: adapters or versions do not exist; near names are told.
        DigestError, IntegrityError: an adapter is not what was pinned.
        UsageError: a composition contains itself, or nests what may not be nested, or a fusion has no layer.
        BaseMismatchError, FormatError, UnsupportedError: an adapter does not fit.
    """
    _refuse_nameless(draft.composition)
    found, errors = _Found(rules=draft.rules), []
    for word in used(draft.composition, draft.head):
        try:
            found.nodes[word] = _looked_up(word, draft, search, found)
        except AdapterHubError as error:
            errors.append(error)
    if errors:
        raise together(f"the composition {draft.composition}", errors)
    node = _put_in(draft.composition, found.nodes)
    head = _head(draft, found)
    _check_fusions(node, found.parts)
    return Gathered(node, found.parts, head, found.rules)


def _looked_up(word: str, draft: Draft, search: Search, found: _Found) -> Node:
    """Return what stands for a word: the name of an adapter, or the nodes of a composition."""
    reference = draft.reference(word)
    if reference.scheme == "path" and reference.path.suffix in ENDINGS and not _is_saved(reference.path):
        return _inner_draft(reference.path, search, found)
    wanted = None if search.base is None or is_folder(search.base) else search.base
    # A lock is asked for what is named with a registry too: nothing else may be.
    closed = isinstance(search.registry, registries.Registry)
    place = search.registry if closed or not reference.registry else None
    pulled = registries.pull(reference, registry=place, base=wanted, offline=search.offline)
    _check_digest(word, pulled, draft.digests.get(word))
    if _is_saved(pulled.path):
        return _saved(word, pulled, search, found, whole=word == draft.composition)
    part = Part(_read(word, pulled, search.base), pulled, _reference(reference, pulled))
    return found.add(word if word in draft.adapters else _local(part), part)


def _is_saved(path: Path) -> bool:
    from ..loader.assembly import is_composition

    return path.exists() and is_composition(path) and not _is_draft(path)


def _is_draft(path: Path) -> bool:
    """Return whether a composition file lacks digests, so that its adapters are to be looked up."""
    if path.is_dir():
        return False
    draft = read_draft(path)
    return not set(used(draft.composition, draft.head)) <= set(draft.digests)


def _inner_draft(path: Path, search: Search, found: _Found) -> Node:
    key = str(path.resolve())
    if key in search.within:
        raise UsageError(f"the composition {path} contains itself", hint="take it out")
    gathered = gather(read_draft(path), dataclasses.replace(search, within=(*search.within, key)))
    found.rules = gathered.rules
    return _taken(gathered, found)


def _saved(word: str, pulled: Pulled, search: Search, found: _Found, *, whole: bool) -> Node:
    """Return the nodes of a saved composition, whose adapters are taken over; whole: it stands alone in the draft."""
    if pulled.name in search.within:
        raise UsageError(f"the composition {pulled.name} contains itself, as {word}", hint="take it out")
    inner = of_saved(pulled)
    if inner.rules != found.rules and not whole:
        said = f"the rules of {inner.rules}" if inner.rules else "our own rules"
        raise UnsupportedError(f"{word} computes by {said}, and what it is put into does not")
    found.rules = inner.rules
    return _taken(inner, found)


def of_saved(pulled: Pulled) -> Gathered:
    """Return a composition that was pulled, or a setup folder of `adapters`, with its adapters and where they are from.

    Raises:
        FormatError: an adapter, or the setup, is not whole.
    """
    from ..loader.assembly import assembled

    inner = assembled(pulled)
    pins = {} if document_of(pulled.path) is None else arrangement.read(pulled.path).adapters
    parts = {}
    for name, adapter in inner.adapters.items():
        part = pulled.parts.get(name)
        if part is None:
            part = Pulled(path=pulled.path / name, name=name, version=None, artifact=None, cached=True)
        pin = pins.get(name)
        found = part.artifact is not None or part.content is not None
        parts[name] = Part(adapter, part, pin.reference if pin is not None and found else "")
    return Gathered(inner.node, parts, inner.head, inner.rules)


def _taken(inner: Gathered, found: _Found) -> Node:
    """Return the nodes of an inner composition, its adapters added to those found."""
    names: dict[str, Node] = {name: found.add(name, part) for name, part in inner.parts.items()}
    if inner.head:
        found.heads.append(str(names[inner.head]))
    return _put_in(inner.node, names)


def _head(draft: Draft, found: _Found) -> str:
    """Return whose head answers: as the draft says, or as the one composition in it does."""
    if draft.head:
        head = found.nodes[draft.head]
        if not isinstance(head, str):
            raise UsageError(f"{draft.head} is a composition, and only an adapter's head can answer")
        return head
    if len(set(found.heads)) > 1:
        raise UsageError(
            f"the heads of {', '.join(found.heads)} would answer", hint="say whose head answers with --head"
        )
    return found.heads[0] if found.heads else ""


def _put_in(node: Node, nodes: Mapping[str, Node]) -> Node:
    """Return a composition with nodes in place of its words; what may not be nested is refused."""
    if isinstance(node, str):
        return nodes[node]
    children = [_put_in(child, nodes) for child in node.children]
    if isinstance(node, Fuse):
        layer = nodes[node.key]
        if not isinstance(layer, str):
            raise UsageError(f"{node.key} is a composition, and no fusion layer")
        return Fuse(*children, name=layer)
    return node.of(children)


def fuses(node: Node) -> Iterator[Fuse]:
    """Yield the fusions in a composition."""
    if isinstance(node, Composition):
        if isinstance(node, Fuse):
            yield node
        for child in node.children:
            yield from fuses(child)


def _refuse_nameless(node: Node) -> None:
    for fuse in fuses(node):
        if fuse.name is None:
            names = ",".join(last(child) for child in fuse.children)
            raise UsageError(
                f"{fuse} does not say which fusion layer it has",
                hint=f"train one with `adapterhub train --fuse {names} --out FILE …`, and write name=./FILE in it",
            )


def _check_fusions(node: Node, parts: Mapping[str, Part]) -> None:
    """Raise where a fusion layer is none, or was made for other adapters."""
    from ..methods import FusionConfig

    for fuse in fuses(node):
        layer = parts[fuse.key].adapter
        config = next((config for config in layer.config if isinstance(config, FusionConfig)), None)
        if config is None:
            raise UsageError(f"{fuse.key!r} is no fusion layer", hint="write fuse(a, b, name=LAYER)")
        ends = [last(child) for child in fuse.children]
        known = [{end, parts[end].adapter.manifest.name} for end in ends]
        if config.adapters and not _fits(config.adapters, known):
            raise UsageError(
                f"the fusion layer {fuse.key!r} was made for {', '.join(config.adapters)}, not for {', '.join(ends)}",
                hint="name its adapters in that order, or train another layer",
            )


def _fits(names: tuple[str, ...], known: list[set[str]]) -> bool:
    return len(names) == len(known) and all(name in each for name, each in zip(names, known, strict=True))


def _check_digest(word: str, pulled: Pulled, expected: str | None) -> None:
    from ..registry import digest

    if expected is None:
        return
    found = (
        pulled.artifact.identity if pulled.artifact else digest.of_file(pulled.path) if pulled.path.is_file() else ""
    )
    if found != expected:
        raise DigestError(f"adapter {word!r}", expected=expected, actual=found or "none: it is a folder")


def _read(word: str, pulled: Pulled, base: str | None) -> Adapter:
    from ..converters import read

    adapter = read(pulled.path)
    theirs = adapter.manifest.base.id
    if base is not None and theirs and not is_folder(base) and not _names(base, theirs):
        raise BaseMismatchError(
            f"adapter {word!r} is for {theirs}, not for {base}", hint="take one for that base model"
        )
    return adapter


def _names(base: str, full: str) -> bool:
    return base.casefold() in (full.casefold(), full.rpartition("/")[2].casefold())


def _reference(asked: Reference, pulled: Pulled) -> str:
    """Return how others find what was pulled, "" where they cannot."""
    if pulled.content is not None:
        return pulled.content.url
    if pulled.artifact is None or pulled.version is None:
        return ""
    registry = f"{asked.registry}::" if asked.registry else ""
    return f"{registry}{pulled.name}@{pulled.version}"


def _local(part: Part) -> str:
    """Return the name of an adapter in the composition."""
    return part.pulled.name if part.pulled.artifact is not None else part.adapter.manifest.name
