"""Signatures by OpenSSF model-signing, with a pair of keys on an elliptic curve (P-256, P-384 or P-521), in PEM.

What is signed is a folder with one file; the signature is a bundle of Sigstore that names the file and its SHA-256. So
whoever has only the command `model_signing` can check it too. Nothing is asked of the network.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import IntegrityError, NotFoundError, UnsupportedError, UsageError

if TYPE_CHECKING:
    from model_signing import hashing

FOLDER, FILE = "adapterhub", "snapshot.json"
"""What the folder and the file are called that are signed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What is needed to sign and to verify.

    Attributes:
        hashing: how files are hashed: all of them, none through links.
        faults: what model-signing raises where something is wrong.
        folder: what is signed.
        bundle: where the signature lies or will lie.
    """

    hashing: hashing.Config
    faults: tuple[type[BaseException], ...]
    folder: Path
    bundle: Path


def sign(data: bytes, key: Path) -> dict[str, Any]:
    """Return the signature of bytes by a private key.

    Raises:
        UnsupportedError: model-signing is not installed.
        NotFoundError: there is no such file.
        UsageError: it is no private key of a kind that can sign, or has a password.
    """
    with _bench(data, key) as bench:
        from model_signing import signing

        try:
            config = signing.Config().set_hashing_config(bench.hashing).use_elliptic_key_signer(private_key=key)
            config.sign(bench.folder, bench.bundle)
        except bench.faults as error:
            raise _no_key(key, error) from error
        signature: dict[str, Any] = json.loads(bench.bundle.read_bytes())
        return signature


def verify(data: bytes, signature: Mapping[str, Any], key: Path, what: str) -> None:
    """Return if a signature is that of these bytes by the owner of a public key.

    Raises:
        UnsupportedError: model-signing is not installed.
        NotFoundError: there is no such key.
        UsageError: it is no public key.
        IntegrityError: it is not.
    """
    with _bench(data, key) as bench:
        from model_signing import verifying

        bench.bundle.write_text(json.dumps(signature))
        try:
            verifier = verifying.Config().set_hashing_config(bench.hashing).use_elliptic_key_verifier(public_key=key)
        except bench.faults as error:
            raise UsageError(f"{key} is no public key: {error}", hint="name one in PEM") from error
        try:
            # Of signatures that do not name their key model-signing complains on stdout, where data go.
            if not signature["verificationMaterial"]["publicKey"]["hint"]:
                raise ValueError("it names no key")
            verifier.verify(bench.folder, bench.bundle)
        except bench.faults as error:
            raise IntegrityError(
                f"{what} is not signed by the key {key}", hint="it was changed, or signed by somebody else"
            ) from error


@contextlib.contextmanager
def public(key: Path) -> Iterator[Path]:
    """Yield a file with the public key of a private one.

    Raises:
        UnsupportedError: model-signing is not installed.
        NotFoundError: there is no such file.
        UsageError: it is no private key, or has a password.
    """
    with _bench(b"", key) as bench:
        from cryptography.hazmat.primitives import serialization

        path = bench.folder / key.name
        try:
            found = serialization.load_pem_private_key(key.read_bytes(), None).public_key()
        except bench.faults as error:
            raise _no_key(key, error) from error
        kind, encoding = serialization.PublicFormat.SubjectPublicKeyInfo, serialization.Encoding.PEM
        path.write_bytes(found.public_bytes(encoding, kind))
        yield path


@contextlib.contextmanager
def _bench(data: bytes, key: Path) -> Iterator[Bench]:
    """Yield what is needed to sign bytes.

    Raises:
        UnsupportedError: it is not installed.
        NotFoundError: there is no key.
    """
    if not key.is_file():
        raise NotFoundError(f"there is no key {key}", hint="name a file in PEM")
    with tempfile.TemporaryDirectory(prefix="adapterhub-") as home:
        try:
            from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
            from model_signing import hashing
        except ImportError as error:
            raise UnsupportedError(
                "signatures need model-signing and pyOpenSSL", hint="pip install 'adapterhub[sign]'"
            ) from error
        folder = Path(home) / FOLDER
        folder.mkdir()
        (folder / FILE).write_bytes(data)
        yield Bench(
            hashing=hashing.Config().use_file_serialization(hashing_algorithm="sha256", allow_symlinks=False),
            faults=(InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError, LookupError, AttributeError),
            folder=folder,
            bundle=Path(home) / "signature",
        )


def _no_key(key: Path, error: BaseException) -> UsageError:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return UsageError(
        f"{key} cannot sign: {reason}", hint="name a private key on the curve P-256 in PEM, without a password"
    )
