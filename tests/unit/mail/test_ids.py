"""Ids sort by time, tell their time, and are safe wherever they appear."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sternpost_mail.ids import RANDOM_OCTETS, id_time_ms, is_id, make_id

MOMENTS = st.integers(0, 2**48 - 1)
RANDOM = st.binary(min_size=RANDOM_OCTETS, max_size=RANDOM_OCTETS)


@given(MOMENTS, RANDOM)
def test_an_id_tells_its_time_and_has_the_shape_of_an_id(moment: int, random: bytes) -> None:
    made = make_id(moment, random)
    assert re.fullmatch(r"[0-9a-z]{26}", made)
    assert is_id(made)
    assert id_time_ms(made) == moment


@given(MOMENTS, RANDOM, MOMENTS, RANDOM)
def test_ids_sort_as_their_times_do_and_differ_when_anything_does(a: int, ra: bytes, b: int, rb: bytes) -> None:
    assert (make_id(a, ra) < make_id(b, rb)) == ((a, ra) < (b, rb))


def test_the_ends_of_the_range() -> None:
    assert make_id(0, bytes(10)) == "0" * 26
    assert make_id(2**48 - 1, b"\xff" * 10) == "7" + "z" * 25


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0" * 25,
        "0" * 27,
        "8" + "0" * 25,
        *("0" * 25 + last for last in "Iu.* A>٣\n"),
        "0" * 26 + "\n",
        "../" + "0" * 23,
    ],
)
def test_what_is_no_id_reaches_no_subject(text: str) -> None:
    assert not is_id(text)
    with pytest.raises(ValueError, match="is not a message id"):
        id_time_ms(text)


@pytest.mark.parametrize("length", [0, 9, 11])
def test_too_little_randomness_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="10 random octets"):
        make_id(1, bytes(length))
