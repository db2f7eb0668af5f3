"""What a run starts from is looked at before data are read, which may take minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.errors import StacksegError
from tests.train.data import write_pairs
from tests.train.heart import heart_settings, write_hearts
from tests.train.runs import silent, small
from train.fit import fit
from train.settings import TrainSettings


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), [f"{i}.tif" for i in range(6)])


@pytest.fixture(scope="module")
def run(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    fit(small(pairs, epochs=1), run, note=silent)
    return run


def no_data(_: TrainSettings) -> Any:
    raise AssertionError("data are read before the run is refused")


def placed(values: dict[str, Any], places: dict[str, str]) -> dict[str, Any]:
    """Settings with paths in the place of their names."""
    found = {name: places.get(value, value) for name, value in values.items() if name != "teachers"}
    return found | {"teachers": tuple(places[name] for name in values.get("teachers", ()))}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"init": "RUN", "channels": (2, 4, 4)}, r"its network differs .*channels \[2, 4\], here"),
        ({"init": "nuclei"}, "its network has relu6 and this run's relu; give --activation relu6"),
        ({"init": "nuclei", "activation": "relu6"}, "give the --arch, --preset and --channels"),
        ({"init": "NONE"}, "NONE: "),
        ({"arch": "unet-transfer", "transfer": "TEXT"}, "text.pt: is damaged, or not a checkpoint"),
        ({"arch": "unet-transfer", "transfer": "NONE"}, "NONE: there is no such checkpoint"),
        ({"arch": "unet-transfer", "transfer": "RUN", "channels": (3, 6)}, "none of its 4 conv"),
        ({"arch": "unet-resnet18", "channels": (4, 4, 4, 8, 8), "pretrained": "TEXT"},
         "--pretrained .*text.pt: holds no state dict of torchvision's resnet18"),
        ({"teachers": ("RUN",), "core_depth": 3}, "--teacher .*: .* another --core-depth"),
        ({"teachers": ("NONE",)}, "there is no such folder"),
    ],
)  # fmt: skip
def test_what_a_run_cannot_start_from_is_refused_before_data_are_read(
    values: dict[str, Any], words: str, pairs: Path, run: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "text.pt").write_text("hello")
    places = {"RUN": str(run), "TEXT": str(tmp_path / "text.pt"), "NONE": str(tmp_path / "NONE")}
    settings = small(pairs, **placed(values, places))
    monkeypatch.setattr("train.fit.load_data", no_data)
    with pytest.raises(StacksegError, match=words):
        fit(settings, tmp_path / "new", note=silent)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"lr": 0.1}, r"was started with other settings \(lr 0.002, now 0.1\)"),
        ({"teachers": ("RUN",)}, r"was started with other settings \(teachers 0, now 1\)"),
    ],
)
def test_a_run_that_is_resumed_otherwise_is_refused_before_data_are_read(
    values: dict[str, Any], words: str, pairs: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = small(pairs, epochs=1, **placed(values, {"RUN": str(run)}))
    monkeypatch.setattr("train.fit.load_data", no_data)
    with pytest.raises(StacksegError, match=words):
        fit(settings, run, note=silent, resume=True)


def test_class_weights_that_follow_from_the_data_are_resumed(tmp_path: Path) -> None:
    settings = heart_settings(write_hearts(tmp_path / "hearts"), epochs=1, class_weights="auto")
    fit(settings, tmp_path / "run", note=silent)
    fit(settings, tmp_path / "run", note=silent, resume=True)
    other = settings.model_copy(update={"class_weights": (1.0, 2.0, 3.0, 4.0)})
    with pytest.raises(StacksegError, match=r"other settings \(class_weights"):
        fit(other, tmp_path / "run", note=silent, resume=True)
