"""Which unit a request belongs to, and which of 10,000 buckets that unit is in: the same in every router, for ever."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache

import msgspec

from turnout.core.errors import InvalidInput
from turnout.core.signature import Signature
from turnout.graph.allocation import BUCKETS
from turnout.graph.request_value import KINDS, Read, read

#: How many units are remembered, and how long one may be (characters) for that: callers choose them.
_REMEMBERED, _SHORT = 4096, 64
_EXAMPLE = "sticky: {header: x-account-id}"


class StickyPolicy(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What keeps a caller at one variant: exactly one of a header, a cookie, an argument of the URL or an input column.

    Another `salt` deals everybody anew. Of a request of several rows, the first row's column counts for all: a
    request is answered whole by one variant.
    """

    header: str = ""
    cookie: str = ""
    query: str = ""
    column: str = ""
    salt: str = ""

    def __post_init__(self) -> None:
        given = [kind for kind in KINDS if getattr(self, kind)]
        if len(given) != 1:
            raise InvalidInput(
                "not one unit",
                field="sticky",
                expected="exactly one of header, cookie, query, column",
                got=", ".join(given) or "none",
                example=_EXAMPLE,
            )

    @property
    def kind(self) -> str:
        """Which of the four it is."""
        return next(kind for kind in KINDS if getattr(self, kind))

    @property
    def name(self) -> str:
        """The header's, cookie's, argument's or column's name."""
        return str(getattr(self, self.kind))

    def reader(self, signature: Signature | None = None) -> Read:
        """Finds the unit of a request. Raises InvalidInput for a column that the signature has not."""
        return read(self.kind, self.name, signature)


def bucket(salt: str, endpoint: str, unit: str) -> int:
    """The bucket of a unit: the first 32 bits of the sha256 of `salt|endpoint|unit`, modulo 10,000."""
    return bucket_of(salt, endpoint)(unit)


@lru_cache(maxsize=1024)
def bucket_of(salt: str, endpoint: str) -> Callable[[str], int]:
    """`bucket` for one salt and endpoint, which remembers units that come again."""
    begin = f"{salt}|{endpoint}|".encode()
    sha256 = hashlib.sha256

    def found(unit: str) -> int:
        return int.from_bytes(sha256(begin + unit.encode("utf-8", "replace")).digest()[:4], "big") % BUCKETS

    remembered = lru_cache(maxsize=_REMEMBERED)(found)
    return lambda unit: remembered(unit) if len(unit) <= _SHORT else found(unit)
