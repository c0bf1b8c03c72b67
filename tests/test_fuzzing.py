"""The inputs of the fuzzer, without the fuzzer: those it kept, those that once were faults, and random ones."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

FUZZ = Path(__file__).resolve().parent / "fuzz"
sys.path.insert(0, str(FUZZ))

import readers  # noqa: E402
from draws import Draws  # noqa: E402

CORPUS = sorted((FUZZ / "corpus").iterdir())


def run(data: bytes) -> None:
    with warnings.catch_warnings():
        # What is said of an adapter that is read is not looked at here.
        warnings.simplefilter("ignore", UserWarning)
        readers.run(data)


def test_there_is_a_kept_input_for_every_reader() -> None:
    kinds = {Draws(path.read_bytes()).choice(readers.READERS).__name__ for path in CORPUS}
    assert kinds == {reader.__name__ for reader in readers.READERS}


def test_every_kept_input_is_read_or_refused_and_obeys_the_laws() -> None:
    for path in CORPUS:
        run(path.read_bytes())


@pytest.mark.parametrize("reader", readers.READERS, ids=lambda reader: reader.__name__)
def test_random_input_is_read_or_refused_and_obeys_the_laws(reader: object) -> None:
    kind = bytes([readers.READERS.index(reader)])

    @given(st.binary(max_size=64))
    @settings(deadline=None, max_examples=150)
    def check(data: bytes) -> None:
        run(kind + data)

    check()


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_changed_kept_input_is_read_or_refused_and_obeys_the_laws(data: st.DataObject) -> None:
    kept = data.draw(st.sampled_from(CORPUS)).read_bytes()
    at = data.draw(st.integers(1, len(kept)))
    junk = data.draw(st.binary(max_size=6))
    cut = data.draw(st.integers(at, len(kept)))
    run(kept[:at] + junk + kept[cut:])
