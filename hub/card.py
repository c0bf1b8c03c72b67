"""The model card of an adapter, or a composition, on the Hugging Face Hub: README.md with a header in YAML.

The header follows the Hub's conventions, so that it is found under its base model and its task. A card that is
there is merged with: what it says beyond that stays, and the text below the header stays as it is, byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..adapter import JSON, Adapter, Manifest
from ..arrangement import Arrangement
from ..composition import Node
from ..composition_file import NAME as COMPOSITION
from ..errors import FormatError
from . import card_text

LIBRARIES = {"peft": "peft", "adapters": "adapter-transformers", "native": "adapterhub", COMPOSITION: "adapterhub"}
"""Format → the Hub's name of the library that loads it from the root of a repository, the first that is there."""

PIPELINES = {
    "classification_head": "text-classification",
    "image_classification_head": "image-classification",
    "tagging_head": "token-classification",
    "question_answering_head": "question-answering",
}
LANGUAGE_MODELS = {"masked": "fill-mask", "causal": "text-generation", "seq2seq": "text2text-generation"}

_HEADER = re.compile(r"\A(?:\ufeff)?---[ \t]*\r?\n(?P<yaml>.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_SIMPLE_LICENSE = re.compile(r"[A-Za-z0-9.+-]+")
_HUB_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*/[A-Za-z0-9_][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a card is about.

    Attributes:
        manifest: what is known of it, complete.
        method: its configuration string; of a composition its text.
        formats: in which it is published.
        repo: the repository.
        pipeline: the Hub's name of its task, or "".
        composition: itself, where it is one.
    """

    manifest: Manifest
    method: str
    formats: Sequence[str]
    repo: str
    pipeline: str = ""
    composition: Arrangement | None = None


def merged(old: bytes | None, subject: Subject) -> bytes:
    """Return the card of a subject, merged with the one that is there. Law: merged(merged(x, s), s) == merged(x, s).

    Raises:
        FormatError: the header of the old card cannot be read.
    """
    text = "" if old is None else _decoded(old)
    known, body = split(text)
    header = {**known, **_stated(known, subject)}
    if not body.strip():
        about = subject.manifest, subject.method, subject.formats, subject.repo
        body = card_text.body(*about, None if subject.composition is None else subject.composition.adapters)
    return f"---\n{_yaml(header)}---\n{body}".encode()


def split(text: str) -> tuple[dict[str, JSON], str]:
    """Return the header of a card and the text below it, as it stands.

    Raises:
        FormatError: the header is no YAML mapping.
    """
    import yaml

    match = _HEADER.match(text)
    if match is None:
        return {}, text
    try:
        known = yaml.safe_load(match["yaml"])
    except (yaml.YAMLError, RecursionError) as error:
        raise FormatError(f"the header of the model card is not YAML: {error}", hint="mend README.md") from error
    if known is not None and not isinstance(known, dict):
        raise FormatError("the header of the model card is not a mapping", hint="mend README.md")
    return known or {}, text[match.end() :]


def license_of(card: bytes | None) -> str:
    """Return the licence that a card names, or ""."""
    found = {} if card is None else split(_decoded(card))[0]
    name = found.get("license_name") if found.get("license") == "other" else found.get("license")
    return name if isinstance(name, str) else ""


def _decoded(card: bytes) -> str:
    try:
        return card.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError("the model card is not UTF-8 text", hint="mend README.md") from error


def _yaml(header: Mapping[str, JSON]) -> str:
    import yaml

    return str(yaml.safe_dump(dict(header), sort_keys=False, allow_unicode=True, width=10_000))


def _stated(known: Mapping[str, JSON], subject: Subject) -> dict[str, JSON]:
    """Return the fields that are written: facts of the adapter in place of what was there, lists joined."""
    manifest = subject.manifest
    library = next(LIBRARIES[row] for row in LIBRARIES if row in subject.formats)
    bases = known.get("base_model")
    pipeline = known.get("pipeline_tag") or subject.pipeline
    found: dict[str, JSON] = {
        "library_name": library if known.get("library_name") in (None, *LIBRARIES.values()) else known["library_name"],
        "base_model": bases if isinstance(bases, list) and manifest.base.id in bases else manifest.base.id,
        "base_model_relation": "adapter",
        **({"pipeline_tag": pipeline} if pipeline else {}),
        **_license(manifest.license),
        "tags": _joined(known.get("tags"), _tags(subject)),
    }
    lists = {
        "language": manifest.language,
        "datasets": [d.source for d in manifest.datasets if _HUB_ID.fullmatch(d.source)],
        "metrics": list(manifest.metrics),
    }
    found |= {key: _joined(known.get(key), values) for key, values in lists.items() if values}
    if results := _results(subject, pipeline):
        others = [model for model in _listed(known.get("model-index")) if _name(model) != manifest.name]
        found["model-index"] = [*others, {"name": manifest.name, "results": results}]
    return found


def pipeline_tag(adapter: Adapter) -> str:
    """Return the Hub's name of the task of an adapter's head, or "" where it has none."""
    for config in adapter.config:
        if config.method == "language_model_head":
            return LANGUAGE_MODELS.get(str(config.to_json().get("kind")), "")
        if config.method in PIPELINES:
            return PIPELINES[config.method]
    return ""


def _license(expression: str) -> dict[str, JSON]:
    """Return how the Hub writes a licence: its own short name, or `other` and the expression."""
    if _SIMPLE_LICENSE.fullmatch(expression):
        return {"license": expression.lower()}
    return {"license": "other", "license_name": expression}


def _tags(subject: Subject) -> list[str]:
    manifest = subject.manifest
    parts = [re.sub(r"\[[^]]*\]", "", part) for part in subject.method.split("+")]
    if subject.composition is not None:
        parts = [COMPOSITION, *dict.fromkeys(_kinds(subject.composition.composition))]
    adapters = ["adapter-transformers", manifest.base.architecture] if "adapters" in subject.formats else []
    task = [f"adapterhub:{manifest.task}"] if manifest.task else []
    return ["adapterhub", *adapters, *parts, "transformers", f"base_model:adapter:{manifest.base.id}", *task]


def _kinds(node: Node) -> Iterator[str]:
    """Yield the kinds of compositions in a composition, from without."""
    if not isinstance(node, str):
        yield node.type
        for child in node.children:
            yield from _kinds(child)


def _results(subject: Subject, pipeline: str) -> list[JSON]:
    """Return the evaluation as the Hub writes it; () where it is not known on what."""
    manifest = subject.manifest
    if not manifest.metrics or not manifest.datasets:
        return []
    data = manifest.datasets[0]
    task = {"type": pipeline or "other", **({"name": manifest.task} if manifest.task else {})}
    source = data.source if _HUB_ID.fullmatch(data.source) else re.sub(r"[^a-z0-9]+", "-", data.name.lower()).strip("-")
    values = [{"type": name, "value": value} for name, value in manifest.metrics.items()]
    return [{"task": task, "dataset": {"type": source or "data", "name": data.name}, "metrics": values}]


def _joined(known: JSON, values: Sequence[JSON]) -> list[JSON]:
    """Return what was there, and what was not."""
    found = _listed(known)
    return [*found, *(value for value in dict.fromkeys(values) if value not in found)]


def _listed(value: JSON) -> list[JSON]:
    return list(value) if isinstance(value, list) else [] if value is None else [value]


def _name(model: JSON) -> JSON:
    return model.get("name") if isinstance(model, dict) else None
