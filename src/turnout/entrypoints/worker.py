"""The worker process: one replica of one version, with its model, told what to do by the controller.

Started as `python -m turnout.entrypoints.worker FD PARENT`: the descriptor of its wire, and who started it.
Opens no port and no path but the model's.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import traceback

from turnout.core.errors import Failure
from turnout.deploy.load import load_model
from turnout.deploy.version import VersionSpec
from turnout.entrypoints.parent import die_with_parent
from turnout.runtime.wire import Message, Wire
from turnout.runtime.work import WorkLoop


def main() -> None:
    """Loads what the first message says, then works until told to stop or the controller is gone."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C reaches the whole group; the controller decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    wire = Wire(socket.socket(fileno=int(sys.argv[1])))
    try:
        message, _ = wire.receive()
        spec = VersionSpec.from_json(message["spec"])
    except EOFError:
        return
    try:
        loaded = load_model(spec)
    except Failure as failure:
        wire.send({"event": "failed", "message": failure.message})
        return
    except Exception as problem:  # noqa: BLE001  a model library may raise anything; the text goes to the operator, not to a caller
        traceback.print_exc()
        wire.send({"event": "failed", "message": f"{type(problem).__name__}: {problem}"})
        return

    def control(message: Message, fds: list[int]) -> bool:
        if message["op"] == "link":
            loop.add_link(fds[0])
        return bool(message["op"] != "stop")

    loop = WorkLoop(loaded.model, wire, control)
    gc.collect()
    gc.freeze()
    wire.send({"event": "ready", **loaded.describe()})
    loop.run()
    sys.stdout.flush()
    os._exit(0)  # native libraries' exit hooks may hang or crash; nothing here is left to be saved


if __name__ == "__main__":
    main()
