"""adapter_config.json of PEFT: checks, what it says around the method, and how it is written.

The fields of every type, with what they are where nothing is said, stand in fields.json, made from PEFT 0.21.2; those
of the plug-in's type in bottleneck.py.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from functools import cache
from importlib.resources import files

from ...adapter import JSON, Base, Manifest, Provenance
from ...architectures import Architecture, HeadName
from ...errors import FormatError, UnsupportedError
from ..identity import hub_id, manifest_name, own_version
from ..spelling import same
from . import bottleneck
from .codec import Codec
from .families import Naming
from .heads import TASKS, task_of
from .prompts import PromptCodec

NAME = "peft"
CONFIG = "adapter_config.json"

NOTE = "adapterhub"
"""Key of the weights' metadata, and of the document here, for what PEFT has no word for."""

WRITES = "0.21.2"
"""The version whose spelling is written."""

GENERAL = (
    *(
        "peft_type",
        "task_type",
        "auto_mapping",
        "peft_version",
        "base_model_name_or_path",
        "revision",
        "inference_mode",
    ),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save", "bias"),
    *("trainable_token_indices", "runtime_config"),
)
"""Fields that are not of one type, and one that PEFT leaves out on reading."""

OWN_INPUTS = ("clip", "clip_text_model", "clip_vision_model", "whisper")
"""Families whose models do not take what PEFT's classes for a task hand on, such as `inputs_embeds`."""

PROJECTED = "WithProjection"
"""How the classes are called that have a tower of CLIP inside and no head of ours."""

OFF: tuple[JSON, ...] = (None, False, [], {}, "")
"""Values that switch a feature off."""

MOST_SAVED = 1000
"""Modules that are saved in full; a model has a few heads, embeddings and norms."""

AGAIN = "fetch the adapter again, or save it again with PEFT"


@cache
def defaults() -> Mapping[str, Mapping[str, JSON]]:
    """Return type → field → what it is where nothing is said."""
    text = files("adapterhub.converters.peft").joinpath("fields.json").read_text("utf-8")
    found: Mapping[str, Mapping[str, JSON]] = {**json.loads(text), bottleneck.TYPE: bottleneck.FIELDS}
    return found


def kind(document: JSON) -> str:
    """Return the value of peft_type.

    Raises:
        FormatError: the document is no configuration of PEFT, or of an unknown type.
    """
    found = document.get("peft_type") if isinstance(document, dict) else None
    if not isinstance(found, str):
        raise FormatError(f"{CONFIG} has no text as peft_type", hint=AGAIN)
    if found not in defaults():
        raise FormatError(f"{CONFIG}: peft_type {found[:40]!r} is none of PEFT {WRITES}", hint=AGAIN)
    return found


def fields(document: Mapping[str, JSON], codec: Codec | PromptCodec) -> dict[str, JSON]:
    """Return field → value of every field of a type.

    Raises:
        FormatError: a value around the method is wrong.
        UnsupportedError: a field says what this version does not compute.
    """
    usual = defaults()[codec.type]
    faults = _faults(document)
    if faults:
        raise FormatError(f"{CONFIG} is wrong", faults=faults, hint=AGAIN)
    found = dict(usual)
    for name, value in document.items():
        unset = value is None and isinstance(usual.get(name), (bool, dict))
        found[name] = usual[name] if unset else value
    understood = {*GENERAL, *codec.understands()}
    reasons = codec.refused(found)
    for name, value in document.items():
        if name in understood or (name in usual and same(value, usual[name])) or value in OFF:
            continue
        reasons.append(
            f"{name} is {_short(value)}"
            + (", which this version does not compute" if name in usual else ", an unknown field")
        )
    if reasons:
        raise UnsupportedError(
            f"the {codec.type} adapter of PEFT cannot be read: {'; '.join(reasons)}",
            hint="merge it into its base model with PEFT, or train it again without",
        )
    return found


def manifest(
    document: Mapping[str, JSON], names: Naming, name: str, digest: str, extra: Mapping[str, JSON]
) -> Manifest:
    """Return what a document says about an adapter."""
    return Manifest(
        name=manifest_name(name or None, "adapter"),
        base=base(document, names),
        provenance=Provenance(
            format=NAME,
            version=str(document.get("peft_version") or ""),
            digest=digest,
            converter=f"adapterhub {own_version()}",
        ),
        extra={NAME: extra} if extra else {},
    )


def base(document: Mapping[str, JSON], names: Naming) -> Base:
    """Return what a document says about the base model."""
    revision = document.get("revision")
    known = hub_id(document.get("base_model_name_or_path"))
    return Base(
        architecture=names.row.name,
        id=known,
        revision=revision if known and isinstance(revision, str) and 0 < len(revision) <= 200 else None,
        others=names.others,
    )


def written(
    manifest: Manifest, codec: Codec | PromptCodec, task: str | None, said: Mapping[str, JSON]
) -> dict[str, JSON]:
    """Return a whole document; said: the fields of the method and of what is saved along."""
    found = {
        **defaults()[codec.type],
        "peft_type": codec.type,
        "peft_version": WRITES,
        "inference_mode": True,
        "task_type": task,
        "base_model_name_or_path": manifest.base.id or None,
        "revision": manifest.base.revision,
        **said,
    }
    if found.get("bias") == "only":
        found["bias"] = f"{codec.type.lower()}_only"
    odd = [name for name in said if name not in defaults()[codec.type]]
    if odd:
        raise UnsupportedError(f"the {codec.type} adapter of PEFT has no field {', '.join(odd)}")
    return found


def wrapping(
    manifest: Manifest, row: Architecture, *, head: HeadName | None, around: Collection[str]
) -> tuple[str, str | None]:
    """Return the prefix and the task of the class that an adapter is written for.

    Args:
        manifest: what is known of the adapter: from where it came, its class is known.
        row: the family.
        head: its head, None if it has none that a class has.
        around: first words of its modules around the base model.
    """
    prefix, task = _wrapping(manifest, row, head, around)
    return prefix, None if row.name in OWN_INPUTS else task


def _wrapping(
    manifest: Manifest, row: Architecture, head: HeadName | None, around: Collection[str]
) -> tuple[str, str | None]:
    prefix = row.prefixes[0] if row.prefixes else ""
    if head is not None:
        return "" if head.own_base else prefix, task_of(head)
    if around:
        return prefix, _task(row, around)
    if str(_wrapped(manifest)).endswith(PROJECTED):
        return prefix, None
    from_class = next((one for one in row.heads if _wrapped(manifest) in one.classes), None)
    if from_class is not None:
        # With another task PEFT would look for a head in the file.
        generates = from_class.kind in ("causal_lm", "seq2seq_lm")
        return "" if from_class.own_base else prefix, task_of(from_class) if generates else None
    kinds = {one.kind: one for one in row.heads}
    language = kinds.get("seq2seq_lm", kinds.get("causal_lm"))
    if "masked_lm" in kinds or language is None:
        return "", _feature(row)
    if language.own_base:
        # With a task PEFT would look for `generate`, which the bare model lacks.
        return "", None if str(_wrapped(manifest)) in _bare(row) else "SEQ_2_SEQ_LM"
    if _kept(manifest, "adapters").get("prefix") == "":
        return "", _feature(row)
    return prefix, "SEQ_2_SEQ_LM" if language.kind == "seq2seq_lm" else "CAUSAL_LM"


def _bare(row: Architecture) -> Collection[str]:
    """Return what the bare models of a family are called."""
    families = {name.partition("For")[0] for head in row.heads for name in head.classes}
    return {f"{family}{word}" for family in families for word in ("Model", "EncoderModel")}


def _wrapped(manifest: Manifest) -> JSON:
    """Return the class of the model that an adapter of `adapters` was saved from, None if that is not kept."""
    found: JSON = _kept(manifest, "adapters")
    for name in (CONFIG, "top", "set", "model_class"):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _task(row: Architecture, around: Collection[str]) -> str | None:
    """Return the task of the classes that have these modules, None where they have several."""
    kinds = {one.kind for one in row.heads if {path.partition(".")[0] for path in one.linears} & set(around)}
    tasks = {next((task for task, of in TASKS.items() if kind in of), None) for kind in kinds}
    return tasks.pop() if len(tasks) == 1 else None


def _feature(row: Architecture) -> str | None:
    reads_tokens = any(names.tokens for names in row.embeddings)
    return "FEATURE_EXTRACTION" if reads_tokens else None


def _kept(manifest: Manifest, name: str) -> Mapping[str, JSON]:
    extra = manifest.extra.get(name, {})
    return extra if isinstance(extra, dict) else {}


def _faults(document: Mapping[str, JSON]) -> list[str]:
    """Return what is wrong with the fields around the method."""
    found = []
    bias = document.get("bias", "none")
    if bias not in (None, "none", "all") and not (isinstance(bias, str) and bias.endswith("_only")):
        found.append(f"bias is {_short(bias)}, expected none, all or the type's own")
    for name in ("modules_to_save", "layers_to_transform"):
        value = document.get(name)
        if value is not None and not isinstance(value, (list, int) if name.startswith("layers") else list):
            found.append(f"{name} is {_short(value)}, expected a list")
    if isinstance(document.get("modules_to_save"), list) and len(document["modules_to_save"]) > MOST_SAVED:
        found.append(f"modules_to_save names more than {MOST_SAVED} modules")
    for name in ("target_modules", "exclude_modules"):
        value = document.get(name)
        texts = isinstance(value, list) and all(isinstance(item, str) for item in value)
        if not (value is None or isinstance(value, str) or texts):
            found.append(f"{name} is {_short(value)}, expected a pattern or a list of names")
    return found


def _short(value: JSON) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
