"""What all connections of one door share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from turnout.core.servable import Serving
from turnout.entrypoints.call import Deadlines
from turnout.entrypoints.http.head import Head, HeadReader
from turnout.entrypoints.http.lane import lane_of
from turnout.entrypoints.http.limits import HttpLimits
from turnout.entrypoints.http.parking import Parking
from turnout.entrypoints.http.rooms import Rooms
from turnout.entrypoints.pace import Pace
from turnout.monitoring.record import Observer
from turnout.protocols.http import Route


@dataclass(slots=True)
class DoorState:
    """The live state of a door.

    `tail` ends every response head: the date line and the empty line. `partial_bytes` is the memory of all
    bodies that are only partly there.
    """

    serving: Serving
    observer: Observer
    limits: HttpLimits
    heads: HeadReader
    deadlines: Deadlines
    pace: Pace
    parking: Parking
    tail: bytes = b"\r\n\r\n"
    draining: bool = False
    #: The answers of a server that is too busy, by route and whether the request was late: made once per sweep.
    busy: dict[tuple[Route, bool], bytes] = field(default_factory=dict)
    partial_bytes: int = field(default=0)
    #: Where long bodies are received.
    rooms: Rooms = field(default_factory=Rooms)
    #: The lane of a head, or False.
    lanes: Callable[[DoorState, Head], Any] = field(default=lane_of)
