"""Movies and pictures of results: what they show, and that they are there whole or not at all."""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from engine.commands.render import render as command
from engine.errors import OutputError, StackError, UsageError
from engine.results.pictures import render as module
from engine.results.pictures.colours import colours
from engine.results.pictures.image import open_image
from engine.results.pictures.panels import outlines
from engine.results.pictures.render import RenderSettings, choose_views, render
from engine.results.pictures.sampling import draw_labels
from engine.results.pictures.scene import View
from engine.results.result import open_result
from tests import results
from tests.engine import jobs


def draw(result: Path, output: Path, **changes) -> np.ndarray:
    render(result, RenderSettings(output, overwrite=True, **changes))
    return np.asarray(Image.open(output).convert("RGB"))


def labels_of(result: Path, name: str, t: int) -> np.ndarray:
    return jobs.labels_of(result, name)[t]


def test_a_movie_is_one_that_plays_everywhere(movie, tmp_path):
    output = tmp_path / "m.mp4"
    render(movie, RenderSettings(output, fps=5))
    data = output.read_bytes()
    assert data.find(b"moov") < data.find(b"mdat"), "the index comes first"
    with av.open(str(output)) as file:
        stream = file.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 5)
        frames = [f.to_ndarray(format="rgb24") for f in file.decode(video=0)]
    assert len(frames) == 6
    assert all(side % 2 == 0 for side in frames[0].shape[:2])
    assert (frames[0].max(axis=(0, 1)) > 200).all() and frames[0].min() < 20
    assert [p.name for p in tmp_path.iterdir()] == ["m.mp4"]


def test_a_gif_holds_every_frame(movie, tmp_path):
    render(movie, RenderSettings(tmp_path / "m.gif", fps=4, frames=slice(1, 5), style="outlines"))
    with Image.open(tmp_path / "m.gif") as gif:
        assert (gif.n_frames, gif.info["duration"], gif.info["loop"]) == (4, 250, 0)
        gif.seek(2)
        shown = np.asarray(gif.convert("RGB")).astype(int)
    still = draw(
        movie, tmp_path / "m.png", frames=slice(3, 4), style="outlines", width=shown.shape[1]
    )
    assert np.abs(shown - still).mean() < 3


def test_outlines_lie_where_objects_end_in_their_colours(movie, tmp_path):
    picture = draw(movie, tmp_path / "p.png", frames=slice(2, 3), style="outlines", width=83)
    labels = labels_of(movie, "lapse", 2)
    edge = outlines(labels)
    np.testing.assert_array_equal(picture[:61][edge], colours(labels[edge]))
    inside = picture[:61][~edge]
    assert (inside == inside[:, :1]).all(), "the rest is grey"
    assert inside.max() > 200 and inside.min() < 20


def test_larger_pictures_keep_one_pixel_outlines(movie, tmp_path):
    picture = draw(movie, tmp_path / "p.png", frames=slice(2, 3), style="outlines", width=249)
    labels = labels_of(movie, "lapse", 2).repeat(3, 0).repeat(3, 1)
    edge = outlines(labels)
    np.testing.assert_array_equal(picture[:183][edge], colours(labels[edge]))


def test_panels_beside_each_other(movie, tmp_path):
    one = draw(movie, tmp_path / "a.png", style="outlines", width=83)[:61]
    both = draw(movie, tmp_path / "b.png", style="side-by-side", width=83)[:61]
    assert both.shape == (61, 83 + 4 + 83, 3)
    np.testing.assert_array_equal(both[:, -83:], one)
    left = both[:, :83]
    assert (left == left[:, :, :1]).all()


def test_brightness_does_not_flicker(tmp_path):
    frames = jobs.blobs((4, 40, 48))
    frames[2] //= 4  # one dim frame stays dim
    stack = jobs.write_stack(tmp_path / "s.tif", frames)
    result = results.make_result(tmp_path, [stack])
    means = [
        draw(result, tmp_path / "p.png", frames=slice(0, 4), width=48, contrast=(0, 100)).mean(),
        *(draw_grey(result, t).mean() for t in range(4)),
    ]
    assert means[3] < 0.75 * min(means[1], means[2], means[4])


def draw_grey(result: Path, t: int) -> np.ndarray:
    settings = RenderSettings(Path("unused.mp4"), width=48, style="outlines")
    (stack,) = open_result(result)
    views = choose_views(stack.labels, settings, single=False)
    with ExitStack() as opened:
        scene = module._scene(stack, settings, views, ".mp4", opened)
        return scene.picture(views[t])[:40]


def test_scale_bar_and_time_are_the_stacks(movie, tmp_path):
    (stack,) = open_result(movie)
    assert stack.labels.pixel_size_um == {"Y": results.PIXEL, "X": results.PIXEL}
    settings = RenderSettings(tmp_path / "x.mp4", width=400)
    with ExitStack() as opened:
        views = choose_views(stack.labels, settings, single=False)
        scene = module._scene(stack, settings, views, ".mp4", opened)
    assert scene.bar.label == "5 um"
    assert scene.bar.length == pytest.approx(5 / results.PIXEL * 400 / 83)
    assert scene.caption(views[4]) == "t 4 · 20 min"
    picture = scene.picture(views[0])
    strip = picture[-12:, 404:, 0] == 255  # of the strip's lower half: the bar is in its middle
    assert strip.any()


def test_frames_are_numbered_as_in_the_stack(tmp_path):
    stack = jobs.write_stack(tmp_path / "s.tif", jobs.blobs((8, 40, 48)))
    result = results.make_result(tmp_path, [stack], frames=(3, 7))
    (one,) = open_result(result)
    assert list(one.labels.ts) == [3, 4, 5, 6]
    settings = RenderSettings(Path("x.mp4"), frames=slice(4, -1))
    assert choose_views(one.labels, settings, single=False) == [View(4, (0,)), View(5, (0,))]
    with ExitStack() as opened:
        drawn = open_image(one, opened, None, None).draw(5, 0, (40, 48))
    np.testing.assert_array_equal(drawn, jobs.blobs((8, 40, 48))[5])
    with pytest.raises(UsageError, match="frames 3 to 6"):
        choose_views(one.labels, RenderSettings(Path("x.mp4"), frames=slice(0, 2)), single=False)


def test_planes_and_stacks_are_chosen(deep, tmp_path):
    with pytest.raises(UsageError, match="2 stacks; choose with --stack: five, three"):
        draw(deep, tmp_path / "p.png")
    five, three = open_result(deep)

    def views(stack, **changes):
        return choose_views(stack.labels, RenderSettings(Path("x.mp4"), **changes), single=False)

    assert views(five) == [View(0, (1,)), View(1, (1,))]
    assert views(five, z="max") == [View(0, (0, 1, 2)), View(1, (0, 1, 2))]
    assert views(three) == [View(0, (z,)) for z in range(4)]
    assert views(three, frames=slice(None, None, 2)) == [View(0, (0,)), View(0, (2,))]
    assert views(three, z="max") == [View(0, (0, 1, 2, 3))]
    with pytest.raises(UsageError, match="planes 0 to 3"):
        views(three, z="4")
    data = jobs.blobs((2, 2, 3, 40, 48))
    with ExitStack() as opened:
        np.testing.assert_array_equal(
            open_image(five, opened, None, "1").draw(1, 2, (40, 48)), data[1, 1, 2]
        )
        with pytest.raises(StackError, match=r"has no channel '2'; it has 2 channels"):
            open_image(five, opened, None, "2")
    draw(deep, tmp_path / "p.png", stack="five", z="max", style="fill")
    draw(deep / "three.zarr", tmp_path / "p.png", frames=slice(0, 4))  # a contact sheet


def test_a_picture_without_its_image(movie, tmp_path):
    moved = tmp_path / "away.zarr"
    shutil.copytree(movie / "lapse.zarr", moved)
    with pytest.raises(UsageError, match=r"away.zarr: keeps no image.*--image PATH.*--style fill"):
        draw(moved, tmp_path / "p.png")
    black = draw(moved, tmp_path / "p.png", style="fill", frames=slice(2, 3), width=83)
    labels = labels_of(movie, "lapse", 2)
    assert not black[:61][labels == 0].any() and black[:61][labels != 0].any(axis=1).all()
    found = draw(moved, tmp_path / "p.png", image=movie.parent / "lapse.ome.tif")
    np.testing.assert_array_equal(found, draw(movie, tmp_path / "q.png"))


def test_an_image_that_is_gone_or_another(tmp_path):
    stack = jobs.write_stack(tmp_path / "s.tif", jobs.blobs((3, 40, 48)))
    result = results.make_result(tmp_path, [stack])
    stack.rename(tmp_path / "moved.tif")
    with pytest.raises(UsageError, match=r"s.tif: is gone, and .*s.zarr keeps no image"):
        draw(result, tmp_path / "p.png")
    draw(result, tmp_path / "p.png", image=tmp_path / "moved.tif")
    other = jobs.write_stack(tmp_path / "other.tif", jobs.blobs((3, 40, 40)))
    with pytest.raises(UsageError, match=r"other.tif: is TYX of 3 x 40 x 40, and does not fit"):
        draw(result, tmp_path / "p.png", image=other)


def test_the_image_in_the_store_is_taken(movie, tmp_path):
    kept = tmp_path / "kept.zarr"
    shutil.copytree(movie / "lapse.zarr", kept)
    raw = jobs.blobs((6, 61, 83), seed=7)
    two = np.stack([raw, raw // 2], axis=1)
    omero = {"omero": {"channels": [{"label": "DNA"}, {"label": "tubulin"}]}}
    results.add_group(kept, "", two, "TCYX", [1, 1, 0.5, 0.5], ome=omero, levels=2)
    (stack,) = open_result(kept)
    with ExitStack() as opened:
        image = open_image(stack, opened, None, "tubulin")
        np.testing.assert_array_equal(image.draw(3, 0, (61, 83)), raw[3] // 2)
        assert len(image.levels) == 2
        small = image.draw(3, 0, (30, 41))  # from the level of half the size
        assert abs(small.mean() - raw[3].mean() / 2) < 0.02 * raw[3].mean()
    draw(kept, tmp_path / "p.png")


def test_probabilities_that_are_kept(movie, tmp_path):
    with pytest.raises(UsageError, match=r"keeps no probabilities of threshold.*--keep"):
        draw(movie, tmp_path / "p.png", style="probability")
    kept = tmp_path / "lapse.zarr"
    shutil.copytree(movie / "lapse.zarr", kept)
    ramp = np.tile(np.linspace(0, 255, 83).astype(np.uint8), (6, 61, 1))
    (kept / "probability").mkdir()
    results.add_group(kept, "probability/threshold", ramp, "TYX", [1, 0.5, 0.5])
    picture = draw(kept, tmp_path / "p.png", style="probability", frames=slice(0, 1), width=83)
    edge = outlines(labels_of(movie, "lapse", 0))
    assert (picture[:61][edge] == 255).all()
    heat = np.where(edge[:, :, None], 0, picture[:61]).astype(int).sum(axis=2).max(axis=0)
    assert heat[0] < 20 and heat[-1] > 500, "dark to bright"


def test_labels_of_large_frames_are_read_in_bands(movie, monkeypatch):
    (stack,) = open_result(movie)
    whole = draw_labels(stack.labels, 2, 0, (20, 30))
    read = type(stack.labels).read
    heights = []

    def watched(self, t, z, rows=slice(None), c=0, level=0):
        heights.append(rows.stop - rows.start)
        return read(self, t, z, rows, c, level)

    monkeypatch.setattr(type(stack.labels), "read", watched)
    monkeypatch.setattr(type(stack.labels), "bands", lambda self, level=0: (
        slice(y, min(y + 16, 61)) for y in range(0, 61, 16)
    ))  # fmt: skip
    np.testing.assert_array_equal(draw_labels(stack.labels, 2, 0, (20, 30)), whole)
    assert max(heights) == 16


def test_what_is_there_is_not_written_over_and_nothing_half_is_left(movie, tmp_path, monkeypatch):
    output = tmp_path / "m.mp4"
    output.write_text("mine")
    with pytest.raises(OutputError, match=r"m.mp4: is there already"):
        render(movie, RenderSettings(output))

    def stop(*args):
        raise KeyboardInterrupt

    for kind in ("mp4", "gif", "png"):
        with pytest.raises(KeyboardInterrupt):
            render(movie, RenderSettings(tmp_path / f"n.{kind}", frames=slice(0, 4)), stop)
    assert [p.name for p in tmp_path.iterdir()] == ["m.mp4"]
    assert output.read_text() == "mine"
    with pytest.raises(OutputError, match=r"cannot be a folder, because .* is a file"):
        render(movie, RenderSettings(output / "x.png"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--output", "x.avi"], ".mp4, .gif or .png"),
        (["--output", "x.png", "--frames", "a"], "0:600:10"),
        (["--output", "x.png", "--frames", "0:6:0"], "'0:6:0' is not a selection"),
        (["--output", "x.png", "--frames", "0:6:-1"], "'0:6:-1' is not a selection"),
        (["--output", "x.png", "--contrast", "5"], "1,99.8"),
        (["--output", "x.png", "--scale-bar", "soon"], "auto, off, or a length in um"),
        (["--output", "x.png", "--scale-bar", "500"], "below the frame's 41.5"),
        (["--output", "x.png", "--labels", "none"], "--labels none"),
        (["--output", "x.png", "--stack", "none"], "--stack none"),
        (["--output", "x.png", "--frames", "9:12"], "frames 0 to 5"),
    ],
)
def test_wrong_use_is_one_sentence(movie, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(command, [str(movie), *arguments])
    assert done.exit_code and words in done.stderr + str(done.exception)
    assert not list(tmp_path.iterdir())


def test_what_is_no_result(tmp_path, movie):
    for path, words in ((tmp_path / "no", "is no folder"), (tmp_path, "holds no labels")):
        with pytest.raises(StackError, match=words):
            render(path, RenderSettings(tmp_path / "x.png"))
    job = tmp_path / "job"
    shutil.copytree(movie, job)
    (job / "job.json").unlink()
    with pytest.raises(UsageError, match="not complete"):
        render(job, RenderSettings(tmp_path / "x.png"))


def test_labels_that_were_made_later_are_drawn_when_they_are_named(movie, tmp_path):
    job = tmp_path / "job"
    shutil.copytree(movie, job)
    labels = job / "lapse.zarr/labels"
    shutil.copytree(labels / "threshold", labels / "cleaned")
    meta = json.loads((labels / "zarr.json").read_text())
    meta["attributes"]["ome"]["labels"].append("cleaned")
    (labels / "zarr.json").write_text(json.dumps(meta))
    (own,), (other,) = open_result(job), open_result(job, "cleaned")
    assert (own.model, other.model) == ("threshold", "cleaned")
    assert open_result(labels / "cleaned")[0].model == "cleaned"
    shutil.copytree(job / "lapse.zarr", tmp_path / "moved.zarr")
    assert open_result(tmp_path / "moved.zarr")[0].model == "threshold"
