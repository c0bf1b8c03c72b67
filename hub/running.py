"""Run: an adapter put onto its base model, and what it says of texts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from .. import converters
from .. import registry as registries
from ..adapter import Adapter, Manifest
from ..errors import FormatError, NotFoundError, UnsupportedError, UsageError
from .base_models import BaseModel, choose_base, is_folder, load_base
from .fetching import fetch

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from ..architectures import Architecture
    from ..loader import AdapterSet

LONGEST = 512
"""Texts are cut to so many tokens where neither tokenizer nor model state a limit."""

WINDOW = 8
"""So many batches of texts are read ahead and sorted by length, which saves padding."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an adapter says of one text.

    Attributes:
        label: the most probable class.
        scores: class → probability, in the order of the logits; with a single logit, its value.
        cut: whether the text was as long as the model can read, or longer, and so perhaps not read to its end.
    """

    text: str
    label: str
    scores: Mapping[str, float]
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Opened:
    """An adapter on its base model, ready to run.

    Attributes:
        name: what the adapter is called in the set.
    """

    base: BaseModel
    adapters: AdapterSet
    name: str

    @property
    def manifest(self) -> Manifest:
        """What is known about the adapter."""
        return self.adapters.manifest(self.name)


def open_adapter(
    reference: str,
    *,
    base: str | None = None,
    registry: registries.Registry | str | None = None,
    allow_base_mismatch: bool = False,
    offline: bool | None = None,
    architecture: Architecture | None = None,
    head: str | None = None,
) -> Opened:
    """Return an adapter, or a composition, active on its base model.

    Args:
        reference: any reference of an adapter or composition, or a composition such as `stack(a, b)`.
        head: of a composition, the adapter whose head answers; None lets heads follow it.
        base: folder or Hub id of the base model; None takes the one that the adapter names.
        registry: the registry to look in, which may be the lock of a project; None is that of the settings.
        allow_base_mismatch: whether another base model of fitting shape is only warned about.
        offline: whether the network is switched off; None asks the settings.
        architecture: describes a base model of a family that is not known.

    Raises:
        UsageError: neither the adapter nor `base` names a base model.
        BaseMismatchError, FormatError: the adapter does not fit the base model.
        NotFoundError, DigestError, OfflineError, …: from pulling the adapter, or from load_base.
    """
    from ..loader import attach
    from ..loader.assembly import assembled, is_composition

    if "(" in reference:
        return _open_text(reference, base, registry, offline, architecture, head)
    pulled = pull_for(reference, base=base, registry=registry, allow_base_mismatch=allow_base_mismatch, offline=offline)
    adapter = assembled(pulled) if is_composition(pulled.path) else converters.read(pulled.path)
    if head is not None:
        if isinstance(adapter, Adapter):
            raise UsageError("--head is for compositions", hint="an adapter answers with its own head")
        if head not in adapter.adapters:
            raise NotFoundError(f"{head!r} is not in {reference}", hint=f"it holds {', '.join(adapter.adapters)}")
        adapter = replace(adapter, head=head, manifest=replace(adapter.manifest, labels=()))
    chosen = choose_base(base, adapter.manifest)
    said = adapter.manifest.base.revision if chosen == adapter.manifest.base.id else None
    revision = revision_of(chosen, said, registry)
    loaded = load_base(chosen, revision=revision, offline=offline)
    adapters = attach(loaded.model, architecture=architecture)
    name = adapters.load(adapter, set_active=True, allow_base_mismatch=allow_base_mismatch)
    return Opened(loaded, adapters, name)


def _open_text(
    text: str,
    base: str | None,
    registry: registries.Registry | str | None,
    offline: bool | None,
    architecture: Architecture | None,
    head: str | None,
) -> Opened:
    """Return a composition that was not saved, active on its base model."""
    from .composing import base_of, put_on
    from .drafts import draft
    from .leaves import Search, gather

    written = draft(text)
    written = written if head is None else replace(written, head=head)
    gathered = gather(written, Search(base=base, registry=registry, offline=offline))
    chosen, said = base_of(gathered, base)
    loaded = load_base(chosen, revision=revision_of(chosen, said, registry), offline=offline)
    adapters, name = put_on(loaded.model, gathered, architecture=architecture)
    return Opened(loaded, adapters, name)


def revision_of(base: str, said: str | None, registry: registries.Registry | str | None) -> str | None:
    """Return the revision of a base model: the commit that an adapter names, else what a lock pins, else what it names.

    Args:
        base: the base model.
        said: what the adapter names.
        registry: where the adapter is from.
    """
    if said is not None and re.fullmatch(r"[0-9a-f]{40}", said):
        return said
    pinned = registry.revision(base) if isinstance(registry, registries.Registry) else None
    return pinned or said


def pull_for(
    reference: str,
    *,
    base: str | None,
    registry: registries.Registry | str | None,
    allow_base_mismatch: bool,
    offline: bool | None,
) -> registries.Pulled:
    """Return the adapter on this machine: where base is a Hub id that has to fit, the artifact for that base model."""
    wanted = None if base is None or allow_base_mismatch or is_folder(base) else base
    return fetch(reference, registry=registry, base=wanted, offline=offline)


def classify(
    texts: Iterable[str], *, base: BaseModel, labels: Sequence[str] = (), batch_size: int = 32
) -> Iterator[Verdict]:
    """Yield what the active adapter says of each text, in the order of the texts.

    Texts are read a few batches ahead, so that those of similar length share a batch; with batch_size 1 each text is
    answered before the next is read.

    Raises:
        UnsupportedError: the adapter has no head, so that the model gives no logits.
        FormatError: there are labels, but not as many as the head has classes.
    """
    limit = longest(base)
    rest = iter(texts)
    while window := list(islice(rest, batch_size * WINDOW if batch_size > 1 else 1)):
        yield from _classify(window, base, labels, batch_size, limit)


def logits_of(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the logits (batch, classes) of the active adapter's head.

    Raises:
        UnsupportedError: there is no head, or one that does not classify whole texts.
    """
    from transformers.modeling_outputs import Seq2SeqSequenceClassifierOutput, SequenceClassifierOutput

    result = model(**inputs, return_dict=True)
    if not isinstance(result, (SequenceClassifierOutput, Seq2SeqSequenceClassifierOutput)):
        first = next(iter(result))
        why = "no prediction head" if first == "last_hidden_state" else "a head that does not classify whole texts"
        raise UnsupportedError(
            f"the adapter has {why}, so it cannot classify",
            hint="`adapterhub show` tells what it has; in Python, attach(model) runs every kind of head",
        )
    logits: torch.Tensor = result["logits"]
    return logits


def longest(base: BaseModel) -> int:
    """Return how many tokens the model can read."""
    stated = base.tokenizer.model_max_length
    positions = int(base.model.config.to_dict().get("max_position_embeddings", LONGEST + 2))
    # A tokenizer without a limit states a huge one. RoBERTa counts its positions from 2.
    return min(stated, positions) if stated < 1_000_000 else min(positions - 2, LONGEST)


def _classify(
    texts: Sequence[str], base: BaseModel, labels: Sequence[str], batch_size: int, limit: int
) -> Iterator[Verdict]:
    """Yield the verdicts on a window of texts, computed in batches of similar length, in the order of the texts."""
    import torch

    from ..loader.data import Padding, padded, sorted_batches, tokenise

    tokens = tokenise(texts, base.tokenizer, limit)
    lengths = [len(row["input_ids"]) for row in tokens]
    padding = Padding.of(base.tokenizer)
    found: dict[int, list[float]] = {}
    for numbers in sorted_batches(lengths, batch_size):
        rows = padded([tokens[number] for number in numbers], padding)
        with torch.no_grad():
            inputs = {name: torch.tensor(row, device=base.model.device) for name, row in rows.items()}
            logits = logits_of(base.model, inputs).float()
            scores = _scores(logits, base.model.config.problem_type)
        found.update(zip(numbers, scores.tolist(), strict=True))
    for number, text in enumerate(texts):
        yield _verdict(text, found[number], labels, cut=lengths[number] >= limit)


def _scores(logits: torch.Tensor, problem: str | None) -> torch.Tensor:
    """Return probabilities (batch, classes), each for itself where a text can be of several; a number as it is."""
    if problem == "multi_label_classification":
        return logits.sigmoid()
    return logits.softmax(dim=-1) if logits.shape[-1] > 1 else logits


def _verdict(text: str, scores: Sequence[float], labels: Sequence[str], *, cut: bool) -> Verdict:
    names = list(labels) or [str(number) for number in range(len(scores))]
    if len(names) != len(scores):
        raise FormatError(f"the adapter names {len(names)} labels, but its head has {len(scores)} classes")
    best = max(range(len(scores)), key=scores.__getitem__)
    return Verdict(text, names[best], dict(zip(names, scores, strict=True)), cut)
