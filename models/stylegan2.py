"""StyleGAN2's generator in plain PyTorch: mapping, synthesis, truncation, mixing. State-dict keys of the 2019 port.

A modulated convolution is computed without a weight a sample: the input is scaled by the style and the output by
the demodulation, which is the same product in another order. All of it runs in the precision of the weights, or of
autocast where that is on; styles, demodulation and the RGB sum stay in at least float32.
Source: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", 2020, section 2 and appendix B.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from models.freezable import Freezable
from models.geometry import at_least_float32

Noise = Literal["stored", "random", "none"] | Sequence[Tensor]
BLUR = (1.0, 3.0, 3.0, 1.0)
EPSILON = 1e-8


class EqualLinear(nn.Module):
    """Linear layer whose weight, stored as N(0, 1) / lr_mul, is scaled at run time; computed in at least float32."""

    def __init__(self, c_in: int, c_out: int, bias: float = 0.0, lr_mul: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c_out, c_in) / lr_mul)
        self.bias = nn.Parameter(torch.full((c_out,), bias))
        self.scale, self.lr_mul = lr_mul / math.sqrt(c_in), lr_mul

    def forward(self, x: Tensor) -> Tensor:
        weight, bias, x = (at_least_float32(value) for value in (self.weight, self.bias, x))
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x, weight * self.scale, bias * self.lr_mul)


class MappingLayer(EqualLinear):
    """A layer of the mapping network: EqualLinear, then a leaky ReLU that keeps the variance."""

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(super().forward(x), 0.2) * math.sqrt(2)


class PixelNorm(nn.Module):
    """(B, C) to unit mean square."""

    def forward(self, z: Tensor) -> Tensor:
        z = at_least_float32(z)
        return z * (z.square().mean(dim=1, keepdim=True) + EPSILON).rsqrt()


class Kernel(nn.Module):
    """The blur kernel (4, 4) of an upsampling by 2, which sums to 4; a buffer because the files hold it."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        line = torch.tensor(BLUR)
        self.register_buffer("kernel", torch.outer(line, line) / line.sum() ** 2 * 4)

    def depthwise(self, x: Tensor) -> Tensor:
        return self.kernel.to(x.dtype).expand(x.shape[1], 1, -1, -1)


class Blur(Kernel):
    def forward(self, x: Tensor) -> Tensor:
        """(B, C, 2H+1, 2W+1) to (B, C, 2H, 2W)."""
        return F.conv2d(x, self.depthwise(x), padding=1, groups=x.shape[1])


class Upsample(Kernel):
    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, 2H, 2W): zeros in between, then the blur."""
        return F.conv_transpose2d(x, self.depthwise(x), stride=2, padding=1, groups=x.shape[1])


class _Modulated(nn.Module):
    """The weights of a convolution whose input channels are scaled by a style. Keys as in the published files."""

    def __init__(self, c_in: int, c_out: int, kernel: int, style_dim: int, upsample: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, c_out, c_in, kernel, kernel))
        if upsample:
            self.blur = Blur()
        self.modulation = EqualLinear(style_dim, c_in, bias=1.0)
        self.upsample = upsample

    def scaled_weight(self) -> Tensor:
        """(out, in, k, k) in at least float32, of the variance of a fresh network's output."""
        weight = at_least_float32(self.weight[0])
        return weight / math.sqrt(weight[0].numel())


class ModulatedConv(_Modulated):
    """Modulated and demodulated: output channels have unit variance where the input has.

    forward: (B, in, H, W), w (B, style_dim), bias (out,) -> gain * convolution + bias, (B, out, H, W) or twice the
    size, in x's precision.  Half precision is safe: whatever the weights and styles, a plain convolution stores no
    number larger than gain sqrt(in k k) times the largest of its input (and the bias), which is what its result can be.
    """

    def forward(self, x: Tensor, w: Tensor, bias: Tensor, gain: float) -> Tensor:
        style, weight = self.modulation(w), self.scaled_weight()
        if len(x) == 1 and not torch.is_grad_enabled():
            return self._folded(x, weight, style, bias, gain)
        with torch.no_grad():  # these cancel out: they only keep the factors and their sum within half precision
            style_max = style.abs().amax(dim=1, keepdim=True).clamp_min(EPSILON)
            weight_max = weight.abs().amax(dim=(1, 2, 3)).clamp_min(EPSILON) * math.sqrt(weight[0].numel())
        energy = style.square() @ weight.square().sum(dim=(2, 3)).T
        factor = gain * style_max * weight_max * (energy + EPSILON).rsqrt()
        x = self._convolve(x * _per_map(style / style_max, x), weight / weight_max.view(-1, 1, 1, 1))
        return torch.addcmul(_per_map(bias[None], x), x, _per_map(factor, x))

    def _folded(self, x: Tensor, weight: Tensor, style: Tensor, bias: Tensor, gain: float) -> Tensor:
        """One sample, no gradient: its weights take up all factors, being smaller than its maps."""
        weight.mul_(style.view(1, -1, 1, 1))
        weight.mul_((weight.square().sum(dim=(1, 2, 3), keepdim=True) + EPSILON).rsqrt() * gain)
        return self._convolve(x, weight).add_(_per_map(bias[None], x))

    def _convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        weight = weight.to(x.dtype)
        if self.upsample:
            return self.blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2))
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2)


class ModulatedToRGB(_Modulated):
    """Modulated 1 x 1 convolution without demodulation. forward: (B, in, H, W), w -> (B, 3, H, W), float32 or more."""

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        weight = self.scaled_weight().flatten(1) * self.modulation(w)[:, None]
        largest = weight.detach().abs().amax(dim=(1, 2), keepdim=True).clamp_min(EPSILON)
        pixels = x.permute(0, 2, 3, 1).flatten(1, 2)
        rgb = at_least_float32(pixels @ (weight / largest).to(x.dtype).transpose(1, 2)) * largest
        return rgb.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


class StyledConv(nn.Module):
    """Modulated convolution, noise, bias, leaky ReLU. forward: (B, in, H, W), w, noise (B or 1, 1, H', W') or None."""

    def __init__(self, c_in: int, c_out: int, style_dim: int, upsample: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv(c_in, c_out, 3, style_dim, upsample)
        self.noise = nn.ParameterDict({"weight": torch.zeros(1)})
        self.activate = nn.ParameterDict({"bias": torch.zeros(c_out)})

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        # The ReLU's gain of sqrt 2 passes through it, so that the large map is not touched once more.
        gain = math.sqrt(2)
        x = self.conv(x, w, self.activate["bias"] * gain, gain)
        if noise is not None:
            x = x.add_((noise.to(self.noise["weight"]) * self.noise["weight"] * gain).to(x.dtype))
        return F.leaky_relu(x, 0.2, inplace=True)


class ToRGB(nn.Module):
    """Features to an image (B, 3, H, W) in at least float32, on top of the one of half the size."""

    def __init__(self, c_in: int, style_dim: int, upsample: bool = True) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))
        if upsample:
            self.upsample = Upsample()
        self.conv = ModulatedToRGB(c_in, 3, 1, style_dim)

    def forward(self, x: Tensor, w: Tensor, rgb: Tensor | None = None) -> Tensor:
        image = self.conv(x, w) + self.bias
        return image if rgb is None else image + self.upsample(rgb)


def num_rows(size: int) -> int:
    """Rows of W+ of a generator of images of `size` px: two for each resolution from 4 px up."""
    return 2 * int(math.log2(size)) - 2


class Generator(Freezable):
    """StyleGAN2 for square images of a power of two from 32 to 1024.

    Resolution r has min(max_channels, 16384 channel_multiplier / r) channels.
    num_rows: of W+; row i steers convolution i and the RGB layer before it, the last row the last RGB layer.
    checkpointing: in training, keep each convolution's input only and compute the rest again: less memory, more time.
    Raises ValueError for another size.
    """

    def __init__(
        self,
        size: int,
        style_dim: int = 512,
        num_mapping: int = 8,
        channel_multiplier: float = 2,
        max_channels: int = 512,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if size not in (32, 64, 128, 256, 512, 1024):
            raise ValueError(f"The generator's size is {size}; expected a power of two from 32 to 1024.")
        self.size, self.style_dim, self.checkpointing = size, style_dim, checkpointing
        sides = [2**i for i in range(2, int(math.log2(size)) + 1)]
        channels = [min(max_channels, int(16384 * channel_multiplier / side)) for side in sides]
        self.num_rows = num_rows(size)
        layers = (MappingLayer(style_dim, style_dim, lr_mul=0.01) for _ in range(num_mapping))
        self.style = nn.Sequential(PixelNorm(), *layers)
        self.input = nn.ParameterDict({"input": torch.randn(1, channels[0], 4, 4)})
        self.conv1 = StyledConv(channels[0], channels[0], style_dim)
        self.to_rgb1 = ToRGB(channels[0], style_dim, upsample=False)
        self.convs, self.to_rgbs, self.noises = nn.ModuleList(), nn.ModuleList(), nn.Module()
        for c_in, c_out in zip(channels, channels[1:], strict=False):
            self.convs += [StyledConv(c_in, c_out, style_dim, upsample=True), StyledConv(c_out, c_out, style_dim)]
            self.to_rgbs.append(ToRGB(c_out, style_dim))
        for i, side in enumerate([4, *(side for side in sides[1:] for _ in range(2))]):
            self.noises.register_buffer(f"noise_{i}", torch.randn(1, 1, side, side))

    def mapping(self, z: Tensor) -> Tensor:
        """z (B, style_dim) to w (B, style_dim), in at least float32."""
        return self.style(z)

    def draw_z(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        """(num, style_dim) normal numbers, drawn on the generator's device and moved to the weights'."""
        return self._draw((num, self.style_dim), generator)

    @torch.no_grad()
    def mean_w(self, num: int = 10000, generator: torch.Generator | None = None) -> Tensor:
        """Mean of w over `num` draws of z: (style_dim,)."""
        return self.mapping(self.draw_z(num, generator)).mean(dim=0)

    def rows(self, w: Tensor) -> Tensor:
        """w (B, style_dim), the same for all layers, as W+ (B, num_rows, style_dim)."""
        return w[:, None].expand(-1, self.num_rows, -1)

    def synthesis(self, w_plus: Tensor, noise: Noise = "stored", generator: torch.Generator | None = None) -> Tensor:
        """Image (B, 3, size, size), nominally in [-1, 1] but not clamped, in at least float32.

        w_plus: (B, num_rows, style_dim).
        noise: 'stored', the buffers: the same image each time; 'random', drawn from `generator` for each sample;
        'none'; or a list of maps (B or 1, 1, side, side), two a resolution, one at 4 px.
        Raises ValueError for another shape of w_plus or other noise.
        """
        if w_plus.shape[1:] != (self.num_rows, self.style_dim):
            raise ValueError(
                f"w_plus is {tuple(w_plus.shape)}; expected (B, {self.num_rows}, {self.style_dim}) "
                f"for images of {self.size} px."
            )
        maps, w = self._noise_maps(noise, len(w_plus), generator), w_plus.unbind(dim=1)
        device, dtype = w_plus.device.type, self.input["input"].dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            x = self.input["input"].to(dtype).expand(len(w_plus), -1, -1, -1)
            # Channels last: no reordering around each convolution, which on a CPU costs as much as the arithmetic.
            x = self.conv1(x.contiguous(memory_format=torch.channels_last), w[0], maps[0])
            rgb = self.to_rgb1(x, w[1])
            for i, to_rgb in enumerate(self.to_rgbs):
                for j in (2 * i, 2 * i + 1):
                    x = self._styled(self.convs[j], x, w[j + 1], maps[j + 1])
                rgb = to_rgb(x, w[2 * i + 3], rgb)
        return rgb.contiguous()

    def forward(
        self,
        z: Tensor,
        mixed: Tensor | None = None,
        inject_index: int = 0,
        psi: float = 1.0,
        mean: Tensor | None = None,
        noise: Noise = "random",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Image of z (B, style_dim); rows from `inject_index` on come from a second z, `mixed`, where one is given.

        psi, mean: see `truncate`.  noise, generator: see `synthesis`.
        """
        w = self.rows(truncate(self.mapping(z), psi, mean))
        if mixed is not None:
            w = mix(w, self.rows(truncate(self.mapping(mixed), psi, mean)), inject_index)
        return self.synthesis(w, noise, generator)

    def _styled(self, layer: nn.Module, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(layer, x, w, noise, use_reentrant=False, preserve_rng_state=False)
        return layer(x, w, noise)

    def _noise_maps(self, noise: Noise, batch: int, generator: torch.Generator | None) -> list[Tensor | None]:
        stored = list(self.noises.buffers())
        if noise == "stored":
            return [*stored]
        if noise == "none":
            return [None] * len(stored)
        if noise == "random":
            return [self._draw((batch, *buffer.shape[1:]), generator) for buffer in stored]
        found = None if isinstance(noise, str) else [tuple(given.shape) for given in noise]
        wanted = [tuple(buffer.shape) for buffer in stored]
        if found is None or [(1, *shape[1:]) for shape in found] != wanted or {s[0] for s in found} - {1, batch}:
            raise ValueError(
                f"noise is {noise if found is None else f'maps of {found}'}; expected 'stored', 'random', 'none' or "
                f"{len(stored)} maps of {wanted}, or of {batch} in place of the first 1."
            )
        return list(noise)

    def _draw(self, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
        target = self.input["input"]
        device = target.device if generator is None else generator.device
        drawn = torch.randn(shape, generator=generator, device=device, dtype=torch.float32)
        return drawn.to(target.device, torch.promote_types(target.dtype, torch.float32), non_blocking=True)


def truncate(w: Tensor, psi: float = 1.0, mean: Tensor | None = None) -> Tensor:
    """mean + psi (w - mean), for w (..., style_dim) and the mean (style_dim,) or (num_rows, style_dim).

    Raises ValueError if psi is not 1 and there is no mean.
    """
    if psi == 1:
        return w
    if mean is None:
        raise ValueError(f"Truncation by psi = {psi} needs the mean w; Generator.mean_w() computes it.")
    return mean + psi * (w - mean)


def mix(w_a: Tensor, w_b: Tensor, inject_index: int) -> Tensor:
    """W+ codes (B, num_rows, style_dim): rows below `inject_index` from the first, the rest from the second."""
    return torch.cat((w_a[:, :inject_index], w_b[:, inject_index:]), dim=1)


def _per_map(values: Tensor, x: Tensor) -> Tensor:
    """(B, C) in x's precision, to be applied to x (B, C, H, W)."""
    return values.to(x.dtype)[:, :, None, None]
