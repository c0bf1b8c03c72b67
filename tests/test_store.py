"""The store: what it hands out was checked, whatever other processes, crashes and disks do."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from adapterhub.errors import AdapterHubError, DigestError, FormatError, NotFoundError, UsageError
from adapterhub.registry import Artifact, ArtifactBase, ArtifactFile, Store, digest, store, verified

DATA = b"the bytes of an adapter" * 1000
BASE = ArtifactBase(id="org/model", architecture="bert")


def sha(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def a_file(data: bytes = DATA, url: str = "bundled:a-1.0.0.safetensors") -> Artifact:
    return Artifact(base=BASE, method="seq_bn", format="native", url=url, digest=sha(data), size=len(data))


def a_folder(files: dict[str, bytes]) -> Artifact:
    listed = tuple(ArtifactFile(path=path, digest=sha(data), size=len(data)) for path, data in files.items())
    return Artifact(base=BASE, method="lora", format="peft", url="hf://user/my-lora@main", files=listed)


class Source:
    """A remote with files in memory, which counts how often it is read."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.reads: list[str] = []

    def __call__(self, path: str, start: int = 0) -> Iterable[bytes]:
        self.reads.append(path)
        if path not in self.files:
            raise NotFoundError(f"there is no {path!r}")
        data = self.files[path][start:]
        return (data[i : i + 5000] for i in range(0, len(data), 5000))


FILES = {"adapter_config.json": b"{}", "sub/adapter_model.safetensors": DATA, "sub/copy": DATA}


def kept(root: Path) -> list[str]:
    """Return the files under a store, but its locks."""
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file() and p.parent.name != "locks")


def spoil(path: Path, data: bytes) -> None:
    """Write other bytes into a file where it lies, as a disk or a user may do."""
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(data)


def hashes(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return a list to which every file is added that is hashed from now on."""
    hashed: list[Path] = []
    of_file = digest.of_file

    def counted(path: Path) -> str:
        hashed.append(path)
        return of_file(path)

    monkeypatch.setattr(digest, "of_file", counted)
    return hashed


# Objects.


def test_an_object_is_found_again_by_its_digest(tmp_path: Path) -> None:
    path = Store(tmp_path).put([DATA[:10], DATA[10:]], sha(DATA), len(DATA), "it")
    assert path == tmp_path / "objects" / "sha256" / sha(DATA)[7:9] / sha(DATA)[7:]
    assert path.read_bytes() == DATA
    assert not path.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
    assert Store(tmp_path).find(sha(DATA)) == path
    assert Store(tmp_path).find(sha(b"other")) is None
    assert len(kept(tmp_path)) == 1


def test_an_empty_file_is_an_object_too(tmp_path: Path) -> None:
    assert Store(tmp_path).put([], sha(b""), 0, "it").read_bytes() == b""


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        ([DATA[:-1], b"!"], f"it has digest {sha(DATA[:-1] + b'!')}, expected {sha(DATA)}"),
        (
            [DATA, b"!"],
            f"it has digest another one (more than {len(DATA)} bytes), expected {sha(DATA)} ({len(DATA)} bytes)",
        ),
        ([DATA[:-1]], f"it has digest another one ({len(DATA) - 1} bytes)"),
    ],
)
def test_nothing_is_kept_of_bytes_that_differ_from_the_promise(tmp_path: Path, blocks: list[bytes], words: str) -> None:
    with pytest.raises(DigestError) as caught:
        Store(tmp_path).put(blocks, sha(DATA), len(DATA), "it")
    assert words in caught.value.message
    assert kept(tmp_path) == []


def test_an_endless_source_is_cut_off(tmp_path: Path) -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"x" * 1000

    with pytest.raises(DigestError):
        Store(tmp_path).put(endless(), sha(DATA), 5000, "it")
    assert taken == 6


@pytest.mark.parametrize(
    "text", ["", "md5:00", "sha256:" + "0" * 63, "sha256:../../etc/passwd", "sha256:" + "A" * 64, "0" * 64]
)
def test_only_a_digest_names_an_object(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="is not a digest"):
        Store(tmp_path).find(text)


def test_a_damaged_object_is_removed_and_reported(tmp_path: Path) -> None:
    path = Store(tmp_path).put([DATA], sha(DATA), len(DATA), "it")
    spoil(path, b"!")
    with pytest.raises(DigestError, match=f"expected {sha(DATA)}"):
        Store(tmp_path).find(sha(DATA))
    assert not path.exists()


def settles_after(nanoseconds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a file count as settled so long after its last change, on every file system."""
    monkeypatch.setattr(verified, "_SETTLED_NANOSECONDS", nanoseconds)
    monkeypatch.setattr(verified, "_FINE_NANOSECONDS", nanoseconds)


def test_a_change_that_hides_its_size_and_time_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settles_after(0, monkeypatch)
    here = Store(tmp_path)
    path = here.put([DATA], sha(DATA), len(DATA), "it")
    before = path.stat()
    assert here.find(sha(DATA)) == path
    time.sleep(0.05)
    spoil(path, b"!")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    with pytest.raises(DigestError):
        here.find(sha(DATA))


def test_a_file_is_hashed_once_while_nothing_about_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settles_after(0, monkeypatch)
    hashed = hashes(monkeypatch)
    here, source = Store(tmp_path), Source({"": DATA})
    here.obtain(a_file(), source, "it")
    time.sleep(0.05)
    here.obtain(a_file(), source, "it")
    hashed.clear()
    for _ in range(5):
        path, _ = here.obtain(a_file(), source, "it")
    assert hashed == []
    path.touch()
    here.obtain(a_file(), source, "it")
    assert len(hashed) == 1


def test_a_file_that_just_changed_is_hashed_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settles_after(3600 * 10**9, monkeypatch)
    hashed = hashes(monkeypatch)
    here = Store(tmp_path)
    here.put([DATA], sha(DATA), len(DATA), "it")
    here.find(sha(DATA))
    here.find(sha(DATA))
    assert len(hashed) == 2


# Artifacts.


def test_a_single_file_keeps_its_name(tmp_path: Path) -> None:
    here, source = Store(tmp_path), Source({"": DATA})
    path, cached = here.obtain(a_file(), source, "a@1.0.0")
    assert (path.name, cached) == ("a-1.0.0.safetensors", False)
    assert path == tmp_path / "artifacts" / sha(DATA)[7:] / "a-1.0.0.safetensors"
    assert path.read_bytes() == DATA
    assert path.samefile(here.path_of(sha(DATA)))
    assert here.obtain(a_file(), source, "a@1.0.0") == (path, True)
    assert source.reads == [""]


def test_a_folder_keeps_the_names_of_its_files(tmp_path: Path) -> None:
    here, source = Store(tmp_path), Source(FILES)
    path, cached = here.obtain(a_folder(FILES), source, "a@1.0.0")
    assert (path.name, cached) == ("my-lora", False)
    assert {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()} == FILES
    assert sorted(source.reads) == ["adapter_config.json", "sub/adapter_model.safetensors"]
    assert here.obtain(a_folder(FILES), source, "a@1.0.0") == (path, True)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("bundled:a.safetensors", "a.safetensors"),
        ("sub/a.safetensors", "a.safetensors"),
        ("hf://user/repo@abc", "repo"),
        ("https://host/x/a.zip?download=1#top", "a.zip"),
        ("s3://bucket/nul", "artifact"),
        ("https://host/..", "artifact"),
        ("https://host/a:b", "artifact"),
        ("oci://host/", "host"),
    ],
)
def test_the_name_of_an_artifact_is_the_last_part_of_its_url(url: str, name: str) -> None:
    assert store.file_name(a_file(url=url)) == name


def test_two_names_of_the_same_bytes_do_not_disturb_each_other(tmp_path: Path) -> None:
    here, source = Store(tmp_path), Source({"": DATA})
    first, _ = here.obtain(a_file(url="one"), source, "it")
    second, cached = here.obtain(a_file(url="two"), source, "it")
    assert (first.name, second.name, cached) == ("one", "two", True)
    assert first.exists()


@pytest.mark.parametrize(
    "path", ["../evil", "/evil", "a/../../evil", "C:evil", "a\\..\\evil", "nul", "a/", "", "a\0b", "x" * 300]
)
def test_a_path_that_leaves_its_folder_is_refused_before_anything_is_read(tmp_path: Path, path: str) -> None:
    source = Source(FILES)
    with pytest.raises(FormatError, match=r"a@1\.0\.0 names files that cannot be stored safely"):
        Store(tmp_path / "cache").obtain(a_folder({"good": b"1", path: b"2"}), source, "a@1.0.0")
    assert source.reads == []
    assert list(tmp_path.iterdir()) == []


def test_an_artifact_without_files_is_refused(tmp_path: Path) -> None:
    empty = Artifact(base=BASE, method="m", format="f", url="u")
    with pytest.raises(FormatError, match="neither a digest nor files"):
        Store(tmp_path).obtain(empty, Source({}), "it")


def test_a_damaged_copy_is_fetched_again_and_said_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    here, source = Store(tmp_path), Source(FILES)
    path, _ = here.obtain(a_folder(FILES), source, "it")
    spoil(path / "sub" / "copy", b"!!")
    with caplog.at_level(logging.WARNING, "adapterhub"):
        again, cached = here.obtain(a_folder(FILES), source, "it")
    assert (again, cached) == (path, False)
    assert {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()} == FILES
    assert "it is fetched again" in caplog.text


def test_a_damaged_copy_that_cannot_be_fetched_again_is_a_digest_error(tmp_path: Path) -> None:
    here = Store(tmp_path)
    path, _ = here.obtain(a_file(), Source({"": DATA}), "it")
    spoil(path, b"!")
    with pytest.raises(DigestError, match="the stored copy"):
        here.obtain(a_file(), Source({}), "it")
    with pytest.raises(NotFoundError):
        here.obtain(a_file(), Source({}), "it")


def test_a_name_that_points_elsewhere_is_put_right(tmp_path: Path) -> None:
    here, source = Store(tmp_path), Source({"": DATA})
    path, _ = here.obtain(a_file(), source, "it")
    for replace in (lambda: path.write_bytes(b"evil"), lambda: path.symlink_to(__file__), lambda: None):
        path.unlink()
        replace()
        assert here.obtain(a_file(), source, "it") == (path, True)
        assert path.read_bytes() == DATA
        assert not path.is_symlink()
    assert Path(__file__).read_bytes() != DATA


def test_a_strange_file_in_a_laid_out_folder_is_refused(tmp_path: Path) -> None:
    here, source = Store(tmp_path), Source(FILES)
    path, _ = here.obtain(a_folder(FILES), source, "it")
    (path / "adapter_model.bin").write_bytes(b"pickle")
    (path / "sub" / "link").symlink_to(__file__)
    with pytest.raises(FormatError) as caught:
        here.obtain(a_folder(FILES), source, "it")
    assert caught.value.faults == ("adapter_model.bin", "sub/link")
    assert "remove that folder" in caught.value.hint


def test_where_links_cannot_be_made_there_are_checked_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    here, source = Store(tmp_path), Source({"": DATA})
    path, _ = here.obtain(a_file(), source, "it")
    assert not path.samefile(here.path_of(sha(DATA)))
    path.chmod(0o644)
    path.write_bytes(b"changed")
    assert here.obtain(a_file(), source, "it") == (path, True)
    assert path.read_bytes() == DATA


def test_without_a_root_the_store_is_where_the_settings_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTERHUB_CACHE", str(tmp_path / "here"))
    assert Store().root == tmp_path / "here"
    assert not (tmp_path / "here").exists()


# Other processes.

OBTAIN = """
import sys, time
from pathlib import Path
from adapterhub.registry import Artifact, Store, store
import json
store._LOCK_SECONDS = float(sys.argv[4])
artifact = Artifact.from_json(json.loads(sys.argv[2]))
def read(path, start):
    data = Path(sys.argv[3]).read_bytes()
    with open(sys.argv[3] + ".reads", "a") as log:
        log.write("x")
    for i in range(0, len(data), 10000):
        time.sleep(0.005)
        yield data[i : i + 10000]
path, cached = Store(sys.argv[1]).obtain(artifact, read, "it")
assert path.read_bytes() == Path(sys.argv[3]).read_bytes()
print(path)
"""


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("wait", "reads"), [(60, {1}), (0, set(range(1, 9)))])
def test_eight_processes_may_pull_the_same_thing(tmp_path: Path, wait: float, reads: set[int]) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(300_000))
    artifact = json.dumps(a_file(source.read_bytes()).to_json())
    processes = [start(OBTAIN, tmp_path / "cache", artifact, source, wait) for _ in range(8)]
    answers = {process.communicate() for process in processes}
    assert {error for _, error in answers} == {""}
    assert len({path for path, _ in answers}) == 1
    assert len((tmp_path / "source.reads").read_text()) in reads
    assert len(kept(tmp_path / "cache")) == 2


DIE = """
import sys, time
from adapterhub.registry import Artifact, Store
import json
def read(path, start):
    yield bytes(200_000)
    print("half", flush=True)
    time.sleep(60)
    yield bytes(200_000)
Store(sys.argv[1]).obtain(Artifact.from_json(json.loads(sys.argv[2])), read, "it")
"""


def test_a_process_killed_in_the_middle_of_a_write_leaves_a_store_that_works(tmp_path: Path) -> None:
    data = bytes(400_000)
    process = start(DIE, tmp_path, json.dumps(a_file(data).to_json()))
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    (left,) = kept(tmp_path)
    assert left.startswith("tmp/")
    here = Store(tmp_path)
    assert here.find(sha(data)) is None
    begin = time.monotonic()
    path, cached = here.obtain(a_file(data), Source({"": data}), "it")
    assert time.monotonic() - begin < 30
    assert (path.read_bytes(), cached) == (data, False)


def test_what_dead_processes_left_is_swept_after_a_day(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    old, young = tmp_path / "tmp" / "old", tmp_path / "tmp" / "young"
    old.touch()
    young.touch()
    os.utime(old, (time.time() - 90_000,) * 2)
    Store(tmp_path).put([DATA], sha(DATA), len(DATA), "it")
    assert not old.exists()
    assert young.exists()


# Disks.


def lock_up(root: Path) -> None:
    """Take all rights to write away."""
    for path in (*root.rglob("*"), root):
        path.chmod(0o555 if path.is_dir() else 0o444)


def test_a_cache_that_is_read_only_gives_what_it_has(as_nobody: Path) -> None:
    root = as_nobody / "cache"
    single, _ = Store(root).obtain(a_file(), Source({"": DATA}), "it")
    folder, _ = Store(root).obtain(a_folder(FILES), Source(FILES), "it")
    lock_up(root)
    assert Store(root).obtain(a_file(), Source({}), "it") == (single, True)
    assert Store(root).obtain(a_folder(FILES), Source({}), "it") == (folder, True)


def test_a_cache_that_is_read_only_says_so_where_something_is_missing(as_nobody: Path) -> None:
    root = as_nobody / "cache"
    Store(root).obtain(a_file(), Source({"": DATA}), "it")
    lock_up(root)
    with pytest.raises(AdapterHubError) as caught:
        Store(root).obtain(a_file(b"other"), Source({"": b"other"}), "it")
    assert caught.value.message == f"cannot write to the cache {root}: Permission denied"
    assert "set ADAPTERHUB_CACHE" in caught.value.hint


def test_a_cache_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AdapterHubError, match="cannot write to the cache"):
        Store(tmp_path / "file" / "cache").obtain(a_file(), Source({"": DATA}), "it")


FULL = """
import resource, sys
from adapterhub.errors import AdapterHubError
from adapterhub.registry import Store
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    Store(sys.argv[1]).put([bytes(80_000), bytes(80_000)], sys.argv[2], 160_000, "it")
except AdapterHubError as error:
    print(error)
"""


def test_a_disk_that_is_full_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    out, error = start(FULL, tmp_path, sha(bytes(160_000))).communicate()
    assert error == ""
    assert out.startswith(
        f"cannot write to the cache {tmp_path}: File too large; free space or permissions are missing"
    )
    assert kept(tmp_path) == []
