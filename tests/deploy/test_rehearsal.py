"""Which versions may answer the same requests."""

from __future__ import annotations

from turnout.core.signature import Signature, TensorSpec
from turnout.deploy.rehearsal import misfit


def of(*inputs: TensorSpec, outputs: tuple[str, ...] = ("score",), batched: bool = True) -> Signature:
    return Signature(inputs, tuple(TensorSpec(name, "FP64", (-1,)) for name in outputs), batched=batched)


X = TensorSpec("x", "FP64", (-1,))
Y = TensorSpec("y", "FP64", (-1,))


def test_what_can_be_asked_the_same_way_fits() -> None:
    wide = TensorSpec("x", "FP32", (-1, 4))
    assert not misfit(of(X), of(X))
    assert not misfit(of(X, Y), of(X)), "an input less is asked for"
    assert not misfit(of(X), of(X, TensorSpec("y", "FP64", (-1,), optional=True)))
    assert not misfit(of(X), of(X, outputs=("score", "why"))), "more is answered"
    assert not misfit(of(X, outputs=("score", "why")), of(X)), "less is answered"
    assert not misfit(of(TensorSpec("x", "FP64", (-1, -1))), of(wide)), "numbers may be of another type"


def test_what_cannot_is_said() -> None:
    assert "no input 'y'" in misfit(of(X), of(X, Y))
    assert "BYTES[-1]" in misfit(of(X), of(TensorSpec("x", "BYTES", (-1,))))
    assert "FP64[-1, 3]" in misfit(of(TensorSpec("x", "FP64", (-1, 4))), of(TensorSpec("x", "FP64", (-1, 3))))
    assert "FP64[-1, 3]" in misfit(of(X), of(TensorSpec("x", "FP64", (-1, 3))))
    assert "no output 'score'" in misfit(of(X), of(X, outputs=("other",)))
    assert "row by row" in misfit(of(X), of(X, batched=False))
