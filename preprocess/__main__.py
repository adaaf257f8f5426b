"""`python -m preprocess <what> ...`: one subcommand for each kind of raw data."""

from __future__ import annotations

import argparse
import sys

from preprocess import rechunk
from preprocess.datasets import columbia, eth_xgaze, eyediap, ffhq_aligned, gazecapture, images, mpiifacegaze
from preprocess.inspect import page, verify
from preprocess.synthetic import dataset as synthetic

SUBCOMMANDS = (
    synthetic,
    gazecapture,
    mpiifacegaze,
    columbia,
    eyediap,
    eth_xgaze,
    images,
    ffhq_aligned,
    verify,
    page,
    rechunk,
)  # modules with add_parser(subparsers), which sets `run`


def main(argv: list[str] | None = None) -> int:
    """Runs a subcommand, whose `run` may return an exit code; a mistake of the user ends with one line and code 2."""
    parser = argparse.ArgumentParser(prog="python -m preprocess", description=__doc__)
    subparsers = parser.add_subparsers(dest="command", required=True)
    for module in SUBCOMMANDS:
        module.add_parser(subparsers)
    arguments = parser.parse_args(argv)
    try:
        return arguments.run(arguments) or 0
    except (ValueError, OSError, ImportError) as error:
        print(f"python -m preprocess {arguments.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(str(stop) or "Stopped; nothing was written.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
