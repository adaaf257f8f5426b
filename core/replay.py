"""Whether a run can be had again: `python train_st_ed.py --replay RUN/config.json` trains its first steps anew.

In a folder that is removed afterwards; nothing is written into RUN. The losses must be those of RUN/metrics.jsonl, to
the last bit: so they are on the same machine with the same versions, data and estimators.
"""

import itertools
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from core import build, sources
from core.command import DONE, FAILED, UserError
from core.config_reader import load_config
from core.distributed import require_one_process
from core.files import read_text, taken_apart
from core.prepare import prepare
from core.run import Run
from core.tracking import Tracker, say
from core.trainer import Housekeeping

STEPS = 100
_OF_THE_CLOCK = "train/images_per_s"
Losses = dict[int, dict[str, float]]


def replay(config_file: Path) -> int:
    """0 if the losses are the same, 1 if not; says where they first differ.

    Raises UserError where there is nothing to compare with, and all that `prepare` raises.
    """
    require_one_process("--replay")
    before = logged(config_file.with_name("metrics.jsonl"))
    last = next((step for step in sorted(before) if step >= STEPS), max(before))
    with tempfile.TemporaryDirectory(prefix="replay-") as folder:
        config = load_config([str(config_file), "--save-path", folder])
        if config.load_step or config.skip_training:
            raise UserError(str(config_file), "is not of a training from its first step", "one that is")
        changed = {"compute_full_result": False, "store_redirect_dataset": False, "use_tensorboard": False}
        run = prepare(config.model_copy(update=changed))
        with run.owner:
            _train(run, last)
        again = logged(run.folder / "metrics.jsonl")
    return _compare({step: terms for step, terms in before.items() if step <= last}, again)


def logged(path: Path) -> Losses:
    """Step -> training losses by name. Raises UserError if there are none."""
    if not path.is_file():
        raise UserError(str(path), "no such file", "the losses of the run, beside its config.json")
    with taken_apart(path, "Name the config.json of a run."):
        rows = [json.loads(line) for line in read_text(path, most=sys.maxsize).splitlines()]
        terms = [(row["step"], {name: row[name] for name in row if name.startswith("train/")}) for row in rows]
        losses = {step: values for step, values in terms if values}
    if not losses:
        raise UserError(
            str(path), "holds no losses of a training", remedy="Name the config.json of a run that has trained."
        )
    return losses


def _train(run: Run, steps: int) -> None:
    assert run.trainer is not None and run.train_set is not None
    batches = sources.build_batches(run.config, run.train_set, 0, run.device)
    nothing = Housekeeping(test=lambda step: {}, pictures=lambda step: None, save=lambda step: None)
    run.trainer.fit(
        itertools.islice(batches, steps),
        build.cadence(run.config),
        Tracker(run.folder, use_tensorboard=False),
        nothing,
        start=0,
        num_steps=run.config.num_training_steps,
        stop=[],
    )


def _compare(before: Losses, again: Losses) -> int:
    for step, name, value in _losses(before):
        now = again.get(step, {}).get(name, np.nan)
        if not np.array_equal(value, now, equal_nan=True):
            say(f"Step {step}: {name} was {value!r} and is {now!r} now. The earlier ones are the same.")
            for end in sorted({min(before), max(before)}):
                by = _difference(before[end], again.get(end, {}))
                say(f"Step {end}: losses differ by up to {by:.1g} of themselves.")
            return FAILED
    say(f"The same losses, to the last bit, in {len(before)} lines up to step {max(before)}.")
    return DONE


def _losses(logged: Losses) -> Iterator[tuple[int, str, float]]:
    for step in sorted(logged):
        yield from ((step, name, value) for name, value in logged[step].items() if name != _OF_THE_CLOCK)


def _difference(before: Mapping[str, float], now: Mapping[str, float]) -> float:
    """The largest difference of losses of one step, as parts of what they were."""
    names = [name for name in before if name != _OF_THE_CLOCK and before[name]]
    return max((abs(now.get(name, np.nan) / before[name] - 1) for name in names), default=0.0)


def main(argv: Sequence[str]) -> int:
    """argv: --replay and the file."""
    if len(argv) != 2 or argv[0] != "--replay":
        raise UserError("--replay", "takes the config.json of a run and stands alone", "--replay RUN/config.json")
    return replay(Path(argv[1]))
