"""Rules as they are asked for, in px or um, and what is refused in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from engine.commands.plan import plan as plan_command
from engine.errors import StackError, UsageError
from engine.geometry import layout
from engine.job.prepare import prepare_job
from engine.labels.postprocessing import Postprocessing
from engine.model.spec import CoreSpec
from engine.plan.postprocessing import check_postprocessing, check_uncut, resolve_postprocessing
from engine.plan.quantities import parse_quantity
from engine.plan.settings import JobSettings, job_settings
from engine.stacks.base import StackInfo
from tests import networks
from tests.conftest import make_threshold_model
from tests.engine import jobs
from tests.engine.test_cut import REGIONS

SQUARE = StackInfo("a.tif", "TIFF", "YX", (10, 10), "uint8", pixel_size_um={"Y": 0.1, "X": 0.1})
OBLONG = StackInfo("b.tif", "TIFF", "YX", (10, 10), "uint8", pixel_size_um={"Y": 0.5, "X": 0.25})
UNKNOWN = StackInfo("c.tif", "TIFF", "YX", (10, 10), "uint8")
SPEC = networks.spec(min_area=7)


def settings(**values: Any) -> JobSettings:
    return job_settings(inputs=("a.tif",), model="m", output=Path("out"), **values)


@pytest.mark.parametrize(
    ("text", "dimensions", "expected"),
    [
        ("30", 2, (30, "px")),
        ("30px", 2, (30, "px")),
        (30, 2, (30, "px")),
        ("12.5 um2", 2, (12.5, "um")),
        ("12um^2", 2, (12, "um")),
        (".5µm²", 2, (0.5, "um")),
        ("6", 1, (6, "px")),
        ("2.5um", 1, (2.5, "um")),
    ],
)
def test_quantities(text: str, dimensions: int, expected: tuple[float, str]) -> None:
    assert parse_quantity(text, dimensions) == expected


@pytest.mark.parametrize(
    ("text", "dimensions"),
    [
        ("12um", 2),
        ("12px2", 2),
        ("-3", 2),
        ("much", 2),
        ("", 2),
        ("1e3", 2),
        ("2um2", 1),
        ("2mm", 1),
    ],
)
def test_no_quantities(text: str, dimensions: int) -> None:
    with pytest.raises(ValueError, match="give it like"):
        parse_quantity(text, dimensions)


def test_areas_and_distances_in_um() -> None:
    asked = settings(min_area="0.1um2", max_area="0.3um2", min_distance="0.35um",
                     instances="watershed")  # fmt: skip
    postprocessing = resolve_postprocessing(asked, SPEC, SQUARE)
    assert (postprocessing.min_area, postprocessing.max_area, postprocessing.min_distance) == (
        10,
        30,
        3.5,
    )
    # What has exactly the area stays in: the least is rounded up to px, the most down.
    postprocessing = resolve_postprocessing(
        settings(min_area="0.3um2", max_area="0.7um2"), SPEC, OBLONG
    )
    assert (postprocessing.min_area, postprocessing.max_area) == (3, 5)
    with pytest.raises(StackError, match=r"c\.tif: tells no pixel size, which --min-area 3um2"):
        resolve_postprocessing(settings(min_area="3um2"), SPEC, UNKNOWN)
    with pytest.raises(StackError, match="not square"):
        resolve_postprocessing(settings(instances="watershed", min_distance="2um"), SPEC, OBLONG)


def test_what_is_not_asked_for_is_the_models() -> None:
    assert resolve_postprocessing(settings(), SPEC, UNKNOWN) == Postprocessing(0.5, 7)
    spec = networks.spec(instances="watershed", min_distance=4.0)
    postprocessing = resolve_postprocessing(settings(), spec, UNKNOWN)
    assert (postprocessing.instances, postprocessing.min_distance, postprocessing.seed_height) == (
        "watershed",
        4,
        1,
    )
    assert resolve_postprocessing(
        settings(instances="components"), spec, UNKNOWN
    ) == Postprocessing(0.5)
    spec = networks.spec(instances="none", min_area=9)
    assert resolve_postprocessing(settings(), spec, UNKNOWN).min_area == 0
    assert resolve_postprocessing(
        settings(instances="components"), spec, UNKNOWN
    ) == Postprocessing(0.5, 9)


def test_cores_are_the_models_unless_asked_for() -> None:
    cores = CoreSpec(threshold=0.7, growth=5, unreached="keep")
    spec = networks.spec(instances="cores", cores=cores, min_area=7)
    assert resolve_postprocessing(settings(), spec, UNKNOWN) == Postprocessing(
        0.5, 7, instances="cores", core_threshold=0.7, growth=5, pinhole=6, unreached="keep"
    )
    asked = settings(core_threshold=0.9, growth=2, pinhole=0, unreached="drop", min_area=0)
    assert resolve_postprocessing(asked, spec, UNKNOWN) == Postprocessing(
        0.5, instances="cores", core_threshold=0.9, growth=2
    )
    check_postprocessing(settings(connect="z"), spec)
    check_uncut(resolve_postprocessing(settings(), spec, SQUARE), SQUARE)
    asked = settings(instances="components")
    assert resolve_postprocessing(asked, spec, UNKNOWN) == Postprocessing(0.5, 7)
    with pytest.raises(UsageError, match=r"--growth: .* less than or equal to 16"):
        settings(growth=17)


@pytest.mark.parametrize(
    ("spec", "values", "sentence"),
    [
        ({"classes": ("a", "b", "c")}, {"instances": "watershed"}, "--instances .* classes"),
        ({"classes": ("a", "b", "c")}, {"clear_border": True}, "--clear-border: .* class map"),
        ({}, {"instances": "none", "fill_holes": True}, "--fill-holes: .* class map"),
        ({}, {"instances": "none", "max_area": 3}, "--max-area: .* class map"),
        ({}, {"instances": "none", "connect": "z"}, "--connect: .* class map"),
        ({}, {"min_distance": 3}, "--min-distance: is for --instances watershed"),
        ({}, {"seed_height": 3}, "--seed-height: is for --instances watershed"),
        ({}, {"instances": "watershed", "connect": "z"}, "watershed: .* --connect z"),
        ({"instances": "watershed"}, {"connect": "z"}, "watershed: .* --connect z"),
        ({}, {"instances": "cores"}, "--instances cores: test has no output of cores"),
        ({}, {"growth": 2}, "--growth: is for --instances cores"),
        ({"cores": CoreSpec()}, {"instances": "watershed", "unreached": "keep"},
         "--unreached: is for --instances cores"),
        ({"cores": CoreSpec(), "instances": "cores"}, {"seed_height": 2},
         "--seed-height: is for --instances watershed"),
        ({"cores": CoreSpec()}, {"instances": "none", "core_threshold": 0.3},
         "--core-threshold: .* class map"),
    ],
)  # fmt: skip
def test_contradictions(spec: dict[str, Any], values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        check_postprocessing(settings(**values), networks.spec(**spec))


def test_areas_that_leave_nothing() -> None:
    with pytest.raises(UsageError, match="--max-area 6 is 6 px, and objects have at least 7 px"):
        resolve_postprocessing(settings(max_area=6), SPEC, UNKNOWN)
    with pytest.raises(UsageError, match="--max-area 0 is 0 px"):
        resolve_postprocessing(settings(max_area=0, min_area=0), SPEC, UNKNOWN)
    with pytest.raises(UsageError, match=r"--min-area: is not understood; .* \(got '3kg'\)"):
        settings(min_area="3kg")


@pytest.mark.parametrize("changes", [{"instances": "watershed"}, {"fill_holes": True}])
def test_what_cannot_be_exact_where_frames_are_cut(changes: dict[str, Any]) -> None:
    with pytest.raises(StackError, match=r"a\.tif: frames of 10 x 10 px are cut into regions"):
        check_uncut(Postprocessing(0.5, **changes), SQUARE)
    check_uncut(Postprocessing(0.5, 3, 9, clear_border=True), SQUARE)


def test_an_input_that_would_be_cut_is_refused_and_the_rest_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in REGIONS.items():
        monkeypatch.setattr(layout, name, value)
    model = make_threshold_model(tmp_path / "m.onnx")
    large = jobs.write_stack(tmp_path / "large.tif", jobs.blobs((1, 60, 70)))
    small = jobs.write_stack(tmp_path / "small.tif", jobs.blobs((1, 30, 40)))
    asked = {"instances": "watershed", "min_distance": 3.5}
    job = prepare_job(jobs.settings([large, small], model, tmp_path / "out", **asked))
    assert [s.name for s in job.plan.stacks] == ["small"]
    assert "large.tif: frames of 60 x 70 px are cut" in job.plan.refused[0][1]
    with pytest.raises(StackError, match="use --instances components"):
        prepare_job(jobs.settings(large, model, tmp_path / "out", **asked))
    prepare_job(jobs.settings(large, model, tmp_path / "out", max_area=900, clear_border=True))
    options = ["--model", str(model), "--instances", "watershed", "--min-distance", "6px"]
    done = CliRunner().invoke(plan_command, [str(small), *options])
    assert done.exit_code == 0, done.output
