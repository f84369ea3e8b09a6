"""Everything that is wrong with a document, told at once: who mends one line after the other is told the next one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from turnout.core.errors import InvalidInput

T = TypeVar("T")
#: What stands in for a mapping that could not be read.
NOTHING: Mapping[str, Any] = {}
#: More are not told: they are consequences of these, as a rule.
MAX_TOLD = 20


class Refused(InvalidInput):
    """Several things are wrong: one a line in the text, one by one in `problems`. Its fields are the first one's."""

    def __init__(self, problems: Sequence[InvalidInput]) -> None:
        first = problems[0]
        super().__init__(first.reason, field=first.field, expected=first.expected, got=first.got, example=first.example)
        self.problems = tuple(problems)
        lines = [f"- {problem.message}" for problem in problems[:MAX_TOLD]]
        if len(problems) > MAX_TOLD:
            lines.append(f"- and {len(problems) - MAX_TOLD} more")
        self.message = "\n".join([f"{len(problems)} things are wrong:", *lines])
        self.args = (self.message,)


def each(problem: InvalidInput) -> tuple[InvalidInput, ...]:
    """What is wrong, one by one."""
    return problem.problems if isinstance(problem, Refused) else (problem,)


class Problems:
    """Collects what is wrong, so that what comes after it is looked at too."""

    def __init__(self) -> None:
        self._found: list[InvalidInput] = []

    @property
    def count(self) -> int:
        """How many there are so far."""
        return len(self._found)

    def add(self, problem: InvalidInput) -> None:
        """One more, or several. What was said of the same place already is not said again."""
        for one in each(problem):
            if all((one.field, one.reason) != (other.field, other.reason) for other in self._found):
                self._found.append(one)

    def take(self, act: Callable[[], T], default: T) -> T:
        """What the act gives, or the default where something is wrong with it."""
        try:
            return act()
        except InvalidInput as problem:
            self.add(problem)
            return default

    def check(self) -> None:
        """Raises InvalidInput where anything was wrong: the problem itself, or Refused for several."""
        if len(self._found) == 1:
            raise self._found[0]
        if self._found:
            raise Refused(self._found)


def placed(problem: InvalidInput, place: Callable[[str], str]) -> InvalidInput:
    """The same with what `place` makes of its fields."""
    found = [
        InvalidInput(one.reason, field=place(one.field), expected=one.expected, got=one.got, example=one.example)
        for one in each(problem)
    ]
    return found[0] if len(found) == 1 else Refused(found)
