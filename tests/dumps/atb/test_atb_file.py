"""One file: what the library writes is read exactly, what it cannot have written is refused with a reason."""

import os
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from aclcmp.labeling.errors import ShardError
from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.labeling.shard.dumped_tensor import DumpedTensor, ForeignFormatError
from aclcmp.orchestrator.dumps.atb.atb_file import read_atb
from aclcmp.orchestrator.dumps.atb.codes import DTYPE_NAMES
from aclcmp.orchestrator.dumps.atb.find_dumps import FileLabel, find_dumps
from tests.dumps.atb_writer import CODES, atb_header, values, write_atb, write_pointer

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def read_one(path: Path) -> DumpedTensor:
    (tensor,) = read_atb(path, path.parent)
    return tensor


def stored(folder: Path, content: bytes) -> Path:
    path = folder / "x.bin"
    path.write_bytes(content)
    return path


def refused(folder: Path, content: bytes) -> str:
    path = stored(folder, content)
    with pytest.raises(ForeignFormatError) as caught:
        read_atb(path, folder)
    message = str(caught.value)
    assert str(path) in message and message.isprintable()
    assert isinstance(caught.value, ShardError)
    return message


def test_vector_of_msit(tmp_path: Path) -> None:
    header = (
        b"$Version=1.0\n$Object.Count=1\n$Object.Length=4\nformat=2\ndtype=1\ndims=1,1,2\n$Object.data=0,4\n$End=1\n"
    )
    tensor = read_one(stored(tmp_path, header + b"1212"))
    assert tensor == DumpedTensor(str(tmp_path / "x.bin"), len(header), "float16", (1, 1, 2))
    assert values(tensor).ravel().tolist() == pytest.approx([0.19348] * 2, abs=1e-5)
    message = refused(tmp_path, header.replace(b"dtype=1", b"dtype=999"))
    assert "dtype unknown (code 999) is not supported yet" in message


def test_stated_length_is_wrong_in_huaweis_own_test(tmp_path: Path) -> None:
    expected = np.array([1, 11, 7, 5, 5, 4, 7, 6], np.float16)
    tensor = read_one(stored(tmp_path, atb_header((2, 4), 1, 8) + expected.tobytes()))
    assert np.array_equal(values(tensor).ravel(), expected) and tensor.shape == (2, 4)
    assert tensor.warnings == ("the header states 8 bytes of data; the shape's 16 are taken",)


@pytest.mark.parametrize("name", ["$John", ""])
def test_vectors_of_mki(tmp_path: Path, name: str) -> None:
    twice = atb_header((2, 3), 0, 24, extra=["$Object.Length=24"])
    assert "repeats '$Object.Length'" in refused(tmp_path, twice + X.tobytes())
    header = atb_header((2, 3), 0, 24, extra=[f"{name}=1"])
    if name:  # a system attribute from the future
        assert np.array_equal(values(read_one(stored(tmp_path, header + X.tobytes()))), X)
    else:
        assert "no name=value" in refused(tmp_path, header + X.tobytes())


def test_payload_of_a_square_begins_at_0x72(tmp_path: Path) -> None:
    square = np.arange(1 << 20, dtype=np.float32).reshape(1024, 1024)
    tensor = read_one(write_atb(tmp_path / "x.bin", square))
    assert tensor.offset == 0x72
    assert np.array_equal(values(tensor), square)


@pytest.mark.parametrize("dtype", CODES)
def test_every_dtype(tmp_path: Path, dtype: str) -> None:
    numbers: npt.NDArray[np.float64] = np.array([[0, 1, 2], [4, 0.5, 1]])
    if dtype == "complex32":
        numbers = np.stack([numbers, -numbers], -1)
        bits: npt.NDArray[np.generic] = numbers.astype(np.float16).view(DTYPES[dtype].memory).reshape(2, 3)
    elif dtype == "bfloat16" or dtype.startswith("float8"):
        numbers[0, 0] = 1  # e8m0 has no zero
        bits = numbers.astype(getattr(ml_dtypes, dtype)).view(DTYPES[dtype].memory)
    else:
        bits = numbers.astype(DTYPES[dtype].memory)
    tensor = read_one(write_atb(tmp_path / "x.bin", bits, CODES[dtype]))
    assert (tensor.dtype, tensor.shape, tensor.warnings) == (dtype, (2, 3), ())
    back: Any = values(tensor)
    if dtype == "complex32":
        assert np.array_equal(np.stack([back["r"], back["i"]], -1), numbers)
    elif dtype == "bfloat16" or dtype.startswith("float8"):
        assert np.array_equal(back.view(getattr(ml_dtypes, dtype)).astype(np.float64), numbers)
    else:
        assert np.array_equal(back, bits)


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (-1, "UNDEFINED"),
        (13, "STRING"),
        (29, "INT4"),
        (30, "UINT1"),
        (34, "HIFLOAT8"),
        (38, "FLOAT6_E3M2"),
        (39, "FLOAT6_E2M3"),
        (40, "FLOAT4_E2M1"),
        (41, "FLOAT4_E1M2"),
        (5, "unknown"),
        (-7, "unknown"),
    ],
)
def test_dtypes_without_comparison(tmp_path: Path, code: int, name: str) -> None:
    assert f"dtype {name} (code {code}) is not supported yet" in refused(tmp_path, atb_header((2,), code, 2) + b"12")


def test_table_knows_every_code_that_the_library_has() -> None:
    assert {code for code, (_, name) in DTYPE_NAMES.items() if name} == set(CODES.values())
    assert {name for _, name in DTYPE_NAMES.values() if name} <= set(DTYPES)


@given(
    array=st.sampled_from([name for name in CODES if DTYPES[name].memory.name == name])
    .map(np.dtype)
    .flatmap(lambda dtype: arrays(dtype, st.just(()) | array_shapes(min_dims=1, max_dims=8, min_side=0, max_side=4))),
    times=st.integers(1, 3),
)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, array: npt.NDArray[np.generic], times: int) -> None:
    path = tmp_path_factory.mktemp("atb") / "x.bin"
    for number in range(times):
        write_atb(path, array, again=number > 0)
    tensors = read_atb(path, path.parent)
    assert len(tensors) == times
    for tensor in tensors:
        assert (tensor.dtype, tensor.shape, tensor.warnings) == (array.dtype.name, array.shape, ())
        assert values(tensor).tobytes() == array.tobytes()


def test_weird_paths(weird_path: Path) -> None:
    assert np.array_equal(values(read_one(write_atb(weird_path / '0_L\'äyer "x"' / "目.bin", X))), X)


def test_name_that_is_no_text(tmp_path: Path) -> None:
    path = write_atb(tmp_path / os.fsdecode(b"\xff\n\x1b[31m.bin"), X)
    assert read_one(path).path == str(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(ForeignFormatError) as caught:
        read_one(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("end", ["$End=1", "$End", "$END=1", "$END"])
def test_ends_of_headers(tmp_path: Path, end: str) -> None:
    tensor = read_one(stored(tmp_path, atb_header((2, 3), 0, 24, end=end) + X.tobytes()))
    assert np.array_equal(values(tensor), X)


def test_attributes_in_any_order_and_of_any_kind(tmp_path: Path) -> None:
    lines = ["$Later=1", "dims=2,3", "note=a=b=c", "naïve=ü", "$Object.data=0,24", "dtype=0", "$Object.Length=24", ""]
    tensor = read_one(stored(tmp_path, "\n".join([*lines[:-1], "$End=1", ""]).encode() + X.tobytes()))
    assert np.array_equal(values(tensor), X) and not tensor.warnings


@pytest.mark.parametrize("lines", [0, 1, 100, 7_992])
def test_headers_of_any_length(tmp_path: Path, lines: int) -> None:
    header = atb_header((2, 3), 0, 24, extra=[f"name{number}=" + "v" * 90 for number in range(lines)])
    tensor = read_one(stored(tmp_path, header + X.tobytes()))
    assert tensor.offset == len(header) and np.array_equal(values(tensor), X)


@pytest.mark.parametrize("extra", [["x=" + "y" * (1 << 20)], ["$x=1"] * 8_000, [f"a{n}=1" for n in range(8_000)]])
def test_headers_that_do_not_end(tmp_path: Path, extra: list[str]) -> None:
    assert "does not end within" in refused(tmp_path, atb_header((2, 3), 0, 24, extra=extra) + X.tobytes())


@pytest.mark.parametrize("dims", [(0,), (0, 4), (4, 0, 2**40)])
@pytest.mark.parametrize("data", [True, False])
def test_empty_tensors(tmp_path: Path, dims: tuple[int, ...], data: bool) -> None:
    tensor = read_one(stored(tmp_path, atb_header(dims, 0, 0, data=data)))
    assert tensor.shape == dims and not tensor.warnings and tensor.offset == Path(tensor.path).stat().st_size


def test_scalar(tmp_path: Path) -> None:
    tensor = read_one(write_atb(tmp_path / "x.bin", np.array(3.5)))
    assert tensor.shape == () and values(tensor) == 3.5


def test_without_data(tmp_path: Path) -> None:
    assert "holds no data" in refused(tmp_path, atb_header((2, 3), 0, 0, data=False))


@pytest.mark.parametrize(
    ("format", "warning"),
    [(code, "") for code in (-1, 0, 1, 2, 16, 27, 30, 35, 47)]
    + [(3, "NC1HWC0"), (4, "FRACTAL_Z"), (12, "NC1HWC0_C04"), (32, "NDC1HWC0"), (33, "FRACTAL_Z_3D")]
    + [(50, "FRACTAL_NZ_C0_16"), (51, "FRACTAL_NZ_C0_32"), (77, r"77 (unknown)")],
)
def test_formats(tmp_path: Path, format: int, warning: str) -> None:
    tensor = read_one(write_atb(tmp_path / "x.bin", X, format=format))
    assert tensor.shape == (2, 3) and not tensor.fractal_nz
    assert tensor.warnings == ((f"format {warning} is compared in its storage order",) if warning else ())


def test_fractal_nz_and_no_format(tmp_path: Path) -> None:
    assert read_one(write_atb(tmp_path / "x.bin", X, format=29)).fractal_nz
    tensor = read_one(write_atb(tmp_path / "y.bin", X, format=None))
    assert not tensor.fractal_nz and not tensor.warnings


@pytest.mark.parametrize(
    ("line", "by", "what"),
    [
        ("$Object.Length=24", "$Object.Length=", "is no number"),
        ("$Object.Length=24", "$Object.Length=-24", "not within"),
        ("$Object.Length=24", "$Object.Length=1,2", "is no number"),
        ("$Object.Length=24", "", "line 3 of the header"),
        ("$Object.Length=24\n", "", "has no $Object.Length"),
        ("dtype=0\n", "", "has no dtype"),
        ("dtype=0", "dtype=float", "is no number"),
        ("dims=2,3\n", "", "has no dims"),
        ("dims=2,3", "dims=2,-3", "is no shape"),
        ("dims=2,3", "dims=2,,3", "is no number"),
        ("dims=2,3", "dims=2, 3", "is no number"),
        ("dims=2,3", "dims=²,3", "is no number"),
        ("dims=2,3", "dims=" + "9" * 100_000, "is no number"),
        ("dims=2,3", "dims=" + ",".join(["1"] * 33), "is no shape"),
        ("dims=2,3", "dims=4294967296,4294967296", "more than any file holds"),
        ("dims=2,3", "dims=0,4294967296,4294967296", "more than any file holds"),
        ("dims=2,3", "dims=9999999999999999999", "more than any file holds"),
        ("dims=2,3", "dims=2,3\ndims=2,3", "repeats 'dims'"),
        ("dims=2,3", "dims=2,3\nnot an attribute", "is no name=value"),
        ("data=0,24", "data=0,25", "not within"),
        ("data=0,24", "data=-4,24", "not within"),
        ("data=0,24", "data=1,24", "not within"),
        ("data=0,24", "data=0", "is no number"),
        ("data=0,24", "data=0,24\n$Object.data=0,24", "repeats '$Object.data'"),
    ],
)
def test_headers_that_the_library_does_not_write(tmp_path: Path, line: str, by: str, what: str) -> None:
    header = atb_header((2, 3), 0, 24).decode()
    assert line in header
    assert what in refused(tmp_path, header.replace(line, by).encode() + X.tobytes())


@pytest.mark.parametrize("content", [b"", b"\n", b"\0" * 4096, b"$Version=1.0\n", b"$Version=1.0", b"=\n", b"\x89HDF"])
def test_other_files(tmp_path: Path, content: bytes) -> None:
    assert "dump it again" in refused(tmp_path, content)


@pytest.mark.parametrize("missing", [1, 23, 24])
def test_truncated_payload_tells_how_much_is_missing(tmp_path: Path, missing: int) -> None:
    content = atb_header((2, 3), 0, 24) + X.tobytes()
    assert f"{missing} of its 24 bytes are missing" in refused(tmp_path, content[:-missing])


def test_truncated_by_a_second_dump(tmp_path: Path) -> None:
    """The stated length tells that the first is short, although bytes follow."""
    second = atb_header((2, 3), 0, 24) + X.tobytes()
    assert "4 of its 24 bytes are missing" in refused(tmp_path, atb_header((2, 3), 0, 20) + X.tobytes()[:20] + second)


def test_second_tensor_is_named_when_it_is_torn(tmp_path: Path) -> None:
    whole = atb_header((2, 3), 0, 24) + X.tobytes()
    assert f"(tensor 2, at byte {len(whole)}): is truncated: 1 of" in refused(tmp_path, whole + whole[:-1])


def test_trailing_bytes_are_told(tmp_path: Path) -> None:
    tensor = read_one(stored(tmp_path, atb_header((2, 3), 0, 24) + X.tobytes() + b"12345"))
    assert np.array_equal(values(tensor), X)
    assert tensor.warnings == ("5 bytes after the tensor are no further tensor; was a dump interrupted?",)


def test_trailing_bytes_are_counted_from_the_stated_end(tmp_path: Path) -> None:
    tensor = read_one(stored(tmp_path, atb_header((2, 3), 0, 32) + X.tobytes() + bytes(8) + b"12345"))
    assert tensor.warnings[-1] == "5 bytes after the tensor are no further tensor; was a dump interrupted?"
    assert len(read_one(stored(tmp_path, atb_header((2, 3), 0, 32) + X.tobytes() + bytes(8))).warnings) == 1


@pytest.mark.parametrize("missing", [1, 23, 24, 3_000, 4_000])
@pytest.mark.parametrize("tail", [b"", b"12345"])
def test_first_of_two_was_interrupted(tmp_path: Path, missing: int, tail: bytes) -> None:
    """What is missing is not to be taken from the next header and tensor."""
    array: npt.NDArray[np.float32] = np.arange(1000, dtype=np.float32)
    whole = atb_header((1000,), 0, 4000) + array.tobytes()
    message = refused(tmp_path, whole[:-missing] + whole + tail)
    assert "another tensor begins before this one ends" in message and "dump it again" in message
    message = refused(tmp_path, whole + whole[:-missing] + whole + tail)
    assert f"(tensor 2, at byte {len(whole)}): another tensor begins" in message


def test_tensor_of_text_that_reads_like_a_header(tmp_path: Path) -> None:
    text = np.frombuffer(b"12$Version=1.0\n", np.uint8)
    write_atb(write_atb(tmp_path / "x.bin", text), text, again=True)
    assert [tensor.warnings for tensor in read_atb(tmp_path / "x.bin", tmp_path)] == [(), ()]


@pytest.mark.parametrize("padding", [8, 4096])
def test_padded_payload_before_a_second_dump(tmp_path: Path, padding: int) -> None:
    first = atb_header((2, 3), 0, 24 + padding) + X.tobytes() + bytes(padding)
    second = atb_header((2, 3), 0, 24) + (X + 1).tobytes()
    tensors = read_atb(stored(tmp_path, first + second), tmp_path)
    assert [len(tensor.warnings) for tensor in tensors] == [1, 0]
    assert all(np.array_equal(values(tensor), X + n) for n, tensor in enumerate(tensors))


def test_too_many_tensors(tmp_path: Path) -> None:
    assert "more than 10000 tensors" in refused(tmp_path, atb_header((0,), 0, 0) * 10_001)


def test_object_behind_another(tmp_path: Path) -> None:
    header = atb_header((2, 3), 0, 32).replace(b"data=0,32", b"data=8,24").replace(b"$End", b"$Object.other=0,8\n$End")
    assert np.array_equal(values(read_one(stored(tmp_path, header + b"12345678" + X.tobytes()))), X)


def test_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    for name, what in (("pipe", "no regular"), ("", "no regular"), ("none", "No such"), ("loop", "Too many levels")):
        with pytest.raises(ForeignFormatError, match=what):
            read_atb(tmp_path / name, tmp_path)
    for name in ("zero", "nul\0"):
        with pytest.raises(ForeignFormatError):
            read_atb(tmp_path / name, tmp_path)


def test_pointer_is_followed(tmp_path: Path) -> None:
    target = write_atb(tmp_path / "a" / "intensor0.bin", X)
    for number, value in enumerate(("../a/intensor0.bin", str(target), "./intensor0.bin")):
        folder = tmp_path / ("a" if number == 2 else "b")
        path = write_pointer(folder / f"out{number}.bin", (3, 2), 0, value)
        (tensor,) = read_atb(path, tmp_path)
        assert (tensor.path, tensor.shape, tensor.warnings) == (str(target), (3, 2), ())
        assert np.array_equal(values(tensor).ravel(), X.ravel())


def test_pointer_to_a_file_that_was_dumped_again(tmp_path: Path) -> None:
    write_atb(write_atb(tmp_path / "x.bin", X), X + 1, again=True)
    (tensor,) = read_atb(write_pointer(tmp_path / "y.bin", (2, 3), 0, "x.bin"), tmp_path)
    assert np.array_equal(values(tensor), X + 1) and "dumped again" in tensor.warnings[0]


def test_pointer_then_tensor(tmp_path: Path) -> None:
    write_atb(tmp_path / "x.bin", X)
    path = write_pointer(tmp_path / "y.bin", (2, 3), 0, "x.bin")
    write_atb(path, X + 1, again=True)
    first, second = read_atb(path, tmp_path)
    assert np.array_equal(values(first), X) and np.array_equal(values(second), X + 1)


@pytest.mark.parametrize(
    ("path", "value", "target"),
    [
        ("0_Layer/1_Op/2_Kernel/before/intensor0.bin", "0_1_intensor0.bin", "0_Layer/1_Op/before/intensor0.bin"),
        ("0_Layer/1_Op/before/intensor0.bin", "0_intensor0.bin", "0_Layer/before/intensor0.bin"),
        ("0_Layer/2_Op/before/intensor1.bin", "0_1_12_outtensor3.bin", "0_Layer/1_Op/12_Other/after/outtensor3.bin"),
        ("0_Layer/2_Op/before/intensor1.bin", "11_outtensor0.bin", "11_Layer/after/outtensor0.bin"),
    ],
)
@pytest.mark.parametrize("absolute", [True, False])
def test_ids_of_operations_as_msprobe_writes_them(
    tmp_path: Path, path: str, value: str, target: str, absolute: bool
) -> None:
    execution = tmp_path / "atb_dump_data" / "data" / "0_42" / "0"
    for folder in ("0_Layer/1_Op/2_Kernel", "0_Layer/1_Op/12_Other", "0_Layer/12_Op", "1_Layer/1_Op", "11_Layer"):
        (execution / folder).mkdir(parents=True)
    write_atb(execution / target, X)
    write_pointer(execution / path, (2, 3), 0, value)
    name = str(execution / path) if absolute else path
    tensor = find_dumps([FileLabel(0, 0, name, 0.0, "model.py:1")], 42, [tmp_path])[0]
    assert isinstance(tensor, DumpedTensor), tensor
    assert tensor.path == str(execution / target) and np.array_equal(values(tensor), X)


def test_ids_of_operations_that_are_not_there_or_twice(tmp_path: Path) -> None:
    path = write_pointer(tmp_path / "0" / "0_Layer" / "2_Op" / "after" / "x.bin", (2, 3), 0, "0_7_outtensor0.bin")
    with pytest.raises(ForeignFormatError, match=r"stands for 0_7_outtensor0.bin, but .*0_Layer holds 0 7_\.\.\."):
        read_atb(path, tmp_path)
    for name in "ab":
        (tmp_path / "0" / "0_Layer" / f"7_{name}").mkdir()
    with pytest.raises(ForeignFormatError, match=r"0_Layer holds 2 7_\.\.\."):
        read_atb(path, tmp_path)
    write_pointer(path, (2, 3), 0, "0_2_outtensor9.bin")
    with pytest.raises(ForeignFormatError, match=r"2_Op/after/outtensor9.bin: No such file"):
        read_atb(path, tmp_path)
    (tmp_path / "0" / "0_Layer" / "3_Op").symlink_to("/etc")
    write_pointer(path, (2, 3), 0, "0_3_outtensor0.bin")
    with pytest.raises(ForeignFormatError, match=r"/etc/after/outtensor0.bin: lies outside"):
        read_atb(path, tmp_path)
    (tmp_path / "0" / "0_Layer" / "4_Op").symlink_to(".")
    write_pointer(path, (2, 3), 0, "0" + "_4" * 100_000 + "_outtensor0.bin")
    with pytest.raises(ForeignFormatError):
        read_atb(path, tmp_path)


@pytest.mark.parametrize("value", ["x.bin", "./x.bin", "dump/0_42/3/x.bin"])
def test_filtered_out_by_the_probe(tmp_path: Path, value: str) -> None:
    path = write_pointer(tmp_path / "dump" / "0_42" / "3" / "x.bin", (2, 3), 0, value)
    with pytest.raises(ForeignFormatError, match=r"filtered out by the probe \(filter_level 2\)"):
        read_atb(path, tmp_path)


@pytest.mark.parametrize(("name", "value"), [("b/x.bin", "../a/x.bin"), ("a/ax.bin", "x.bin"), ("a/Xx.bin", "x.bin")])
def test_pointer_to_a_name_like_its_own_is_followed(tmp_path: Path, name: str, value: str) -> None:
    target = write_atb(tmp_path / "a" / "x.bin", X)
    (tensor,) = read_atb(write_pointer(tmp_path / name, (2, 3), 0, value), tmp_path)
    assert tensor.path == str(target)


@pytest.mark.parametrize("value", ["/etc/passwd", "../../secret.bin", "link.bin", "up/secret.bin", "/dev/zero"])
def test_pointers_do_not_escape(tmp_path: Path, value: str) -> None:
    write_atb(tmp_path / "secret.bin", X)
    dump = tmp_path / "dump"
    path = write_pointer(dump / "a" / "x.bin", (2, 3), 0, value)
    (dump / "a" / "link.bin").symlink_to(tmp_path / "secret.bin")
    (dump / "a" / "up").symlink_to(tmp_path)
    with pytest.raises(ForeignFormatError, match=r"x.bin points to .*lies outside .*dump, which is refused"):
        read_atb(path, dump)
    (dump / "direct.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(ForeignFormatError, match="lies outside"):
        read_atb(dump / "direct.bin", dump)


def test_sibling_with_the_same_beginning_is_outside(tmp_path: Path) -> None:
    write_atb(tmp_path / "dump2" / "x.bin", X)
    path = write_pointer(tmp_path / "dump" / "x.bin", (2, 3), 0, "../dump2/x.bin")
    with pytest.raises(ForeignFormatError, match="lies outside"):
        read_atb(path, tmp_path / "dump")


@pytest.mark.parametrize("value", ["", ".", "none.bin", "nul\0", "\udcff", "pipe", "n" * 300])
def test_pointers_to_nothing(tmp_path: Path, value: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ForeignFormatError):
        read_atb(write_pointer(tmp_path / "x.bin", (2, 3), 0, value), tmp_path)


def test_pointers_in_circles_and_too_far(tmp_path: Path) -> None:
    write_pointer(tmp_path / "a.bin", (2, 3), 0, "b.bin")
    write_pointer(tmp_path / "b.bin", (2, 3), 0, "a.bin")
    with pytest.raises(ForeignFormatError, match="in circles"):
        read_atb(tmp_path / "a.bin", tmp_path)
    write_atb(tmp_path / "0.bin", X)
    for number in range(1, 7):
        write_pointer(tmp_path / f"{number}.bin", (2, 3), 0, f"{number - 1}.bin")
    assert np.array_equal(values(read_one(tmp_path / "4.bin")), X)
    for number in (5, 6):
        with pytest.raises(ForeignFormatError, match="too far"):
            read_atb(tmp_path / f"{number}.bin", tmp_path)


def test_pointers_that_fan_out_end(tmp_path: Path) -> None:
    """Each file points 200 times to the next: 1.6e9 ways if a file were read for each."""
    write_atb(tmp_path / "0.bin", X)
    for number in range(1, 5):
        header = atb_header((2, 3), 0, 0, extra=[f"data={number - 1}.bin"], data=False)
        (tmp_path / f"{number}.bin").write_bytes(header * 200)
    assert len(read_atb(tmp_path / "4.bin", tmp_path)) == 200


@pytest.mark.parametrize(("dims", "dtype"), [((2, 3), 1), ((7,), 0)])
def test_pointer_to_another_kind_of_tensor(tmp_path: Path, dims: tuple[int, ...], dtype: int) -> None:
    write_atb(tmp_path / "x.bin", X)
    with pytest.raises(ForeignFormatError, match=r"but points to .*x.bin, which is float32 \[2, 3\]"):
        read_atb(write_pointer(tmp_path / "y.bin", dims, dtype, "x.bin"), tmp_path)
