"""What adapters of the archived AdapterHub are called here, and which versions theirs are; docs/adr/0026 has reasons.

The name of an adapter is what it was trained on and the base model: `sst2-bert`, `sst2-roberta-large`, `en-wiki-mbert`.
Of several for one base model, the one that the archive's index calls the default has this plain name; the others add
in what they differ from it, as little as tells them apart: `sst2-bert-houlsby`, `en-wiki-mbert-gelu`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ..errors import SchemaError
from .archived_cards import LANGUAGE, Archive, Card


class Base(NamedTuple):
    """A base model.

    Attributes:
        id: its id on the Hugging Face Hub.
        word: what it is called in names of adapters.
    """

    id: str
    word: str


BASES: Mapping[str, Base] = {
    "aubmindlab/bert-base-arabert": Base("aubmindlab/bert-base-arabert", "arabert"),
    "bert-base-multilingual-cased": Base("google-bert/bert-base-multilingual-cased", "mbert"),
    "bert-base-multilingual-uncased": Base("google-bert/bert-base-multilingual-uncased", "mbert-uncased"),
    "bert-base-uncased": Base("google-bert/bert-base-uncased", "bert"),
    "distilbert-base-uncased": Base("distilbert/distilbert-base-uncased", "distilbert"),
    "facebook/bart-base": Base("facebook/bart-base", "bart"),
    "facebook/bart-large": Base("facebook/bart-large", "bart-large"),
    "facebook/mbart-large-cc25": Base("facebook/mbart-large-cc25", "mbart"),
    "gpt2": Base("openai-community/gpt2", "gpt2"),
    "roberta-base": Base("FacebookAI/roberta-base", "roberta"),
    "roberta-large": Base("FacebookAI/roberta-large", "roberta-large"),
    "xlm-roberta-base": Base("FacebookAI/xlm-roberta-base", "xlmr"),
    "xlm-roberta-large": Base("FacebookAI/xlm-roberta-large", "xlmr-large"),
}
"""What the archive calls a base model, and what it is called by now."""

WITH_TASK = frozenset({"chunk", "dialect", "mlki", "ner", "wikiann"})
"""Tasks whose subtasks are languages, parts, or data of several tasks: they name nothing alone."""


def entry_names(archive: Archive) -> dict[str, str]:
    """Return key of a card → name of its entry, each another one.

    Raises:
        SchemaError: a base model is not known, the archive has no default among cards, or two get one name.
    """
    groups: dict[tuple[str, str, str], list[Card]] = {}
    for card in archive.cards:
        groups.setdefault(card.group, []).append(card)
    faults = [f"the base model {model} is not known" for model in {c.model for c in archive.cards} - BASES.keys()]
    found: dict[str, str] = {}
    for group, cards in groups.items():
        default = next((card for card in cards if card.key == archive.defaults.get(group)), None)
        if default is None:
            faults.append(f"the index has no default of {'/'.join(group[:2])} for {group[2]}")
        elif group[2] in BASES:
            found |= _of_group(default, [card for card in cards if card is not default])
    faults += [f"{name} is the name of {' and of '.join(keys)}" for name, keys in _twice(found).items()]
    if faults:
        raise SchemaError("the archive", sorted(faults))
    return found


def _of_group(default: Card, others: Sequence[Card]) -> dict[str, str]:
    """Return key → name of cards for one subtask and base model."""
    plain = f"{_subject(default)}-{BASES[default.model].word}"
    differing = {card.key: _differences(card, default) for card in others}
    found = {default.key: plain}
    for key, words in differing.items():
        rivals = [other for rival, other in differing.items() if rival != key]
        count = next((n for n in range(1, len(words)) if words[:n] not in [r[:n] for r in rivals]), len(words))
        found[key] = "-".join([plain, *words[:count]])
    return found


def _subject(card: Card) -> str:
    """Return what an adapter was trained on, as a name: sst-2 → sst2, rotten_tomatoes → rotten-tomatoes.

    A word of the subtask that says the task again is left out, unless it leaves no more than a letter (sts-b → stsb).
    """
    whole = _word(card.subtask).split("-")
    words = [word for word in whole if word != card.task]
    words = words if len("".join(words)) > 1 else whole
    joined = [card.task] if card.kind == LANGUAGE or card.task in WITH_TASK else []
    return re.sub(r"-(?=[a-z0-9]$)", "", _word("-".join([*joined, *words])))


def _differences(card: Card, default: Card) -> list[str]:
    """Return in what a card differs from another, in words for a name."""
    return [
        _word(str(value))
        for value, usual in (
            *((card.config.get(key), default.config.get(key)) for key in ("using", "non_linearity")),
            (f"r{card.config.get('reduction_factor')}", f"r{default.config.get('reduction_factor')}"),
            (card.organisation, default.organisation),
        )
        if value != usual and value is not None
    ]


def _word(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _twice(names: Mapping[str, str]) -> dict[str, list[str]]:
    owners: dict[str, list[str]] = {}
    for key, name in names.items():
        owners.setdefault(name, []).append(key)
    return {name: keys for name, keys in owners.items() if len(keys) > 1}


def versions(names: Iterable[str], default: str) -> dict[str, str]:
    """Return what the versions of a card are by Semantic Versioning; the default is the one chosen without a wish.

    Numbers stay numbers where the highest is the default. Otherwise the default is 1.0.0, and the others are
    pre-releases of it, which are found by their exact version alone.

    >>> versions(["1", "2"], "2"), versions(["nd", "wd_150k"], "nd")
    ({'1': '1.0.0', '2': '2.0.0'}, {'nd': '1.0.0', 'wd_150k': '1.0.0-wd-150k'})

    Raises:
        SchemaError: two become one.
    """
    known = list(names)
    if all(name.isdecimal() for name in known) and int(default) == max(map(int, known)):
        found = {name: f"{int(name)}.0.0" for name in known}
    else:
        found = {name: "1.0.0" if name == default else f"1.0.0-{_identifier(name)}" for name in known}
    if len(set(found.values())) < len(found):
        raise SchemaError("the archive", [f"versions {', '.join(known)} cannot be told apart"])
    return found


def _identifier(text: str) -> str:
    """Return a text as an identifier of a pre-release; numbers in it begin with no zero."""
    found = re.sub(r"[^0-9A-Za-z]+", "-", text).strip("-")
    return f"v{found}" if found.isdecimal() and found.startswith("0") else found
