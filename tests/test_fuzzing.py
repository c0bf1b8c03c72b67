"""The inputs of the fuzzer, without the fuzzer: those it kept, those that once were faults, and random ones."""

from __future__ import annotations

import warnings

import corpus
import pytest
import readers
from draws import Draws
from hypothesis import given, settings
from hypothesis import strategies as st

CORPUS = corpus.kept()


def run(data: bytes) -> None:
    with warnings.catch_warnings():
        # What is said of an adapter that is read is not looked at here.
        warnings.simplefilter("ignore", UserWarning)
        readers.run(data)


def test_there_is_a_kept_input_for_every_reader() -> None:
    kinds = {Draws(data).choice(readers.READERS).__name__ for data in CORPUS}
    assert kinds == {reader.__name__ for reader in readers.READERS}


def test_every_kept_input_is_read_or_refused_and_obeys_the_laws() -> None:
    for data in CORPUS:
        run(data)


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
    kept = data.draw(st.sampled_from(CORPUS))
    at = data.draw(st.integers(1, len(kept)))
    junk = data.draw(st.binary(max_size=6))
    cut = data.draw(st.integers(at, len(kept)))
    run(kept[:at] + junk + kept[cut:])
