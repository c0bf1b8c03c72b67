"""The coverage-guided fuzzer: `make fuzz`, or `python tests/fuzz/fuzz.py [-max_total_time=600] [FILE …]`.

Without files it goes on from the kept corpus until the time is up or a fault is found, which it writes to
crash-<digest>; with files it runs these inputs. Needs atheris.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import atheris

HERE = Path(__file__).resolve().parent
LIMITS = ("-timeout=5", "-rss_limit_mb=1500", "-malloc_limit_mb=300", "-max_len=4096")
"""Seconds and megabytes that one input may take; imports and the seeds have some 700 MB of them."""


def main() -> None:
    """Run the fuzzer."""
    warnings.simplefilter("ignore")
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    with atheris.instrument_imports(include=["adapterhub"]):
        import readers
        import seeds
    seeds.seeds()
    given = sys.argv[1:]
    corpus = [] if any(not word.startswith("-") for word in given) else [str(HERE / "corpus")]
    atheris.Setup([sys.argv[0], *LIMITS, *given, *corpus], readers.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
