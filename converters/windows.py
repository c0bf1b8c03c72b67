"""Windows: tensors of files that stay on the disk, as torch sees them.

What is looked at is read by the system, page by page, and given back with `release`. So work that goes from tensor to
tensor needs the memory of a few of them, however many files there are.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from typing import TYPE_CHECKING

from . import safetensors_file
from .disk import Mapped, content
from .outline import OutlinedFile, OutlinedTensor

if TYPE_CHECKING:
    import torch

MAP_FROM = 2**20
"""Smaller files are read as a whole, in bytes."""


class Window:
    """The tensors of outlines.

    Attributes:
        tensors: name → tensor on the CPU, which lies in the file.
    """

    def __init__(self, outlines: Mapping[str, torch.Tensor]) -> None:
        """Look at outlines; what is none stays as it is.

        Raises:
            FormatError: a file was changed since its header was read.
        """
        self._data: dict[int, bytearray | Mapped] = {}
        self.tensors = {name: self._seen(one) for name, one in outlines.items()}

    def release(self) -> None:
        """Give the memory back that was looked at; it is read again when it is looked at again."""
        for data in self._data.values():
            if isinstance(data, Mapped) and hasattr(mmap, "MADV_DONTNEED"):
                data.madvise(mmap.MADV_DONTNEED)

    def _seen(self, one: torch.Tensor | OutlinedTensor) -> torch.Tensor:
        if not isinstance(one, OutlinedTensor):
            return one
        file = one.file
        if not isinstance(file, OutlinedFile):
            raise AssertionError("only files with a name are looked at through windows")
        if id(file) not in self._data:
            with file.opened() as opened:
                self._data[id(file)] = content(opened, file.path, map_from=MAP_FROM)
        return _view(one, self._data[id(file)])


def _view(outline: OutlinedTensor, data: bytearray | Mapped) -> torch.Tensor:
    """Return a view of data; what lies across the alignment of its type is copied."""
    import torch

    dtype = safetensors_file.dtypes()[outline.dtype]
    count, width = outline.numel(), outline.element_size()
    if not count:
        return torch.empty(outline.shape, dtype=dtype)
    whole: bytearray | Mapped = data
    begin = outline.begin
    if begin % width:
        whole, begin = bytearray(data[begin : begin + count * width]), 0
    return torch.frombuffer(whole, dtype=dtype, count=count, offset=begin).view(outline.shape)
