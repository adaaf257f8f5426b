"""Train and measure a gaze and head estimator: python train_facenet.py CONFIG.json [MORE.json] [--flag value]

`estimator` says which: gazenet (of the training losses) or eval_gazenet (that measures). It is trained on the train
persons of gazecapture_file, validated on every test set that is there, and measured on all of them at the end;
`--evaluate-only` measures the one that is there. The same command continues a training that was stopped.
With `augmentation_labels` it is the experiment of augmentation.py. Source: ST-ED, release and supplementary.
"""

import sys
from collections.abc import Sequence

from core.command import Run, run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code, see `run_command`."""
    return run_command(lambda: prepare(argv))


def prepare(argv: Sequence[str] | None) -> Run:
    """The run that the command line asks for. Raises UserError or OSError with a message for the user."""
    # Imported in here, so that Ctrl-C in a slow import is answered; and a wrong flag before torch is loaded.
    from core.config_default import unused_by
    from core.config_reader import load_config

    description = "Train and measure a gaze and head estimator."
    config = load_config(argv, prog="train_facenet.py", description=description, unused=unused_by("estimator"))
    if config.augmentation_labels:
        from core.experiment import run as experiment

        return experiment.prepare(config)
    from core.estimator import run as estimator

    return estimator.prepare(config)


if __name__ == "__main__":
    sys.exit(main())
