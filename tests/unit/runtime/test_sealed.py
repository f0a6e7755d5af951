"""Sealed values open for one key and one context only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sternpost_runtime.sealed import (
    KEY_ID_OCTETS,
    SealError,
    generate_keypair,
    key_id,
    open_sealed,
    public_key_of,
    seal,
)

PRIVATE, PUBLIC = generate_keypair()


@given(st.binary(max_size=500), st.text(max_size=50))
def test_what_was_sealed_opens_with_its_key_and_context(data: bytes, context: str) -> None:
    if context.isprintable():
        assert open_sealed(PRIVATE, seal(PUBLIC, data, context), context) == data


def test_the_public_key_follows_from_the_private_one() -> None:
    assert public_key_of(PRIVATE) == PUBLIC


def test_two_seals_of_the_same_data_differ_and_show_none_of_it() -> None:
    one, two = (seal(PUBLIC, b"hunter2-hunter2", "tls/a/b") for _ in range(2))
    assert one != two
    assert b"hunter2" not in one


@pytest.mark.parametrize("context", ["tls/tenant/others", "tls/tenant/nam", "tls/tenant/name2", ""])
def test_a_value_moved_to_another_place_does_not_open(context: str) -> None:
    sealed = seal(PUBLIC, b"secret", "tls/tenant/name")
    with pytest.raises(SealError, match="another place"):
        open_sealed(PRIVATE, sealed, context)


def test_context_and_data_cannot_be_shifted_into_each_other() -> None:
    with pytest.raises(SealError):
        open_sealed(PRIVATE, seal(PUBLIC, b"bc", "a"), "ab")


def test_another_key_is_named_in_the_error() -> None:
    other_private, other_public = generate_keypair()
    with pytest.raises(SealError, match=key_id(PUBLIC).hex()) as caught:
        open_sealed(other_private, seal(PUBLIC, b"secret", "c"), "c")
    assert key_id(other_public).hex() in str(caught.value)


@pytest.mark.parametrize("position", [KEY_ID_OCTETS, KEY_ID_OCTETS + 40, -1])
def test_a_flipped_bit_is_noticed(position: int) -> None:
    sealed = bytearray(seal(PUBLIC, b"secret", "c"))
    sealed[position] ^= 1
    with pytest.raises(SealError, match="changed or cut short"):
        open_sealed(PRIVATE, bytes(sealed), "c")


@pytest.mark.parametrize("length", [0, 3, KEY_ID_OCTETS, KEY_ID_OCTETS + 10, KEY_ID_OCTETS + 48])
def test_a_value_cut_short_is_refused(length: int) -> None:
    with pytest.raises(SealError):
        open_sealed(PRIVATE, seal(PUBLIC, b"secret", "c")[:length], "c")


@pytest.mark.parametrize("key", [b"", b"short", PUBLIC + b"x"])
def test_keys_of_a_wrong_length_are_refused(key: bytes) -> None:
    with pytest.raises(SealError, match="32 octets"):
        seal(key, b"", "c")
    with pytest.raises(SealError, match="32 octets"):
        open_sealed(key, b"", "c")
