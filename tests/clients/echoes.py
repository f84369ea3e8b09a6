"""Tensors for the `echo` model: one of every type."""

from __future__ import annotations

import numpy as np

SAMPLES: dict[str, np.ndarray] = {
    "BOOL": np.array([[True, False], [False, False]]),
    "UINT8": np.array([[0, 255], [1, 2]], dtype=np.uint8),
    "UINT16": np.array([[0, 65535], [1, 2]], dtype=np.uint16),
    "UINT32": np.array([[0, 2**32 - 1], [1, 2]], dtype=np.uint32),
    "UINT64": np.array([[0, 2**64 - 1], [1, 2]], dtype=np.uint64),
    "INT8": np.array([[-128, 127], [1, 2]], dtype=np.int8),
    "INT16": np.array([[-(2**15), 2**15 - 1], [1, 2]], dtype=np.int16),
    "INT32": np.array([[-(2**31), 2**31 - 1], [1, 2]], dtype=np.int32),
    "INT64": np.array([[-(2**63), 2**63 - 1], [1, 2]], dtype=np.int64),
    "FP16": np.array([[0.5, -1], [65504, 0]], dtype=np.float16),
    "FP32": np.array([[0.1, -1], [np.nan, np.inf]], dtype=np.float32),
    "FP64": np.array([[0.1, -1], [np.nan, -np.inf]], dtype=np.float64),
    "BYTES": np.array([["ü".encode(), b""], [b'"quoted"', b"long" * 100]], dtype=object),
}


def assert_same(back: np.ndarray | None, sent: np.ndarray) -> None:
    """Equal in type, shape and elements; JSON gives text as str, all else as bytes."""
    assert back is not None
    assert back.dtype == sent.dtype
    assert back.shape == sent.shape
    if sent.dtype.kind == "O":
        assert [one.encode() if isinstance(one, str) else one for one in back.ravel()] == sent.ravel().tolist()
    else:
        np.testing.assert_array_equal(back, sent)
