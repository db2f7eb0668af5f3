"""How a refusal names what differs between two jobs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from engine.store.identity_differences import differences, in_words, retry_hint

STACK = {
    "path": "/data/loop.tif",
    "content": "123:456",
    "axes": "TYX",
    "pixel_size_um": {"Y": 0.5, "X": 0.25},
    "time_step_s": 2.0,
    "channel": [0],
    "measured_channels": [0, 1],
    "postprocessing": {
        "threshold": 0.55, "min_area": 30, "max_area": 0, "instances": "components",
        "fill_holes": False,
    },
    "frames": {"t": [0, 10], "z": [0, 1]},
    "layout": {"shape": [10, 64, 96], "dtype": "uint32"},
    "arrays": [{"kind": "labels", "group": "labels/nuclei", "dtype": "uint32"}],
    "halo": 48,
}  # fmt: skip
JOB = {
    "stackseg": "1.0", "model": "a" * 64, "runtime": "onnxruntime 1 CPU", "connect": "none",
    "labels": "labels/nuclei", "stacks": {"loop": STACK},
}  # fmt: skip
Change = Callable[[dict[str, Any], dict[str, Any]], object]  # of the job, and of its stack


def changed(change: Change, job: dict[str, Any] = JOB) -> dict[str, Any]:
    other = copy.deepcopy(job)
    change(other, other["stacks"].get("loop", {}))
    return other


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda j, s: s["postprocessing"].update(threshold=0.5),
         "loop: threshold was 0.55 and is 0.5 now"),
        (lambda j, s: s["postprocessing"].update(max_area=900),
         "loop: max-area was none and is 900 px now"),
        (lambda j, s: s["postprocessing"].update(fill_holes=True),
         "loop: fill-holes was off and is on now"),
        (lambda j, s: s["postprocessing"].update(instances="watershed"),
         "loop: instances were components and are watershed now"),
        (lambda j, s: s.update(halo=16), "loop: halo was 48 px and is 16 px now"),
        (lambda j, s: s.update(tile=256), "loop: tile was none and is 256 px now"),
        (lambda j, s: s.update(channel=[2, 0]),
         "loop: model channels were 0 and are 2, 0 now"),
        (lambda j, s: s.update(measured_channels=[]),
         "loop: measured channels were 0, 1 and are none now"),
        (lambda j, s: s.update(series="1"), "loop: series was none and is 1 now"),
        (lambda j, s: s.update(axes="ZYX"), "loop: axes were TYX and are ZYX now"),
        (lambda j, s: s.update(pixel_size_um={}),
         "loop: pixel size was Y 0.5, X 0.25 um and is none now"),
        (lambda j, s: s.update(time_step_s=1.5), "loop: time step was 2.0 s and is 1.5 s now"),
        (lambda j, s: s.update(path="/data/other.tif"),
         "loop: input was /data/loop.tif and is /data/other.tif now"),
        (lambda j, s: s.update(content="1:2"), "loop: the files of the input have changed"),
        (lambda j, s: j.update(model="b" * 64), "the model is another file"),
        (lambda j, s: j.update(stackseg="1.1"), "version of stackseg was 1.0 and is 1.1 now"),
        (lambda j, s: j.update(connect="z"), "connect was none and is z now"),
        (lambda j, s: j.update(missing_chunks="background"),
         "missing-chunks was fail and is background now"),
        (lambda j, s: j.update(relabels="c" * 64), "the kept probabilities have changed"),
        (lambda j, s: j["stacks"].clear(), "loop: was part of the job and is missing now"),
        (lambda j, s: j["stacks"].update(more=STACK), "more: was not part of the job"),
        (lambda j, s: s["arrays"].append({"kind": "probability"}),
         "loop: it was run without --keep probability and is run with it now"),
        (lambda j, s: s["arrays"].append({"kind": "image"}),
         "loop: it was run without --with-image and is run with it now"),
        (lambda j, s: s["arrays"].append({"kind": "objects"}),
         "loop: stored arrays were labels and are labels, objects now"),
        # What follows from something else is named only where it stands alone.
        (lambda j, s: (s["frames"].update(t=[2, 10]), s["layout"].update(shape=[8, 64, 96])),
         "loop: frames along T were 0:10 and are 2:10 now"),
        (lambda j, s: (s["postprocessing"].update(instances="none"),
                       s["arrays"][0].update(dtype="uint8"), s["layout"].update(dtype="uint8")),
         "loop: instances were components and are none now"),
        (lambda j, s: s["layout"].update(block_size=[1]),
         "loop: the division into blocks has changed"),
        (lambda j, s: s["arrays"][0].update(levels=2), "loop: stored arrays changed"),
        (lambda j, s: j.update(of_a_later_version=1), "of-a-later-version was none and is 1 now"),
    ],
)  # fmt: skip
def test_each_difference_is_a_sentence(change: Change, words: str) -> None:
    assert in_words(differences(JOB, changed(change))) == words
    assert differences(JOB, JOB) == []


def test_an_option_that_was_given_and_is_not_now_is_named() -> None:
    kept = changed(lambda j, s: s["arrays"].append({"kind": "probability"}))
    words = "loop: it was run with --keep probability and is run without it now"
    assert in_words(differences(kept, JOB)) == words


def test_every_change_is_a_difference() -> None:
    """Fields that no table knows of as well, in either direction."""
    for key in STACK:
        other = changed(lambda j, s, key=key: s.pop(key))  # type: ignore[misc]
        for pair in ((JOB, other), (other, JOB)):
            assert [one.stack for one in differences(*pair)] == ["loop"] * len(differences(*pair))
            assert differences(*pair), key
    for key in ("model", "runtime", "connect", "labels", "stackseg", "stacks"):
        other = {name: value for name, value in JOB.items() if name != key}
        assert differences(JOB, other) and differences(other, JOB), key


def test_several_differences() -> None:
    other = changed(lambda j, s: (j.update(connect="z"), s.update(halo=0, content="1:2")))
    assert in_words(differences(JOB, other)) == (
        "connect was none and is z now; loop: the files of the input have changed; loop: halo was "
        "48 px and is 0 px now"
    )


def test_what_stacks_have_in_common_is_said_once() -> None:
    many = {**JOB, "stacks": {f"s{n}": copy.deepcopy(STACK) for n in range(5)}}
    other = copy.deepcopy(many)
    for stack in other["stacks"].values():
        stack["postprocessing"]["threshold"] = 0.5  # type: ignore[index]
    assert in_words(differences(many, other)) == (
        "s0, s1, s2 and 2 more: threshold was 0.55 and is 0.5 now"
    )


def test_long_values_are_shortened() -> None:
    place = f"/data/{'x' * 90}/loop.tif"
    (one,) = differences(JOB, changed(lambda j, s: s.update(path=place)))
    assert one.sentence.endswith("x/loop.tif now") and len(one.sentence) < 110
    (one,) = differences(JOB, changed(lambda j, s: j.update(missing_chunks="r" * 90)))
    assert one.sentence.endswith("rrr... now")
    (one,) = differences(JOB, changed(lambda j, s: j.update(runtime="r" * 90)))
    assert one.sentence.endswith(f"{'r' * 90} now")  # its end says what ran together


def test_when_a_retry_resumes_the_job() -> None:
    def hint(change: Change) -> str:
        return retry_hint(differences(JOB, changed(change)))

    assert "repaired" in hint(lambda j, s: s.update(content="1:2"))
    assert "repeat" in hint(lambda j, s: j.update(missing_chunks="background"))
    assert not hint(lambda j, s: j.update(missing_chunks="background", model="b"))
    assert not hint(lambda j, s: s.update(halo=0))
    there = changed(lambda j, s: j.update(missing_chunks="background"))
    assert not retry_hint(differences(there, JOB))
