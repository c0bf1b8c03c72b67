"""The coverage-guided fuzzer: `make fuzz`, or `python tests/fuzz/fuzz.py [-max_total_time=600] [FILE …]`.

Without files it goes on from the kept inputs, in build/fuzz/corpus, until the time is up or a fault is found, which it
writes to build/fuzz/crash-<digest>. With files it runs these inputs. Needs atheris. To keep what is new of a run:

    python tests/fuzz/fuzz.py -merge=1 build/fuzz/merged build/fuzz/corpus
    python tests/fuzz/corpus.py build/fuzz/merged
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import atheris

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent.parent / "build" / "fuzz"
LIMITS = ("-timeout=5", "-rss_limit_mb=1500", "-malloc_limit_mb=300", "-max_len=4096")
"""Seconds and megabytes that one input may take; imports and the adapters that are changed have some 300 of them."""


def main() -> None:
    """Run the fuzzer."""
    warnings.simplefilter("ignore")
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    with atheris.instrument_imports(include=["adapterhub"]):
        import readers
        import seeds
    import corpus

    seeds.seeds()
    given = sys.argv[1:]
    if all(word.startswith("-") for word in given):
        given.append(str(corpus.unpack(BUILD / "corpus")))
    atheris.Setup([sys.argv[0], *LIMITS, f"-artifact_prefix={BUILD}/", *given], readers.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
