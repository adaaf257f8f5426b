"""The set on a GPU, in under 10 minutes: `python -m benchmarks.gpu`.

Steps at batch 20, plain, in float32, in bfloat16 and compiled; all metrics; redirections, one by one and 64 at once;
ReDirTrans-GAN's faces of 1024 px, 1 and 8 at once. GiB: the most that PyTorch took for a contender.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.kept import arguments_of, report
from benchmarks.turns import Contender
from core.command import UserError, answer

LAST = Path(__file__).resolve().parent / "last_result_gpu.json"
BATCH, EVALUATED, REDIRECTED, GENERATED = 20, 32, 64, 8
GAN = "ReDirTrans-GAN"


def gpu_groups() -> list[tuple[list[Contender], int]]:
    """What takes turns, and how often."""
    ways = {"float32": {}, "compiled": {"compiled": True}, "bfloat16": {"precision": "bfloat16"},
            "bfloat16, compiled": {"precision": "bfloat16", "compiled": True}}  # fmt: skip
    steps = [_one("step, plain", "plain_step", BATCH, plain=True)]
    steps += [_one(f"step, {way}", "step", BATCH, **given) for way, given in ways.items()]
    measuring = [_one("all metrics, plain", "plain_evaluation", EVALUATED, plain=True)]
    measuring += [_one("all metrics", "evaluation", EVALUATED)]
    measuring += [_one("all metrics, bfloat16", "evaluation", EVALUATED, precision="bfloat16")]
    redirecting = [
        _one(f"redirection, {count} at once, {precision}", "redirection", count, precision=precision)
        for count in (1, REDIRECTED)
        for precision in ("float32", "bfloat16")
    ]
    generating = [
        _one(f"ReDirTrans-GAN, 1024 px, {count} at once, {precision}", "generation", count, GAN, precision=precision)
        for count in (1, GENERATED)
        for precision in ("float32", "bfloat16")
    ]
    return [(steps, 50), (measuring, 20), (redirecting, 50), (generating, 20)]


def _one(title: str, name: str, images: int, config: str = "ST-ED", plain: bool = False, **given: object) -> Contender:
    return Contender(f"GPU: {title}", name, config, images, "cuda", plain, given)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = arguments_of(argv, __doc__ or "", "runs/benchmarks_gpu.json", LAST)
    import torch

    if not torch.cuda.is_available():
        raise UserError(
            "No GPU: PyTorch sees none here, and this set is of one. Run `python -m benchmarks` on the CPU."
        )
    report(gpu_groups(), "cuda", arguments)
    return 0


if __name__ == "__main__":
    sys.exit(answer("benchmarks.gpu", main))
