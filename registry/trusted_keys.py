"""Trusted keys: which registries the settings want signed, and by which key."""

from __future__ import annotations

from pathlib import Path

from . import paths
from .copies import INDEX
from .settings import BUNDLED, Settings


def key_of(place: str, settings: Settings) -> Path | None:
    """Return the key that the settings ask for at a place, or None.

    Raises:
        NotFoundError: the settings ask for a key at a registry that they do not name.
    """
    wanted = {canonical(_where(who, settings)): key for who, key in settings.trust.items()}
    key = wanted.get(canonical(place)) if place != BUNDLED else None
    return None if key is None else Path(key)


def stale(place: str, settings: Settings, *, changed: bool) -> tuple[str, ...]:
    """Return what people are told after a registry was changed and not signed, where the settings ask for that."""
    where = settings.registries.get(place, place)
    if not (changed and settings.trust and key_of(where, settings)):
        return ()
    remedy = f"`adapterhub index sign {place} --key FILE`; --sign FILE does it in the same step"
    return (f"{place} was changed and not signed, so that readers who want a signature refuse it: {remedy}",)


def _where(who: str, settings: Settings) -> str:
    """Return the place that a line of the settings is about: one that it names, or that of a registry's name."""
    return who if paths.is_url(who) or "/" in who or Path(who).is_absolute() else settings.location(who)


def canonical(place: str) -> str:
    """Return a place as it is compared, however it is written.

    >>> canonical("https://HOST/hub/index.json"), canonical("hf://me/hub@main")
    ('https://host/hub', 'hf://me/hub')
    """
    if not paths.is_url(place):
        path = Path(place).expanduser()
        return str((path.parent if path.name == INDEX else path).resolve())
    scheme, _, rest = place.partition("://")
    rest = rest.rstrip("/").removesuffix(f"/{INDEX}").rstrip("/")
    host, slash, path_text = rest.partition("/")
    if scheme.lower() in {"http", "https"}:
        host = host.lower()
    if scheme.lower() == "hf":
        path_text = path_text.partition("@")[0]
    return f"{scheme.lower()}://{host}{slash}{path_text}"
