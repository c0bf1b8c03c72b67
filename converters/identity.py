"""How adapters and base models of foreign files are called here, and who converted them."""

from __future__ import annotations

import re
from functools import cache

from ..adapter import JSON, Provenance, to_json


def manifest_name(value: JSON, otherwise: str) -> str:
    """Return a name that a manifest may have, as near as can be to value, or to otherwise where that is no text.

    >>> manifest_name("SST-2 (task)", "adapter")
    'sst-2--task'
    """
    text = re.sub(r"[^a-z0-9._-]", "-", value.lower()) if isinstance(value, str) else otherwise
    text = text[:96].strip("._-") or "adapter"
    reserved = re.match(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\.|\Z)", text)
    return f"adapter-{text}"[:96] if reserved else text


def hub_id(value: JSON) -> str:
    """Return value if it may be the id of a repository on the Hugging Face Hub, else "".

    >>> hub_id("google-bert/bert-base-uncased"), hub_id("/home/me/bert")
    ('google-bert/bert-base-uncased', '')
    """
    return value if isinstance(value, str) and len(value) <= 200 and _HUB_ID.match(value) else ""


@cache
def own_version() -> str:
    """Return the version of this package."""
    from importlib.metadata import version

    return version("adapterhub")


def origin(provenance: Provenance | None, format_name: str) -> dict[str, JSON]:
    """Return what a foreign file of a format is to carry about where its adapter came from, {} where it is itself that.

    A file says what it is itself; what it cannot say is that it was made of another one, or not exactly.
    """
    if provenance is None:
        return {}
    plain = provenance.exact and provenance.difference is None and provenance.format == format_name
    return {} if plain else {"provenance": to_json(provenance)}


_HUB_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)?\Z")
