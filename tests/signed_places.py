"""What the tests of signatures share: keys, and registries that are signed or have to be."""

from __future__ import annotations

import json
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from adapterhub.registry import Settings, desks, signing
from adapterhub.registry.snapshots import Snapshot


def make_keys(folder: Path) -> Path:
    """Return a folder with two pairs of keys: mine.pem, mine.pub, other.pem, other.pub."""
    for name in ("mine", "other"):
        key = ec.generate_private_key(ec.SECP256R1())
        plain, pem = serialization.NoEncryption(), serialization.Encoding.PEM
        (folder / f"{name}.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
        public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
        (folder / f"{name}.pub").write_bytes(public)
    return folder


def sign(place: str | Path, keys: Path, name: str = "mine") -> tuple[Snapshot, bool]:
    """Sign the index at a place."""
    return signing.sign(desks.desk_at(str(place), Settings.load()), keys / f"{name}.pem")


def trusting(place: str | Path, keys: Path, name: str = "mine", *, offline: bool = False) -> Settings:
    """Return settings that want the index at a place signed by a key."""
    Path("adapterhub.toml").write_text(
        f'[trust]\n{json.dumps(str(place))} = {json.dumps(str(keys / name))[:-1]}.pub"\n'
    )
    return Settings.load(offline=offline)
