"""Contenders that take turns, each in a process of its own: what one sets of memory and threads does not touch another.

A machine that is busy, or gets warm, is so for all of them; what counts is the ratio. `python -m benchmarks.turns` is
what such a process runs: it makes its contender ready, and a call for each line that comes in.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

AS_PYTORCH_IS = {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"}  # the libraries' own, for what is plain


@dataclass(frozen=True)
class Contender:
    """A function of `benchmarks/contenders.py` and what it is given.

    title: in tables.  images: what a call does; figures are images, or pairs, a second.
    plain: threads wait as PyTorch has them, not as `core` does.
    """

    title: str
    name: str
    config: str
    images: int
    device: str = "cpu"
    plain: bool = False
    given: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Timing:
    """Milliseconds a call: median and quartiles; cpu: of all threads, which a busy machine changes less.

    gflop: of a call, 0 where they are not counted.  gib: of a GPU's memory at the most.
    """

    median: float
    low: float
    high: float
    cpu: float
    gflop: float
    gib: float


class _Process:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.gflop = float(self.answer())

    def answer(self) -> str:
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            if line.startswith("turn "):
                return line.removeprefix("turn ")
        raise RuntimeError(f"{' '.join(map(str, self.process.args))} ended.")  # type: ignore[arg-type]

    def call(self) -> tuple[float, float, float]:
        """Milliseconds, those of the CPU, and GiB."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        wall, cpu, gib = map(float, self.answer().split())
        return wall, cpu, gib


@contextmanager
def _running(contender: Contender) -> Iterator[_Process]:
    command = [sys.executable, "-m", "benchmarks.turns", json.dumps(asdict(contender))]
    own = {*AS_PYTORCH_IS, "OMP_WAIT_POLICY"}  # the shell's, which would decide in the place of what is compared
    environment = {name: value for name, value in os.environ.items() if name not in own}
    environment |= AS_PYTORCH_IS if contender.plain else {}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield _Process(process)
        finally:
            process.kill()


def in_turn(contenders: Sequence[Contender], rounds: int) -> list[Timing]:
    """One call of each a round; a first round does not count."""
    with ExitStack() as stack:
        running = [stack.enter_context(_running(contender)) for contender in contenders]
        times = [[process.call() for process in running] for _ in range(rounds + 1)][1:]
    return [_timing(column, process.gflop) for column, process in zip(zip(*times, strict=True), running, strict=True)]


def _timing(calls: Sequence[tuple[float, float, float]], gflop: float) -> Timing:
    times, cpu, gib = zip(*calls, strict=True)
    low, _, high = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else [*times] * 3
    return Timing(statistics.median(times), low, high, statistics.median(cpu), gflop, max(gib))


def serve(contender: Mapping[str, Any]) -> None:
    """Make ready, count a call's FLOP, and then time one for each line."""
    import torch  # only now: the process that starts these has no threads

    from benchmarks.contenders import CONTENDERS

    device = torch.device(contender["device"])
    build = CONTENDERS[contender["name"]]
    call = build(contender["config"], contender["images"], device, **contender["given"])
    print(f"turn {counted_gflop(call)}", flush=True)
    for _ in sys.stdin:
        start, cpu = time.perf_counter(), time.process_time()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        gib = torch.cuda.max_memory_reserved() / 2**30 if device.type == "cuda" else 0
        print(f"turn {1000 * wall} {1000 * cpu} {gib}", flush=True)


def counted_gflop(call: Callable[[], object]) -> float:
    """GFLOP of a call; 0 where PyTorch cannot count: it takes an einsum apart beneath autocast, and mixes types.

    Nothing is compiled while it counts: what PyTorch 2.11 met then stayed uncompiled, and so was timed on a GPU.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    try:
        with torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False) as counter:
            call()
    except RuntimeError as error:
        if "scalar type" not in str(error):
            raise
        return 0.0
    return counter.get_total_flops() / 1e9


def ceiling(device: str = "cpu", rounds: int = 10) -> float:
    """GFLOP a second of a product of two large float32 matrices, the best of the rounds: what this machine can do."""
    import torch

    size = 2048 if device == "cpu" else 8192  # which takes a GPU longer than being asked
    a, best = torch.rand(size, size, device=device), float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        float((a @ a)[0, 0])  # waits for the device
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e9


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
