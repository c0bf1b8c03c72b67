"""Zip archives of adapters: read like the folder that was packed, and refused whole where a member is hostile."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cli_session import type_command
from golden import COMPOSITIONS, GOLDEN, PEFTS
from test_hostile_input import Run, confined, ends_in_ours, listing
from transformers import AutoModel

from adapterhub.converters import read, write
from adapterhub.errors import FormatError, UnsupportedError
from adapterhub.loader import attach

BOTTLENECK = GOLDEN.case("c-bert-cls2").adapter
PICKLED = GOLDEN.case("a-bertvar-ln_both").adapter
PEFT = PEFTS.case("bert-lora-list").adapter
FUSION = COMPOSITIONS.folder() / "adapters" / "t5" / "a+b+gated"


def packed(folder: Path, path: Path, *, top: str = "", method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in sorted(folder.iterdir()):
            archive.writestr(f"{top}{file.name}", file.read_bytes())
    return path


@pytest.mark.parametrize("folder", [BOTTLENECK, PICKLED, PEFT, FUSION], ids=lambda path: path.parts[-3])
@pytest.mark.parametrize("top", ["", "adapter/", "a/b/c/"])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_is_read_like_the_folder_in_it(folder: Path, top: str, method: int, tmp_path: Path) -> None:
    archive = packed(folder, tmp_path / f"{folder.name}.zip", top=top, method=method)
    found, wanted = read(archive), read(folder)
    assert (found.config, found.manifest) == (wanted.config, wanted.manifest)
    assert all(torch.equal(tensor, wanted.tensors[key]) for key, tensor in found.tensors.items())
    assert list(tmp_path.iterdir()) == [archive]


def test_what_is_read_from_an_archive_is_written_back_as_it_was(tmp_path: Path) -> None:
    adapter = read(packed(BOTTLENECK, tmp_path / "adapter.zip"))
    folder = write(adapter, tmp_path / "again", format="adapters")
    documents = [file.name for file in BOTTLENECK.glob("*.json")]
    assert documents
    assert all((folder / name).read_bytes().split() == (BOTTLENECK / name).read_bytes().split() for name in documents)


def test_an_archive_is_loaded_shown_and_verified(tmp_path: Path, clean: None) -> None:
    archive = packed(BOTTLENECK, tmp_path / "x.zip", top="adapter/")
    case = GOLDEN.case("c-bert-cls2")
    adapters = attach(AutoModel.from_pretrained(case.base).eval())
    adapters.activate(adapters.load("./x.zip"))
    with torch.no_grad():
        assert case.close(adapters.model(**case.inputs()).logits, case.expected()["output"])
    assert type_command("show", str(archive)).status == 0
    typed = type_command("verify", str(archive))
    assert typed.status == 0
    assert "sha256:" in typed.out


def test_what_macos_adds_to_archives_is_not_looked_at(tmp_path: Path) -> None:
    archive = packed(BOTTLENECK, tmp_path / "x.zip", top="adapter/")
    with zipfile.ZipFile(archive, "a") as more:
        more.writestr("__MACOSX/adapter/adapter_config.json", b"\x00\x05\x16\x07")
        more.writestr("__MACOSX/adapter/._adapter_config.json", b"\x00\x05\x16\x07")
        more.writestr("adapter/.DS_Store", b"x")
    assert read(archive).manifest.name == read(BOTTLENECK).manifest.name


def test_an_archive_of_several_adapters_or_of_a_composition_is_refused(tmp_path: Path) -> None:
    archive = packed(BOTTLENECK, tmp_path / "x.zip", top="a/")
    with zipfile.ZipFile(archive, "a") as more:
        more.writestr("b/adapter_config.json", (BOTTLENECK / "adapter_config.json").read_bytes())
    with pytest.raises(UnsupportedError, match="several adapters: a, b"):
        read(archive)
    with zipfile.ZipFile(tmp_path / "setup.zip", "w") as setup:
        setup.writestr("adapter_setup.json", "{}")
    with pytest.raises(UnsupportedError, match="composition"):
        read(tmp_path / "setup.zip")


def member(name: str, data: bytes = b"x", *, mode: int = 0, method: int = zipfile.ZIP_STORED) -> Callable[[Path], None]:
    """Add a member to an archive."""

    def add(path: Path) -> None:
        info = zipfile.ZipInfo(name)
        info.external_attr, info.compress_type = mode << 16, method
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(info, data)

    return add


def patched(old: bytes, new: bytes) -> Callable[[Path], None]:
    """Replace bytes of an archive wherever they stand."""

    def patch(path: Path) -> None:
        data = path.read_bytes()
        assert old in data
        path.write_bytes(data.replace(old, new))

    return patch


def twice(path: Path) -> None:
    member("c.json", b"{}")(path)
    member("d.json", b"{}")(path)
    patched(b"d.json", b"c.json")(path)


def encrypted(path: Path) -> None:
    """Set the flag of encryption in the list of members."""
    data = bytearray(path.read_bytes())
    data[data.rfind(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)


def overlapping(path: Path) -> None:
    """Let the last member begin where the first does."""
    data = bytearray(path.read_bytes())
    last = data.rfind(b"PK\x01\x02")
    struct.pack_into("<I", data, last + 42, 0)
    path.write_bytes(data)


def long_list(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        for number in range(3000):
            archive.writestr(f"{number}", b"")


def longer_list(path: Path) -> None:
    """Claim a list of members of four gigabytes."""
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.rfind(b"PK\x05\x06") + 12, 0xFFFFFFF0)
    path.write_bytes(data)


HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "a member above": (member("../../pwned"), "leads out"),
    "a member above, hidden": (member("a/../../pwned"), "leads out"),
    "a member with backslashes": (member("..\\..\\pwned"), "leads out"),
    "an absolute member": (member("/tmp/pwned"), "leads out"),
    "a member on a drive": (member("C:/pwned"), "leads out"),
    "a member with a zero byte": (
        lambda path: (member("a~b")(path), patched(b"a~b", b"a\x00b")(path))[-1],
        "leads out",
    ),
    "a member with control characters": (member("a\x1b[2Jb"), "has a name"),
    "a link": (member("link", b"/etc/passwd", mode=stat.S_IFLNK | 0o777), "link or a device"),
    "a pipe": (member("pipe", b"", mode=stat.S_IFIFO | 0o644), "link or a device"),
    "a device": (member("device", b"", mode=stat.S_IFBLK | 0o644), "link or a device"),
    "a bomb": (member("big", bytes(300 * 2**20), method=zipfile.ZIP_DEFLATED), "grows"),
    "an encrypted member": (encrypted, "encrypted"),
    "a member that is squeezed otherwise": (member("lzma", b"x" * 99, method=zipfile.ZIP_LZMA), "deflate"),
    "a member twice": (twice, "twice"),
    "members that overlap": (overlapping, "overlaps"),
    "thousands of members": (long_list, "members, allowed are"),
    "a list of members of gigabytes": (longer_list, "list of members"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_archive_is_refused_whole(what: str, tmp_path: Path) -> None:
    change, words = HOSTILE[what]
    archive = packed(BOTTLENECK, tmp_path / "x.zip")
    change(archive)
    before = listing(tmp_path)
    message = ends_in_ours(lambda: read(archive))
    assert words in message
    assert "x.zip" in message
    assert listing(tmp_path) == before


def test_all_hostile_members_are_told_at_once(tmp_path: Path) -> None:
    archive = packed(BOTTLENECK, tmp_path / "x.zip")
    member("../a")(archive)
    member("/b")(archive)
    with pytest.raises(FormatError) as caught:
        read(archive)
    assert len(caught.value.faults) == 2


def test_a_document_in_an_archive_is_bounded_like_one_in_a_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("adapter_config.json", b" " * 15_000_000)
        archive.writestr("pytorch_adapter.bin", b"")
    assert "larger" in ends_in_ours(lambda: read(tmp_path / "x.zip"))


def test_a_size_that_is_understated_is_found_without_unpacking_all(tmp_path: Path) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("adapter_config.json", bytes(400 * 2**20))
        archive.writestr("pytorch_adapter.bin", b"")
    (tmp_path / "x.zip").write_bytes(data.getvalue().replace(struct.pack("<I", 400 * 2**20), struct.pack("<I", 1000)))
    ends_in_ours(lambda: read(tmp_path / "x.zip"))


def test_a_pickle_in_an_archive_is_not_executed(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(PICKLED, tmp_path / "adapter"))
    (folder / "pytorch_adapter.bin").write_bytes(pickle.dumps(Run(os.system, f"touch {tmp_path}/executed")))
    ends_in_ours(lambda: read(packed(folder, tmp_path / "x.zip")))
    assert not (tmp_path / "executed").exists()


def test_an_archive_that_is_cut_anywhere_ends_in_an_error_of_ours(tmp_path: Path) -> None:
    data = packed(BOTTLENECK, tmp_path / "whole.zip").read_bytes()
    path = tmp_path / "x.zip"
    for size in range(0, len(data), len(data) // 97):
        path.write_bytes(data[:size])
        with pytest.raises(FormatError):
            read(path)


def test_an_archive_in_an_archive_is_not_opened(tmp_path: Path) -> None:
    packed(BOTTLENECK, tmp_path / "inner.zip")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("inner.zip", (tmp_path / "inner.zip").read_bytes())
    with pytest.raises(FormatError, match="no adapter"):
        read(tmp_path / "x.zip")


def test_large_weights_of_an_archive_are_read_in_bearable_memory(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("adapter_config.json", (BOTTLENECK / "adapter_config.json").read_bytes())
        archive.writestr("adapter.safetensors", bytes(15 * 2**20))
    assert confined(lambda: read(tmp_path / "x.zip"))["kind"] == "ours"
