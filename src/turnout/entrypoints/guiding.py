"""Verbs that guide: `turnout plan`, `undo`, `traffic`, `scale`, `rollout`, `explain`, `history`, `watch` and others."""

from __future__ import annotations

import argparse
import getpass
import json
import sys
from pathlib import Path
from typing import Any

from turnout.core.errors import InvalidInput
from turnout.entrypoints.remote import URL, ask
from turnout.entrypoints.terminal import table

VERBS = ("plan", "undo", "traffic", "scale", "rollout", "explain", "history", "watch", "shadow", "token")
ROLLOUT_ACTS = ("start", "pause", "resume", "promote", "abort", "status")
#: What `turnout plan --exit-code` ends with where something would change.
CHANGES = 3


def words(verbs: Any) -> None:
    """Adds the verbs."""
    plan = verb(verbs, "plan", "what applying a spec file would change; nothing is changed")
    plan.add_argument("spec", metavar="FILE", help="turnout.yaml")
    plan.add_argument("--exit-code", action="store_true", help=f"end with {CHANGES} where something would change")
    undo = verb(verbs, "undo", "go back to the revision before, at once")
    _why(undo)
    traffic = verb(verbs, "traffic", "change the weights of an endpoint's versions")
    traffic.add_argument("endpoint", metavar="NAME", help="the endpoint's name")
    traffic.add_argument("weights", metavar="VERSION=PERCENT", nargs="+", help="100 together")
    _why(traffic)
    scale = verb(verbs, "scale", "change how many replicas a version has, while it serves")
    scale.add_argument(
        "version", metavar="NAME[@VERSION][=N]", help="without a number: as the spec and the rollout say"
    )
    _why(scale)
    rollout = verb(verbs, "rollout", "start, stop or ask about a rollout")
    rollout.add_argument("endpoint", metavar="NAME", help="the endpoint's name")
    rollout.add_argument("act", metavar="ACT", choices=ROLLOUT_ACTS, help=", ".join(ROLLOUT_ACTS))
    rollout.add_argument("--to", metavar="VERSION", help="the version to roll out (default: as the spec says)")
    _why(rollout)
    explain = verb(verbs, "explain", "the tree that answers, or which version would answer a request, and why")
    explain.add_argument("endpoint", metavar="NAME", help="the endpoint's name")
    explain.add_argument(
        "--request", metavar="FILE", help="JSON: {headers, cookies, query, inputs}; - for standard input"
    )
    history = verb(verbs, "history", "the changes, newest first")
    history.add_argument("--limit", type=int, default=20, metavar="N", help="how many (default 20)")
    watch = verb(verbs, "watch", "what happens, as it happens")
    watch.add_argument("--after", type=int, metavar="N", help="all after this number (default: from now on)")
    shadow = verb(verbs, "shadow", "how a shadow compares with what answers")
    shadow.add_argument("act", metavar="ACT", choices=("report",), help="report")
    shadow.add_argument("endpoint", metavar="NAME", help="the endpoint's name")
    shadow.add_argument("--html", metavar="FILE", help="write a page there")
    verb(verbs, "token", "the token that the admin API of a server on this machine asks for")


def verb(verbs: Any, name: str, meaning: str) -> argparse.ArgumentParser:
    """A verb that speaks to a running server."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        name, help=meaning, description=f"{meaning[0].upper()}{meaning[1:]}.", allow_abbrev=False
    )
    parser.add_argument("--url", default=URL, metavar="URL", help=f"the server that is meant (default {URL})")
    parser.add_argument(
        "--output", choices=("text", "json"), default="text", help="text for people, json for scripts (default text)"
    )
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Asks and prints; returns the exit code. Raises the failure that the server answers with."""
    act = {
        "plan": _plan,
        "apply": _apply,
        "undo": _undo,
        "traffic": _traffic,
        "scale": _scale,
        "rollout": _rollout,
        "explain": _explain,
        "history": _history,
        "watch": _watch,
        "shadow": _shadow,
        "token": _token,
    }[arguments.verb]
    return act(arguments)


def is_spec(word: str) -> bool:
    """Whether a word names a spec file and not a model."""
    return word.endswith((".yaml", ".yml", ".json")) or Path(word).is_file()


def _why(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", metavar="TEXT", help="why, for the history")


def _who(arguments: argparse.Namespace) -> dict[str, str]:
    try:
        author = getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in some containers
        author = "nobody"
    return {"author": author, "reason": arguments.reason or ""}


def _read(path: str) -> dict[str, str]:
    """A spec file's text and where it lies, for what in it is relative. Raises InvalidInput."""
    try:
        return {"document": Path(path).read_text(encoding="utf-8"), "path": str(Path(path).absolute())}
    except (OSError, UnicodeDecodeError) as problem:
        reason = getattr(problem, "strerror", None) or "not UTF-8"
        raise InvalidInput(f"{path} cannot be read ({reason})", field="FILE", example="turnout.yaml") from None


def _print(arguments: argparse.Namespace, answer: Any, text: str) -> int:
    print(json.dumps(answer, indent=2) if arguments.output == "json" else text, flush=True)
    return 0


def _plan(arguments: argparse.Namespace) -> int:
    answer = ask(arguments.url, {"do": "plan", **_read(arguments.spec)})
    _print(arguments, answer, answer["text"])
    return CHANGES if arguments.exit_code and answer["changed"] else 0


def _apply(arguments: argparse.Namespace) -> int:
    base = {} if arguments.base is None else {"base": arguments.base}
    question = {"do": "apply_document", **_read(arguments.model), **base, **_who(arguments)}
    answer = ask(arguments.url, question)
    return _print(arguments, answer, answer["text"])


def _undo(arguments: argparse.Namespace) -> int:
    answer = ask(arguments.url, {"do": "undo", **_who(arguments)})
    return _print(arguments, answer, answer["text"])


def _traffic(arguments: argparse.Namespace) -> int:
    weights = {}
    for word in arguments.weights:
        version, _, percent = word.partition("=")
        try:
            weights[version] = float(percent.removesuffix("%"))
        except ValueError:
            raise InvalidInput(
                "not a weight", field="VERSION=PERCENT", got=repr(word), example="turnout traffic fraud v7=50 v8=50"
            ) from None
    question = {"do": "traffic", "endpoint": arguments.endpoint, "weights": weights, **_who(arguments)}
    answer = ask(arguments.url, question)
    return _print(arguments, answer, answer["text"])


def _scale(arguments: argparse.Namespace) -> int:
    title, said, count = arguments.version.partition("=")
    name, _, version = title.partition("@")
    if said and not count.isdecimal():
        raise InvalidInput(
            "not a count of replicas", field="NAME[@VERSION][=N]", got=repr(count), example="turnout scale fraud@v8=3"
        )
    number = {"replicas": int(count)} if said else {}
    answer = ask(arguments.url, {"do": "scale", "endpoint": name, "version": version, **number, **_who(arguments)})
    return _print(arguments, answer, answer["text"])


def _rollout(arguments: argparse.Namespace) -> int:
    question = {"do": "rollout", "endpoint": arguments.endpoint, "act": arguments.act, **_who(arguments)}
    answer = ask(arguments.url, question | ({"to": arguments.to} if arguments.to else {}))
    return _print(arguments, answer, answer["text"])


def _explain(arguments: argparse.Namespace) -> int:
    if arguments.request is None:
        answer = ask(arguments.url, {"do": "endpoint", "endpoint": arguments.endpoint})
        return _print(arguments, answer, "\n".join(answer["tree"]))
    try:
        text = sys.stdin.read() if arguments.request == "-" else Path(arguments.request).read_text(encoding="utf-8")
        request = json.loads(text)
    except (OSError, ValueError) as problem:
        raise InvalidInput(f"cannot be read: {problem}", field="--request", expected="a JSON file") from None
    answer = ask(arguments.url, {"do": "explain", "endpoint": arguments.endpoint, "request": request})
    return _print(arguments, answer, f"{answer['version']}: {answer['why']}")


def _history(arguments: argparse.Namespace) -> int:
    answer = ask(arguments.url, {"do": "history", "limit": arguments.limit})
    rows = [("REVISION", "AT", "AUTHOR", "CHANGE", "REASON")]
    rows += [
        (
            ("* " if one["current"] else "  ") + str(one["number"]),
            one["at_text"],
            one["author"],
            _change(one),
            one["reason"],
        )
        for one in answer["revisions"]
    ]
    return _print(arguments, answer, table(rows) if answer["revisions"] else "nothing was changed yet")


def _change(one: dict[str, Any]) -> str:
    """The first line of what a revision has changed, and how many more there are."""
    more = sum(line[:1] in {"+", "-", "~", "!"} for line in one["diff"].splitlines()[1:])
    return " ".join(one["change"].split()) + (f" (and {more} more)" if more else "")


def _watch(arguments: argparse.Namespace) -> int:
    after = -1 if arguments.after is None else arguments.after
    while True:
        answer = ask(arguments.url, {"do": "events", "after": after, "wait": 25})
        for event in answer["events"]:
            _print(arguments, event, f"{event['at_text']}  {event['kind']:<10}  {event['text']}")
        after = answer["after"]


def _shadow(arguments: argparse.Namespace) -> int:
    question = {"do": "shadow_report", "endpoint": arguments.endpoint}
    if arguments.html is None:
        answer = ask(arguments.url, question)
        return _print(arguments, answer, answer["text"])
    page = ask(arguments.url, {**question, "form": "text/html; charset=utf-8"})
    try:
        Path(arguments.html).write_text(page, encoding="utf-8")
    except OSError as problem:
        raise InvalidInput(f"cannot be written ({problem.strerror})", field="--html", got=arguments.html) from None
    return _print(arguments, {"written": arguments.html}, f"written: {arguments.html}")


def _token(arguments: argparse.Namespace) -> int:
    answer = ask(arguments.url, {"do": "token"})
    return _print(arguments, answer, answer["token"])
