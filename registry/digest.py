"""Digests: `sha256:<hex>`, the identity of bytes."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import UsageError

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def of_bytes(data: bytes) -> str:
    """Return the digest of data.

    >>> of_bytes(b"")[:15]
    'sha256:e3b0c442'
    """
    import hashlib

    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def mark(data: bytes) -> str:
    """Return the 32 hexadecimal digits that stand for data in the names of files.

    >>> mark(b"")[:8]
    'e3b0c442'
    """
    return hexadecimal(of_bytes(data))[:32]


def of_file(path: Path) -> str:
    """Return the digest of a file's bytes, read in pieces.

    Raises:
        OSError: the file cannot be read.
    """
    import hashlib

    with path.open("rb", buffering=0) as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def md5(body: Path | bytes) -> str:
    """Return the MD5 of bytes or of a file in base 64: what stores check uploads by, and nothing is trusted for.

    Raises:
        OSError: the file cannot be read.
    """
    import base64
    import hashlib

    if isinstance(body, bytes):
        found = hashlib.md5(body, usedforsecurity=False)
    else:
        with body.open("rb", buffering=0) as file:
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return base64.b64encode(found.digest()).decode()


def hexadecimal(digest: str) -> str:
    """Return the 64 hexadecimal digits of a digest.

    Raises:
        UsageError: digest is not `sha256:` and 64 lower-case hexadecimal digits.
    """
    if not _DIGEST.fullmatch(digest):
        raise UsageError(f"{digest[:80]!r} is not a digest", hint="write sha256: and 64 lower-case hexadecimal digits")
    return digest.removeprefix("sha256:")
