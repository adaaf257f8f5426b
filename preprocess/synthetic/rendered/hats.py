"""What is worn over the hair: knitted caps, caps with a peak, headscarves; their cloth takes the locks' place."""

import numpy as np
from numpy import ndarray

from preprocess.synthetic.curves import smooth
from preprocess.synthetic.rendered.atlas import HAIR_ROWS, ROWS, WIDTH
from preprocess.synthetic.rendered.hair import Hair, streaks
from preprocess.synthetic.rendered.skull import CENTRE, Extra, Skull, join, surface
from preprocess.synthetic.scene import unit

_COLUMNS = 41  # of points round a head, the last on the first
# y where it ends by azimuth, 0 in front, and clearance from the head, mm, on the way from there, 0, to the crown, 1.
_EDGES = {
    "knitted": [[0, -46], [60, -30], [85, -6], [110, 4], [180, 40]],
    "cap": [[0, -52], [60, -42], [90, -26], [120, -16], [180, 0]],
}
_PROFILES = {
    "knitted": [[0, 1], [0.01, 5], [0.04, 7], [0.27, 7], [0.30, 4.5], [0.5, 6], [0.75, 8], [1, 10]],
    "cap": [[0, 0.5], [0.02, 3], [0.3, 6], [0.5, 9], [0.7, 11], [0.85, 9], [1, 8]],
}


def _places(t: ndarray, columns: int) -> ndarray:
    """(n, columns, 2): places in the atlas of rows `t`, 0 to 1, of a piece of cloth."""
    column = 3 + (WIDTH - 8) * np.linspace(0, 1, columns)
    return np.stack(np.broadcast_arrays(column, ROWS - HAIR_ROWS + 2 + t[:, None] * (HAIR_ROWS - 5)), axis=-1)


def _dome(hat: str, lower: float, skull: Skull) -> tuple[Extra, ndarray]:
    """The part that sits on the head, and its edge, (_COLUMNS, 3)."""
    turn = np.linspace(-np.pi, np.pi, _COLUMNS)
    edge = np.interp(np.rad2deg(np.abs(turn)), *np.array(_EDGES[hat]).T) + lower
    down = np.clip((edge - CENTRE[1]) / 98, -1, 1)
    across = np.sqrt(1 - down * down)
    rim = np.column_stack([across * np.sin(turn), down, -across * np.cos(turn)])
    t, clearance = np.array(_PROFILES[hat]).T
    directions = unit(rim * (1 - t)[:, None, None] + np.array([0, -1, 0.15]) * t[:, None, None])
    points = skull.push_out((CENTRE + directions).reshape(-1, 3), np.repeat(clearance, _COLUMNS))
    points = points.reshape(*directions.shape)[::-1]
    return surface(points, _places(t, _COLUMNS)), points[-2]


def _peak(edge: ndarray) -> Extra:
    """The peak of a cap, from the front of its edge (_COLUMNS, 3)."""
    front = edge[_COLUMNS // 2 - 6 : _COLUMNS // 2 + 7]
    t, side = np.linspace(0, 1, 5), np.linspace(-1, 1, len(front))
    reach = 62 * np.sqrt(1 - side**2)[None] * t[:, None]
    bow = 5 * (side**2 - 1) * t[:, None]
    points = front + np.stack([0.06 * reach * side, 0.06 * reach - bow - 5 * t[:, None], -reach], axis=-1)
    return surface(points, _places(0.4 + 0.5 * t, len(front)))


def _scarf(skull: Skull, slack: float) -> Extra:
    """A headscarf: round the face, over the head, under the chin, and a collar down to the shoulders."""
    turn = np.linspace(-np.pi, np.pi, _COLUMNS)  # round the face, 0 at the forehead
    knots = np.deg2rad([0, 40, 70, 110, 140, 180])
    x, y, z = (
        np.interp(np.abs(turn), knots, at)
        for at in ([0, 52, 68, 66, 44, 0], [-54, -46, -10, 45, 92, 116], [-14, 5, 30, 34, 30, 28])
    )
    rim = np.column_stack([np.sign(turn) * x, y, z])
    t = np.array([0, 0.03, 0.12, 0.24, 0.36, 0.48, 0.6, 0.8, 1.0])[:, None, None]
    front, back = unit(rim - CENTRE), unit(np.array([0, 0.15, 1.0]))
    arc = np.arccos(np.clip(front @ back, -1, 0.99))[:, None]
    directions = (front * np.sin((1 - t) * arc) + back * np.sin(t * arc)) / np.sin(arc)
    clearance = slack * np.interp(t[..., 0], [0, 0.03, 0.12, 1], [0.2, 1, 1.3, 1.5])
    clearance = clearance + 7 * np.sin(turn) ** 2 * np.exp(-(((t[..., 0] - 0.36) / 0.2) ** 2))  # over the ears
    round_head = skull.push_out((CENTRE + directions).reshape(-1, 3), clearance.ravel()).reshape(directions.shape)
    straight = rim * (1 - t) + np.array([0, 10, 170]) * t
    low = smooth(straight[..., 1:2], 50, 100)  # no head there: from the chin straight to the nape
    hood = surface((round_head + (straight - round_head) * low)[::-1, ::-1], _places(t[:, 0, 0], _COLUMNS))
    t = np.linspace(0, 1, 8)[:, None]
    wide = 48 + 24 * smooth(t, 0.0, 0.4) + 70 * smooth(t, 0.5, 1.0)
    turn = np.linspace(0, 2 * np.pi, _COLUMNS)
    folds = 1 + 0.03 * np.sin(7 * turn + 5 * t)
    collar = [wide * folds * np.sin(turn), 70 + 115 * t + 0 * turn, 98 + 0.9 * wide * folds * np.cos(turn)]
    return join([hood, surface(np.stack(collar, axis=-1)[:, ::-1], _places(t[:, 0], _COLUMNS))])


def wear(hair: Hair, vertices: ndarray) -> Extra:
    """What somebody wears on a head whose vertices are (V, 3)."""
    skull = Skull(vertices, face=0.0)
    if hair.hat == "scarf":
        return _scarf(skull, 3.0 + 3 * hair.lift)
    dome, edge = _dome(hair.hat, 12 * (hair.lift - 0.5), skull)
    return join([dome, _peak(edge)]) if hair.hat == "cap" else dome


def paint_cloth(atlas: ndarray, hair: Hair) -> None:
    """Paints what `wear` made into an atlas (ROWS, WIDTH, 4) uint8."""
    rng = np.random.default_rng(hair.seed + 2)
    fine, folds = streaks(rng, HAIR_ROWS, 0.7, 0.7), streaks(rng, HAIR_ROWS, 9.0, 6.0)
    columns = np.arange(WIDTH)
    ribs = np.sin(columns * (2 * np.pi / 8)) if hair.hat == "knitted" else 0 * columns
    tone = 1 + 0.07 * fine + (0.16 if hair.hat == "scarf" else 0.04) * folds + 0.22 * ribs
    atlas[ROWS - HAIR_ROWS :, :, :3] = np.clip(np.array(hair.hat_rgb) * tone[..., None], 0, 255)
    atlas[ROWS - HAIR_ROWS :, :, 3] = 20 if hair.hat == "cap" else 6
