"""`python -m preprocess <what> ...`: one subcommand for each kind of raw data."""

from __future__ import annotations

import argparse
import sys

from . import synthetic

SUBCOMMANDS = (synthetic,)  # modules with add_parser(subparsers), which sets `run`


def main(argv: list[str] | None = None) -> int:
    """Runs a subcommand; a mistake of the user ends with one line on stderr and exit code 2."""
    parser = argparse.ArgumentParser(prog="python -m preprocess", description=__doc__)
    subparsers = parser.add_subparsers(dest="command", required=True)
    for module in SUBCOMMANDS:
        module.add_parser(subparsers)
    arguments = parser.parse_args(argv)
    try:
        arguments.run(arguments)
    except (ValueError, OSError, ImportError) as error:
        print(f"python -m preprocess {arguments.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped; nothing was written.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
