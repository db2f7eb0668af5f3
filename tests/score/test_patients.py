"""Class maps by patient and phase, against truth in colours: what a heart study is scored by."""

from __future__ import annotations

import json
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from click.testing import CliRunner

from engine.commands.evaluate import evaluate
from engine.errors import StackError, UsageError
from engine.results.score.compare import compare
from engine.results.score.table import class_table, notes
from engine.truth.palette import read_palette
from tests import results
from tests.engine import jobs
from tests.score.test_surfaces import brute

ACDC = read_palette("acdc")
RGB = np.array([one.rgb for one in ACDC.classes], np.uint8)
NAMES = ACDC.names[1:]
DEPTH = 11  # so that z10 comes after z9, by number


def disc(y: float, x: float, radius: float, shape: tuple[int, int] = (28, 26)) -> np.ndarray:
    yy, xx = np.indices(shape)
    return (yy - y) ** 2 + (xx - x) ** 2 < radius**2


def heart(shift: float, z: int) -> np.ndarray:
    """A slice of class numbers: a ring (2) around a disc (3), and beside it a disc (1)."""
    classes = np.zeros((28, 26), np.uint8)
    size = 1 - 0.07 * z
    classes[disc(14 + shift, 6, 4 * size)] = 1
    classes[disc(14, 17 + shift, 6 * size)] = 2
    classes[disc(14, 17 + shift, 3 * size)] = 3
    return classes


def write(folder: Path, name: str, picture: np.ndarray) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.png").write_bytes(imagecodecs.png_encode(np.ascontiguousarray(picture)))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two patients of two phases: class numbers, masks in colours, both also as volumes."""
    root = tmp_path_factory.mktemp("study")
    sides = {}
    for patient in (1, 2):
        for phase in ("frame01", "frame12"):
            shift = patient * (1 if phase == "frame01" else 2)
            ours = np.stack([heart(0, z) for z in range(DEPTH)])
            theirs = np.stack([heart(shift, z) for z in range(DEPTH)])
            theirs[3][theirs[3] == 1] = 0  # a slice where only the result has class 1
            if (patient, phase) == (2, "frame12"):
                ours[ours == 1] = theirs[theirs == 1] = 0  # none of it in either
            for z in range(DEPTH):
                name = f"patient{patient:03d}_{phase}_z{z}"
                write(root / "ours", name, ours[z])
                write(root / "masks", name, RGB[theirs[z]])
            sides[f"patient{patient:03d} {phase}"] = ours, theirs
    return root, sides


@pytest.fixture(scope="module")
def flat(study):
    root, _ = study
    return compare(root / "ours", root / "masks", palette="acdc")


def test_pooled_by_patient_and_phase_without_being_told(study, flat):
    _, sides = study
    assert list(flat.groups) == list(sides)
    assert [c.name for c in flat.classes] == list(NAMES)
    for group, (ours, theirs) in sides.items():
        score = flat.groups[group]
        for value in (1, 2, 3):
            a, b = ours == value, theirs == value
            if not (a.any() or b.any()):
                assert score.is_absent(value) and np.isnan(score.class_dice(value))
                continue
            assert score.class_dice(value) == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))
            volumes = score.volumes(value)
            assert volumes["volume_error"] == int(a.sum()) - int(b.sum()), "voxels"
            planes = [brute(*pair, (1, 1)) for pair in zip(a, b, strict=True)]
            both = [np.concatenate([p[i] for p in planes]) for i in (0, 1)]
            hd = max(np.percentile(one, 95) for one in both)
            assert score.hd95(value) == pytest.approx(hd), "of all slices, within each"
    told = notes(flat)
    assert any("pooled by patient and phase" in line for line in told)
    assert "right ventricle 1" in next(line for line in told if "neither side" in line)
    assert "right ventricle 3" in next(line for line in told if "only one side" in line)
    assert flat.left_out(1) == (4, 1, 0) and flat.left_out(2) == (4, 0, 0)
    mean = flat.mean_of_groups()
    dice = [s.class_dice(1) for name, s in flat.groups.items() if name != "patient002 frame12"]
    assert mean["dice_right ventricle"] == pytest.approx(np.mean(dice))


def test_slices_of_known_distance_are_a_volume(study):
    root, sides = study
    spacing = (10.0, 1.5, 1.25)
    found = compare(root / "ours", root / "masks", palette="acdc", spacing="10,1.5,1.25")
    assert (found.scale.length, found.scale.volume) == ("mm", "ml")
    pooled: tuple[list, list] = [], []
    for group, (ours, theirs) in sides.items():
        a, b = ours == 2, theirs == 2
        expected = brute(a, b, spacing)
        hd = max(np.percentile(one, 95) for one in expected)
        assert found.groups[group].hd95(2) == pytest.approx(hd)
        millilitres = np.prod(spacing) / 1000
        volumes = found.groups[group].volumes(2)
        assert volumes["truth_volume"] == pytest.approx(b.sum() * millilitres)
        assert volumes["volume_error_percent"] == pytest.approx(100 * (a.sum() / b.sum() - 1))
        for all_of_it, one in zip(pooled, expected, strict=True):
            all_of_it += one
    assert found.pooled.hd95(2) == pytest.approx(max(np.percentile(p, 95) for p in pooled))
    assert any("HD95 is measured within volumes" in line for line in notes(found))


def store(path: Path, array: np.ndarray, size_um: tuple[float, ...] | None, order=(0, 1, 2, 3)):
    """A NAME.zarr of class numbers (Z, Y, X), its classes named."""
    about = {
        "colors": [
            {"label-value": i, "rgba": [*map(int, RGB[k]), 255]} for i, k in enumerate(order)
        ],
        "properties": [
            {"label-value": i, "name": ACDC.names[k]} for i, k in enumerate(order)
        ],
    }  # fmt: skip
    results.add_group(path, "labels/test", array, "ZYX", list(size_um or (1, 1, 1)),
                      ome={"image-label": about})  # fmt: skip
    meta = path / "labels/test/zarr.json"
    content = json.loads(meta.read_text())
    for axis in content["attributes"]["ome"]["multiscales"][0]["axes"]:
        axis |= {"unit": "micrometer"} if size_um else {}
    meta.write_text(json.dumps(content))
    groups = {"": {"ome": {"version": "0.5"}}, "labels": {"ome": {"labels": ["test"]}}}
    for where, attributes in groups.items():
        group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        (path / where / "zarr.json").write_text(json.dumps(group))
    return path


def test_volumes_measure_by_their_own_metadata(study, tmp_path):
    _, sides = study
    ours, theirs = sides["patient001 frame12"]
    size = (8000.0, 1400.0, 1400.0)
    a, b = (store(tmp_path / f"{name}.zarr", side, size) for name, side in
            (("a", ours), ("b", theirs)))  # fmt: skip
    expected = brute(ours == 3, theirs == 3, (8, 1.4, 1.4))
    hd = max(np.percentile(one, 95) for one in expected)
    planes, whole = (compare(a, b, volumes=volumes) for volumes in (False, True))
    assert (len(planes.frames), len(whole.frames)) == (DEPTH, 1)
    for found in (planes, whole):
        assert found.pooled.hd95(3) == pytest.approx(hd)
        assert found.to_dict()["hd95_within"] == "volumes"
    assert whole.frames[0].score.hd95(3) == pytest.approx(hd)
    bare = store(tmp_path / "c.zarr", ours, None)
    unknown = compare(bare, store(tmp_path / "d.zarr", theirs, None))
    assert unknown.to_dict()["units"] == {"hd95": "px", "volume": "voxels"}
    assert any("--spacing Z,Y,X" in line for line in notes(unknown))


def test_classes_of_a_palette_are_matched_by_name(study, tmp_path):
    _, sides = study
    ours, _ = sides["patient001 frame01"]
    order = (0, 3, 1, 2)  # the number of each class in the result is that of another palette
    numbers = np.argsort(order)[ours[:2]].astype(np.uint8)
    result = store(tmp_path / "r.zarr", numbers, None, order)
    for z in range(2):
        write(tmp_path / "truth", f"z{z}", RGB[ours[z]])
    found = compare(result, tmp_path / "truth", palette="acdc")
    assert found.pooled.mean_dice == 1 and found.pooled.hd95(1) == 0
    assert [c.name for c in found.classes] == [ACDC.names[k] for k in order[1:]]


def test_the_command_tells_units_groups_and_what_is_left_out(study):
    root, _ = study
    command = [str(root / "ours"), str(root / "masks"), "--palette", "acdc"]
    done = CliRunner().invoke(evaluate, [*command, "--spacing", "10,1.5,1.5"])
    assert done.exit_code == 0, done.stderr
    (line,) = [s for s in done.stdout.splitlines() if s.startswith("class ")]
    for word in ("HD95 mm", "volume ml", "error %", "empty"):
        assert word in line
    (row,) = [s for s in done.stdout.splitlines() if "right ventricle  mean of 4 groups" in s]
    assert row.split()[-1] == "1"
    told = json.loads(CliRunner().invoke(evaluate, [*command, "--json"]).stdout)
    assert told["groups"][3]["patient"] == "patient002" and told["groups"][3]["phase"] == "frame12"
    assert told["groups"][3]["hd95_right ventricle"] is None
    assert told["left_out"]["right ventricle"]["empty"] == 1
    assert told["palette"] == "acdc" and told["units"]["volume"] == "voxels"
    by_patient = json.loads(
        CliRunner().invoke(evaluate, [*command, "--json", "--group", r"patient\d+"]).stdout
    )
    assert [g["group"] for g in by_patient["groups"]] == ["patient001", "patient002"]


def test_the_table_by_class_has_a_row_for_each_group(flat):
    header, groups, means, pooled = class_table(flat)
    assert len(groups) == 4 * 3 and len(means) == len(pooled) == 3
    assert all(len(row) == len(header[0]) for part in (groups, means, pooled) for row in part)


def test_a_palette_that_does_not_fit(study, tmp_path):
    root, _ = study
    with pytest.raises(StackError, match=r"has the colour #ff0000 .* of no class"):
        (tmp_path / "p.json").write_text(
            json.dumps({"classes": [{"name": "b", "color": "#000000"},
                                    {"name": "x", "color": "#ffffff"}]})
        )  # fmt: skip
        compare(root / "ours", root / "masks", palette=str(tmp_path / "p.json"))
    store_of_numbers = store(tmp_path / "t.zarr", np.ones((2, 28, 26), np.uint8), None)
    with pytest.raises(UsageError, match="has numbers for classes, not colours"):
        compare(root / "ours", store_of_numbers, palette="acdc")
    other = store(tmp_path / "o.zarr", np.ones((2, 28, 26), np.uint8), None, (0, 1, 2))
    with pytest.raises(UsageError, match="cannot be compared"):
        compare(other, root / "masks", palette="acdc")


def test_objects_have_no_palette(study, tmp_path):
    source = jobs.write_stack(tmp_path / "patient001_frame01_z0.tif", jobs.blobs((28, 26)))
    out = results.make_result(tmp_path, [source])
    with pytest.raises(UsageError, match=r"is of objects, not of classes.*--masks"):
        compare(out, study[0] / "masks", palette="acdc")


def test_a_jpeg_mask_needs_a_tolerance(tmp_path):
    ours = np.where(disc(14, 12, 8), 1, 0).astype(np.uint8)
    write(tmp_path / "ours", "a_1", ours)
    (tmp_path / "masks").mkdir()
    picture = imagecodecs.jpeg_encode((ours * 255).astype(np.uint8))
    (tmp_path / "masks/a_1.jpg").write_bytes(picture)
    palette = {"tolerance": 200, "classes": [{"name": "background", "color": "#000000"},
                                             {"name": "heart", "color": "#ffffff"}]}  # fmt: skip
    (tmp_path / "p.json").write_text(json.dumps(palette))
    found = compare(tmp_path / "ours", tmp_path / "masks", palette=str(tmp_path / "p.json"))
    assert found.pooled.class_dice(1) > 0.97
    with pytest.raises(StackError, match="JPEG, which changes colours"):
        compare(tmp_path / "ours", tmp_path / "masks", palette="acdc")
