"""Accounts of Azure Blob Storage: where one is, and who the environment says that we are there.

Both are those of every program of Azure: AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME (also
AZURE_STORAGE_ACCOUNT) with AZURE_STORAGE_ACCOUNT_KEY (also AZURE_STORAGE_KEY) or AZURE_STORAGE_SAS_TOKEN. Neither key
nor token is used for another account than the one that it is set for.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ..errors import AuthenticationError, UsageError

CONNECTION = "AZURE_STORAGE_CONNECTION_STRING"
CREDENTIALS = (
    f"`az login`, or set {CONNECTION}, or AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY; "
    "what you may not list looks forbidden"
)
_NAMES = ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT")
_KEYS = ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_KEY")
_TOKEN = "AZURE_STORAGE_SAS_TOKEN"  # noqa: S105 (the name of a variable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An account, and what lets in to it.

    Attributes:
        name: its name.
        url: the address that all of it lies below.
        key: a key of it, or "".
        token: a shared access signature, or "".
    """

    name: str
    url: str
    key: str = field(default="", repr=False)
    token: str = field(default="", repr=False)


def account_at(host: str, environ: Mapping[str, str] = os.environ) -> Account:
    """Return the account at a host, or the one of the environment where that is "".

    Raises:
        UsageError: neither names one, or the environment cannot be understood.
        AuthenticationError: the key in it is none.
    """
    own = _connected(environ[CONNECTION]) if environ.get(CONNECTION) else _named(environ)
    if own is None and not host:
        raise UsageError(
            "az:// does not say which account",
            hint=f"set AZURE_STORAGE_ACCOUNT_NAME or {CONNECTION}, or write {WRITTEN}",
        )
    asked = Account(name=host.partition(".")[0], url=f"https://{host}")
    return own if own is not None and (not host or own.name == asked.name) else asked


WRITTEN = "az://container@account.blob.core.windows.net/prefix"


def _named(environ: Mapping[str, str]) -> Account | None:
    """Return the account that variables of its own name, or None."""
    name = _first(environ, _NAMES)
    if not name:
        return None
    url = f"https://{name}.blob.core.windows.net"
    return Account(name=name, url=url, key=_checked(_first(environ, _KEYS)), token=environ.get(_TOKEN, "").lstrip("?"))


def _connected(text: str) -> Account:
    """Return the account that a connection string names.

    Raises:
        UsageError: it names none.
    """
    said = {name.strip().lower(): value for name, _, value in (part.partition("=") for part in text.split(";"))}
    name, url = said.get("accountname", ""), said.get("blobendpoint", "").rstrip("/")
    if not (name or url):
        raise UsageError(f"{CONNECTION} names no account", hint="copy it from the account's access keys")
    protocol, suffix = said.get("defaultendpointsprotocol", "https"), said.get("endpointsuffix", "core.windows.net")
    return Account(
        name=name or (urlsplit(url).hostname or "").partition(".")[0],
        url=url or f"{protocol}://{name}.blob.{suffix}",
        key=_checked(said.get("accountkey", "")),
        token=said.get("sharedaccesssignature", "").lstrip("?"),
    )


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((environ[name] for name in names if environ.get(name)), "")


def _checked(key: str) -> str:
    """Return a key as it is.

    Raises:
        AuthenticationError: it is none; it is not shown.
    """
    try:
        base64.b64decode(key, validate=True)
    except ValueError as error:
        raise AuthenticationError("the key of the Azure account is not base64", hint=CREDENTIALS) from error
    return key
