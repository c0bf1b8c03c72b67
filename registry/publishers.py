"""The kinds of places that can be published to; a new kind is one file and a line here."""

from __future__ import annotations

from pathlib import Path

from ..errors import OfflineError, UnsupportedError, UsageError
from . import paths
from .hf import Hub
from .hf_client import parse
from .publication import Publisher
from .settings import BUNDLED, Settings


def publisher_at(place: str, *, settings: Settings, create: bool = False, private: bool = False) -> Publisher:
    """Return what publishes to a place: a folder, a repository on the Hub, or the name of a registry in the settings.

    Args:
        place: where to.
        settings: the settings.
        create: make a registry where there is none.
        private: whether a repository that is made is private.

    Raises:
        UsageError: the place cannot be meant.
        UnsupportedError: it can only be read, or this version cannot write there.
        OfflineError: the network is needed, and switched off.
        NotFoundError, AuthenticationError, AdapterHubError: it cannot be read.
    """
    where = settings.registries.get(place, place)
    if where == BUNDLED:
        raise UsageError("the registry in the package is not published to", hint="name a folder or hf://user/repo")
    if Hub().takes(where):
        return _on_the_hub(where, settings, create, private)
    if paths.is_url(where):
        raise UnsupportedError(
            f"{where} cannot be published to: this version publishes to folders and hf://",
            hint="publish to a folder, and copy it to the host",
        )
    from .folder_publisher import INDEX, FolderPublisher

    folder = Path(where).expanduser()
    folder = folder.parent if folder.name == INDEX else folder
    return FolderPublisher(folder, create=create)


def _on_the_hub(where: str, settings: Settings, create: bool, private: bool) -> Publisher:
    from .hf_publisher import HubPublisher

    reference = parse(where)
    if reference.revision or reference.folder:
        raise UsageError(f"{where} names a revision or folder", hint=f"publish to hf://{reference.name}")
    if settings.offline:
        raise OfflineError(f"{where} needs the network, which is switched off", hint="try again with the network")
    return HubPublisher(reference.name, create=create, private=private)
