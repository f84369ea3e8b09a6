"""The admin API's token is its user's alone, and the same after a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from turnout.deploy.token import Token


def test_it_is_kept_and_nobody_else_can_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNOUT_HOME", str(tmp_path))
    token = Token(8080)
    path = tmp_path / "run" / "8080.token"
    assert token.fits(token.value)
    assert len(token.value) >= 40
    assert not token.fits("")
    assert not token.fits(token.value[:-1])
    assert path.stat().st_mode & 0o777 == 0o600
    assert Token(8080).value == token.value
    assert Token(8081).value != token.value
    path.chmod(0o644)
    assert Token(8080).value != token.value, "one that others could read is replaced"
