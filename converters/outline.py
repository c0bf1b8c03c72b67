"""Tensors of a safetensors file as its header tells them: shapes and types, and in place of values where these lie.

Decoding and encoding run on outlines as they do on tensors, as long as they only give names and shapes. What asks an
outline for values ends with NeedsValues; whoever started it then reads the file as a whole. What comes out well is a
plan: which bytes of the old file are which tensor of the new one. Nothing here loads torch.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, Protocol, cast

from ..errors import FormatError
from .disk import Stretch, digest_of, open_regular
from .safetensors_header import ITEM_SIZE, FileRange, Header, parse_header

if TYPE_CHECKING:
    import numpy as np
    import torch

    from .format import Parts

INTEGERS = ("BOOL", "U8", "I8", "I16", "U16", "I32", "U32", "I64", "U64")
EXPONENTS: Mapping[str, tuple[str, int]] = {
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
    "F32": ("<u4", 0x7F80_0000),
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
}
"""dtype → the whole numbers as which its values are looked at, and the bits that are all set in NaN and infinity."""


class NeedsValues(Exception):  # noqa: N818 (not an error)
    """An outline was asked for the values of its tensor."""


class Opens(Protocol):
    """A file that holds tensors."""

    def opened(self) -> BinaryIO:
        """Return the file, open.

        Raises:
            FormatError: it was changed since its tensors were outlined.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class OutlinedFile:
    """A file of which only the header was read.

    Attributes:
        path: the file.
        header: its header.
        state: what tells that it was not changed since: device, inode, size and time of the last change.
    """

    path: Path
    header: Header
    state: tuple[int, ...]

    def opened(self) -> BinaryIO:
        """Return the file, open.

        Raises:
            FormatError: it was changed since its header was read.
        """
        file = open_regular(self.path)
        if _state(file) != self.state:
            file.close()
            raise FormatError(f"{self.path} was changed while it was converted", hint="convert it again")
        return file

    def checked_digest(self) -> str:
        """Return the digest of the file, all values of which are found to be finite in the same pass.

        Raises:
            FormatError: some are not, or the file was changed.
            NeedsValues: it has a type of values that is not looked at here.
        """
        digest, faults = hashlib.sha256(), []
        with self.opened() as file:
            digest.update(file.read(self.header.data_start))
            for name, info in self.header.tensors.items():
                odd = 0
                for block in Stretch(file, self.header.data_start + info.begin, info.end - info.begin).blocks():
                    digest.update(block)
                    odd += _odd(info.dtype, block)
                faults += [f"tensor {name!r} holds {odd} values that are NaN or infinite"] if odd else []
        if faults:
            raise FormatError(
                f"{self.path} cannot be used",
                faults=faults,
                hint="the training diverged or the file is damaged; fetch it again",
            )
        return f"sha256:{digest.hexdigest()}"


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """What a source holds, its tensors as outlines.

    Attributes:
        parts: documents and tensors, without a digest.
        files: name → each file of tensors; "" is a source that is one file.
        digests: name → digest of each other file.
    """

    parts: Parts
    files: Mapping[str, OutlinedFile]
    digests: Mapping[str, str]

    def checked_digest(self) -> str:
        """Return the digest of the source, all values of which are found to be finite; raises as OutlinedFile does."""
        found = {name: file.checked_digest() for name, file in self.files.items()}
        return found[""] if "" in found else digest_of({**self.digests, **found})


class OutlinedTensor:
    """One tensor of a file: what can be known of it without its values.

    It has those methods of a tensor that only change its shape. Every other one, and every function of torch, raises
    NeedsValues.

    Attributes:
        dtype: name of the type in the file's format.
        shape: its shape.
        file: the file.
        begin: where its bytes begin in the file.
    """

    __slots__ = ("begin", "dtype", "file", "shape")

    def __init__(self, dtype: str, shape: Sequence[int], file: Opens, begin: int) -> None:
        self.dtype = dtype
        self.shape = tuple(shape)
        self.file = file
        self.begin = begin

    def __repr__(self) -> str:
        return f"OutlinedTensor({self.dtype}, {self.shape})"

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise NeedsValues(name)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def dim(self) -> int:
        """Return the number of dimensions."""
        return len(self.shape)

    def numel(self) -> int:
        """Return how many values there are."""
        return math.prod(self.shape)

    def element_size(self) -> int:
        """Return the size of a value in bytes."""
        return ITEM_SIZE[self.dtype]

    def data_ptr(self) -> int:
        """Return where the values lie; two tensors of different places differ in it."""
        return id(self.file) * 2**64 + self.begin

    def is_contiguous(self) -> bool:
        """Return True, as for everything in a file."""
        return True

    def is_floating_point(self) -> bool:
        """Return whether the values are real numbers."""
        return self.dtype not in (*INTEGERS, "C64")

    def is_complex(self) -> bool:
        """Return whether the values are complex numbers."""
        return self.dtype == "C64"

    def contiguous(self) -> OutlinedTensor:
        """Return itself."""
        return self

    def detach(self) -> OutlinedTensor:
        """Return itself."""
        return self

    def reshape(self, *shape: Any) -> OutlinedTensor:
        """Return the same values in another shape."""
        sizes = list(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else list(shape)
        if not all(isinstance(size, int) for size in sizes) or sizes.count(-1) > 1:
            raise NeedsValues("reshape")
        known = math.prod(size for size in sizes if size != -1)
        sizes = [self.numel() // known if size == -1 and known else size for size in sizes]
        if math.prod(sizes) != self.numel():
            raise NeedsValues("reshape")
        return OutlinedTensor(self.dtype, sizes, self.file, self.begin)

    def squeeze(self, dim: int) -> OutlinedTensor:
        """Return it without a dimension of size 1."""
        place = dim % self.ndim
        return self.reshape([size for i, size in enumerate(self.shape) if i != place or size != 1])

    def unsqueeze(self, dim: int) -> OutlinedTensor:
        """Return it with a further dimension of size 1."""
        place = dim % (self.ndim + 1)
        return self.reshape([*self.shape[:place], 1, *self.shape[place:]])

    def stretches(self) -> Iterator[Stretch]:
        """Yield its bytes; the file is open until the next one is asked for.

        Raises:
            FormatError: the file was changed.
        """
        with self.file.opened() as file:
            yield Stretch(file, self.begin, self.numel() * self.element_size())

    def _needs(self, *_: object) -> NoReturn:
        raise NeedsValues

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __matmul__ = __rmatmul__ = _needs
    __truediv__ = __rtruediv__ = __neg__ = __pow__ = __getitem__ = __setitem__ = __iter__ = __len__ = _needs
    __bool__ = __float__ = __int__ = __lt__ = __le__ = __gt__ = __ge__ = _needs

    @classmethod
    def __torch_function__(cls, *_: object) -> NoReturn:
        """Refuse to take part in a function of torch."""
        raise NeedsValues


def outlined(path: Path, *, inside: Path | None = None) -> tuple[OutlinedFile, dict[str, torch.Tensor]]:
    """Return a file and its tensors as outlines, having read its header alone.

    inside: a folder that the file must lie in, its links followed.

    Raises:
        NotFoundError, FormatError: as safetensors_file.load.
    """
    with open_regular(path, inside=inside) as file:
        state = _state(file)
        header = parse_header(FileRange(file), str(path), size=state[2])
    found = OutlinedFile(path, header, state)
    tensors = {
        name: OutlinedTensor(info.dtype, info.shape, found, header.data_start + info.begin)
        for name, info in header.tensors.items()
    }
    return found, cast("dict[str, torch.Tensor]", tensors)


def all_outlined(parts: Parts) -> bool:
    """Return whether every tensor of parts is an outline."""
    return all(isinstance(tensor, OutlinedTensor) for group in parts.tensors.values() for tensor in group.values())


def _state(file: BinaryIO) -> tuple[int, ...]:
    found = os.fstat(file.fileno())
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _odd(dtype: str, block: memoryview) -> int:
    """Return how many values of a block are NaN or infinite.

    Raises:
        NeedsValues: values of this type are not looked at here.
    """
    if dtype in INTEGERS:
        return 0
    if dtype not in EXPONENTS:
        raise NeedsValues(dtype)
    import numpy as np

    if dtype == "F32":
        values = np.frombuffer(block, "<f4")
        # A sum of squares is finite unless a value is not, or one is huge: looked at below.
        if math.isfinite(_square(values)):
            return 0
    kind, mask = EXPONENTS[dtype]
    bits = np.frombuffer(block, kind)
    exponents = bits & bits.dtype.type(mask)
    return int((exponents == mask).sum()) if exponents.max() == mask else 0


def _square(values: np.ndarray[Any, Any]) -> float:
    import numpy as np

    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.dot(values, values))
