"""Dialect: what one format makes of low-rank updates, and how reading and writing follow from that.

    decode: parts → split → Updates → LoRA;    encode: LoRA → Updates → join → parts

Laws: encode(decode(parts)) == parts and decode(encode(adapter)) == adapter, as in format.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...adapter import JSON, Adapter, Base, Manifest, MethodConfig, Provenance
from ...architectures import ARCHITECTURES, Architecture
from ...errors import FormatError, UnsupportedError
from ...methods import LoraConfig
from ..format import Parts
from ..identity import manifest_name, own_version
from ..peft.families import Naming, outer_words
from ..spelling import kept, respelled, restored
from . import notes, updates
from .updates import Means, Updates

if TYPE_CHECKING:
    from torch import Tensor

GROUP = "adapter"
"""The group of tensors in Parts."""


@dataclass(frozen=True, slots=True)
class Split:
    """What parts say.

    Attributes:
        updates: the updates.
        names: how module paths are written.
        base: Hub id of the base model, "" where unknown.
        version: what the source says of the program that wrote it.
        kept: what is to be remembered of how the source is spelled, besides its documents.
    """

    updates: Updates
    names: Naming
    base: str = ""
    version: str = ""
    kept: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Joined:
    """What is to be written, in the current spelling.

    Attributes:
        documents: name → document.
        tensors: key → tensor.
    """

    documents: Mapping[str, dict[str, JSON]]
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How a format spells updates.

    Attributes:
        name: name of the format.
        means: what it has words for.
        split: parts → what they say. Raises FormatError, UnsupportedError.
        join: updates, names, the adapter's manifest and what was kept of its source → parts. Raises UnsupportedError.
        naming: family and what was kept → how module paths are written for it. Raises UnsupportedError.
        rows: families that are described for this format alone.
    """

    name: str
    means: Means
    split: Callable[[Parts], Split]
    join: Callable[[Updates, Naming, Manifest, Mapping[str, JSON]], Joined]
    naming: Callable[[Architecture, Mapping[str, JSON]], Naming]
    rows: tuple[Architecture, ...] = ()

    def decode(self, parts: Parts) -> Adapter:
        """Return the adapter that parts describe.

        Raises:
            FormatError, UnsupportedError: as split; the tensors do not belong together.
        """
        documents = {name: value for name, value in parts.documents.items() if name != notes.KEY}
        said = parts.documents.get(notes.KEY)
        row = parts.row or next((row for row in self._rows() if row.name == notes.row_name(said)), None)
        parts = dataclasses.replace(parts, documents=documents, row=row)
        found = self._decode(parts)
        if said is None:
            return found
        return notes.noted(
            found,
            said,
            lambda config: self._narrowed(config, found),
            lambda adapter: _equal(self._encode(adapter), parts),
        )

    def encode(self, adapter: Adapter) -> Parts:
        """Return what the files hold for an adapter: in its source's spelling, or in the current one.

        Raises:
            UnsupportedError: the format has no word for what the adapter computes, with every reason.
            FormatError: the adapter's tensors are not those of its configuration.
        """
        parts = self._encode(adapter)
        kept = self._kept(adapter.manifest)
        again = dataclasses.replace(parts, row=self.row(adapter.manifest), options=kept.get("options", {}))
        said = notes.note(adapter, self._decode(again), self.name)
        if said is None:
            return parts
        return dataclasses.replace(parts, documents={**parts.documents, notes.KEY: said})

    def row(self, manifest: Manifest) -> Architecture:
        """Return the family of an adapter's base model.

        Raises:
            UnsupportedError: it is not known.
        """
        wanted = manifest.base.architecture
        for row in self._rows():
            if row.name == wanted:
                return row
        raise UnsupportedError(f"no architecture is called {wanted!r}", hint=updates.NATIVE)

    def _rows(self) -> tuple[Architecture, ...]:
        return (*ARCHITECTURES, *self.rows)

    def _kept(self, manifest: Manifest) -> Mapping[str, JSON]:
        """Return what a manifest keeps of the spelling of its source.

        Raises:
            FormatError: it is not what reading puts there.
        """
        found = manifest.extra.get(self.name, {})
        documents = found.get("documents", {}) if isinstance(found, dict) else None
        if not isinstance(documents, dict) or not all(isinstance(value, dict) for value in documents.values()):
            raise FormatError(
                f"extra[{self.name!r}] of adapter {manifest.name!r} is not what reading such a file leaves there",
                hint="take it out of the manifest; the adapter is then written in the current spelling",
            )
        kept: Mapping[str, JSON] = found
        return kept

    def _decode(self, parts: Parts) -> Adapter:
        """Return the adapter without a note."""
        split = self.split(parts)
        config, tensors = updates.decode(split.updates, split.names)
        options = {"options": dict(parts.options)} if parts.options else {}
        prefix: dict[str, JSON] = {"prefix": split.names.prefix, **({"former": True} if split.names.former else {})}
        extra = {**prefix, **options, **split.kept}
        plain = Adapter((config,), tensors, self._manifest(parts, split, extra))
        built = self._joined(plain)
        spelled = {
            name: spelling
            for name, document in built.documents.items()
            if (spelling := kept(parts.documents.get(name, {}), document))
        }
        extra |= {"documents": spelled} if spelled else {}
        return dataclasses.replace(plain, manifest=self._manifest(parts, split, extra))

    def _manifest(self, parts: Parts, split: Split, extra: Mapping[str, JSON]) -> Manifest:
        return Manifest(
            name=manifest_name(parts.name or None, "adapter"),
            base=Base(architecture=split.names.row.name, id=split.base, others=split.names.others),
            provenance=Provenance(
                format=self.name,
                version=split.version,
                digest=parts.digest,
                converter=f"adapterhub {own_version()}",
            ),
            extra={self.name: dict(extra)},
        )

    def _joined(self, adapter: Adapter) -> Joined:
        row, said = self.row(adapter.manifest), self._kept(adapter.manifest)
        names = self.naming(row, said)
        # Where the source kept updates of parts apart, it gets them back so.
        means = dataclasses.replace(self.means, parts=True) if "targets" in said else self.means
        found = updates.encode(adapter, names, means)
        return self.join(found, names, adapter.manifest, said)

    def _encode(self, adapter: Adapter) -> Parts:
        """Return what the files hold, without a note."""
        built, said = self._joined(adapter), self._kept(adapter.manifest)
        options = said.get("options", {})
        row = self.row(adapter.manifest)
        documents = {}
        for name, document in built.documents.items():

            def meaning(changed: Mapping[str, JSON], name: str = name) -> dict[str, JSON]:
                others = {**built.documents, name: dict(changed)}
                parts = Parts(others, {GROUP: built.tensors}, row=row, options=options)
                try:
                    split = self.split(parts)
                    config, _ = updates.decode(split.updates, split.names)
                except (FormatError, UnsupportedError):
                    return {}
                return {"config": config.to_json(), "base": split.base, "kept": dict(split.kept)}

            spelling = said.get("documents", {}).get(name, {})
            documents[name] = respelled(document, spelling)
            if meaning(documents[name]) != meaning(document):
                documents[name] = restored(document, spelling, meaning)
        return Parts(documents, {GROUP: built.tensors})

    def _narrowed(self, configs: tuple[MethodConfig, ...], found: Adapter) -> updates.Tensors:
        (config,) = configs
        if not isinstance(config, LoraConfig):
            raise UnsupportedError("the note speaks of another method", hint="take it out of the file")
        return updates.narrowed(config, found, self.row(found.manifest))


def naming_of(row: Architecture, prefix: str, *, former: bool = False) -> Naming:
    """Return how module paths are written with a prefix."""
    return Naming(row, prefix, former, outer=outer_words(row))


def _equal(a: Parts, b: Parts) -> bool:
    """Return whether two parts hold the same."""
    import torch

    ours, theirs = a.tensors[GROUP], b.tensors[GROUP]
    return (
        dict(a.documents) == dict(b.documents)
        and ours.keys() == theirs.keys()
        and all(t.dtype == theirs[key].dtype and torch.equal(t, theirs[key]) for key, t in ours.items())
    )
