"""Settings: where the registry and the cache lie and whether the network may be used, and who said so.

Flag > environment > project file (`adapterhub.toml`, the nearest one upwards) > user file
(`$XDG_CONFIG_HOME/adapterhub/config.toml`) > default. Both files have the same keys:

    registry = "path or URL of the default registry"
    cache = "folder"
    offline = true
    [registries]
    acme = "path or URL"            # for references such as acme::sst2-bert
    [trust]
    acme = "acme.pub"               # the index of this registry, or of this path or URL, must be signed by this key

A relative path in a file is relative to that file. What the user file trusts, no project can change. The project file
alone has a table of what the project needs:

    [adapters]
    reviews = "sst2-bert@^1"        # name in the project = reference
    moods = { reference = "acme::moods", base = "bert-base-uncased", format = "native", method = "seq_bn" }
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import NotFoundError, UsageError

BUNDLED = "bundled"
"""Name of the registry that lies in the package."""

PROJECT_FILE = "adapterhub.toml"

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_TYPES = {"registry": str, "cache": str, "offline": bool, "registries": dict, "trust": dict, "adapters": dict}
_KINDS = {str: "text", bool: "true or false", dict: "a table"}
_TRUE = frozenset({"1", "on", "yes", "true"})
_FALSE = frozenset({"0", "off", "no", "false"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is set, read once for a command.

    Attributes:
        registry: path or URL of the default registry, or `bundled`.
        cache: root of the store.
        offline: whether the network is switched off.
        registries: name → path or URL of further registries.
        project: the project file, or None where there is none.
        adapters: what the project needs, as its file says; project.py reads it.
        trust: name, path or URL of a registry → public key that its index must be signed by.
        origins: name of each of these attributes → who set it, for people.
    """

    registry: str = BUNDLED
    cache: Path
    offline: bool = False
    registries: Mapping[str, str] = field(default_factory=dict)
    project: Path | None = None
    adapters: Mapping[str, Any] = field(default_factory=dict)
    trust: Mapping[str, str] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def load(
        cls,
        *,
        registry: str | None = None,
        cache: Path | str | None = None,
        offline: bool | None = None,
        environ: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> Settings:
        """Return the settings; registry, cache and offline are the flags, None where one is not given.

        Args:
            registry: path or URL of the default registry, or `bundled`.
            cache: root of the store.
            offline: whether the network is switched off.
            environ: the environment; None is the process's.
            folder: where the search for the project file begins; None is the working folder.

        Raises:
            UsageError: a file or variable cannot be understood; lists every fault of a file.
        """
        environ = os.environ if environ is None else environ
        flags = {"registry": registry, "cache": None if cache is None else str(cache), "offline": offline}
        project = _project_file(folder or Path.cwd())
        files = _files(project, _user_file(environ))
        layers = [
            ("the command line", flags),
            *_environment(environ),
            *files,
            ("the default", {"registry": BUNDLED, "cache": str(_default_cache(environ)), "offline": False}),
        ]
        found = {key: _first(layers, key) for key in ("registry", "cache", "offline")}
        return cls(
            registry=found["registry"][0],
            cache=Path(found["cache"][0]).expanduser(),
            offline=found["offline"][0],
            registries={
                name: where for _, layer in reversed(layers) for name, where in layer.get("registries", {}).items()
            },
            project=project,
            adapters=dict(files).get(str(project), {}).get("adapters", {}),
            # The other way round: what the user trusts goes before what a project says.
            trust={who: key for _, layer in layers for who, key in layer.get("trust", {}).items()},
            origins={key: origin for key, (_, origin) in found.items()},
        )

    def location(self, name: str | None) -> str:
        """Return where the registry called name lies; None is the default one.

        Raises:
            NotFoundError: no registry is called so.
        """
        if name is None:
            return self.registry
        if name == BUNDLED:
            return BUNDLED
        if name not in self.registries:
            known = ", ".join(sorted({BUNDLED, *self.registries}))
            raise NotFoundError(
                f"there is no registry {name!r}", hint=f"known are {known}; add it under [registries] in {PROJECT_FILE}"
            )
        return self.registries[name]


def _first(layers: list[tuple[str, Mapping[str, Any]]], key: str) -> tuple[Any, str]:
    """Return the value of the first layer that sets key, and the layer's name."""
    return next((layer[key], origin) for origin, layer in layers if layer.get(key) is not None)


def _environment(environ: Mapping[str, str]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return a layer for each variable that is set; ADAPTERHUB_OFFLINE goes before those of Hugging Face."""
    layers: list[tuple[str, Mapping[str, Any]]] = [
        (name, {key: environ[name]})
        for name, key in (("ADAPTERHUB_REGISTRY", "registry"), ("ADAPTERHUB_CACHE", "cache"))
        if environ.get(name)
    ]
    text = environ.get("ADAPTERHUB_OFFLINE", "").lower()
    if text and text not in _TRUE | _FALSE:
        raise UsageError(f"ADAPTERHUB_OFFLINE is {text!r}", hint="set it to 1 or 0")
    if text:
        return [*layers, ("ADAPTERHUB_OFFLINE", {"offline": text in _TRUE})]
    foreign = [name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if environ.get(name, "").lower() in _TRUE]
    return [*layers, *((name, {"offline": True}) for name in foreign)]


def _files(*paths: Path | None) -> list[tuple[str, Mapping[str, Any]]]:
    return [(str(path), _read(path)) for path in paths if path is not None and path.is_file()]


def _read(path: Path) -> Mapping[str, Any]:
    """Return what a settings file says, relative paths resolved.

    Raises:
        UsageError: it cannot be read, or has unknown keys or values of wrong types; lists them all.
    """
    import tomllib

    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    faults = [f"unknown key {key!r}" for key in data if key not in _TYPES]
    faults += [
        f"{key} is not {_KINDS[kind]}"
        for key, kind in _TYPES.items()
        if key in data and not isinstance(data[key], kind)
    ]
    faults += [
        f"{table} holds something that is not text"
        for table in ("registries", "trust")
        if not faults and not all(isinstance(value, str) for value in data.get(table, {}).values())
    ]
    if faults:
        raise UsageError(f"{path}: {', '.join(faults)}", hint=f"its keys are {', '.join(_TYPES)}")
    return _resolved(data, path.parent)


def _resolved(data: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the settings of a file with its relative paths joined to the file's folder."""
    places = {key: _place(data[key], folder) for key in ("registry", "cache") if key in data}
    registries = {name: _place(where, folder) for name, where in data.get("registries", {}).items()}
    trust = {
        who if "/" not in who else _place(who, folder): _place(key, folder)
        for who, key in data.get("trust", {}).items()
    }
    return {**data, **places, "registries": registries, "trust": trust}


def _place(where: str, folder: Path) -> str:
    if where == BUNDLED or _URL.match(where):
        return where
    return str(folder / Path(where).expanduser())


def _project_file(folder: Path) -> Path | None:
    """Return the nearest project file, looking upwards from folder."""
    # Without pathlib: every load of an adapter by name looks here.
    here = os.path.abspath(folder)  # noqa: PTH100
    while not os.path.isfile(found := os.path.join(here, PROJECT_FILE)):  # noqa: PTH113, PTH118
        above = os.path.dirname(here)  # noqa: PTH120
        if above == here:
            return None
        here = above
    return Path(found)


def _user_file(environ: Mapping[str, str]) -> Path:
    return _xdg(environ, "XDG_CONFIG_HOME", ".config") / "config.toml"


def _default_cache(environ: Mapping[str, str]) -> Path:
    return _xdg(environ, "XDG_CACHE_HOME", ".cache")


def _xdg(environ: Mapping[str, str], variable: str, fallback: str) -> Path:
    """Return our folder under an XDG one; a relative value is to be ignored, says the XDG specification."""
    given = environ.get(variable, "")
    if given and Path(given).is_absolute():
        return Path(given) / "adapterhub"
    return Path(environ.get("HOME") or Path.home()) / fallback / "adapterhub"
