"""Sealed values open with their key and purpose alone; masks, tokens and signatures tell no more than they must."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.encryption import Signer, Vault, hash_token, mask_phone

VAULT = Vault("a data key of the tests", "an index key of the tests")


@given(st.text(max_size=200))
def test_what_was_sealed_opens_again(value):
    sealed = VAULT.seal(value, "phone")
    assert VAULT.open(sealed, "phone") == value
    if len(value) > 3:
        assert value.encode() not in bytes(sealed["box"])


def test_the_same_value_is_sealed_differently_each_time_and_indexed_equally():
    a, b = VAULT.seal("13800138000", "phone"), VAULT.seal("13800138000", "phone")
    assert a["box"] != b["box"]
    assert a["index"] == b["index"] == VAULT.index("13800138000", "phone")
    assert len(a["index"]) == 32


def test_another_value_purpose_or_key_gives_another_index():
    index = VAULT.index("13800138000", "phone")
    assert index != VAULT.index("13800138001", "phone")
    assert index != VAULT.index("13800138000", "identity")
    assert index != Vault("a data key of the tests", "another index key").index("13800138000", "phone")
    assert index == Vault("another data key", "an index key of the tests").index("13800138000", "phone")


def test_a_box_does_not_open_for_another_purpose_or_with_another_key():
    sealed = VAULT.seal("13800138000", "phone")
    with pytest.raises(ValueError, match="does not open"):
        VAULT.open(sealed, "identity")
    with pytest.raises(ValueError, match="does not open"):
        Vault("another data key", "an index key of the tests").open(sealed, "phone")


@pytest.mark.parametrize("at", [1, 12, 13, 20, -1])
def test_a_box_with_one_bit_changed_does_not_open(at):
    box = bytearray(VAULT.seal("13800138000", "phone")["box"])
    box[at] ^= 1
    with pytest.raises(ValueError, match="does not open"):
        VAULT.open({"box": bytes(box)}, "phone")


def test_a_box_of_an_unknown_version_or_cut_short_is_refused():
    box = VAULT.seal("13800138000", "phone")["box"]
    with pytest.raises(ValueError, match="version"):
        VAULT.open({"box": b"\x02" + box[1:]}, "phone")
    with pytest.raises(ValueError, match="does not open"):
        VAULT.open({"box": box[:-1]}, "phone")
    with pytest.raises(ValueError, match="version"):
        VAULT.open({"box": b""}, "phone")


@pytest.mark.parametrize(
    ("phone", "masked"),
    [
        ("13800138000", "138****8000"),
        ("+8613800138000", "138****8000"),
        ("010-12345678", "**********78"),
        ("02012345678", "020****5678"),
        ("+85291234567", "**********67"),
        ("12", "***12"),
    ],
)
def test_a_masked_phone_keeps_only_what_its_owner_knows_it_by(phone, masked):
    assert mask_phone(phone) == masked


def test_a_token_is_stored_as_its_hash():
    assert hash_token("token") == hash_token("token")
    assert hash_token("token") != hash_token("tokem")
    assert len(hash_token("token")) == 64


def test_a_signature_fits_its_text_and_key_alone():
    signer = Signer("a signing key of the tests")
    signature = signer.sign("photo/large/1")
    assert signer.check("photo/large/1", signature)
    assert len(signature) == 32
    assert not signer.check("photo/large/2", signature)
    assert not signer.check("photo/large/1", signature.upper())
    assert not signer.check("photo/large/1", "")
    assert not signer.check("photo/large/1", "签名")
    assert not signer.check("photo/large/1", "\ud800")
    assert not Signer("another key").check("photo/large/1", signature)
