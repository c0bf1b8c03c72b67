"""The text form of compositions, for the command line: `stack(a, split(b, c, splits=[64, 64]))`.

node    = name | kind "(" node { "," node } { "," key "=" value } ")"
value   = name | number | "true" | "false" | string as in JSON | "[" number { "," number } "]"
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, TypeAlias

from .composition import Composition, Node, check_name, make
from .errors import UsageError

JSON: TypeAlias = Any

_TOKEN = re.compile(
    r"""\s*(?:(?P<mark>[()\[\],=])|(?P<string>"(?:[^"\\\x00-\x1f]|\\.)*")|(?P<word>[^\s\x00-\x20\x7f-\xa0()\[\],="']+))"""
)
_KINDS = {
    "stack": "stack",
    "fuse": "fuse",
    "split": "split",
    "batchsplit": "batch_split",
    "parallel": "parallel",
    "average": "average",
    "multitask": "multi_task",
}
_MAX_LENGTH = 20_000
_MAX_DEPTH = 8
_HINT = "write for example stack(a, fuse(b, c)) or split(a, b, splits=[64, 64])"


def read(text: str) -> Node:
    """Return the node that text writes; see composition.parse."""
    reader = _Reader(text, _tokens(text))
    node = reader.node(0)
    if reader.position < len(reader.tokens):
        raise reader.fault("something follows the end")
    return node


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int


def _tokens(text: str) -> list[_Token]:
    if len(text) > _MAX_LENGTH:
        raise UsageError(f"a composition of {len(text)} characters is too long", hint=f"at most {_MAX_LENGTH}")
    tokens, place = [], 0
    while text[place:].strip():
        match = _TOKEN.match(text, place)
        if match is None or match.lastgroup is None:
            raise UsageError(f"{text[place:].strip()[:20]!r} in composition {text[:60]!r} cannot be read", hint=_HINT)
        tokens.append(_Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup)))
        place = match.end()
    return tokens


class _Reader:
    """Reads tokens from left to right."""

    def __init__(self, text: str, tokens: list[_Token]) -> None:
        self.text = text
        self.tokens = tokens
        self.position = 0

    def node(self, depth: int) -> Node:
        """Return the node that begins here."""
        word = self._take("word", "a name or a kind of composition is missing")
        if not self._is("("):
            check_name(word)
            return word
        kind = _KINDS.get(word.replace("_", "").lower())
        if kind is None or depth > _MAX_DEPTH:
            self.position -= 1
            raise self.fault(f"{word!r} is no kind of composition" if kind is None else "it is nested too deeply")
        self.position += 1
        return self._composition(kind, depth)

    def _composition(self, kind: str, depth: int) -> Composition:
        children: list[Node] = []
        settings: dict[str, JSON] = {}
        while not self._is(")"):
            if children or settings:
                self._mark(",")
            if self._is("=", ahead=1):
                key = self._take("word", "the name of a setting is missing")
                if key in settings:
                    raise self.fault(f"{key} is there twice")
                self._mark("=")
                settings[key] = self._value()
            elif settings:
                raise self.fault("a part follows a setting")
            else:
                children.append(self.node(depth + 1))
        self._mark(")")
        return make(kind, children, settings)

    def _value(self) -> JSON:
        if not self._is("["):
            return self._scalar()
        self._mark("[")
        values: list[JSON] = []
        while not self._is("]"):
            if values:
                self._mark(",")
            values.append(self._scalar())
        self._mark("]")
        return values

    def _scalar(self) -> JSON:
        """Return a number, true or false, or a text."""
        if self.position < len(self.tokens) and self.tokens[self.position].kind == "string":
            text = self._take("string", "")
        else:
            text = self._take("word", "a value is missing")
        try:
            return json.loads(text.lower() if text in {"True", "False"} else text)
        except ValueError:
            return text

    def _is(self, mark: str, ahead: int = 0) -> bool:
        place = self.position + ahead
        return place < len(self.tokens) and (self.tokens[place].kind, self.tokens[place].text) == ("mark", mark)

    def _mark(self, mark: str) -> None:
        if not self._is(mark):
            raise self.fault(f"{mark!r} is missing")
        self.position += 1

    def _take(self, kind: str, otherwise: str) -> str:
        if self.position >= len(self.tokens) or self.tokens[self.position].kind != kind:
            raise self.fault(otherwise)
        self.position += 1
        return self.tokens[self.position - 1].text

    def fault(self, words: str) -> UsageError:
        """Return the error that says what is wrong at this place."""
        at = self.tokens[self.position].start if self.position < len(self.tokens) else len(self.text)
        rest = self.text[at : at + 20]
        place = f"before {rest!r}" if rest else "at its end"
        return UsageError(f"composition {self.text[:80]!r}: {words} {place}", hint=_HINT)
