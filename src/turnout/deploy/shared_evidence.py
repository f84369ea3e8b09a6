"""What the routers of other controllers on one store have seen: each writes its sums down, and the leader adds them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from time import monotonic, time
from typing import Any

from turnout.deploy.observations import Observations
from turnout.deploy.store.store import Store
from turnout.graph.evidence import Evidence

_KIND = "seen"
_EACH = 0.5
#: Sums that were not written for so long are of a controller that is gone (seconds).
_GONE = 3600.0

Call = Callable[[Callable[[Store], Any]], Awaitable[Any]]


class SharedEvidence:
    """Of one controller, which is called `name` also after it was started again."""

    def __init__(self, call: Call, name: str, own: Observations) -> None:
        self._call = call
        self._name = name
        self._own = own
        self._said: dict[str, Any] = {}
        self._others: dict[str, list[dict[str, Evidence]]] = {}
        self._due = 0.0

    def of(self, endpoint: str) -> dict[str, Evidence]:
        """The sums by version, of all controllers."""
        found = self._own.of(endpoint)
        for one in self._others.get(endpoint, ()):
            for version, evidence in one.items():
                found[version] = found.get(version, Evidence()).plus(evidence)
        return found

    async def share(self, endpoints: Iterable[str]) -> None:
        """Writes down what was seen of these, and reads what others have written, now and then."""
        if monotonic() < self._due:
            return
        self._due = monotonic() + _EACH
        own = {name: {version: found.to_json() for version, found in self._own.of(name).items()} for name in endpoints}
        changed = {name: said for name, said in own.items() if said and said != self._said.get(name)}

        def act(store: Store) -> list[tuple[str, str, float]]:
            for name, said in changed.items():
                store.put(_KIND, f"{name}/{self._name}", json.dumps(said))
            return [(one.key, one.value, one.at) for one in store.documents(_KIND)]

        self._read(await self._call(act))
        self._said |= changed

    def _read(self, written: Iterable[tuple[str, str, float]]) -> None:
        others: dict[str, list[dict[str, Evidence]]] = {}
        for key, value, at in written:
            endpoint, _, name = key.partition("/")
            if name != self._name and time() - at < _GONE:
                said: Mapping[str, Any] = json.loads(value)
                others.setdefault(endpoint, []).append(
                    {version: Evidence.from_json(found) for version, found in said.items()}
                )
        self._others = others
