"""Spool: tensors put into a file one by one, before it is known in which order and under which header they are written.

The file has no name, so nothing of it is left, however the process ends. What stands for a tensor meanwhile is an
outline, which every writer of safetensors files copies from file to file.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, cast

from ..errors import StateError
from . import safetensors_file
from .outline import OutlinedTensor

if TYPE_CHECKING:
    import torch


class Spool:
    """Tensors on the disk, in the order in which they came; a context, at whose end they are gone."""

    def __init__(self, folder: Path | None = None) -> None:
        """Make an empty file.

        folder: where there is room; best that of the file to be written. None is the system's for temporary files.

        Raises:
            StateError: there is no such folder, or nothing can be written into it.
        """
        self._where = folder or Path(tempfile.gettempdir())
        try:
            self._file = tempfile.TemporaryFile(dir=self._where, buffering=0)  # noqa: SIM115 (closed by __exit__)
        except OSError as error:
            raise self._fault(error) from None
        self._end = 0

    def put(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Write tensors and return outlines of them; outlines stay as they are.

        Raises:
            StateError: the disk is full.
            FormatError: a tensor's dtype has no name in safetensors files.
        """
        names, found = safetensors_file.type_names(tensors), dict(tensors)
        for key, tensor in tensors.items():
            if not isinstance(tensor, OutlinedTensor):
                found[key] = cast("torch.Tensor", OutlinedTensor(names[key], tensor.shape, self, self._end))
                self._write(safetensors_file.memory_of(tensor))
        return found

    def get(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the tensor that an outline of this spool stands for."""
        import torch

        if not isinstance(tensor, OutlinedTensor):
            return tensor
        data = bytearray(tensor.numel() * tensor.element_size())
        os.preadv(self._file.fileno(), [data], tensor.begin)
        dtype = safetensors_file.dtypes()[tensor.dtype]
        return (
            torch.frombuffer(data, dtype=dtype).view(tensor.shape) if data else torch.empty(tensor.shape, dtype=dtype)
        )

    def opened(self) -> BinaryIO:
        """Return the file, open for reading."""
        return os.fdopen(os.dup(self._file.fileno()), "rb")

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *args: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._file.close()

    def _write(self, block: memoryview) -> None:
        done = 0
        try:
            while done < len(block):
                done += os.pwrite(self._file.fileno(), block[done:], self._end + done)
        except OSError as error:
            raise self._fault(error) from None
        self._end += done

    def _fault(self, error: OSError) -> StateError:
        return StateError(
            f"{self._where} cannot be written: {error.strerror}", hint="check the path, its rights and its room"
        )
