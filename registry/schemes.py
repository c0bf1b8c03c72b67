"""Schemes: how the urls of places begin. A kind of bucket is a row here, and one of buckets.stores."""

from __future__ import annotations

from typing import Final

BUCKETS: Final = ("s3", "az", "gs")
"""Stores of objects: S3 and what speaks like it, Azure Blob Storage, Google Cloud Storage."""

IN_BUCKETS: Final = ", ".join(f"{scheme}://…" for scheme in BUCKETS)
"""The same for people."""

SIGNED: Final = ", ".join(f"{scheme}://" for scheme in ("hf", *BUCKETS))
PUBLISHED: Final = f"{SIGNED} and oci://"
"""Where indexes are signed and packed, and what is published to, for people."""


def known(url: str, schemes: tuple[str, ...]) -> bool:
    """Return whether a url begins with one of some schemes.

    >>> known("s3://bucket/key", BUCKETS), known("s3", BUCKETS)
    (True, False)
    """
    scheme, mark, _ = url.partition("://")
    return bool(mark) and scheme in schemes
