"""`python -m preprocess <what> ...`: one subcommand for each kind of raw data."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from core.command import answer
from preprocess.commands import COMMANDS


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand, whose `run` may return an exit code; a mistake of the user ends with one line and code 2."""
    words = list(sys.argv[1:] if argv is None else argv)

    def run() -> int | None:
        arguments = parse(words)
        return arguments.run(arguments)

    return answer(f"python -m preprocess {' '.join(words[:1])}", run)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The arguments of the subcommand that the first word names, the only one that is imported."""
    parser = argparse.ArgumentParser(prog="python -m preprocess", description=__doc__)
    subparsers = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        if name in words[:1]:
            importlib.import_module(command.module).add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=command.help)
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
