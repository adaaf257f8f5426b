"""`python -m pretrained_models`: which of the published files are here, their sha256, and whether they load."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from core.command import DONE, FAILED, STOPPED, UNUSABLE, use_any_terminal


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table. Returns 0 if every file that is there loads, 1 if one does not, 2 without the folder."""
    use_any_terminal()
    parser = argparse.ArgumentParser(prog="python -m pretrained_models", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("pretrained_models"), help="where the files are kept")
    folder = parser.parse_args(argv).folder
    if not folder.is_dir():
        print(f"error: --folder: {folder}: no such folder.", file=sys.stderr)
        return UNUSABLE
    try:
        from pretrained_models.published import print_table  # in here, so that Ctrl-C in a slow import is answered

        return DONE if print_table(folder) else FAILED
    except KeyboardInterrupt:
        return STOPPED


if __name__ == "__main__":
    sys.exit(main())
