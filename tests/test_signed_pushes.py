"""What is pushed and signed in one step is seen as it was before or as it is now, whoever dies or pushes meanwhile."""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from bucket_places import Shop
from cli_session import type_command
from publications import a_publication, publish
from signed_places import sign, trusting

from adapterhub.errors import NotFoundError, StateError, UnsupportedError, UsageError
from adapterhub.registry import (
    Index,
    Settings,
    Yank,
    atomic,
    conditions,
    open_registry,
    publisher_at,
    pull,
    s3_client,
    schemes,
    sharding,
    shards,
)
from adapterhub.registry.signing import Seal

pytestmark = [
    pytest.mark.usefixtures("online"),
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
]

Make = Callable[[pytest.FixtureRequest, Mapping[str, bytes]], str]
ONE_FILE: Mapping[str, bytes] = {"index.json": Index().dumps()}
SHARDED: Mapping[str, bytes] = {"index.json": shards.MARKER.dumps()}


def in_a_folder(request: pytest.FixtureRequest, files: Mapping[str, bytes]) -> str:
    folder: Path = request.getfixturevalue("tmp_path") / "registry"
    folder.mkdir()
    for path, data in files.items():
        (folder / path).write_bytes(data)
    return str(folder)


def in_a_bucket(request: pytest.FixtureRequest, files: Mapping[str, bytes], scheme: str = "s3") -> str:
    shop: Shop = request.getfixturevalue(scheme)
    for path, data in files.items():
        shop.put(path, data)
    return shop.url


def on_the_hub(request: pytest.FixtureRequest, files: Mapping[str, bytes]) -> str:
    request.getfixturevalue("hub").storage.put("me/registry", dict(files))
    return "hf://me/registry"


PLACES = pytest.mark.parametrize("made", [in_a_folder, in_a_bucket, on_the_hub])
LAYOUTS = pytest.mark.parametrize("files", [ONE_FILE, SHARDED], ids=["one file", "shards"])


def signed_push(place: str, folder: Path, keys: Path, name: str = "me/a", version: str = "1.0.0") -> bool:
    """Publish a version, signed in the same step, and return whether it was new."""
    publication = a_publication(folder / "sources", name, version)
    return publisher_at(place, settings=Settings.load()).publish(publication, seal=Seal.of(keys / "mine.pem")).new


def number_of(place: str, settings: Settings) -> int:
    """Return the number of the newest snapshot, which the index at a place is signed as."""
    from adapterhub.registry import trust

    return trust.verify_place(place, settings, None).number


@pytest.mark.parametrize(
    "made",
    [in_a_folder, on_the_hub, *(functools.partial(in_a_bucket, scheme=scheme) for scheme in schemes.BUCKETS)],
    ids=["folder", "hub", *schemes.BUCKETS],
)
@LAYOUTS
def test_what_is_pushed_yanked_and_signed_in_one_step_is_used_at_once(
    request: pytest.FixtureRequest, made: Make, files: Mapping[str, bytes], keys: Path, tmp_path: Path
) -> None:
    place = made(request, files)
    sign(place, keys)
    settings = trusting(place, keys)
    open_registry(place, settings=settings)
    assert signed_push(place, tmp_path, keys)
    assert not signed_push(place, tmp_path, keys)
    assert signed_push(place, tmp_path, keys, version="1.1.0")
    registry = open_registry(place, settings=settings)
    assert pull("me/a", registry=registry).path.read_bytes() == b"native bytes"
    assert registry.index.resolve("me/a").version == "1.1.0"
    publisher_at(place, settings=settings).publish(Yank(name="me/a", version="1.1.0"), seal=Seal.of(keys / "mine.pem"))
    assert open_registry(place, settings=settings).index.resolve("me/a").version == "1.0.0"
    assert number_of(place, settings) == 4
    assert not sign(place, keys)[1]


@pytest.mark.parametrize("made", [in_a_folder, in_a_bucket])
def test_a_new_registry_is_signed_from_the_first_push_on(
    request: pytest.FixtureRequest, made: Make, keys: Path, tmp_path: Path
) -> None:
    place = made(request, {})
    publication = a_publication(tmp_path / "sources")
    publisher_at(place, settings=Settings.load(), create=True).publish(publication, seal=Seal.of(keys / "mine.pem"))
    assert open_registry(place, settings=trusting(place, keys)).index.find("me/a") == "me/a"


@PLACES
@LAYOUTS
def test_what_others_changed_unsigned_is_not_signed_along(
    request: pytest.FixtureRequest, made: Make, files: Mapping[str, bytes], keys: Path, tmp_path: Path
) -> None:
    place = made(request, files)
    with pytest.raises(StateError, match="is not signed yet; look at it, and sign it with `adapterhub index sign`"):
        signed_push(place, tmp_path, keys)
    sign(place, keys)
    publish(place, tmp_path)
    with pytest.raises(StateError, match="was changed after it was signed"):
        signed_push(place, tmp_path, keys, version="1.1.0")
    with pytest.raises(NotFoundError):
        open_registry(place).index.resolve("me/a@1.1.0")
    with pytest.raises(StateError, match="was signed by another key"):
        publisher_at(place, settings=Settings.load()).publish(
            a_publication(tmp_path / "sources", version="1.2.0"), seal=Seal.of(keys / "other.pem")
        )


class Died(BaseException):
    """The process ends here."""


def dying_after(function: Callable[..., Any], times: int) -> Callable[..., Any]:
    """Return a function that ends the process in its next call after so many."""
    left = [times]

    def dying(*arguments: Any, **options: Any) -> Any:
        if left[0] == 0:
            raise Died
        left[0] -= 1
        return function(*arguments, **options)

    return dying


@pytest.mark.parametrize("made", [in_a_folder, in_a_bucket])
@LAYOUTS
def test_whenever_a_push_dies_readers_see_a_signed_state_and_the_repeat_succeeds(
    request: pytest.FixtureRequest,
    made: Make,
    files: Mapping[str, bytes],
    keys: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = made(request, files)
    monkeypatch.setattr(conditions, "refuse_unheeded", lambda store, home: None)
    sign(place, keys)
    settings = trusting(place, keys)
    module, name = (s3_client, "put") if place.startswith("s3") else (atomic, "write")
    ends = []
    for steps in range(12):
        version = f"1.{steps}.0"
        with monkeypatch.context() as patched:
            patched.setattr(module, name, dying_after(getattr(module, name), steps))
            try:
                signed_push(place, tmp_path, keys, version=version)
                ends.append("done")
            except Died:
                ends.append("died")
        registry = open_registry(place, settings=settings)
        known = dict(registry.index.entry("me/a").versions) if registry.index.owners("me/a") else {}
        assert set(known) - {version} == {f"1.{number}.0" for number in range(steps)}
        signed_push(place, tmp_path, keys, version=version)
        for asked in (settings, dataclasses.replace(settings, trust={})):
            assert version in open_registry(place, settings=asked).index.entry("me/a").versions
        assert not sign(place, keys)[1]
    assert ends[0] == "died"
    assert ends[-1] == "done"


@PLACES
@LAYOUTS
def test_of_eight_who_push_and_sign_at_once_none_is_lost_and_no_reader_is_refused(
    request: pytest.FixtureRequest, made: Make, files: Mapping[str, bytes], keys: Path, tmp_path: Path
) -> None:
    place = made(request, files)
    sign(place, keys)
    settings = trusting(place, keys)
    wanted = [("me/a", f"1.{number}.0") for number in range(4)] + [(f"me/b{number}", "1.0.0") for number in range(4)]
    ended = threading.Event()

    def look() -> int:
        looks = 0
        while not ended.is_set():
            registry = open_registry(place, settings=settings)
            for name, _ in wanted:
                registry.index.owners(name)
            looks += 1
        return looks

    with ThreadPoolExecutor(9) as pool:
        looks = pool.submit(look)
        done = [pool.submit(signed_push, place, tmp_path, keys, *one) for one in wanted]
        try:
            assert all(one.result() for one in done)
        finally:
            ended.set()
        assert looks.result() > 0
    index = open_registry(place, settings=settings).index
    assert all(index.resolve(f"{name}@{version}").version == version for name, version in wanted)
    assert number_of(place, settings) == 9


def test_nothing_is_left_of_what_was_on_its_way(keys: Path, tmp_path: Path) -> None:
    place = tmp_path / "registry"
    place.mkdir()
    sharding.shard(place)
    sign(place, keys)
    signed_push(str(place), tmp_path, keys)
    shard = (place / shards.path_of("me/a")).read_bytes()
    assert [path for path in (place / "snapshots").rglob("*.json") if path.read_bytes() == shard] == []


def test_places_and_keys_that_cannot_sign_say_so_before_anything_is_changed(
    oci_repository: str, keys: Path, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedError, match="cannot be signed"):
        signed_push(oci_repository, tmp_path, keys)
    with pytest.raises(UsageError, match="cannot sign"):
        Seal.of(keys / "mine.pub")
    with pytest.raises(NotFoundError, match="there is no key"):
        Seal.of(keys / "none.pem")


def test_the_commands_push_and_yank_with_a_signature(trained: Path, keys: Path, tmp_path: Path) -> None:
    place, key = str(tmp_path / "hub"), str(keys / "mine.pem")
    typed = type_command("push", str(trained), "--to", place, "--create", "--sign", key)
    assert typed.status == 0, typed.err
    trusting(place, keys)
    assert type_command("list", "--registry", place, "-q").out == "tiny-reviews\n"
    typed = type_command("yank", "tiny-reviews@1.0.0", "--registry", place, "--sign", key, "--json")
    assert (typed.status, typed.err) == (0, "")
    assert type_command("index", "verify", place, "-q").out == "2\n"
    typed = type_command("yank", "tiny-reviews@1.0.0", "--registry", place, "--undo")
    assert typed.status == 0
    assert "was changed and not signed" in typed.err
    assert f"`adapterhub index sign {place} --key FILE`; --sign FILE does it in the same step" in typed.err
    typed = type_command("push", str(trained), "--to", place, "--as", "tiny-reviews@1.1.0", "--sign", key)
    assert typed.status == 1
    assert "look at it, and sign it with `adapterhub index sign`" in " ".join(typed.err.split())


def test_a_composition_is_signed_with_its_push_and_who_does_not_sign_is_told(
    shelf: Path, base: Path, keys: Path
) -> None:
    typed = type_command("compose", "both@1.0.0", "stack(low, movies@1.0.0)", "--base", str(base))
    assert typed.status == 0, typed.err
    sign(shelf, keys)
    settings = trusting(shelf, keys)
    push = ("push", "./both-1.0.0.json", "--to", str(shelf))
    typed = type_command(*push, "--sign", str(keys / "mine.pem"))
    assert typed.status == 0, typed.err
    assert open_registry(str(shelf), settings=settings).index.resolve("both").version == "1.0.0"
    typed = type_command(*push, "--as", "both@1.1.0")
    assert (typed.status, "readers who want a signature refuse it" in typed.err) == (0, True), typed.err
