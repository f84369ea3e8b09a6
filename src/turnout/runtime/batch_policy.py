"""What bounds a version's queue and batches: plain data, which a worker is told without the rest of the runtime."""

from __future__ import annotations

import math
from dataclasses import dataclass

from turnout.core.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """Bounds of one version's queue and batches.

    max_rows: rows in one batch; longer requests are split. max_wait: seconds to wait for more rows while
    a place is free (0: a lone request goes at once). queue_rows, queue_bytes: what may wait. max_seconds:
    a batch is cut short when its predicted time would be longer.
    """

    max_rows: int = 1024
    max_wait: float = 0.0
    queue_rows: int = 16384
    queue_bytes: int = 512 << 20
    max_seconds: float = 0.1

    def __post_init__(self) -> None:
        for name in ("max_rows", "queue_rows", "queue_bytes"):
            if getattr(self, name) < 1:
                raise InvalidInput("too small", field=name, expected="at least 1", got=str(getattr(self, name)))
        if not 0.0 <= self.max_wait < math.inf:
            raise InvalidInput("not a duration", field="max_wait", expected="0 s or more", got=str(self.max_wait))
        if not self.max_seconds > 0.0:
            raise InvalidInput("not a duration", field="max_seconds", expected="above 0 s", got=str(self.max_seconds))
