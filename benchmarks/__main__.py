"""The set that guards against regressions, in under 10 minutes: `python -m benchmarks --out results.json`.

A training step, an evaluation, a redirection and reading, each beside the plain way or others, in turn; on a GPU too,
where there is one. Prints a table, writes JSON, and compares with the last result that is kept, as ratios: of times
that the machine's own speed moves, and of how much faster than plain, which it moves less.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import gpu
from benchmarks.kept import arguments_of, report
from benchmarks.training_step import evaluation_group, redirection_group, step_group
from benchmarks.turns import Contender
from core.command import answer

LAST = Path(__file__).resolve().parent / "last_result.json"
READ = 500  # pairs a reading


def cpu_groups() -> list[tuple[list[Contender], int]]:
    """What takes turns, and how often."""
    reading = [
        Contender("reading pairs, published way", "read", "", READ, plain=True, given={"published": True}),
        Contender("reading pairs", "read", "", READ),
    ]
    groups = [(step_group("quickstart", 8), 15), (evaluation_group("quickstart", 8), 10)]
    groups += [(step_group("ST-ED", 4), 5), (evaluation_group("ST-ED", 2), 5)]
    return [*groups, *((redirection_group(config), 15) for config in ("ST-ED", "ST-ED-flow")), (reading, 5)]


def main(argv: Sequence[str] | None = None) -> int:
    arguments = arguments_of(argv, __doc__ or "", "runs/benchmarks.json", LAST)
    import torch  # only now, so that --help is quick

    report(cpu_groups(), "cpu", arguments)
    if torch.cuda.is_available():
        return gpu.main(["--keep"] if arguments.keep else [])
    return 0


if __name__ == "__main__":
    sys.exit(answer("benchmarks", main))
