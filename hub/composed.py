"""Push of a composition that was saved, or of a setup folder of `adapters`: under its own name or another."""

from __future__ import annotations

import dataclasses

from .. import arrangement
from ..adapter import Manifest
from ..arrangement import Arrangement
from ..composition_file import NAME, document_of
from ..converters.identity import manifest_name
from ..errors import UsageError
from ..registry import Publisher, Pulled, Settings, Version
from ..registry.signing import Seal
from .composing import on_its_base, published
from .leaves import Gathered, of_saved
from .pushing import Pushed, Wanted


def push(
    pulled: Pulled,
    publisher: Publisher,
    wanted: Wanted,
    settings: Settings,
    *,
    dry_run: bool = False,
    seal: Seal | None = None,
) -> Pushed:
    """Publish a composition, and return what that changed; adapters that the place does not offer go with it.

    As an adapter, it is held against its base model where that is asked for, or where fingerprint or probe are missing.

    Raises:
        UsageError: it has no name or version, or a format is asked for.
        BaseMismatchError, FormatError, UnsupportedError: it does not fit its base model.
        StateError, NotFoundError, …: as pushing.push.
    """
    if wanted.formats is not None:
        raise UsageError("a composition has a format of its own", hint="leave --formats away")
    said = None if document_of(pulled.path) is None else arrangement.read(pulled.path)
    gathered = of_saved(pulled)
    entry, manifest = _described(pulled, said, gathered, wanted)
    if said is None or manifest.probe is None or manifest.base.fingerprint is None or wanted.base is not None:
        offline, architecture = settings.offline, wanted.architecture
        with on_its_base(gathered, manifest, base=wanted.base, offline=offline, architecture=architecture) as (
            adapters,
            named,
        ):
            found = adapters.arrangement(named)
    else:
        found = dataclasses.replace(
            said, name=manifest.name, version=manifest.version, license=manifest.license, base=manifest.base
        )
    _, outcome = published(found, gathered, publisher, name=entry, dry_run=dry_run, seal=seal)
    return Pushed(name=entry, version=manifest.version, formats=(NAME,), outcome=outcome)


def _described(pulled: Pulled, said: Arrangement | None, gathered: Gathered, wanted: Wanted) -> tuple[str, Manifest]:
    """Return the name to publish under, and what is said of the composition from now on.

    Raises:
        UsageError: name or version is missing, or cannot be.
    """
    name, _, version = (wanted.name or "").partition("@")
    name, version = name or (said.name if said else ""), version or (said.version if said else "")
    if not (name and version):
        raise UsageError(f"{pulled.path} has no name or no version", hint="give both: --as moods@1.0.0")
    short = name.rpartition("/")[2]
    if manifest_name(short, "") != short:
        raise UsageError(f"{name!r} is not a name", hint="use lower-case letters, digits, and . _ - within")
    known = (
        said.manifest if said else Manifest(name=short, base=next(iter(gathered.parts.values())).adapter.manifest.base)
    )
    base = dataclasses.replace(known.base, id=wanted.base_id or known.base.id)
    number, license_text = str(Version.parse(version)), wanted.license or known.license
    return name, dataclasses.replace(known, name=short, version=number, license=license_text, base=base)
