"""What several verbs say alike: how a word is read, how a model is loaded, from where artifacts and packages may come.

Nothing here imports what a verb acts with: the command line knows all its words before it knows what is wanted.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any


class Words(argparse.ArgumentParser):
    """The words of a command, a verb or an act. What one of them does not know, it refuses itself."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Leaves nothing unknown: ends with the usage of what was meant, and the option that may have been."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            options = re.findall(r"--[a-z-]+", self.format_help())
            meant = get_close_matches(unknown[0].partition("=")[0], options, n=1)
            hint = f" (did you mean {meant[0]}?)" if meant else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return found, unknown


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """Reads a whole number within bounds; argparse puts the option's name before the complaint."""
    wanted = f"a whole number from {low} to {high}" if high is not None else f"a whole number, {low} or more"

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if number < low or (high is not None and number > high):
            raise argparse.ArgumentTypeError(f"expected {wanted}; got {text!r}")
        return number

    return read


def number(meaning: str, *, or_zero: bool = True) -> Callable[[str], float]:
    """Reads a finite number; `meaning` is what the complaint calls it."""

    def read(text: str) -> float:
        try:
            found = float(text)
        except ValueError:
            found = math.nan
        if not math.isfinite(found) or found < 0 or (found == 0 and not or_zero):
            raise argparse.ArgumentTypeError(
                f"expected {meaning}, {'0 or more' if or_zero else 'above 0'}; got {text!r}"
            )
        return found

    return read


def seconds(*, or_zero: bool = False) -> Callable[[str], float]:
    """Reads a duration in seconds."""
    return number("seconds", or_zero=or_zero)


def acts_of(verb: argparse.ArgumentParser, name: str) -> Callable[[str, str, str], argparse.ArgumentParser]:
    """Gives a verb acts of its own (`turnout cache list`): what adds one by its name, what it does and its usage."""
    acts: Any = verb.add_subparsers(dest="act", required=True, metavar="ACT", prog=f"turnout {name}")

    def act(act: str, does: str, usage: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = acts.add_parser(
            act, help=does, description=does, usage=f"turnout {name} {act} {usage}", allow_abbrev=False
        )
        return made

    return act


def model_words(parser: argparse.ArgumentParser) -> None:
    """How a model is loaded."""
    models = parser.add_argument_group("how a model is loaded")
    models.add_argument(
        "--trust-pickle", action="store_true", help="allow files whose loading runs code from them, such as pickles"
    )
    models.add_argument("--format", help="say the format instead of having it detected (onnx, sklearn, xgboost ...)")
    models.add_argument("--signature", metavar="FILE", help="JSON file with the model's inputs and outputs")
    models.add_argument(
        "--example", metavar="FILE", help="JSON file with example rows, for a model that does not say its inputs"
    )
    models.add_argument(
        "--threads", type=whole(1), default=1, metavar="N", help="threads of the model's library (default 1)"
    )


def source_words(parser: argparse.ArgumentParser) -> None:
    """From where artifacts may come."""
    group = parser.add_argument_group("from where artifacts may come")
    group.add_argument("--allow-https", action="store_true", help="allow artifacts from any public https address")
    group.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="HOST",
        help="allow https artifacts from this host; again for more",
    )
    group.add_argument("--offline", action="store_true", help="ask nobody: use what was fetched or built before")


def package_words(parser: argparse.ArgumentParser) -> None:
    """From where the packages of environments may come."""
    group = parser.add_argument_group("from where the packages of environments may come")
    group.add_argument(
        "--index-url",
        action="append",
        default=[],
        metavar="URL",
        help="a package index for environments; again for more",
    )
    group.add_argument("--no-public-index", action="store_true", help="ask no package index but those named here")
    group.add_argument(
        "--wheels",
        action="append",
        default=[],
        metavar="DIR",
        help="a folder of wheels for environments; again for more",
    )
    group.add_argument(
        "--source-builds", action="store_true", help="allow packages that run code when they are installed"
    )
    group.add_argument("--require-hashes", action="store_true", help="refuse requirements without hashes")
