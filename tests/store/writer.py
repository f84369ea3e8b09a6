"""A process that writes into a store until it is killed, and says what was acknowledged.

`python -m tests.store.writer URL`

For each line on its input it makes a child that writes; what has to be imported for that is there already then, so that
a thousand children are a matter of minutes.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys

from turnout.core.errors import Conflict
from turnout.deploy.store.database import DatabaseStore
from turnout.deploy.store.failures import RevisionNotFound, StoreUnavailable
from turnout.deploy.store.store import Store, Transaction


def say(**words: object) -> None:
    os.write(1, json.dumps(words).encode() + b"\n")


def whole(change: Transaction, name: str, number: int, rng: random.Random) -> dict[str, object]:
    """Three things that are true together or not at all: a revision, a document and an event that name each other."""
    document = json.dumps({"name": name, "number": number, "more": "x" * rng.randrange(3000)})
    revision = change.propose(document, author=name, reason="whole")
    change.put("whole", name, str(revision.number))
    event = change.append("whole", name, str(revision.number))
    return {"revision": revision.number, "digest": revision.digest, "event": event.seq}


def write(store: Store, name: str, seed: int) -> None:
    rng = random.Random(seed)
    number = 0
    while True:
        number += 1
        act = rng.random()
        try:
            if act < 0.5:
                with store.transaction() as change:
                    said = whole(change, name, number, rng)
            elif act < 0.7:
                said = {"moved": store.undo(author=name).number}
            else:
                found = store.document("count", "all")
                made = store.put(
                    "count", "all", str(int(found.value) + 1 if found else 1), found.version if found else 0
                )
                said = {"count": int(made.value)}
        except (Conflict, RevisionNotFound):
            continue
        say(**said)


def main() -> None:
    url = sys.argv[1]
    say(began=True)
    for line in sys.stdin:
        name, seed = line.split()
        child = os.fork()
        if child == 0:
            say(pid=os.getpid())
            try:
                write(DatabaseStore(url), name, int(seed))
            except StoreUnavailable as failure:
                say(failed=failure.message, uncertain=failure.uncertain)
            signal.pause()  # its number stays its own until it is killed
        os.waitpid(child, 0)
        say(over=True)


if __name__ == "__main__":
    main()
