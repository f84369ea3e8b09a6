"""The worker process: one replica of one version, with its model, told what to do by the controller.

Started as `python -m turnout.entrypoints.worker FD PARENT`: the descriptor of its wire, and who started it.
Opens no port and no path but the model's. Without a controller it goes on, and looks for the next one.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import traceback

from turnout.core.errors import Failure
from turnout.deploy.load import Loaded, load_model
from turnout.deploy.version import VersionSpec
from turnout.entrypoints.parent import die_with_parent
from turnout.runtime.lifeline import Lifeline
from turnout.runtime.wire import Message
from turnout.runtime.work import WorkLoop


def main() -> None:
    """Loads what the first message says, then works until told to stop or until nobody is left to work for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C reaches the whole group; the controller decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    wire = Lifeline(socket.socket(fileno=int(sys.argv[1])))
    try:
        message, _ = wire.receive()
        spec = VersionSpec.from_json(message["spec"])
    except EOFError:
        return
    wire.obey(message)
    if not wire.path:
        die_with_parent()
    loaded = _load(spec, wire)
    if loaded is None:
        return

    def control(message: Message, fds: list[int]) -> bool:
        if message["op"] == "link":
            loop.add_link(fds[0])
        elif message["op"] == "last":
            wire.last = True
        return bool(message["op"] != "stop")

    ready = {"event": "ready", **loaded.describe()}
    loop = WorkLoop(loaded.model, wire, control, {"event": "hello", "said": ready})
    gc.collect()
    gc.freeze()
    wire.send(ready)
    loop.run()
    sys.stdout.flush()
    os._exit(0)  # native libraries' exit hooks may hang or crash; nothing here is left to be saved


def _load(spec: VersionSpec, wire: Lifeline) -> Loaded | None:
    """The model; None, once the controller knows why, where it cannot be loaded."""
    try:
        return load_model(spec)
    except Failure as failure:
        reason = failure.message
    except Exception as problem:  # noqa: BLE001  a model library may raise anything; the text goes to the operator, not to a caller
        traceback.print_exc()
        reason = f"{type(problem).__name__}: {problem}"
    wire.say_last({"event": "failed", "message": reason})
    return None


if __name__ == "__main__":
    main()
