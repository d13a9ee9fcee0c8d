"""Coverage-guided fuzzing of the reader, for as long as one likes; not part of the test suite.

    pip install atheris
    python -m tests.fuzz.with_atheris -max_total_time=900 FOLDER tests/fuzz/corpus

FOLDER collects inputs that reach new code; what breaks the oracle is written to a file `crash-…`, which becomes a case
in `tests/fuzz/corpus/` beside what must come of it.
"""

import sys

import atheris  # type: ignore[import-untyped] # whoever fuzzes installs it

with atheris.instrument_imports(include=["etl", "json"]):
    from tests.fuzz.oracle import check


def main() -> None:
    """Fuzz until the time is up or the oracle is broken."""
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
