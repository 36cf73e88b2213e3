"""Texts as attributes of HDF5: of fixed length, whatever they hold."""

from io import BytesIO

import h5py
import pytest

from aclcmp.labeling.shard.hdf5_types import set_text


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("match", b"match"),
        ("", b""),
        ("größe 层", "größe 层".encode()),
        ("a\0b", rb"a\x00b"),
        ("\udc80", rb"\udc80"),
        ("x" * 1_000_000, b"x" * 1_000_000),
    ],
)
@pytest.mark.parametrize("low", [True, False])
def test_texts_are_of_fixed_length(text: str, stored: bytes, low: bool) -> None:
    image = BytesIO()
    with h5py.File(image, "w", libver="v110") as file:
        group = file.create_group("g")
        set_text(group.id if low else group, "größe", text)
    with h5py.File(image) as file:
        attributes = file["g"].attrs
        kind = h5py.check_string_dtype(attributes.get_id("größe").dtype)
        assert kind is not None and (kind.encoding, kind.length) == ("utf-8", max(len(stored), 1))
        assert attributes["größe"] == stored
