"""Describe: which row of data a base model gets, and the places for adapters that are found with it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import registry
from ..architectures import Architecture, from_json
from ..errors import FormatError, NotFoundError, OfflineError
from ..sites import Layout
from .base_models import base_error, from_config, how_to_get, local_folder, own_class, quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LARGEST = 1_000_000
"""So many bytes a description of an architecture may have."""


@dataclass(frozen=True, slots=True)
class Described:
    """A base model, as far as its configuration tells it.

    Attributes:
        base: what the user called it.
        model_class: its class, e.g. `LlamaForCausalLM`.
        model_type: the family's name in its configuration.
        architecture: the row.
        layout: its places.
    """

    base: str
    model_class: str
    model_type: str
    architecture: Architecture
    layout: Layout


def read_architecture(path: Path) -> Architecture:
    """Return the row that a JSON file describes.

    Raises:
        NotFoundError: there is no such file.
        FormatError: it is no JSON, or too large.
        SchemaError: a field is missing, unknown, or of a wrong type; every fault is told.
    """
    if not path.is_file():
        raise NotFoundError(f"there is no file {path}", hint="`adapterhub show --base MODEL --json` prints such rows")
    if path.stat().st_size > LARGEST:
        raise FormatError(f"{path} is larger than a description of an architecture may be ({LARGEST:,} bytes)")
    try:
        return from_json(json.loads(path.read_text("utf-8")))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise FormatError(f"{path} is not JSON: {error}") from error


def describe(
    base: str, *, architecture: Architecture | None = None, revision: str | None = None, offline: bool | None = None
) -> Described:
    """Return what is found out about a base model from its config.json alone, without weights or code of its own.

    Args:
        base: a folder, or a Hub id.
        architecture: the row to lay over it, if it is not that of its family.
        revision: commit, branch or tag on the Hub.
        offline: whether the network is switched off; None asks the settings.

    Raises:
        UnsupportedError: its family is not known, or the row does not describe it.
        NotFoundError, OfflineError, AuthenticationError, FormatError: from reading its configuration.
    """
    from ..loader.layout import survey

    model = without_weights(base, revision, offline)
    ground = survey(model, architecture)
    return Described(base, type(model).__name__, str(ground.bare.config.model_type), ground.architecture, ground.layout)


def without_weights(base: str, revision: str | None, offline: bool | None) -> PreTrainedModel:
    """Return the model with its modules, and no memory behind its parameters."""
    import torch
    from transformers import AutoConfig

    folder = local_folder(base, revision)
    if folder is None and registry.Settings.load(offline=offline).offline:
        raise OfflineError(
            f"the base model {base} is not on this machine, and the network is switched off", hint=how_to_get(base)
        )
    with quiet_transformers(), torch.device("meta"):
        try:
            config = AutoConfig.from_pretrained(
                folder or base,
                revision=revision or "main",
                local_files_only=folder is not None,
                trust_remote_code=False,
            )
            own = own_class(config)
            made: PreTrainedModel = from_config(config) if own is None else own(config)
        except (OSError, ValueError) as error:
            raise base_error(error, base) from error
    return made
