"""Who asks a registry of OCI: credentials that `docker login` or `oras login` have kept, and tokens that they buy.

They lie in $DOCKER_CONFIG/config.json or ~/.docker/config.json, or with the program that is named there. They are sent
to the registry that they are for, and to the place that it names for tokens, which must be as safe; never elsewhere.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from ..errors import AuthenticationError, UnsupportedError, UsageError
from . import streaming

HELPER_SECONDS = 30
SPARE_SECONDS = 30.0
"""So long before its end a token is not used any more."""

_PART = re.compile(r'(\w+)="([^"]*)"')
_HELPER = re.compile(r"[A-Za-z0-9._-]+")
_MOST = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """What is sent along to be let in.

    Attributes:
        header: the value of Authorization, or "" where nobody asks.
        end: when it stops being good, on the monotonic clock.
    """

    header: str
    end: float


def ticket(challenge: str, base: str, host: str, scope: str) -> Ticket:
    """Return what answers the challenge of a registry.

    Args:
        challenge: its header WWW-Authenticate; "" where it asks for nothing.
        base: its address.
        host: its name, which credentials are kept under.
        scope: what is to be done, in its words.

    Raises:
        AuthenticationError: there are no credentials for it, or it does not take them.
        UnsupportedError: it asks in a way that this version does not know.
    """
    kind, _, rest = challenge.partition(" ")
    if not challenge:
        return Ticket(header="", end=float("inf"))
    own = basic(host)
    if kind.lower() == "basic":
        if not own:
            raise AuthenticationError(f"{host} asks for credentials", hint=hint(host))
        return Ticket(header=own, end=float("inf"))
    if kind.lower() != "bearer":
        raise UnsupportedError(f"{host} asks for credentials of the kind {kind!r}")
    return _bought(dict(_PART.findall(rest)), base, host, scope, own)


def hint(host: str) -> str:
    """Return what to do where a registry wants credentials."""
    return f"`docker login {host}` or `oras login {host}`; what you may not see may look as if it did not exist"


def basic(host: str) -> str:
    """Return the header for name and password of a registry, or "" where none are kept.

    Raises:
        UsageError: what is kept cannot be read.
        UnsupportedError: it is of another kind.
    """
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        config = json.loads((folder / "config.json").read_bytes())
        helper = config.get("credHelpers", {}).get(host) or config.get("credsStore")
        kept = config.get("auths", {}).get(host, {})
        if kept.get("auth"):
            base64.b64decode(kept["auth"], validate=True)
            return f"Basic {kept['auth']}"
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, ValueError, AttributeError, binascii.Error) as error:
        raise UsageError(f"{folder / 'config.json'} cannot be read: {type(error).__name__}") from error
    if kept.get("identitytoken"):
        raise UnsupportedError(f"the credentials for {host} are an identity token", hint="log in with a password")
    return _of_helper(str(helper), host) if helper else ""


def _of_helper(helper: str, host: str) -> str:
    """Return the header for what a program keeps for a registry, or "" where it keeps nothing.

    Raises:
        UsageError: there is no such program, or it answers with something else.
        UnsupportedError: it keeps an identity token.
    """
    program = f"docker-credential-{helper}"
    try:
        if not _HELPER.fullmatch(helper):
            raise ValueError
        done = subprocess.run(  # noqa: S603 (the user's own settings name it)
            [program, "get"], input=host.encode(), capture_output=True, timeout=HELPER_SECONDS, check=False
        )
        if done.returncode:
            return ""
        said = json.loads(done.stdout)
        user, secret = str(said["Username"]), str(said["Secret"])
    except (OSError, ValueError, KeyError, TypeError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"{program} gives no credentials for {host}: {type(error).__name__}") from None
    if user == "<token>":
        raise UnsupportedError(f"the credentials for {host} are an identity token", hint="log in with a password")
    return f"Basic {base64.b64encode(f'{user}:{secret}'.encode()).decode()}"


def _bought(parts: dict[str, str], base: str, host: str, scope: str, own: str) -> Ticket:
    """Return a token from where the registry says.

    Raises:
        AuthenticationError: none is given.
        UnsupportedError: the place is not as safe as the registry.
    """
    realm = urlsplit(parts.get("realm", ""))
    if realm.scheme not in {"https", urlsplit(base).scheme}:
        raise UnsupportedError(
            f"{host} sends for tokens to {streaming.shown(parts.get('realm', ''))}, which is not safe"
        )
    asked = {"service": parts["service"]} if "service" in parts else {}
    url = realm._replace(query="&".join(filter(None, [realm.query, urlencode({**asked, "scope": scope})]))).geturl()
    try:
        found = streaming.document(url, most=_MOST, headers={"Authorization": own} if own else {})
        said: Any = json.loads(found.data if found else b"")
        token, seconds = said.get("token") or said["access_token"], float(said.get("expires_in", 60))
    except AuthenticationError as error:
        raise AuthenticationError(f"{host} refuses the credentials", hint=hint(host)) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AuthenticationError(f"{host} gives no token", hint=hint(host)) from error
    return Ticket(header=f"Bearer {token}", end=time.monotonic() + seconds - SPARE_SECONDS)
