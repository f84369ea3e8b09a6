"""What a signature lets through."""

from __future__ import annotations

import pytest

from turnout.core.errors import InvalidInput
from turnout.core.signature import Signature, TensorSpec


def test_a_request_without_any_input_has_no_rows_and_is_refused() -> None:
    optional = Signature((TensorSpec("x", "FP32", (-1,), optional=True),), (TensorSpec("y", "FP32", (-1,)),))
    with pytest.raises(InvalidInput, match="at least one row; got 0 rows"):
        optional.validate({})
