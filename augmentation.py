"""What redirected images are worth to an estimator: python augmentation.py CONFIG.json [MORE.json] [--flag value]

The experiment of config/augmentation.json, over numbers of labels and seeds; `core/experiment/run.py` says how.
`python train_facenet.py` with such a configuration does the same.
"""

import sys
from collections.abc import Sequence

from core.command import Run, UserError, run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code, see `run_command`."""
    return run_command(lambda: prepare(argv))


def prepare(argv: Sequence[str] | None) -> Run:
    """The experiment that the command line asks for. Raises UserError or OSError with a message for the user."""
    # Imported in here, so that Ctrl-C in a slow import is answered; and a wrong flag before torch is loaded.
    from core.config_default import unused_by
    from core.config_reader import load_config

    description = "Train and measure estimators without and with redirected images."
    config = load_config(argv, prog="augmentation.py", description=description, unused=unused_by("experiment"))
    if not config.augmentation_labels:
        raise UserError("augmentation_labels is not set: name numbers of labels, as config/augmentation.json does.")
    from core.experiment import run

    return run.prepare(config)


if __name__ == "__main__":
    sys.exit(main())
