"""Every failure is a fact with one code, and every protocol knows every code."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator

import pytest

import turnout
from turnout.core.errors import Code, Failure, Fault
from turnout.protocols.http import STATUS


def failures() -> Iterator[type[Failure]]:
    """Every kind of failure in the package, wherever it stands."""
    for module in pkgutil.walk_packages(turnout.__path__, "turnout."):
        if not module.name.endswith("__main__") and ".testing" not in module.name:
            importlib.import_module(module.name)
    waiting = [Failure]
    while waiting:
        kind = waiting.pop()
        yield kind
        waiting += kind.__subclasses__()


ALL = sorted({kind for kind in failures() if kind.__module__.startswith("turnout.")}, key=lambda kind: kind.__name__)


def ids(kind: type[Failure]) -> str:
    return kind.__name__


def test_there_are_failures() -> None:
    assert len(ALL) > 15


@pytest.mark.parametrize("kind", ALL, ids=ids)
def test_a_failure_has_one_code_and_one_culprit(kind: type[Failure]) -> None:
    assert isinstance(kind.code, Code)
    assert kind.code is not Code.OK
    assert isinstance(kind.fault, Fault)
    assert isinstance(kind.retryable, bool)
    if issubclass(kind.__base__ or Failure, Failure) and kind.__base__ is not Failure and kind is not Failure:
        assert kind.code is kind.__base__.code, "a special case keeps the code of the general one"


@pytest.mark.parametrize("kind", ALL, ids=ids)
def test_a_failure_is_named_for_what_happened(kind: type[Failure]) -> None:
    assert not kind.__name__.endswith(("Error", "Exception"))
    assert inspect.getdoc(kind), "what it means to a caller"


@pytest.mark.parametrize("kind", ALL, ids=ids)
def test_a_caller_s_mistake_is_never_the_server_s_error(kind: type[Failure]) -> None:
    if kind.fault is Fault.CALLER:
        assert 400 <= STATUS[kind.code] < 500 or STATUS[kind.code] == 501
    else:
        assert STATUS[kind.code] >= 500


def test_every_code_has_a_status() -> None:
    assert set(STATUS) == set(Code)
