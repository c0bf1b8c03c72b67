"""Redaction: what libraries log and say of requests goes without the signatures in addresses, which let anybody in."""

from __future__ import annotations

import logging
import re

_SIGNED = re.compile(r"\?\S*\b(?:sig|X-Amz-Signature)=\S*", re.IGNORECASE)
LOGGERS = ("httpx2", "urllib3.connectionpool")
"""Which log the addresses of requests."""


def redacted(text: str) -> str:
    """Return a text without the queries of signed addresses in it.

    >>> redacted("GET https://host/a?b=c&sig=secret HTTP/1.1, https://host/b?c=d")
    'GET https://host/a HTTP/1.1, https://host/b?c=d'
    """
    return _SIGNED.sub("", text)


class _Redacting(logging.Filter):
    """Lets all records through, without signatures."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True."""
        said = record.getMessage()
        if (clean := redacted(said)) != said:
            record.msg, record.args = clean, ()
        return True


_redacting = _Redacting()


def redact_logs() -> None:
    """Let what is logged of requests go without signatures from now on."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_redacting)
