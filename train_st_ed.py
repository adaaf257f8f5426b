"""Train, evaluate and look at a redirector: python train_st_ed.py CONFIG.json [MORE.json] [--flag value]

python train_st_ed.py --replay RUN/config.json: whether a run's first 100 losses come out the same again.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from core.command import answer, run_command

if TYPE_CHECKING:
    from core.run import Run


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 1 where a run had begun and failed, 2 for input that cannot be used, 130 if stopped."""

    def again(words: Sequence[str]) -> int:
        from core import replay

        return replay.main(words)

    def start() -> "Run":
        # Imported in here, so that Ctrl-C in a slow import is answered; and a wrong flag before torch is loaded.
        from core.config_default import unused_by
        from core.config_reader import load_config

        config = load_config(argv, unused=unused_by("train"))
        from core.prepare import prepare

        return prepare(config)

    given = sys.argv[1:] if argv is None else argv
    return answer("train_st_ed.py", lambda: again(given)) if "--replay" in given else run_command(start)


if __name__ == "__main__":
    sys.exit(main())
