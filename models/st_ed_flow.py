"""ST-ED with a decoder that carries the source's pixels, in place of one that paints a face from its embeddings.

    image_hat = s1 * warp(source, flow) + s2 * warp(mirror image, mirror_flow) + s3 * paint        s1 + s2 + s3 = 1

The encoder, its factors and their rotation are ST-ED's. What the decoder knows is in the encoding: the source itself,
its own conditions and embeddings (the remainder), and the rotated ones. From the top:

1. `encode`        the image as ST-ED encodes it, but for the gaze, and what the decoder needs of the source besides
2. `decode_parts`  flows, shares and paint at the networks' size, enlarged to the source's own, where it is then moved
3. `FlowDecoder`   embeddings and conditions, new and own, to a style; the style to a coarse flow: a head that turns,
                   and what a face does besides. A U-Net looks at the source and its mirror image, moved so, and gives
                   the rest: lids, the shares, the paint
4. `EyeNet`        the same for the eyes alone, as sharply as the source has them, painted with colours of their own
5. `GazeNet`       the gaze of the source, seen in its eyes alone, which are small at the networks' size
6. `turned`        how far an edit goes. It scales every change: an edit of nothing is the source to the bit, and an
                   edit of the gaze alone has no coarse flow

Ideas: View Synthesis by Appearance Flow (ECCV 2016), DeepWarp (ECCV 2016), First Order Motion Model (NeurIPS 2019).
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.densenet import instance_norm
from models.encoder import Encoder, embedding_width
from models.flow import EYE_SAMPLES, EyePlaces, enlarged, eye_places, pixel_positions, rigid_flow, warp
from models.geometry import at_least_float32, constants
from models.redirector import Decoded, Encoding, Factor, Redirector, flat_embeddings

STYLE_WIDTH = 128
COARSE_SIDE = 16
SHARP_SIDE = 128  # pixels a side of the source that the eyes are looked at in
GAZE_WIDTH = 96
COLOURS = 8  # that an eye is painted with
OF_EYES = ("head", "gaze")  # the factors that eyes depend on
SMALL_TURN = 0.05  # radians; edits of far less move less than the decoder would have it
DEPTH = (0.38, 1.1, 0.2)  # of a head before training: in the middle, and what it loses by x^2 and y^2

Maps = tuple[Tensor, Tensor, Tensor, Tensor]  # flow, mirror_flow, shares, paint


class STEDFlow(Redirector):
    """ST-ED's encoder, and a decoder of flows, shares and paint.

    image_size: what the networks see. `encode` takes any multiple of it, and `decode` gives that size back.
    width: channels of the decoder at full size.
    """

    carries_pixels = True

    def __init__(
        self, factors: tuple[Factor, ...], image_size: int, growth: int, blocks: int, fc_width: int, width: int
    ) -> None:
        super().__init__()
        self.factors, self.image_size = factors, image_size
        self.encoder = Encoder(factors, image_size, growth, blocks, fc_width)
        self.decoder = FlowDecoder(factors, width)
        self.eyes = EyeNet(width)
        self.gaze = GazeNet(width)

    def encode(self, image: Tensor) -> Encoding:
        side = self.image_size
        if image.shape[-1] % side or image.shape[-1] != image.shape[-2]:
            raise ValueError(f"image is {tuple(image.shape)}, expected a square of a multiple of {side} px.")
        encoding = self.encoder(reduced(image, side))
        gaze = self.gaze(image, encoding.conditions["head"].detach())
        encoding = replace(encoding, conditions={**encoding.conditions, "gaze": gaze})
        own = {f"own_{name}": value for name, value in encoding.conditions.items()}
        return replace(encoding, remainder={"image": image, "style": flat_embeddings(encoding), **own})

    def decode_parts(self, encoding: Encoding) -> Decoded:
        source = encoding.remainder["image"]
        maps = self.decoder(encoding, reduced(source, self.image_size))
        flow, mirror_flow, shares, paint = self.eyes(encoding, source, maps)
        image, warped, mirrored = blend(source, flow, mirror_flow, shares, paint)
        carried = {"flow": flow, "mirror_flow": mirror_flow, "warp": warped, "mirror": mirrored}
        return Decoded(image, {**carried, "paint": paint, "shares": shares})

    def decode(self, encoding: Encoding) -> Tensor:
        return self.decode_parts(encoding).image


class FlowDecoder(nn.Module):
    """Encoding and source (B, 3, S, S) to the flows of the source and of its mirror image, (B, 2, S, S) each, the
    shares (B, 3, S, S) of both and of the paint, and the paint (B, 3, S, S)."""

    def __init__(self, factors: tuple[Factor, ...], width: int) -> None:
        super().__init__()
        steered = [factor for factor in factors if factor.dof]
        self.moved = [factor.name for factor in steered if factor.name != "gaze"]
        self.steered = [factor.name for factor in steered]
        conditions = 3 * sum(factor.dof for factor in steered)
        self.style = nn.Sequential(
            nn.Linear(2 * embedding_width(factors) + conditions, STYLE_WIDTH), nn.LeakyReLU(0.2),
            nn.Linear(STYLE_WIDTH, STYLE_WIDTH), nn.LeakyReLU(0.2),
        )  # fmt: skip
        self.coarse = nn.Linear(STYLE_WIDTH, 6 * COARSE_SIDE**2)
        self.depth = nn.Parameter(torch.tensor(DEPTH))
        self.fine = UNet(8, width, 10)
        nn.init.zeros_(self.coarse.weight)
        nn.init.zeros_(self.coarse.bias)

    def forward(self, encoding: Encoding, source: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        style = self.style(self.seen(encoding))
        flow, mirror_flow = self.coarse_flows(encoding, style, source.shape[-1])
        flow = turned(encoding, self.moved) * flow
        warped, mirrored = warp(source, flow), warp(source.flip(-1), mirror_flow)
        more, shares, paint = self.fine(torch.cat((warped, mirrored, flow), dim=1), style).split((4, 3, 3), dim=1)
        more, paint = 0.1 * more, warped + paint
        first = constants([2.0, 0.0, 0.0], shares)[:, None, None]
        shares = torch.softmax(shares + first, dim=1)
        amount = turned(encoding, self.steered)
        unmoved = constants([1.0, 0.0, 0.0], shares)[:, None, None]
        return flow + amount * more[:, :2], mirror_flow + more[:, 2:], torch.lerp(unmoved, shares, amount), paint

    def seen(self, encoding: Encoding) -> Tensor:
        """Rotated and own embeddings and conditions, and their difference; (B, n)."""
        new = torch.cat([encoding.conditions[name] for name in self.steered], dim=1).detach()
        old = torch.cat([encoding.remainder[f"own_{name}"] for name in self.steered], dim=1).detach()
        return torch.cat((flat_embeddings(encoding), encoding.remainder["style"], new, old, 4 * (new - old)), dim=1)

    def coarse_flows(self, encoding: Encoding, style: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Of head and all but the eyes, (B, 2, S, S): of the source, and of its mirror image."""
        maps = 0.1 * at_least_float32(self.coarse(style)).unflatten(1, (6, COARSE_SIDE, COARSE_SIDE))
        free, mirror_free, depth, gate = enlarged(maps, side).split((2, 2, 1, 1), dim=1)
        x, y = pixel_positions(side, maps).split(1, dim=1)
        middle, by_x, by_y = self.depth
        depth = middle - by_x * x**2 - by_y * y**2 + 4 * depth
        own, new = encoding.remainder["own_head"].detach(), encoding.conditions["head"].detach()
        mirrored = mirror_of(own)
        gate = torch.sigmoid(20 * gate + 2)
        return gate * rigid_flow(depth, own, new) + free, gate * rigid_flow(depth, mirrored, new) + mirror_free


class UNet(nn.Module):
    """A small U-Net that a style scales; it gives zeros before training."""

    def __init__(self, c_in: int, width: int, c_out: int) -> None:
        super().__init__()
        w = width
        self.down = nn.ModuleList(
            [_Layer(c_in, w), _Layer(w, 2 * w, 2), _Layer(2 * w, 3 * w, 2), _Layer(3 * w, 4 * w, 2)]
        )
        self.narrow = nn.ModuleList([nn.Conv2d(4 * w, 3 * w, 1), nn.Conv2d(3 * w, 2 * w, 1), nn.Conv2d(2 * w, w, 1)])
        self.up = nn.ModuleList([_Layer(6 * w, 3 * w), _Layer(4 * w, 2 * w), _Layer(2 * w, w)])
        self.out = nn.Conv2d(w, c_out, 3, padding=1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        skips = []
        for layer in self.down:
            x = layer(x, style)
            skips.append(x)
        for narrow, layer, skip in zip(self.narrow, self.up, reversed(skips[:-1]), strict=True):
            x = layer(torch.cat((F.interpolate(narrow(x), scale_factor=2.0, mode="nearest"), skip), dim=1), style)
        return at_least_float32(self.out(x))


class EyeNet(nn.Module):
    """Both eyes once more, as sharply as the source has them: what each lacks of flow, and paint in colours of its own.

    An eye is cut out where a head of the new condition has it, the one at image right as its mirror image, so that both
    are one and the same to the network.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.style = nn.Sequential(
            nn.Linear(6 * len(OF_EYES), STYLE_WIDTH), nn.LeakyReLU(0.2),
            nn.Linear(STYLE_WIDTH, STYLE_WIDTH), nn.LeakyReLU(0.2),
        )  # fmt: skip
        self.net = UNet(3, width, 3 + 2 * COLOURS)
        nn.init.normal_(self.net.out.weight[3:], std=0.02)  # alike, they would stay alike

    def forward(self, encoding: Encoding, source: Tensor, maps: Maps) -> Maps:
        """The decoder's maps at the size of the source (B, 3, S, S), with the eyes in them."""
        places = eye_places(encoding.conditions["head"].detach())
        crops = self.crops(source, maps, places)
        found = self.net(crops, self.style(self.seen(encoding)))
        flows, share, mix, picks = found.split((2, 1, COLOURS, COLOURS), dim=1)
        across = places.mirrored[:, None, None, None] * flows[:, :1]
        painted = own_colours(crops, picks, mix)
        found = torch.cat((0.1 * across, 0.1 * flows[:, 1:], torch.sigmoid(share - 1), painted), dim=1)
        found, holds = places.put_back(found, source.shape[-1])
        more, share, painted = found.split((2, 1, 3), dim=1)
        flow, mirror_flow, shares, paint = (enlarged(part, source.shape[-1], "bilinear") for part in maps)
        amount = turned(encoding, OF_EYES)
        eyes = constants([0.0, 0.0, 1.0], shares)[:, None, None].expand_as(shares)
        shares = shares.lerp(eyes, amount * share)
        return flow + amount * more, mirror_flow, shares, (1 - holds) * paint + painted

    def crops(self, source: Tensor, maps: Maps, places: EyePlaces) -> Tensor:
        """(2 B, 3, h, w): the eyes as the decoder has them, sampled from the source itself."""
        sharp = reduced(source, min(source.shape[-1], SHARP_SIDE)).repeat(2, 1, 1, 1)
        where = places.grid()
        flow, mirror_flow, shares, paint = (
            F.grid_sample(part.repeat(2, 1, 1, 1), where, padding_mode="border", align_corners=False) for part in maps
        )
        warped, mirrored = warp(sharp, flow, where), warp(sharp.flip(-1), mirror_flow, where)
        return shares[:, :1] * warped + shares[:, 1:2] * mirrored + shares[:, 2:] * paint

    def seen(self, encoding: Encoding) -> Tensor:
        """Conditions, new, old and their difference, for the eyes at image left and, mirrored, at image right."""
        new = torch.cat([encoding.conditions[name] for name in OF_EYES], dim=1).detach()
        old = torch.cat([encoding.remainder[f"own_{name}"] for name in OF_EYES], dim=1).detach()
        return both_sides(torch.cat((new, old, 4 * (new - old)), dim=1))


class GazeNet(nn.Module):
    """Gaze (B, 2) radians of a source (B, 3, S, S) with a head of a given condition (B, 2): the head's direction, and
    what each of the eyes adds to it, as sharply as the source has them; a head turned far shows one better."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.style = nn.Sequential(nn.Linear(2, STYLE_WIDTH), nn.LeakyReLU(0.2))
        widths = (3, width, 2 * width, 3 * width, 4 * width)
        self.layers = nn.ModuleList([_Layer(widths[i], widths[i + 1], 2 if i else 1) for i in range(4)])
        rows, columns = (count // 8 for count in EYE_SAMPLES)
        self.hidden = nn.Linear(4 * width * rows * columns, GAZE_WIDTH)
        self.out = nn.Linear(GAZE_WIDTH + 2, 3)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, source: Tensor, head: Tensor) -> Tensor:
        sharp = reduced(source, min(source.shape[-1], SHARP_SIDE)).repeat(2, 1, 1, 1)
        eyes = F.grid_sample(sharp, eye_places(head).grid(), padding_mode="border", align_corners=False)
        heads = both_sides(head)
        style = self.style(heads)
        for layer in self.layers:
            eyes = layer(eyes, style)
        with torch.autocast(head.device.type, enabled=False):
            hidden = F.leaky_relu(self.hidden(at_least_float32(eyes).flatten(1)), 0.2)
            added, weight = self.out(torch.cat((hidden, heads), dim=1)).unflatten(0, (2, -1)).split((2, 1), dim=2)
        left, right = added.unbind()
        weights = torch.softmax(weight, dim=0)
        return head + weights[0] * left + weights[1] * mirror_of(right)


class _Layer(nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 3, stride, 1)
        self.scale = nn.Linear(STYLE_WIDTH, 2 * c_out)
        nn.init.kaiming_normal_(self.conv.weight, 0.2)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        gain, bias = self.scale(style)[:, :, None, None].chunk(2, dim=1)
        return F.leaky_relu(instance_norm(self.conv(x)) * (1 + gain) + bias, 0.2)


def mirror_of(conditions: Tensor) -> Tensor:
    """(B, 2 n) pitch and yaw of the mirror image."""
    return conditions * constants([1.0, -1.0], conditions).repeat(conditions.shape[1] // 2)


def both_sides(conditions: Tensor) -> Tensor:
    """(2 B, 2 n): for the eyes at image left and, mirrored, at image right."""
    return torch.cat((conditions, mirror_of(conditions)))


def turned(encoding: Encoding, names: Sequence[str]) -> Tensor:
    """How far conditions are from the source's own: (B, 1, 1, 1), 0 where they are equal, 1 from about 5 degrees on."""
    far = torch.cat([encoding.conditions[name] - encoding.remainder[f"own_{name}"] for name in names], dim=1).detach()
    return (1 - torch.exp(-far.square().sum(dim=1) / SMALL_TURN**2))[:, None, None, None]


def own_colours(image: Tensor, picks: Tensor, mix: Tensor) -> Tensor:
    """A picture (B, 3, h, w) of a few colours that are the image's own, whoever's and in whatever light.

    picks: (B, n, h, w), where each of n colours is taken from: it is the mean over the image by its softmax.
    mix: (B, n, h, w), of which colours each pixel is.
    """
    shares = torch.softmax(4 * picks.flatten(2), dim=2)
    colours = shares @ at_least_float32(image).flatten(2).transpose(1, 2)  # (B, n, 3)
    return torch.einsum("bnhw,bnc->bchw", torch.softmax(4 * mix, dim=1), colours)


def blend(
    source: Tensor, flow: Tensor, mirror_flow: Tensor, shares: Tensor, paint: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The image, and the moved source and its moved mirror image that it was made of."""
    warped, mirrored = warp(source, flow), warp(source.flip(-1), mirror_flow)
    return shares[:, :1] * warped + shares[:, 1:2] * mirrored + shares[:, 2:] * paint, warped, mirrored


def reduced(image: Tensor, side: int) -> Tensor:
    """Averaged down to (B, C, side, side)."""
    factor = image.shape[-1] // side
    return image if factor == 1 else F.avg_pool2d(image, factor)
