"""A training step on a busy machine: `python -m benchmarks.busy_machine`.

The quickstart's step, in a process of its own for each row, with nothing beside it and with processes that each keep a
core busy, which this program starts and ends. PyTorch's threads wait for each other at the end of every operation; how
long they spin before they sleep is `GOMP_SPINCOUNT`, which `core/__init__.py` sets unless the environment does.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")
UNBOUNDED = {"GOMP_SPINCOUNT": "300000"}  # libgomp's own choice where nothing is set
WARM = 5  # steps before those that are timed


@contextmanager
def busy_cores(count: int) -> Iterator[None]:
    """Processes that count for ever, each on a core."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def timed(name: str, steps: int, variables: dict[str, str]) -> float:
    """Median milliseconds of a step of config/NAME.json in a new process with these variables."""
    kept = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    command = [sys.executable, "-m", "benchmarks.busy_machine", "--config", name, "--steps", str(steps), "--here"]
    return float(subprocess.run(command, env=kept | variables, check=True, capture_output=True, text=True).stdout)


def median_step(name: str, steps: int) -> float:
    """Median milliseconds of a step of config/NAME.json, in this process."""
    import torch  # only now, so that the process that starts the others has no threads

    from benchmarks.untrained import random_batch, settings_of, untrained_trainer
    from core.runtime import tune_cpu

    config, device = settings_of(name), torch.device("cpu")
    tune_cpu(config.num_threads)
    trainer, batch, took = untrained_trainer(config, device), random_batch(config, device), []
    for step in range(WARM + steps):
        start = time.perf_counter()
        trainer.train_step(batch, step)
        took.append(1000 * (time.perf_counter() - start))
    return statistics.median(took[WARM:])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="quickstart", metavar="NAME", help="of config/NAME.json (%(default)s)")
    parser.add_argument("--steps", type=int, default=40, help="that are timed (%(default)s)")
    parser.add_argument("--beside", type=int, nargs="+", default=[0, 1, 3], help="busy processes (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="in turn, the median counts (%(default)s)")
    parser.add_argument("--spins", nargs="+", default=[], metavar="N", help="values of GOMP_SPINCOUNT to try, too")
    parser.add_argument("--here", action="store_true", help="time one process, this one, and print milliseconds")
    arguments = parser.parse_args(argv)
    if arguments.here:
        print(median_step(arguments.config, arguments.steps))
        return 0
    rows = {"as PyTorch is": UNBOUNDED, "as we set it": {}, "one thread": {"OMP_NUM_THREADS": "1"}}
    rows |= {f"GOMP_SPINCOUNT={count}": {"GOMP_SPINCOUNT": count} for count in arguments.spins}
    print(
        f"Milliseconds a step of config/{arguments.config}.json, {os.cpu_count()} cores, by busy processes beside it:\n"
    )
    print(f"| | {' | '.join(map(str, arguments.beside))} |")
    print("|---" * (1 + len(arguments.beside)) + "|")
    found: dict[str, list[list[float]]] = {title: [[] for _ in arguments.beside] for title in rows}
    for _ in range(arguments.rounds):
        for column, count in enumerate(arguments.beside):
            for title, variables in rows.items():
                with busy_cores(count):
                    found[title][column].append(timed(arguments.config, arguments.steps, variables))
    for title, columns in found.items():
        print(f"| {title} | {' | '.join(f'{statistics.median(times):.0f}' for times in columns)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
