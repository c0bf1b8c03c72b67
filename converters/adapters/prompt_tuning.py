"""Prompts in files of `adapters`.

Source: adapters 1.3.0, methods/prompt_tuning.py, models/ and configuration/adapter_config.py (PromptTuningConfig).
"""

from __future__ import annotations

from collections.abc import Iterator

from ...adapter import JSON, MethodConfig
from ...architectures import Architecture
from ...errors import UnsupportedError
from ...methods import PromptTuningConfig
from ...methods.config import config_from_json
from .codec import Codec, Container, Entry, Fields, Source

FIELDS = ("prompt_length", "combine", "init_weights_seed")


def claims(fields: Fields) -> bool:
    """Return whether a configuration is one of a prompt."""
    return fields.get("architecture") == "prompt_tuning"


def decode(fields: Fields, source: Source) -> MethodConfig:
    """Return the prompt that a configuration describes; how it was started makes no difference any more."""
    return config_from_json(
        PromptTuningConfig,
        {
            "method": PromptTuningConfig.method,
            **{name: value for name, value in fields.items() if name in FIELDS},
            **_habits(source.row),
        },
    )


def _habits(row: Architecture) -> dict[str, JSON]:
    """Return the fields that say what the library does in a family, whatever the file says."""
    return {
        "place": "embeddings",
        "sees_padding": any(names.sees_padding for names in row.embeddings),
        "padded_bonus": max(stack.padded_bonus for stack in row.layers),
        "spare": 0,
    }


def encode(config: PromptTuningConfig, source: Source) -> dict[str, JSON]:
    """Return the fields of a configuration in the current spelling.

    Raises:
        UnsupportedError: the prompt stands elsewhere or sees something else than the library's.
    """
    data = config.to_json()
    others = [f"{name}={value!r}" for name, value in _habits(source.row).items() if data[name] != value]
    if others:
        raise UnsupportedError(
            f"the adapters format cannot say this prompt: for {source.row.name} models it means {', '.join(others)}",
            hint="write it in the native format",
        )
    return {
        "architecture": "prompt_tuning",
        "prompt_init": "random_uniform",
        "prompt_init_text": None,
        **{name: value for name, value in data.items() if name in FIELDS},
    }


def entries(config: PromptTuningConfig, row: Architecture, container: Container) -> Iterator[Entry]:
    """Yield the names of the prompt."""
    for names in row.embeddings[:1]:
        theirs = "prompt_tuning.prompt_tunings.{name}.prompt_embedding.weight"
        yield Entry(theirs, f"{names.path}.prompt")


CODEC = Codec(config=PromptTuningConfig, claims=claims, decode=decode, encode=encode, entries=entries)
