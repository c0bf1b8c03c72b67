"""The picture of `diff --plot`: for every linear map the cosine as a colour and the relative difference as a bar.

A PNG needs a few lines and no library: rows of pixels, packed by zlib (Portable Network Graphics, third edition).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .glyphs import GLYPHS, HEIGHT, WIDTH

if TYPE_CHECKING:
    from ..merging import Comparison, MapDifference

Colour = tuple[int, int, int]

WHITE, BLACK, GREY = (255, 255, 255), (30, 30, 30), (225, 225, 225)
RED, BLUE = (178, 24, 43), (33, 102, 172)
SCALE = 2
"""Pixels for each dot of a letter."""
ROW = (HEIGHT + 4) * SCALE
BAR = 240
MARGIN = 12
LONGEST = 80
"""So many letters of a path are shown, its last ones."""


class Canvas:
    """Pixels, white at first."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.rows = [bytearray(bytes(WHITE) * width) for _ in range(height)]

    def fill(self, x: int, y: int, width: int, height: int, colour: Colour) -> None:
        """Paint a rectangle."""
        left, right = max(0, x), min(self.width, x + width)
        for row in self.rows[max(0, y) : y + height]:
            row[3 * left : 3 * right] = bytes(colour) * max(0, right - left)

    def write(self, x: int, y: int, text: str, colour: Colour = BLACK) -> None:
        """Paint letters; those without a glyph are left blank."""
        for place, char in enumerate(text):
            left = x + place * (WIDTH + 1) * SCALE
            for column, bits in enumerate(GLYPHS.get(char, GLYPHS[" "])):
                for dot in range(HEIGHT):
                    if bits >> dot & 1:
                        self.fill(left + column * SCALE, y + dot * SCALE, SCALE, SCALE, colour)

    def png(self) -> bytes:
        """Return the bytes of the file."""
        data = zlib.compress(b"".join(b"\0" + row for row in self.rows), 9)
        head = struct.pack(">IIBBBBB", self.width, self.height, 8, 2, 0, 0, 0)
        chunks = ((b"IHDR", head), (b"IDAT", data), (b"IEND", b""))
        return b"\x89PNG\r\n\x1a\n" + b"".join(map(_chunk, chunks))


def _chunk(chunk: tuple[bytes, bytes]) -> bytes:
    kind, data = chunk
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def draw(found: Comparison, path: Path, *, force: bool) -> None:
    """Write the picture of a comparison.

    Raises:
        StateError: the file exists and force is not set, or it cannot be written.
    """
    from ..converters.disk import write_atomic

    write_atomic(path, iter([picture(found).png()]), force=force)


def picture(found: Comparison) -> Canvas:
    """Return the picture: a row for each linear map."""
    paths = [one.path[-LONGEST:] for one in found.maps]
    label = text_width(max([*paths, "linear map"], key=len))
    room = text_width("+0.000") + 8
    wide = max(2 * MARGIN + label + room + BAR + 40, 2 * MARGIN + text_width(" and ".join(found.names)))
    canvas = Canvas(wide, 2 * MARGIN + (len(paths) + 3) * ROW)
    canvas.write(MARGIN, MARGIN, " and ".join(found.names))
    top = MARGIN + 2 * ROW
    columns = (MARGIN, MARGIN + label + 16, MARGIN + label + 16 + room + 8)
    for x, text in zip(columns, ("linear map", "cosine", "difference / norm"), strict=True):
        canvas.write(x, top - ROW // 4, text)
    for number, (one, name) in enumerate(zip(found.maps, paths, strict=True)):
        _row(canvas, top + (number + 1) * ROW, columns, one, name)
    return canvas


def _row(canvas: Canvas, y: int, columns: Sequence[int], one: MapDifference, name: str) -> None:
    canvas.write(columns[0], y, name)
    if one.cosine is not None:
        canvas.fill(columns[1] - 4, y - 3, text_width("+0.000") + 8, ROW - 4, shade(one.cosine))
        light = abs(one.cosine) > 0.6
        canvas.write(columns[1], y, f"{one.cosine:+.3f}", WHITE if light else BLACK)
    largest = max(one.norms)
    part = one.difference / largest if largest else 0.0
    canvas.fill(columns[2], y, BAR, HEIGHT * SCALE, GREY)
    # Two updates of one norm that are opposite differ by twice it.
    canvas.fill(columns[2], y, round(BAR * min(1.0, part / 2)), HEIGHT * SCALE, BLACK)


def text_width(text: str) -> int:
    """Return how many pixels a text is wide."""
    return len(text) * (WIDTH + 1) * SCALE


def shade(cosine: float) -> Colour:
    """Return the colour of a cosine: blue for 1, white for 0, red for -1.

    >>> shade(1.0), shade(0.0)
    ((33, 102, 172), (255, 255, 255))
    """
    end = BLUE if cosine > 0 else RED
    red, green, blue = (round(255 + abs(cosine) * (one - 255)) for one in end)
    return red, green, blue
