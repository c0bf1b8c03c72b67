"""Pickles as data: the value that a pickle describes, with nothing imported, called or made but plain records.

`torch.save` writes pickles. Unpickling can run any program; here the opcodes are interpreted as what they are in a file
of tensors: texts, numbers, lists, dictionaries with text keys, names (Global), and two kinds of records (Call, for a
reduced object, and Persistent, for a storage). What such a file does not need is refused.

Source: CPython's Lib/pickletools.py, which describes every opcode; protocols 0 to 5.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

from ..errors import FormatError

OPCODE_LIMIT = 500_000
"""Most opcodes of one pickle: some 15,000 tensors."""


@dataclass(frozen=True, slots=True)
class Global:
    """A name that the pickle would import, as a text `module name`."""

    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """What the pickle would call, and with what; items are entries set on the result afterwards."""

    function: str
    arguments: tuple[Any, ...]
    items: dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Persistent:
    """An object outside the pickle, by its id."""

    id: Any


def load(file: BinaryIO, what: str) -> Any:
    """Return the value of one pickle, leaving the file at the byte behind it; what names the file in errors.

    Raises:
        FormatError: it is no pickle, or does what no file of tensors needs.
    """
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if opcode.name == "STOP":
                return machine.pop()
            if count >= OPCODE_LIMIT:
                raise _RefusedError(f"it has more than {OPCODE_LIMIT} opcodes")
            machine.step(opcode.name, argument)
    except (ValueError, IndexError, KeyError, OverflowError, UnicodeError) as error:
        reason = error if isinstance(error, _RefusedError) else f"it is malformed ({error})"
        raise FormatError(f"the pickle in {what} is refused: {reason}", hint=_SAFE) from None
    raise FormatError(f"the pickle in {what} does not end", hint=_SAFE)


_SAFE = "nothing of it was executed; ask its author for a safetensors file"

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
_TEXTS = ("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
_VALUES = frozenset(_NUMBERS + _TEXTS)
_SKIPPED = frozenset(("PROTO", "FRAME"))
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUTS = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))
_GETS = frozenset(("GET", "BINGET", "LONG_BINGET"))


class _RefusedError(ValueError):
    """A pickle that is well-formed, and refused."""


class _Machine:
    """The stack, the marks and the memo of a pickle being read."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.actions: dict[str, Callable[[], None]] = {
            "MARK": self._mark,
            "POP": self._drop,
            "TUPLE": lambda: self._push(tuple(self._to_mark())),
            "LIST": lambda: self._push(self._to_mark()),
            "APPEND": lambda: self._extend([self.pop()]),
            "APPENDS": lambda: self._extend(self._to_mark()),
            "SETITEM": lambda: self._set([self.stack.pop(-2), self.pop()]),
            "SETITEMS": lambda: self._set(self._to_mark()),
            "MEMOIZE": lambda: self.memo.__setitem__(len(self.memo), self.stack[-1]),
            "STACK_GLOBAL": self._stack_global,
            "BINPERSID": lambda: self._push(Persistent(self.pop())),
            "REDUCE": self._reduce,
            "BUILD": self._build,
        }

    def step(self, name: str, argument: Any) -> None:
        """Do what one opcode says."""
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            self._tuple(_TUPLES[name])
        elif name in _PUTS:
            self.memo[argument] = self.stack[-1]
        elif name in _GETS:
            self.stack.append(self.memo[argument])
        elif name == "GLOBAL":
            self.stack.append(Global(argument))
        elif name in self.actions:
            self.actions[name]()
        elif name not in _SKIPPED:
            raise _RefusedError(f"opcode {name} has no place in a file of tensors")

    def pop(self) -> Any:
        """Return the top of the stack, taken off."""
        return self.stack.pop()

    def _push(self, value: Any) -> None:
        # Called with the value ready: taking it off a mark changes which list the stack is.
        self.stack.append(value)

    def _drop(self) -> None:
        self.stack.pop()

    def _mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def _to_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def _tuple(self, size: int) -> None:
        if len(self.stack) < size:
            raise _RefusedError("its stack runs empty")
        items = tuple(self.stack[-size:])
        self.stack[-size:] = [items]

    def _extend(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise _RefusedError("it appends to what is no list")
        self.stack[-1].extend(items)

    def _set(self, flat: list[Any]) -> None:
        """Put key, value, key, value … into the dictionary, or the called object, on top of the stack."""
        target = self.stack[-1]
        items = target.items if isinstance(target, Call) else target
        if not isinstance(items, dict) or len(flat) % 2:
            raise _RefusedError("it sets items on what is no dictionary")
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            # Only texts: hashing a nested tuple of a hostile pickle can take for ever.
            if not isinstance(key, str):
                raise _RefusedError(f"a dictionary has a key of type {type(key).__name__}, expected texts")
            if key in items:
                raise _RefusedError(f"a dictionary has the key {key[:80]!r} twice")
            items[key] = value

    def _stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise _RefusedError("a name is not a text")
        self.stack.append(Global(f"{module} {name}"))

    def _reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise _RefusedError("it calls what is no name")
        if function.name not in CALLS:
            raise _RefusedError(f"it would call {function.name[:80]!r}, which no file of tensors needs")
        self.stack.append(Call(function.name, arguments, {}))

    def _build(self) -> None:
        """Drop the attributes of a state dict (its versions of modules); nothing else may have a state."""
        self.pop()
        if not isinstance(self.stack[-1], Call) or self.stack[-1].function != ORDERED_DICT:
            raise _RefusedError("it sets the state of an object")


ORDERED_DICT = "collections OrderedDict"
TENSOR = "torch._utils _rebuild_tensor_v2"
OLD_TENSOR = "torch._utils _rebuild_tensor"
PARAMETER = "torch._utils _rebuild_parameter"
CALLS = frozenset((ORDERED_DICT, TENSOR, OLD_TENSOR, PARAMETER))
