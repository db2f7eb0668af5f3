"""What differs between two jobs, by their identities, as a user would say it. Touches no file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from engine.stacks.guard import some

Fields = Mapping[str, object]

# Of each field of an identity, what it is called; of fields with a unit, "name|unit".
_NAMES = {
    "stackseg": "version of stackseg",
    "labels": "label image",
    "path": "input",
    "pixel_size_um": "pixel size|um",
    "time_step_s": "time step|s",
    "channel": "model channels",
    "measured_channels": "measured channels",
    "frames.t": "frames along T",
    "frames.z": "frames along Z",
    "arrays": "stored arrays",
    "postprocessing.min_area": "min-area|px",
    "postprocessing.max_area": "max-area|px",
    "postprocessing.min_distance": "min-distance|px",
    "postprocessing.seed_height": "seed-height|px",
    "postprocessing.growth": "growth|px",
    "postprocessing.pinhole": "pinhole|px",
    "halo": "halo|px",
    "tile": "tile|px",
}
# Of fields whose values say nothing to a user, the whole sentence.
_SENTENCES = {
    "model": "the model is another file",
    "relabels": "the kept probabilities have changed",
    "content": "the files of the input have changed",
    "identifiers": "identifiers of patients are kept now and were not, or the other way round",
    "layout": "the division into blocks has changed",
}
# Of arrays that are kept besides labels, the option that asks for them.
_ASKED_BY = {"probability": "--keep probability", "image": "--with-image"}
_PLURALS = (
    "channels",
    "arrays",
    "axes",
    "instances",
    "objects",
    "frames along T",
    "frames along Z",
)
_WHEN_ABSENT: Fields = {
    "missing_chunks": "fail",
    "identifiers": {},
    "postprocessing.objects": [],
    # Before there were cores.
    "postprocessing.core_threshold": 0.0,
    "postprocessing.growth": 0,
    "postprocessing.pinhole": 0,
    "postprocessing.unreached": "drop",
}
_LONGEST = 60  # characters of a value; what is longer is shortened


@dataclass(frozen=True)
class Difference:
    """A field of an identity that is another one now."""

    stack: str  # "" where it is the job's
    field: str  # "threshold" of a stack's post-processing is "postprocessing.threshold"
    sentence: str  # without the stack


def differences(known: Fields, wanted: Fields) -> list[Difference]:
    """Each field in which `wanted` differs from the `known` identity; empty where none does."""
    found = list(_changed("", known, wanted))
    before, now = _mapping(known.get("stacks")), _mapping(wanted.get("stacks"))
    for name in dict.fromkeys((*before, *now)):
        if name not in now:
            found.append(Difference(name, "", "was part of the job and is missing now"))
        elif name not in before:
            found.append(Difference(name, "", "was not part of the job"))
        else:
            found += _changed(name, _mapping(before[name]), _mapping(now[name]))
    # A layout follows from other fields, and so do all arrays but those that are asked for.
    plain = [one for one in found if one.field != "layout" and one.sentence != _same("arrays")]
    return plain or found


def in_words(found: Sequence[Difference]) -> str:
    """All differences in one line; what several stacks have in common is said once."""
    stacks: dict[str, list[str]] = {}
    for one in found:
        stacks.setdefault(one.sentence, []).append(one.stack)
    return some(
        [
            f"{some(names, ', ', 3)}: {sentence}" if names[0] else sentence
            for sentence, names in stacks.items()
        ],
        "; ",
        6,
    )


def retry_hint(found: Sequence[Difference]) -> str:
    """How the job can be resumed where the failed frames alone are concerned; else ""."""
    if any(one.field == "content" for one in found):
        return "give --retry-failed if only frames that had failed were repaired"
    if {one.sentence for one in found} == {_sentence("missing_chunks", "fail", "background")}:
        return "give --retry-failed to repeat the frames that had failed"
    return ""


def _changed(stack: str, known: Fields, wanted: Fields) -> Iterator[Difference]:
    before, now = _flat(known), _flat(wanted)
    for field in dict.fromkeys((*before, *now)):
        default = _WHEN_ABSENT.get(field)
        pair = before.get(field, default), now.get(field, default)
        if field != "stacks" and pair[0] != pair[1]:
            yield Difference(stack, field, _sentence(field, *pair))


def _flat(fields: Fields) -> dict[str, object]:
    """The fields of a stack, or of a job, with those of the mappings that users know of."""
    flat: dict[str, object] = {}
    for name, value in fields.items():
        if name in ("postprocessing", "frames") and isinstance(value, Mapping):
            flat |= {f"{name}.{key}": one for key, one in value.items()}
        else:
            flat[name] = value
    return flat


def _sentence(field: str, before: object, now: object) -> str:
    if field in _SENTENCES:
        return _SENTENCES[field]
    if field == "arrays" and (options := _options(before, now)):
        return options
    name, _, unit = _name(field).partition("|")
    was, is_now = (_value(field, value, unit) for value in (before, now))
    if was == is_now:
        return _same(field)
    past, present = ("were", "are") if name.endswith(_PLURALS) else ("was", "is")
    return f"{name} {past} {was} and {present} {is_now} now"


def _options(before: object, now: object) -> str:
    """Which options of `_ASKED_BY` a job was run with, and is not now, or the other way round."""
    had, has = ({one["kind"] for one in arrays or ()} for arrays in (before, now))  # type: ignore
    words = ("without", "with")
    return " and ".join(
        f"it was run {words[kind in had]} {option} and is run {words[kind in has]} it now"
        for kind, option in _ASKED_BY.items()
        if (kind in had) != (kind in has)
    )


def _same(field: str) -> str:
    """Where two values that differ look the same."""
    return f"{_name(field).partition('|')[0]} changed"


def _name(field: str) -> str:
    return _NAMES.get(field, field.rpartition(".")[2].replace("_", "-"))


def _value(field: str, value: object, unit: str) -> str:
    if value in (None, "", [], {}) or (field == "postprocessing.max_area" and value == 0):
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        parts = [str(one["kind"]) if isinstance(one, dict) else str(one) for one in value]
        text = (":" if field.startswith("frames.") else ", ").join(parts)
    elif isinstance(value, Mapping):
        text = ", ".join(f"{key} {one}" for key, one in value.items())
    else:
        text = str(value)
    if len(text) > _LONGEST and field != "runtime":  # of which the end says what ran together
        is_path = text.startswith(os.sep)  # of which the end says more
        text = f"...{text[3 - _LONGEST :]}" if is_path else f"{text[: _LONGEST - 3]}..."
    return f"{text} {unit}" if unit else text


def _mapping(value: object) -> Fields:
    return value if isinstance(value, Mapping) else {}
