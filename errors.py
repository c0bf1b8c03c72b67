"""The errors of adapterhub.

Every error says what is wrong, where, and what to do next; the command line prints it in one or two lines
and ends with the error's exit code.

    AdapterHubError                  1  something failed
    ├── UsageError (ValueError)      2  an argument cannot be read: a reference, a version, a configuration string
    ├── NotFoundError (LookupError)  3  no such adapter, version, file or site
    ├── AuthenticationError          4  a remote wants (other) credentials
    ├── IntegrityError               5  what was read is not what it claims to be
    │   ├── DigestError                 the bytes do not have the promised digest
    │   ├── FormatError (ValueError)    a file is malformed, incomplete or hostile
    │   └── BaseMismatchError           the adapter was made for another base model
    ├── SchemaError (ValueError)     1  a document breaks its schema; lists every fault with its path
    ├── UnsupportedError             6  a conversion, method or model that cannot be done exactly
    ├── OfflineError                 7  the network is needed and switched off
    └── StateError                   1  the object is not in a state that allows this
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar


class AdapterHubError(Exception):
    """The root of all errors raised on purpose by this package.

    Attributes:
        message: what is wrong and where, one sentence without a final full stop.
        hint: what to do next, or "" where nothing can be said.
        code: stable name for programs, printed by `--json`.
        exit_code: exit status of the command line.
    """

    code: ClassVar[str] = "E_FAILED"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Callable[..., AdapterHubError], tuple[object, ...]]:
        """Return how it is made again in another process, without calling __init__ a second time."""
        return _again, (type(self), self.args, self.__dict__)


class UsageError(AdapterHubError, ValueError):
    """An argument cannot be understood."""

    code = "E_USAGE"
    exit_code = 2


class NotFoundError(AdapterHubError, LookupError):
    """Something that was asked for by name does not exist."""

    code = "E_NOT_FOUND"
    exit_code = 3


class AuthenticationError(AdapterHubError):
    """A remote refuses the credentials, or wants some."""

    code = "E_AUTHENTICATION"
    exit_code = 4


class IntegrityError(AdapterHubError):
    """What was read is not what it claims to be."""

    code = "E_INTEGRITY"
    exit_code = 5


class DigestError(IntegrityError):
    """Bytes do not have the digest that was promised for them."""

    code = "E_DIGEST"

    def __init__(self, what: str, *, expected: str, actual: str, hint: str = "") -> None:
        super().__init__(
            f"{what} has digest {actual}, expected {expected}",
            hint=hint or "the file was changed or damaged; fetch it again from its source",
        )
        self.what = what
        self.expected = expected
        self.actual = actual


class FormatError(IntegrityError, ValueError):
    """A file is malformed, incomplete, or holds what its format forbids.

    Attributes:
        faults: every fault found, one sentence each.
    """

    code = "E_FORMAT"

    def __init__(self, message: str, *, faults: Iterable[str] = (), hint: str = "") -> None:
        self.faults = tuple(faults)
        super().__init__(_with_faults(message, self.faults), hint=hint)


class BaseMismatchError(IntegrityError):
    """The adapter was made for another base model than the one it meets."""

    code = "E_BASE_MISMATCH"


class SchemaError(AdapterHubError, ValueError):
    """A JSON document breaks its schema.

    Attributes:
        faults: every fault, each `path: what is wrong`.
    """

    code = "E_SCHEMA"

    def __init__(self, what: str, faults: Iterable[str], *, hint: str = "") -> None:
        self.faults = tuple(faults)
        super().__init__(_with_faults(f"{what} breaks its schema", self.faults), hint=hint)


class UnsupportedError(AdapterHubError):
    """What was asked for cannot be done without changing what the adapter computes."""

    code = "E_UNSUPPORTED"
    exit_code = 6


class OfflineError(AdapterHubError):
    """The network is needed, and switched off."""

    code = "E_OFFLINE"
    exit_code = 7


class StateError(AdapterHubError):
    """The object is not in a state that allows this: a name is taken, nothing is loaded, the set is detached."""

    code = "E_STATE"


def _again(kind: type[AdapterHubError], args: tuple[object, ...], fields: dict[str, object]) -> AdapterHubError:
    """Return an error as it was in the process that raised it."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(fields)
    return error


def _with_faults(message: str, faults: tuple[str, ...]) -> str:
    """Return message and faults: one fault on the same line, several on lines of their own."""
    if not faults:
        return message
    if len(faults) == 1:
        return f"{message}: {faults[0]}"
    return f"{message} ({len(faults)} faults):" + "".join(f"\n  {fault}" for fault in faults)
