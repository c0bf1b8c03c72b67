"""The kinds of places that can be published to; a new kind is one file and a line here."""

from __future__ import annotations

from pathlib import Path

from ..errors import OfflineError, UnsupportedError, UsageError
from . import paths, schemes
from .buckets import Buckets
from .hf import Hub
from .hf_client import parse
from .oci import Oci
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
    remote = next((remote for remote in (Hub(), Buckets(), Oci()) if remote.takes(where)), None)
    if remote is not None and settings.offline:
        raise OfflineError(f"{where} needs the network, which is switched off", hint="try again with the network")
    if isinstance(remote, Buckets):
        from .bucket_publisher import BucketPublisher

        return BucketPublisher(where, create=create)
    if isinstance(remote, Oci):
        from .oci_publisher import OciPublisher

        return OciPublisher(where)
    if isinstance(remote, Hub):
        return _on_the_hub(where, create, private)
    if paths.is_url(where):
        raise UnsupportedError(
            f"{where} cannot be published to: this version publishes to folders, {schemes.PUBLISHED}",
            hint="publish to a folder, and copy it to the host",
        )
    from .folder_publisher import INDEX, FolderPublisher

    folder = Path(where).expanduser()
    folder = folder.parent if folder.name == INDEX else folder
    return FolderPublisher(folder, create=create)


def _on_the_hub(where: str, create: bool, private: bool) -> Publisher:
    from .hf_publisher import HubPublisher

    reference = parse(where)
    if reference.revision or reference.folder:
        raise UsageError(f"{where} names a revision or folder", hint=f"publish to hf://{reference.name}")
    return HubPublisher(reference.name, create=create, private=private)
