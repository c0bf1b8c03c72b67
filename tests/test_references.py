"""References: what a user may write to name an adapter."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from adapterhub.errors import UsageError
from adapterhub.registry import Reference, VersionRange

STEADY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""Busy machines are slow; that is no fault."""


@pytest.mark.parametrize(
    ("text", "name", "versions", "registry"),
    [
        ("sst2-bert", "sst2-bert", "*", None),
        ("sst2-bert@1.0.0", "sst2-bert", "1.0.0", None),
        ("sst2-bert@>=1.2, <2", "sst2-bert", ">=1.2,<2", None),
        ("acme::sst2-bert@^1", "sst2-bert", "^1", "acme"),
        (
            "@ukp/bert-base-uncased_sentiment_sst-2_pfeiffer",
            "@ukp/bert-base-uncased_sentiment_sst-2_pfeiffer",
            "*",
            None,
        ),
        ("@ukp/old@1.0.0", "@ukp/old", "1.0.0", None),
        ("ukp/old", "ukp/old", "*", None),
        ("sentiment/sst-2@ukp", "sentiment/sst-2@ukp", "*", None),
        ("sentiment/sst-2@ukp@1.0.0", "sentiment/sst-2@ukp", "1.0.0", None),
        ("a@latest", "a", "*", None),
        ("A", "A", "*", None),
    ],
)
def test_a_name_has_a_registry_and_versions(text: str, name: str, versions: str, registry: str | None) -> None:
    assert Reference.parse(text) == Reference(
        scheme="name", name=name, versions=VersionRange.parse(versions), registry=registry
    )


@pytest.mark.parametrize(
    ("text", "name", "revision", "folder"),
    [
        ("hf://user/repo", "user/repo", None, ""),
        ("hf://user/repo@main", "user/repo", "main", ""),
        ("hf://user/repo@v1.0/sub/folder", "user/repo", "v1.0", "sub/folder"),
        ("hf://user/repo/sub/", "user/repo", None, "sub"),
        ("hf://user/repo@refs/pr/7/sub", "user/repo", "refs/pr/7", "sub"),
    ],
)
def test_a_hub_reference_has_a_revision_and_a_folder(text: str, name: str, revision: str | None, folder: str) -> None:
    assert Reference.parse(text) == Reference(scheme="hf", name=name, revision=revision, folder=folder)


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/key",
        "az://box/key",
        "gs://bucket/key",
        "oci://host:5000/a/b:tag",
        "oci://host/a@sha256:12",
        "https://host/a%20b?x=1",
    ],
)
def test_a_url_is_kept_as_it_is(text: str) -> None:
    parsed = Reference.parse(text)
    assert (parsed.scheme, str(parsed)) == (text.partition("://")[0], text)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("./folder", "./folder"),
        ("./folder/", "./folder"),
        ("./a//b/./c", "./a/b/c"),
        (".", "."),
        ("..", ".."),
        ("../a", "../a"),
        ("/abs/a.safetensors", "/abs/a.safetensors"),
        ("file:///abs/a", "/abs/a"),
        ("~/a", "~/a"),
        ("./~/a", "./~/a"),
        ("./a@1.0.0", "./a@1.0.0"),
        ("./hf://x", "./hf:/x"),
        ("./a b", "./a b"),
    ],
)
def test_a_path_begins_with_a_dot_a_slash_or_a_tilde(text: str, canonical: str) -> None:
    parsed = Reference.parse(text)
    assert (parsed.scheme, str(parsed)) == ("path", canonical)


def test_a_tilde_is_the_home_folder_only_at_the_front() -> None:
    assert Reference.parse("~/a").path == Path.home() / "a"
    assert Reference.parse("./~/a").path == Path("~/a")


def test_only_a_path_has_a_path() -> None:
    with pytest.raises(UsageError, match="sst2-bert is not a path"):
        _ = Reference.parse("sst2-bert").path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not a reference"),
        (" a", "is not a reference"),
        ("a b", "is not a reference"),
        ("a\n", "is not a reference"),
        ("a\x00", "is not a reference"),
        ("-a", "is not a reference"),
        ("a/../b", "is not a reference"),
        ("a//b", "is not a reference"),
        ("a" * 3000, "is not a reference"),
        ("a@", "is not a version or range"),
        ("a@nonsense", "is not a version or range"),
        ("::a", "is not the name of a registry"),
        ("x y::a", "is not the name of a registry"),
        ("ftp://host/a", "unknown scheme 'ftp'; known are hf, s3, az, gs, oci, https"),
        ("name://a", "unknown scheme"),
        ("http://host/a", "unknown scheme 'http'"),
        ("hf://user", "write hf://user/repo"),
        ("hf://user/repo/../x", "write hf://user/repo"),
        ("hf://user/repo@", "write hf://user/repo"),
        ("https://", "not a complete URL"),
        ("https:///x", "not a complete URL"),
        ("s3://bucket/a b", "not a complete URL"),
        ("https://me:secret@host/x", "a URL of host contains credentials"),
        ("az://me:secret@host/x", "a URL of host contains credentials"),
    ],
)
def test_what_is_no_reference_is_a_usage_error(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        Reference.parse(text)
    assert words in str(caught.value)


def test_credentials_are_not_repeated_in_the_error() -> None:
    with pytest.raises(UsageError) as caught:
        Reference.parse("https://me:secret@host/x")
    assert "secret" not in str(caught.value)


ALPHABET = st.sampled_from([*"aZ09.-_/@:~^<>=, *x", "::", "://", "hf", "./", "1.0.0"])


@STEADY
@given(st.lists(ALPHABET, max_size=12).map("".join))
@example("hf://a/b@c/d/")
@example("./~/x")
@example("a@x")
@example("a/b@x@y")
def test_what_is_read_is_written_so_that_it_is_read_as_the_same(text: str) -> None:
    try:
        parsed = Reference.parse(text)
    except UsageError:
        return
    assert Reference.parse(str(parsed)) == parsed
    assert str(Reference.parse(str(parsed))) == str(parsed)
