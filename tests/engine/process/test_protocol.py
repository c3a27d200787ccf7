"""Which changes of what processes say let two versions run together."""

import copy
from collections.abc import Callable

import msgspec
import pytest

from engine.process.protocol import Language, differences, language


def as_it_travels() -> Language:
    return msgspec.json.decode(msgspec.json.encode(language()), type=Language)


def test_a_version_understands_itself() -> None:
    assert differences(language(), as_it_travels()) == []


def optional_field(other: Language) -> None:
    other.said["WriterStatus"]["properties"]["mood"] = {"type": "string", "default": ""}


def words(other: Language) -> None:
    other.said["WriterStatus"]["description"] = "said better"


@pytest.mark.parametrize("change", [optional_field, words])
def test_what_does_no_harm(change: Callable[[Language], None]) -> None:
    ours, theirs = as_it_travels(), as_it_travels()
    change(theirs)
    assert differences(ours, theirs) == differences(theirs, ours) == []


def needed_field(other: Language) -> None:
    other.said["WriterStatus"]["properties"]["mood"] = {"type": "string"}
    other.said["WriterStatus"]["required"].append("mood")


def another_type(other: Language) -> None:
    other.said["WriterStatus"]["properties"]["cpu_s"] = {"type": "string"}


def another_choice(other: Language) -> None:
    other.said["StreamState"]["enum"].append("asleep")


def another_message(other: Language) -> None:
    other.said["message 0"]["anyOf"].append({"$ref": "#/$defs/Sing"})


def another_record(other: Language) -> None:
    other.records["trade"] += "!"


def another_kind(other: Language) -> None:
    other.records["song"] = "[]"


def no_kind(other: Language) -> None:
    del other.records["trade"]


def another_number(other: Language) -> None:
    other.numbers["rings"] += 1


@pytest.mark.parametrize(
    "change",
    [needed_field, another_type, another_choice, another_message, another_record, another_kind,
     no_kind, another_number],
)  # fmt: skip
def test_what_would_be_misunderstood(change: Callable[[Language], None]) -> None:
    ours, theirs = as_it_travels(), as_it_travels()
    change(theirs)
    assert len(differences(ours, theirs)) == len(differences(theirs, copy.deepcopy(ours))) == 1
