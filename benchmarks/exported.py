"""Exported files beside PyTorch: what a redirection costs in each. Run `python -m benchmarks.exported`.

Redirectors as the configurations build them, untrained: the weights do not change the time. Both get the same patches,
on the CPU, with the same number of threads; they take turns in one run, and the median of the rounds counts.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import onnxruntime
import torch

from benchmarks.untrained import untrained
from core.redirection.export import Whole, export
from core.redirection.load import Loaded

CONFIGS = ("quickstart", "ReDirTrans-quickstart", "flow-quickstart", "ST-ED", "ReDirTrans", "ST-ED-flow")


def measured(loaded: Loaded, batch: int, threads: int, rounds: int) -> tuple[float, float, float, float]:
    """Milliseconds of a call in PyTorch and in onnxruntime, MiB of the file, and how far they differ."""
    random = torch.Generator().manual_seed(0)
    image = torch.rand(batch, 3, loaded.size, loaded.size, generator=random) * 2 - 1
    gaze, head = (torch.rand(batch, 2, generator=random) - 0.5 for _ in range(2))
    whole = Whole(loaded.redirector)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        off = export(loaded, path)
        size = path.stat().st_size / 2**20
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    arrays = {"image": image.numpy(), "gaze": gaze.numpy(), "head": head.numpy()}
    with torch.inference_mode():
        times = _in_turn((lambda: whole(image, gaze, head), lambda: session.run(None, arrays)), rounds)
    return times[0], times[1], size, off


def _in_turn(calls: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Median milliseconds of each; the first two rounds do not count."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds + 2):
        for call, known in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            known.append((time.perf_counter() - start) * 1000)
    return [statistics.median(known[2:]) for known in times]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("benchmarks.exported", description=__doc__)
    parser.add_argument("configs", nargs="*", default=CONFIGS, help="names in config/ (%(default)s)")
    parser.add_argument("--batch", type=int, default=1, help="patches a call (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of each (%(default)s)")
    parser.add_argument("--rounds", type=int, default=30, help="calls of each (%(default)s)")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    print("| configuration | px | file, MiB | PyTorch, ms | onnxruntime, ms | ratio | differ by |")
    print("|---|---|---|---|---|---|---|")
    for name in arguments.configs:
        loaded = untrained(name)
        pytorch, runtime, size, off = measured(loaded, arguments.batch, arguments.threads, arguments.rounds)
        ratio = f"{pytorch:.1f} | {runtime:.1f} | {runtime / pytorch:.2f}"
        print(f"| `{name}` | {loaded.size} | {size:.0f} | {ratio} | {off:.0e} |", flush=True)


if __name__ == "__main__":
    main()
