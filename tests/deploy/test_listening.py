"""Sockets that listen, and what is said where none can."""

from __future__ import annotations

import pytest

from turnout.deploy.listening import listen


def test_a_port_that_is_taken_asks_for_another_port():
    with listen("127.0.0.1", 0) as taken, pytest.raises(OSError, match=r"choose another port$"):
        listen("127.0.0.1", taken.getsockname()[1])


def test_an_address_of_another_machine_asks_for_another_address():
    with pytest.raises(
        OSError, match=r"cannot listen on 192\.0\.2\.1:0 .* choose another address"
    ):  # set aside for texts
        listen("192.0.2.1", 0)
