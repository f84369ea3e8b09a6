"""Every setting of a node has its row with its default, and no other has one."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from tests.docs.test_reference import rows, section
from turnout.graph.cache import CachePolicy
from turnout.graph.circuit_breaker import CircuitBreakerPolicy
from turnout.graph.fallback_policy import FallbackPolicy
from turnout.graph.last_good import LastGoodPolicy
from turnout.graph.limits import LimitsPolicy
from turnout.graph.outputs import OutputsPolicy
from turnout.graph.reasons import REASONS
from turnout.graph.retry import RetryPolicy
from turnout.runtime.outlier import OutlierPolicy

SETTINGS = {
    "Fallback": FallbackPolicy,
    "LastGood": LastGoodPolicy,
    "OutputCheck": OutputsPolicy,
    "CircuitBreaker": CircuitBreakerPolicy,
    "Retry": RetryPolicy,
    "Limits": LimitsPolicy,
    "Cache": CachePolicy,
    "Outlier": OutlierPolicy,
}
#: Defaults that are said in words.
WORDS = {"none": None, "all": REASONS, "one second's": None, "required": msgspec.NODEFAULT}


def default(field: Any) -> Any:
    return field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default


@pytest.mark.parametrize("node", SETTINGS)
def test_every_setting_has_its_row_with_its_default(node: str) -> None:
    listed = rows(section("nodes.md", node).split("\n\nThe reason stands")[0])  # the table of reasons comes after it
    known = {field.name: default(field) for field in msgspec.structs.fields(SETTINGS[node])}
    assert set(listed) == set(known)
    for name, value in known.items():
        said = listed[name][0]
        if said in WORDS:
            assert value == WORDS[said], name
        else:
            assert said.strip("`") == repr(value).replace("'", '"'), name


def test_every_reason_has_its_row() -> None:
    found = re.findall(r"^\| `(\w+)` \| [^|]+ \|$", section("nodes.md", "Fallback"), re.MULTILINE)
    assert tuple(found) == REASONS
