"""The failure of a step as the failure of the whole: of the same kind, with the step's name before it."""

from __future__ import annotations

import logging

from turnout.core.errors import Failure, InvalidInput, ModelFailed

logger = logging.getLogger("turnout")


def of_step(step: str, problem: BaseException) -> BaseException:
    """A copy, because a failure may be told to several callers at once."""
    if not isinstance(problem, Failure):
        if isinstance(problem, Exception):
            logger.error("step %s has failed", step, exc_info=problem)
            return ModelFailed(f"step {step!r} failed ({type(problem).__name__}); the server log says more")
        return problem
    if type(problem) is InvalidInput:
        reason = f"step {step!r}: {problem.reason}"
        return InvalidInput(reason, field=problem.field, expected=problem.expected, got=problem.got)
    kind = type(problem)
    found = kind.__new__(kind)
    found.__dict__.update(problem.__dict__)
    found.message = f"step {step!r}: {problem.message}"
    found.args = (found.message,)
    return found
