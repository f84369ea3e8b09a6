"""Keeps what native libraries print while they are imported out of the log, and nothing else."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

#: What is printed on machines where all is well, by part of the line.
_NOISE = (
    b"All log messages before absl::InitializeLog",
    b"oneDNN custom operations are on",
    b"This TensorFlow binary is optimized",
    b"To enable the following instructions",
    b"Could not find cuda drivers",
    b"Unable to register cu",
    b"computation_placer",
    b"TF-TRT Warning",
    b"failed call to cuInit",
)


@contextmanager
def quiet_import() -> Iterator[None]:
    """While it lasts, standard error is kept back; then all of it is written out but the lines known as noise.

    Native code writes to the descriptor before any setting of the library is read, so the descriptor is what is moved.
    """
    try:
        sys.stderr.flush()
        kept = os.dup(2)
    except (OSError, ValueError, AttributeError):  # no standard error: nothing to keep quiet
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            held.seek(0)
            lines = [line for line in held.read().splitlines(keepends=True) if not any(n in line for n in _NOISE)]
            if lines:
                os.write(2, b"".join(lines))
