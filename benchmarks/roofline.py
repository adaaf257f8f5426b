"""What the machine's ceilings allow, beside what was measured: `python -m benchmarks.roofline`.

FLOP, bytes and operations of each call are counted; every operation reads its inputs from memory and writes its outputs
there, as it does when nothing is fused. A floor is the larger of FLOP / ceiling and bytes / bandwidth. On this machine
the bandwidth is measured; the ceiling of FLOP and the times are those that `python -m benchmarks --keep` measured. Of a
GPU that is not here they are those of its data sheet, an NVIDIA H200's unless told: nothing of that was measured.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.contenders import CONTENDERS
from benchmarks.turns import ceiling
from core.command import answer
from core.files import read_json

LAST = Path(__file__).resolve().parent / "last_result.json"
# title of `python -m benchmarks`: contender, configuration, images or pairs, and as many at once on a GPU
CALLS: dict[str, tuple[str, str, int, int]] = {
    "step, quickstart, batch 8": ("step", "quickstart", 8, 8),
    "step, ST-ED, batch 4": ("step", "ST-ED", 4, 20),
    "all metrics, quickstart, batch 8": ("evaluation", "quickstart", 8, 32),
    "all metrics, ST-ED, batch 2": ("evaluation", "ST-ED", 2, 32),
    "redirection, ST-ED": ("redirection", "ST-ED", 1, 64),
    "redirection, ST-ED-flow": ("redirection", "ST-ED-flow", 1, 64),
}


@dataclass(frozen=True)
class Work:
    """Of a call.  launches: operations that are no views."""

    gflop: float
    gbytes: float
    launches: int

    def floor(self, gflop_per_s: float, gbytes_per_s: float) -> float:
        """Milliseconds."""
        return 1000 * max(self.gflop / gflop_per_s, self.gbytes / gbytes_per_s)

    def times(self, factor: float) -> "Work":
        """The same of a larger batch."""
        return Work(self.gflop * factor, self.gbytes * factor, self.launches)


class _Traffic(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.launches = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor)]
        if not func.is_view and "empty" not in func.__name__ and tensors:
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
            self.launches += 1
        return out


def counted(call: Callable[[], object]) -> Work:
    """What a call does."""
    call()
    traffic = _Traffic()
    with traffic:
        call()
    with FlopCounterMode(display=False) as flop:
        call()
    return Work(flop.get_total_flops() / 1e9, traffic.bytes / 1e9, traffic.launches)


def bandwidth(gbytes: float = 0.5, rounds: int = 5) -> float:
    """GB a second, read and written, of copying a large tensor; the best of the rounds."""
    source = torch.ones(int(gbytes * 1e9 / 4))
    target, best = torch.empty_like(source), float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        target.copy_(source)
        best = min(best, time.perf_counter() - start)
    return 2 * gbytes / best


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--float32", type=float, default=67, help="TFLOP a second of the GPU in float32")
    parser.add_argument("--tf32", type=float, default=494, help="... in TF32, PyTorch's choice for convolutions")
    parser.add_argument("--bfloat16", type=float, default=989, help="... in bfloat16")
    parser.add_argument("--memory", type=float, default=4.8, help="TB a second of the GPU's memory")
    parser.add_argument("--launch", type=float, default=5, help="microseconds that Python takes to launch an operation")
    given = parser.parse_args(argv)
    kept = read_json(LAST) if LAST.is_file() else {"ceiling_gflop_per_s": ceiling(), "figures": {}}
    most, memory, last = kept["ceiling_gflop_per_s"], bandwidth(), kept["figures"]
    print(f"This machine: {most:.0f} GFLOP and {memory:.1f} GB a second.\n")
    print("| | GFLOP | GB | floor, ms | measured, ms | measured / floor |\n|---|---|---|---|---|---|")
    works = {}
    for title, (name, config, images, at_once) in CALLS.items():
        work = counted(CONTENDERS[name](config, images, torch.device("cpu")))
        works[f"{name}, {config}, {at_once} at once"] = work.times(at_once / images)
        floor, found = work.floor(most, memory), last.get(title, {}).get("median", float("nan"))
        print(f"| {title} | {work.gflop:.1f} | {work.gbytes:.2f} | {floor:.0f} | {found:.0f} | {found / floor:.1f} |")
    print(
        f"\nA GPU of {given.float32:g} TFLOP a second in float32, {given.tf32:g} in TF32, {given.bfloat16:g} in "
        f"bfloat16, {given.memory:g} TB a second, {given.launch:g} us a launch; not measured:\n"
    )
    print("| | GFLOP | GB | operations | float32, ms | TF32, ms | bfloat16, ms | launching, ms |\n|---|" + "---|" * 7)
    for title, work in works.items():
        cells = [f"{work.gflop:.0f}", f"{work.gbytes:.1f}", f"{work.launches}"]
        rates = ((given.float32, work), (given.tf32, work), (given.bfloat16, replace(work, gbytes=work.gbytes / 2)))
        cells += [f"{one.floor(1000 * rate, 1000 * given.memory):.1f}" for rate, one in rates]
        print(f"| {title} | {' | '.join(cells)} | {work.launches * given.launch / 1000:.1f} |")
    print("\nThe slowest of floor and launching counts; a compiled network launches and moves less.")
    return 0


if __name__ == "__main__":
    sys.exit(answer("benchmarks.roofline", main))
