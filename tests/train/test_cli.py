"""`stackseg train`: options reach the settings, mistakes end in one sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from engine.errors import MissingExtra, StacksegError
from tests.train.data import write_ctc, write_pairs
from train.checkpoint import Checkpoint, load_checkpoint
from train.cli import _channel_names, train
from train.policies import POLICIES
from train.settings import TrainSettings

SMALL = [
    "--channels", "2,4", "--epochs", "1", "--steps-per-epoch", "2", "--patch", "32",
    "--batch", "1", "--workers", "0", "--device", "cpu",
]  # fmt: skip


def test_a_run_from_the_command_line(tmp_path: Path) -> None:
    data = write_ctc(tmp_path / "data", {"01": 6, "02": 4})
    run = tmp_path / "run"
    result = CliRunner().invoke(
        train,
        [
            "--data",
            str(data),
            "--layout",
            "ctc",
            "--output",
            str(run),
            "--frames",
            "0:5",
            "--sequences",
            "01, 02",
            "--truth",
            "silver",
            "--channel",
            "0",
            "--ignore-label",
            "9",
            "--augment",
            "light",
            *SMALL,
        ],
        catch_exceptions=False,
    )
    assert result.exit_code == 0
    assert "epoch 1/1" in result.stderr
    assert result.stdout.startswith("val_iou ")
    settings = load_checkpoint(run / "best.pt").settings
    assert (settings.frames, settings.channels) == ((0, 5), (2, 4))
    assert (settings.ignore_border, settings.test_fraction) == (25, 0.0)
    assert (settings.sequences, settings.truth) == (("01", "02"), "silver")
    assert (settings.channel, settings.ignore_label) == ("0", 9)
    assert settings.augment == POLICIES["light"]


def test_pairs_hold_back_a_fifth_and_no_margin(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "data", [f"{i}.tif" for i in range(10)])
    run = tmp_path / "run"
    arguments = ["--data", str(data), "--layout", "pairs", "--output", str(run), *SMALL]
    assert CliRunner().invoke(train, arguments).exit_code == 0
    settings = load_checkpoint(run / "best.pt").settings
    assert (settings.ignore_border, settings.test_fraction) == (0, 0.2)


@pytest.mark.parametrize(
    ("options", "network"),
    [
        ([], {"channels": (16, 32, 64, 128), "norm": "batch", "conv_bias": False, "dropout": 0}),
        (["--preset", "notebook"], {"conv_bias": True, "head_kernel": 3, "up": "transposed"}),
        (["--preset", "ronneberger", "--channels", "2,4", "--dropout", "0.2", "--up", "bilinear"],
         {"channels": (2, 4), "norm": "none", "dropout": 0.2, "up": "bilinear"}),
        (["--loss", "dice", "--optimiser", "sgd", "--schedule", "one-cycle", "--ema", "0.99",
          "--accumulate", "4", "--foreground-weight", "2", "--border-weight", "0"],
         {"loss": "dice", "optimiser": "sgd", "lr": 0.01, "schedule": "one-cycle", "ema": 0.99,
          "accumulate": 4, "foreground_weight": 2, "border_weight": 0}),
        (["--arch", "unet-resnet18", "--pretrained", "imagenet", "--freeze-encoder", "2"],
         {"arch": "unet-resnet18", "channels": (16, 32, 64, 128, 256), "freeze_encoder": 2}),
        (["--activation", "relu6"], {"activation": "relu6", "input_range": (-1.0, 4.0)}),
    ],
)  # fmt: skip
def test_options_reach_the_settings_and_change_the_preset(
    options: list[str], network: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[TrainSettings] = []

    def fit(settings: TrainSettings, *_: Any, **__: Any) -> Checkpoint:
        runs.append(settings)
        return Checkpoint(
            settings.network(1, 1),
            {},
            settings,
            1,
            1,
            0.0,
            chosen={"threshold": 0.5, "min_area": 0},
        )

    monkeypatch.setattr("train.fit.fit", fit)
    arguments = ["--data", str(tmp_path), "--layout", "pairs", "--output", str(tmp_path / "run")]
    result = CliRunner().invoke(train, arguments + options, catch_exceptions=False)
    assert result.exit_code == 0
    assert network.items() <= runs[0].model_dump().items()


def test_channels_chosen_by_name_name_the_inputs() -> None:
    assert _channel_names('GFP,"DAPI, 405"') == {"channel_names": ("GFP", "DAPI, 405")}
    assert _channel_names(None) == _channel_names("1") == _channel_names("GFP,1") == {}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data", "nowhere"], "there is no such folder"),
        (["--patch", "100"], "--patch 100 is not a multiple of the network's stride 16"),
        (["--preset", "ronneberger", "--patch", "40"], "multiple of the network's stride 16"),
        (["--class-weights", "1,-1"], "--class-weights: Input should be greater than"),
        (
            ["--batch", "1", "--patch", "16"],
            "batch normalisation needs two or more; use --patch 32, or --batch 2",
        ),
        (["--shuffle", "4", "--patch", "48"], "multiple of the network's stride 32; use 64"),
        (["--shuffle", "3"], "--shuffle: Input should be 1, 2 or 4"),
        (["--arch", "unet-resnet18", "--preset", "nuclei"], "--preset nuclei: is a unet; omit it"),
        (["--arch", "unet-resnet18", "--channels", "4,8"], "has 5 levels, and --channels has 2"),
        (["--arch", "unet-resnet18", "--shuffle", "2"], "--shuffle is for --arch unet, and not"),
        (
            ["--arch", "unet-resnet18", "--freeze-encoder", "2"],
            "give --pretrained or --init as well",
        ),
        (
            ["--arch", "unet-resnet18", "--pretrained", "imagenet", "--init", "run"],
            "--pretrained and --init both say where to start; give one of",
        ),
        (["--pretrained", "imagenet"], "--pretrained is for --arch unet-resnet18"),
        (
            ["--freeze-encoder", "1"],
            "--freeze-encoder and --encoder-lr are for --arch unet-resnet18 and unet-transfer",
        ),
        (["--dropout", "1"], "--dropout: Input should be less than 1"),
        (["--lr", "0"], "--lr: Input should be greater than 0"),
        (
            ["--transfer-white", "255"],
            "--transfer-white is of a transferred encoder; give --transfer as well",
        ),
        (
            ["--palette", "acdc", "--class-weights", "1,2"],
            "--palette and --class-weights are for --layout color-masks",
        ),
        (["--core-depth", "4", "--growth", "2"], "--growth 2 does not bring"),
        (
            ["--test-every", "3", "--test-fraction", "0.2"],
            "--test-every and --test-fraction both say",
        ),
        (["--frames", "0:5"], "--frames can be chosen in --layout ctc only"),
        (["--sequences", "01"], "--sequences can be chosen in --layout ctc only"),
        (["--truth", "gold"], "--truth can be chosen in --layout ctc only"),
        (["--window", "40,0"], "--window 40,0: has a width of 0; give CENTER,WIDTH with a width"),
        (["--window", "40"], "give CENTER,WIDTH such as 40,400\n"),
        (["--window", "file"], "a model has one window for all images; give CENTER,WIDTH"),
        (["--preview", "--overfit-one"], "--preview and --overfit-one do not go together"),
        (["--preview", "--resume"], "--preview and --resume do not go together"),
        (["--overfit-one", "--resume"], "--overfit-one and --resume do not go together"),
        (["--channel", "a,"], "--channel 'a,' is not understood"),
        (["--ignore-label", "0"], "--ignore-label: Input should be greater than or equal to 1"),
        (["--ema", "1"], "--ema: Input should be less than 1"),
        (["--accumulate", "0"], "--accumulate: Input should be greater than or equal to 1"),
        (["--foreground-weight", "0"], "--foreground-weight: Input should be greater than 0"),
        (["--precision", "fp16", "--device", "cpu"], "fp16: is for CUDA devices"),
    ],
)
def test_mistakes_end_in_one_sentence(options: list[str], words: str, tmp_path: Path) -> None:
    arguments = ["--data", str(tmp_path), "--layout", "pairs", "--output", str(tmp_path / "run")]
    result = CliRunner().invoke(train, arguments + options)
    assert isinstance(result.exception, StacksegError)
    assert words in f"{result.exception}\n"
    assert "\n" not in str(result.exception)


@pytest.mark.parametrize("options", [["--channels", "a,b"], ["--frames", "5"], ["--frames", "x:y"]])
def test_values_that_cannot_be_read_are_usage_errors(options: list[str], tmp_path: Path) -> None:
    arguments = ["--data", str(tmp_path), "--layout", "ctc", "--output", str(tmp_path)]
    result = CliRunner().invoke(train, arguments + options)
    assert result.exit_code == 2
    assert options[0] in result.stderr


def test_a_run_needs_an_output_and_a_check_does_not(tmp_path: Path) -> None:
    arguments = ["--data", str(tmp_path), "--layout", "pairs"]
    error = CliRunner().invoke(train, arguments).exception
    assert str(error) == "--output: is missing; name a folder for the run"
    error = CliRunner().invoke(train, [*arguments, "--overfit-one"]).exception
    assert isinstance(error, StacksegError) and "--output" not in str(error)


@pytest.mark.parametrize(
    "command", ["train.cli:train", "export.cli:export", "train.cli_compare:compare"]
)
def test_without_torch_one_sentence_tells_what_to_install(command: str, tmp_path: Path) -> None:
    module, name = command.split(":")
    arguments = {
        "train": ["--data", str(tmp_path), "--layout", "pairs", "--output", str(tmp_path / "run")],
        "export": [str(tmp_path), "--output", str(tmp_path / "m.onnx")],
        "compare": [str(tmp_path)],
    }[name]
    code = (
        "import sys; sys.modules['torch'] = None\n"
        f"from {module} import {name}\n"
        f"try: {name}.main({arguments!r}, standalone_mode=False)\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.startswith(
        f"{MissingExtra.__name__} stackseg {name} needs PyTorch: run pip install '.[train]' in"
    )


@pytest.mark.parametrize("module", ["train.cli", "train.cli_compare", "export.cli"])
def test_command_modules_load_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(' '.join(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(out.stdout.split())
    heavy = {"torch", "numpy", "scipy", "onnx", "onnxruntime", "pydantic", "matplotlib", "dask"}
    assert not heavy & loaded
