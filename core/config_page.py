"""Prints docs/configuration.md: python -m core.config_page > docs/configuration.md"""

from collections.abc import Iterable
from typing import get_args

from core.config_default import KEYS, Config, fixed_in_experiment, show
from core.config_reader import expected_by
from core.config_types import Command, RedirectorName

_HEAD = """\
# Configuration

<!-- Made by: python -m core.config_page > docs/configuration.md -->

A configuration is a JSON file that says only what differs from the defaults:

```
python train_st_ed.py config/ST-ED.json mine.json --batch-size 8 --no-use-tensorboard
```

The defaults come first, then the files in order, then the flags; later ones win. The flag of a setting has `-` for
`_`; a switch is set by its name (`--use-tensorboard`) and unset by `--no-` before it; a list or an object is written
as JSON (`--augmentation-labels "[100, 400]"`); `none` stands for `null`. `--help` lists every setting, too. Files are
UTF-8, or UTF-16 with a byte-order mark. Paths are relative to the folder in which the command is run.

Unknown settings, wrong types, values out of range and contradictions are reported all at once, each with the file or
flag that it came from, before anything is written. The types are strict: `"8"` and `8.0` are no whole numbers.

The settings of the published ST-ED release keep their spelling, meaning and default, and its files load with only
their paths edited. Two things have changed. `lr` cannot be set: it is `batch_size` x `base_learning_rate`. And
`use_apex` is read as `"precision": "bfloat16"`, since mixed precision no longer needs apex.

A run writes `config.json` with every setting into its folder; it is itself a configuration.

How to read the tables:

- **for**: the redirectors and the commands that the setting means something to; nothing there: all. The experiment is
  what `train_facenet.py` runs where `augmentation_labels` is set.
- **may change**: whether it may have another value when the same command continues a run. *no*: it decides what is
  learned; a training that goes on says so and uses the new value, the experiment refuses it. *not in an experiment*: it
  decides what is measured or made, and the figures of one experiment would not compare. *yes*: neither.
"""
_COMMANDS: dict[Command, str] = {
    "train": "`train_st_ed.py`",
    "estimator": "`train_facenet.py`",
    "experiment": "experiment",
}


def configuration_page() -> str:
    """The page: a head, and a table for each group of settings. ASCII alone, so that any terminal can redirect it."""
    groups = dict.fromkeys(key.group for key in KEYS.values())
    return "\n".join([_HEAD, *(_section(group) for group in groups)])


def _section(group: str) -> str:
    lines = [
        f"## {group[0].upper() + group[1:]}\n",
        "| setting | default | values | meaning | for | may change |",
        "|---|---|---|---|---|---|",
        *(_row(name) for name, key in KEYS.items() if key.group == group),
    ]
    return "\n".join(lines) + "\n"


def _row(name: str) -> str:
    info, key = Config.model_fields[name], KEYS[name]
    cells = (
        f"`{name}`",
        f"`{show(info.default)}`",
        expected_by(info),
        info.description or "",
        "; ".join(filter(None, (_unless_all(get_args(RedirectorName), key.of), _commands(key.commands)))),
        _may_change(name),
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _may_change(name: str) -> str:
    if KEYS[name].decides == "weights":
        return "no"
    return "not in an experiment" if name in fixed_in_experiment() else "yes"


def _commands(commands: frozenset[str]) -> str:
    return _unless_all(_COMMANDS.values(), [text for name, text in _COMMANDS.items() if name in commands])


def _unless_all(every: Iterable[str], some: Iterable[str]) -> str:
    """Those of `every` that are in `some`, by commas; nothing if they all are."""
    every, some = list(every), set(some)
    return "" if some == set(every) else ", ".join(name for name in every if name in some)


if __name__ == "__main__":
    print(configuration_page(), end="")
