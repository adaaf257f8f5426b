"""ST-ED's training step and its evaluation beside the plain way: `python -m benchmarks.training_step --batch 4`.

Each in a process of its own, taking turns. "Of the ceiling": what is reached of a large matrix product's FLOP a second.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from benchmarks.turns import Contender, Timing, ceiling, in_turn

BFLOAT16 = {"precision": "bfloat16"}  # a trial: what is reported of a run is measured in float32


def step_group(config: str, batch: int) -> list[Contender]:
    """The plain step and ours."""
    return [
        Contender(f"step, {config}, batch {batch}, plain", "plain_step", config, batch, plain=True),
        Contender(f"step, {config}, batch {batch}", "step", config, batch),
    ]


def evaluation_group(config: str, batch: int) -> list[Contender]:
    """All metrics, plain and ours, with a trial of bfloat16."""
    group = [
        Contender(f"all metrics, {config}, batch {batch}, plain", "plain_evaluation", config, batch, plain=True),
        Contender(f"all metrics, {config}, batch {batch}", "evaluation", config, batch),
        Contender(f"all metrics, {config}, batch {batch}, bfloat16", "evaluation", config, batch, given=BFLOAT16),
    ]
    return _without_emulated(group)


def redirection_group(config: str) -> list[Contender]:
    """One image to one target, plain and every other way; where a title does not say so, it is encoded once for all."""
    name = f"redirection, {config}"
    ways: dict[str, dict[str, object]] = {
        "encoded each time": {"encodes": True},
        "": {},
        "channels last": {"channels_last": True},
        "bfloat16": BFLOAT16,
        "bfloat16, channels last": {**BFLOAT16, "channels_last": True},
    }
    group = []
    if config == "ST-ED":
        plain = {"plain": True, "encodes": True}
        group.append(Contender(f"{name}, plain", "redirection", config, 1, plain=True, given=plain))
    group += [
        Contender(", ".join(filter(None, (name, way))), "redirection", config, 1, given=given)
        for way, given in ways.items()
    ]
    group = _without_emulated(group)
    if not all(find_spec(package) for package in ("onnx", "onnxscript", "onnxruntime")):
        print("ONNX Runtime is left out: pip install -r requirements-export.txt", file=sys.stderr)
        return group
    return [*group, Contender(f"{name}, ONNX Runtime, encoded each time", "redirection_in_onnxruntime", config, 1)]


def _without_emulated(group: list[Contender]) -> list[Contender]:
    """The group, or what does not take bfloat16 of it where the processor emulates that, at 6 to 9 times the time."""
    import torch  # only now, so that --help is quick

    from core.runtime import emulates_bfloat16

    if not emulates_bfloat16(torch.device("cpu")):
        return group
    for one in group:
        if one.given.get("precision") == "bfloat16":
            print(f"Left out: {one.title}; this processor has no instructions for bfloat16.", file=sys.stderr)
    return [one for one in group if one.given.get("precision") != "bfloat16"]


def rows(group: Sequence[Contender], timings: Sequence[Timing], most: float) -> list[str]:
    """Markdown, the first contender's speed being the measure. most: GFLOP a second that the machine can do."""
    first, lines = group[0].images / timings[0].median, []
    for one, timing in zip(group, timings, strict=True):
        speed = one.images / timing.median
        reached = f"{timing.gflop / timing.median * 1000 / most:.0%}" if timing.gflop else ""
        gflop = f"{timing.gflop:.3g}" if timing.gflop else ""
        spread = f"{timing.low:.4g} to {timing.high:.4g}"
        cells = (one.title, f"{timing.median:.4g}", spread, f"{timing.cpu:.4g}", f"{1000 * speed:.3g}")
        gib = f"{timing.gib:.2g}" if timing.gib else ""
        lines.append(f"| {' | '.join((*cells, f'{speed / first:.2f}', gflop, reached, gib))} |")
    return lines


TITLES = ("", "ms", "quartiles", "CPU ms", "images or pairs a second", "times the first", "GFLOP", "of the ceiling",
          "GiB of a GPU")  # fmt: skip
HEAD = f"| {' | '.join(TITLES)} |\n{'|---' * len(TITLES)}|"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", nargs="+", default=["quickstart", "ST-ED"], help="config/NAME.json (%(default)s)")
    parser.add_argument("--batch", type=int, default=4, help="pairs of all but the quickstart (%(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="that count (%(default)s)")
    parser.add_argument("--no-evaluation", dest="evaluation", action="store_false", help="the step alone")
    arguments = parser.parse_args(argv)
    most = ceiling()
    print(f"Ceiling: {most:.0f} GFLOP a second.\n\n{HEAD}", flush=True)
    for config in arguments.config:
        batch = 8 if config == "quickstart" else arguments.batch
        for group in (step_group(config, batch), *([evaluation_group(config, batch)] if arguments.evaluation else [])):
            print("\n".join(rows(group, in_turn(group, arguments.rounds), most)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
