"""Which probe library is preloaded, from files of a few bytes in place of CANN and ATB."""

from __future__ import annotations

from pathlib import Path

import pytest

from aclcmp.orchestrator.launch.dump_setup import Probe, find_probe, has_symbol

CXX11 = b"\0_ZN3atb5Probe10SaveTensorERKNSt7__cxx1112basic_stringIcEE\0"
PLAIN = b"\0_ZN3atb5Probe10SaveTensorERKSs\0_ZNSt7__cxx1112basic_stringIcE6appendEPKc\0"


def install(root: Path, atb: bytes = CXX11, probe: bytes = b"\x7fELF") -> dict[str, str]:
    """A CANN and an ATB below `root`, and the variables that their set_env.sh would set."""
    dump = root / "toolkit/tools/ait_backend/dump"
    dump.mkdir(parents=True)
    (root / "atb/lib").mkdir(parents=True)
    (root / "atb/lib/libatb.so").write_bytes(b"\x7fELF" + atb)
    for abi in "01":
        (dump / f"libatb_probe_abi{abi}.so").write_bytes(probe)
    return {"ASCEND_TOOLKIT_HOME": str(root / "toolkit"), "ATB_HOME_PATH": str(root / "atb")}


@pytest.mark.parametrize(("atb", "abi"), [(CXX11, 1), (PLAIN, 0), (b"", 0), (b"\0Probe", 0), (b"Probe_cxx11", 1)])
def test_the_abi_is_that_of_atb(tmp_path: Path, atb: bytes, abi: int) -> None:
    probe = find_probe(install(tmp_path, atb))
    assert probe.library == str(tmp_path / f"toolkit/tools/ait_backend/dump/libatb_probe_abi{abi}.so")
    assert (probe.preload, probe.why_not, probe.wants_config) == (probe.library, "", False)


def test_ld_preload_keeps_what_it_had(tmp_path: Path) -> None:
    environ = install(tmp_path) | {"LD_PRELOAD": "/a.so:/b.so"}
    probe = find_probe(environ)
    assert probe.preload == f"{probe.library}:/a.so:/b.so"


@pytest.mark.parametrize("separator", [":", " "])
def test_a_probe_that_is_preloaded_already_is_not_doubled(tmp_path: Path, separator: str) -> None:
    mine = tmp_path / "libatb_probe_abi0.so"
    mine.write_bytes(b'no key "exec_range" here')
    old = f"/a.so{separator}{mine}"
    assert find_probe(install(tmp_path) | {"LD_PRELOAD": old}) == Probe(str(mine), "", old, True)


def test_a_probe_that_reads_its_orders_from_a_file_is_recognised(tmp_path: Path) -> None:
    assert find_probe(install(tmp_path, probe=b'"exec_range" in ATB dump configuration file')).wants_config


def test_libatb_is_looked_for_in_every_place(tmp_path: Path) -> None:
    environ = install(tmp_path, PLAIN)
    del environ["ATB_HOME_PATH"]
    assert "libatb.so was not found" in find_probe(environ).why_not
    (tmp_path / "toolkit/lib64").mkdir()
    (tmp_path / "toolkit/lib64/libatb.so").write_bytes(CXX11)
    assert find_probe(environ).library.endswith("abi1.so")
    environ["LD_LIBRARY_PATH"] = f"::/no/such:{tmp_path}/atb/lib"
    assert find_probe(environ).library.endswith("abi0.so")


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    assert "ASCEND_TOOLKIT_HOME is not set" in find_probe({}).why_not
    assert "ASCEND_TOOLKIT_HOME is not set" in find_probe({"ASCEND_TOOLKIT_HOME": ""}).why_not
    assert find_probe({"ASCEND_TOOLKIT_HOME": "/no"}).why_not == "CANN has no /no/tools/ait_backend/dump"
    environ = install(tmp_path)
    (tmp_path / "toolkit/tools/ait_backend/dump/libatb_probe_abi1.so").unlink()
    assert find_probe(environ).why_not.endswith("libatb_probe_abi1.so does not exist")
    assert find_probe({"ASCEND_HOME_PATH": environ["ASCEND_TOOLKIT_HOME"]}).why_not.startswith("libatb.so was not")


def test_a_path_that_ld_preload_cannot_hold(tmp_path: Path) -> None:
    for name in ("with blank", "a:b"):
        probe = find_probe(install(tmp_path / name))
        assert "which LD_PRELOAD cannot hold" in probe.why_not and not probe.library and not probe.preload


def test_a_preloaded_probe_that_is_gone_is_said(tmp_path: Path) -> None:
    probe = find_probe({"LD_PRELOAD": "/no/such/libatb_probe_abi1.so"})
    assert probe.why_not == "/no/such/libatb_probe_abi1.so cannot be read: No such file or directory"


@pytest.mark.parametrize("shift", [-70, -40, -20, -1, 0, 1])
def test_a_name_on_the_edge_of_a_window_is_seen_whole(tmp_path: Path, shift: int) -> None:
    file = tmp_path / "lib.so"
    file.write_bytes(b"x" * ((1 << 20) + shift - 1) + CXX11 + b"x" * 10)
    assert has_symbol(file, b"Probe", b"cxx11")
    file.write_bytes(b"x" * ((1 << 20) + shift - 1) + PLAIN + b"x" * 10)
    assert not has_symbol(file, b"Probe", b"cxx11")


def test_no_content_makes_it_slow_or_fail(tmp_path: Path) -> None:
    file = tmp_path / "lib.so"
    for content in (b"", b"\0", b"Probe" * (1 << 19), b"Probe\0" * (1 << 16), bytes(3 << 20)):
        file.write_bytes(content)
        assert not has_symbol(file, b"Probe", b"cxx11")
