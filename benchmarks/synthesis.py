"""StyleGAN2's synthesis, beside the way its equations are usually written down. Run `python -m benchmarks.synthesis`.

The straightforward version is written here from the paper: a weight for each sample, modulated and demodulated, all
samples in one grouped convolution; blurs as depthwise convolutions; one operation for each term. Both draw the same
image from the same weights. They take turns in one run, and the median of the rounds counts; peak memory is the whole
process's, each case in one of its own. 'inference' has no gradient, 'training' has one, to w_plus, weights frozen.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from models.stylegan2 import Generator, ModulatedConv, ModulatedToRGB, StyledConv

CASES = {"inference": ("grouped", "ours"), "training": ("grouped", "ours", "ours, checkpointing")}


def grouped_conv(conv: ModulatedConv | ModulatedToRGB, x: Tensor, w: Tensor) -> Tensor:
    """The modulated convolution with a weight for each sample; before noise and bias."""
    batch, c_in, height, width = x.shape
    weight = conv.scaled_weight() * conv.modulation(w).view(batch, 1, c_in, 1, 1)
    if isinstance(conv, ModulatedConv):
        weight = weight * (weight.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    c_out, kernel = weight.shape[1], weight.shape[3]
    x = x.reshape(1, batch * c_in, height, width)
    if conv.upsample:
        weight = weight.transpose(1, 2).reshape(batch * c_in, c_out, kernel, kernel)
        x = F.conv_transpose2d(x, weight, stride=2, groups=batch).view(batch, c_out, 2 * height + 1, -1)
        return F.conv2d(x, conv.blur.kernel.to(x.dtype).expand(c_out, 1, -1, -1), padding=1, groups=c_out)
    x = F.conv2d(x, weight.flatten(0, 1), padding=kernel // 2, groups=batch)
    return x.view(batch, c_out, height, width)


def grouped_synthesis(generator: Generator, w_plus: Tensor) -> Tensor:
    """Image (B, 3, size, size) of w_plus (B, num_rows, style_dim) with the stored noise."""

    def styled(layer: StyledConv, x: Tensor, row: int, noise: Tensor) -> Tensor:
        x = grouped_conv(layer.conv, x, w_plus[:, row])
        x = x + layer.noise.weight * noise
        return F.leaky_relu(x + layer.activate.bias.view(1, -1, 1, 1), 0.2) * 2**0.5

    noises = list(generator.noises.buffers())
    x = styled(generator.conv1, generator.input.input.repeat(len(w_plus), 1, 1, 1), 0, noises[0])
    rgb = grouped_conv(generator.to_rgb1.conv, x, w_plus[:, 1]) + generator.to_rgb1.bias
    for i, to_rgb in enumerate(generator.to_rgbs):
        x = styled(generator.convs[2 * i], x, 2 * i + 1, noises[2 * i + 1])
        x = styled(generator.convs[2 * i + 1], x, 2 * i + 2, noises[2 * i + 2])
        image = grouped_conv(to_rgb.conv, x, w_plus[:, 2 * i + 3]) + to_rgb.bias
        kernel = to_rgb.upsample.kernel.to(rgb.dtype).expand(3, 1, -1, -1)
        rgb = image + F.conv_transpose2d(rgb, kernel, stride=2, padding=1, groups=3)
    return rgb


def build_case(generator: Generator, batch: int, version: str, mode: str) -> Callable[[], Tensor]:
    """One synthesis, or in training a synthesis and its gradient; returns the image."""
    w_plus = torch.randn(batch, generator.num_rows, generator.style_dim, generator=torch.Generator().manual_seed(1))
    w_plus.requires_grad_(mode == "training")

    def run() -> Tensor:
        generator.checkpointing = version == "ours, checkpointing"
        with torch.set_grad_enabled(mode == "training"):
            image = grouped_synthesis(generator, w_plus) if version == "grouped" else generator.synthesis(w_plus)
            if mode == "training":
                torch.autograd.grad(image.square().mean(), w_plus)
        return image.detach()

    return run


def build_generator(size: int) -> Generator:
    torch.manual_seed(0)
    return Generator(size).freeze()


def median_seconds(cases: dict[str, Callable[[], Tensor]], rounds: int) -> dict[str, float]:
    """The cases in turns; the first round, which warms up, is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds + 1):
        for name, case in cases.items():
            start = time.perf_counter()
            case()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken[1:]) for name, taken in seconds.items()}


def peak_gibibytes(size: int, batch: int, version: str, mode: str) -> float:
    """Peak resident memory of a process that does the case twice, with the interpreter and the weights in it."""
    arguments = ["--size", str(size), "--batch-size", str(batch), "--memory-of", version, mode]
    command = [sys.executable, "-m", "benchmarks.synthesis", *arguments]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description="Synthesis by StyleGAN2: seconds and peak memory, as a table.")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-of", nargs=2, metavar=("VERSION", "MODE"), help="one case; prints its peak in KB")
    args = parser.parse_args()
    if args.memory_of:
        case = build_case(build_generator(args.size), args.batch_size, *args.memory_of)
        case(), case()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return
    # First, while this process is small: Linux counts what a parent held as its child's.
    peaks = {
        (version, mode): peak_gibibytes(args.size, args.batch_size, version, mode)
        for mode, versions in CASES.items()
        for version in versions
    }
    generator = build_generator(args.size)
    print(f"{args.size} px, batch {args.batch_size}, {torch.get_num_threads()} threads, {args.rounds} rounds\n")
    print("| mode | version | seconds | against grouped | peak memory, GiB | worst pixel |")
    print("|---|---|---|---|---|---|")
    for mode, versions in CASES.items():
        cases = {version: build_case(generator, args.batch_size, version, mode) for version in versions}
        wanted = cases["grouped"]()
        errors = {version: (case() - wanted).abs().max() / wanted.std() for version, case in cases.items()}
        seconds = median_seconds(cases, args.rounds)
        for version in versions:
            ratio = seconds[version] / seconds["grouped"]
            figures = f"{seconds[version]:.2f} | {ratio:.2f} | {peaks[version, mode]:.2f} | {errors[version]:.1e} std"
            print(f"| {mode} | {version} | {figures} |")


if __name__ == "__main__":
    main()
