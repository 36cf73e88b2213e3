"""What a command finds prepared for its library's dumps, told by real commands in place of a rank's script."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from aclcmp.orchestrator.core.job import Launcher
from aclcmp.orchestrator.core.run_record import RunRecord
from aclcmp.orchestrator.launch import dump_setup
from aclcmp.orchestrator.launch.dump_setup import DumpOrder, DumpSetup, sentences
from aclcmp.orchestrator.launch.guarded_command import Start
from aclcmp.orchestrator.launch.rank_host import RankHost
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.run.record_file import load_record
from tests.launch.conftest import Notes
from tests.launch.test_launch import variables
from tests.launch.test_probe import install
from tests.launch.test_rank_host import end
from tests.processes import kill, marked_processes, wait_until

MAP = Path(f"/tmp/{os.getpid()}n0")
NOTHING: Mapping[str, str] = {}


@pytest.fixture(autouse=True)
def no_map_is_left() -> Iterator[None]:
    yield
    assert not MAP.is_symlink() and not MAP.exists()


class Ran:
    """A command that ran, and what it printed."""

    def __init__(
        self, folder: Path, *command: str, shell: Mapping[str, str] = NOTHING, given: Mapping[str, str] = NOTHING
    ) -> None:
        self.host = RankHost(1)
        environment = {"PATH": os.environ["PATH"], "OF": str(folder), **shell, **given}
        order = DumpOrder(folder / "dumps/rank00000", frozenset(given))
        start = Start(command, environment, False, folder, folder / "log", folder / "shards", order)
        (setup,) = self.host.start([start])
        assert setup is not None
        self.setup: DumpSetup = setup
        self.lines, self.last = end(self.host)
        self.host.stop()
        self.env = dict(line.split("=", 1) for line in self.lines if "=" in line)


def test_every_variable_points_into_the_folder(weird_path: Path) -> None:
    ran = Ran(weird_path, "env")
    folder = str(weird_path / "dumps/rank00000")
    for name in ("ACLCMP_DUMP_DIR", "AIT_CMP_TASK_DIR", "ASDOPS_LOG_TO_FILE_DIR", "ACLTRANSFORMER_HOME_PATH"):
        assert ran.env[name] == folder
    assert ran.env["ATB_OUTPUT_DIR"] == folder + "/"
    assert ran.env["AIT_CMP_TASK_PID"] == MAP.name
    for name in ("AIT_CMP_TASK", "ATB_SAVE_TENSOR", "ATB_SAVE_CHILD", "ACLTRANSFORMER_SAVE_TENSOR"):
        assert ran.env[name] == "1"
    assert ran.env["ATB_SAVE_TENSOR_RANGE"] == "0,2147483647"
    assert ran.env["ACLTRANSFORMER_SAVE_TENSOR_MAX"] == "10000"
    assert not {"AIT_CMP_TASK_ID", "LD_PRELOAD", "ATB_DUMP_CONFIG"} & ran.env.keys()
    assert not any("GUARD" in name for name in ran.env)
    assert ran.setup.variables.items() <= ran.env.items()
    assert ran.setup.folder.is_dir() and ran.setup.no_probe.startswith("ASCEND_TOOLKIT_HOME is not set")


def test_without_the_order_nothing_is_set(tmp_path: Path) -> None:
    host = RankHost(1)
    start = Start(("env",), {"PATH": os.environ["PATH"]}, False, tmp_path, tmp_path / "log", tmp_path / "shards")
    assert host.start([start]) == [None]
    names = {line.split("=")[0] for line in end(host)[0]}
    host.stop()
    assert not any(name.startswith(("AIT_", "ATB_", "ACL", "ASDOPS_", "LD_")) for name in names)
    assert not (tmp_path / "dumps").exists()


def test_the_shells_folders_give_way_and_its_filters_stay(tmp_path: Path) -> None:
    shell = {
        "ATB_OUTPUT_DIR": "/elsewhere", "ASDOPS_LOG_TO_FILE_DIR": "/elsewhere", "ATB_SAVE_TENSOR": "0",
        "ATB_SAVE_TENSOR_RUNNER": "LinearOps", "ATB_SAVE_TENSOR_IDS": "2_1", "ATB_SAVE_TENSOR_RANGE": "0,1",
        "ATB_SAVE_CHILD": "0", "ACLTRANSFORMER_HOME_PATH": "/library", "ATB_DUMP_CONFIG": "/my.json",
    }  # fmt: skip
    ran = Ran(tmp_path, "env", shell=shell)
    assert ran.env["ATB_OUTPUT_DIR"] == f"{tmp_path}/dumps/rank00000/"
    assert ran.env["ASDOPS_LOG_TO_FILE_DIR"] == f"{tmp_path}/dumps/rank00000"
    assert (ran.env["ATB_SAVE_TENSOR"], ran.env["ATB_SAVE_TENSOR_RUNNER"]) == ("1", "LinearOps")
    assert (ran.env["ATB_SAVE_TENSOR_IDS"], ran.env["ATB_SAVE_TENSOR_RANGE"]) == ("2_1", "0,1")
    assert (ran.env["ATB_SAVE_CHILD"], ran.env["ATB_DUMP_CONFIG"]) == ("0", "/my.json")
    assert ran.env["ACLTRANSFORMER_HOME_PATH"] == ran.setup.elsewhere == "/library"


def test_what_the_user_gives_wins(tmp_path: Path) -> None:
    given = {"ATB_SAVE_TENSOR": "2", "ATB_OUTPUT_DIR": "/mine/", "AIT_CMP_TASK": "0", "ATB_SAVE_TENSOR_PART": "1"}
    ran = Ran(tmp_path, "env", given=given)
    assert given.items() <= ran.env.items()
    assert ran.env["ACLCMP_DUMP_DIR"] == f"{tmp_path}/dumps/rank00000"


def test_a_given_task_pid_has_no_map(tmp_path: Path) -> None:
    ran = Ran(tmp_path, "env", given={"AIT_CMP_TASK_PID": "../../etc"})
    assert ran.env["AIT_CMP_TASK_PID"] == "../../etc"
    assert (ran.setup.map_file, ran.setup.no_map) == ("", "AIT_CMP_TASK_PID was given by --env")


def test_the_map_is_there_empty_private_and_goes_with_the_command(tmp_path: Path) -> None:
    ran = Ran(tmp_path, "bash", "-c", "cd /tmp/$AIT_CMP_TASK_PID && ls -la && echo 0_Model/a.bin >> $(ls)")
    assert ran.setup.map_file == f"{MAP}/ait_compare_acl_map.txt"
    modes = {line.split()[-1]: line.split() for line in ran.lines if line.startswith(("d", "-"))}
    assert modes["."][0].startswith("drwx------")
    assert (modes["ait_compare_acl_map.txt"][0][:10], modes["ait_compare_acl_map.txt"][4]) == ("-rw-------", "0")
    assert ran.last.exit is not None and ran.last.exit.code == 0


def test_a_command_that_cannot_start_leaves_no_map_and_no_open_file(tmp_path: Path) -> None:
    order = DumpOrder(tmp_path / "d", frozenset())
    start = Start(("echo", "x" * 200_000), {}, False, tmp_path, tmp_path / "log", tmp_path / "shards", order)
    before = set(Path("/proc/self/fd").iterdir())
    with pytest.raises(OSError, match="Argument list too long"):
        RankHost(1).start([start])
    assert set(Path("/proc/self/fd").iterdir()) <= before


@pytest.mark.parametrize("script", ["exit 3", "kill -9 $$", "rm -r /tmp/$AIT_CMP_TASK_PID", "exec /no/such"])
def test_however_the_command_ends_the_map_goes(tmp_path: Path, script: str) -> None:
    assert Ran(tmp_path, "bash", "-c", script).setup.map_file


def test_the_map_stays_as_long_as_a_process_of_the_command(tmp_path: Path) -> None:
    script = "trap '' TERM; (sleep 0.2; ls /tmp/$AIT_CMP_TASK_PID) & exit 0"
    assert Ran(tmp_path, "bash", "-c", script).lines == ["ait_compare_acl_map.txt"]


def test_a_map_left_behind_is_taken_over(tmp_path: Path) -> None:
    MAP.mkdir(mode=0o777)
    (MAP / "ait_compare_acl_map.txt").write_text("of another run\n")
    ran = Ran(tmp_path, "bash", "-c", "stat -c %a /tmp/$AIT_CMP_TASK_PID; cat /tmp/$AIT_CMP_TASK_PID/*")
    assert ran.setup.map_file and ran.lines == ["700"]


def test_a_link_in_place_of_the_map(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    MAP.symlink_to(target)
    try:
        ran = Ran(tmp_path, "env")
        assert (ran.setup.map_file, ran.setup.no_map) == ("", f"{MAP} is a link or somebody else's")
        assert ran.env["ATB_SAVE_TENSOR"] == "1" and not list(target.iterdir())
    finally:
        MAP.unlink()


def test_a_file_in_place_of_the_map(tmp_path: Path) -> None:
    MAP.write_text("mine")
    try:
        assert Ran(tmp_path, "true").setup.no_map == f"{MAP} is a link or somebody else's"
        assert MAP.read_text() == "mine"
    finally:
        MAP.unlink()


def test_other_files_in_place_of_the_map_are_left_alone(tmp_path: Path) -> None:
    MAP.mkdir()
    (MAP / "precious").touch()
    try:
        assert Ran(tmp_path, "true").setup.no_map == f"{MAP} holds other files"
        assert [path.name for path in MAP.iterdir()] == ["precious"]
    finally:
        shutil.rmtree(MAP)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_somebody_elses_folder_is_not_used(tmp_path: Path) -> None:
    MAP.mkdir()
    os.chown(MAP, 12345, 12345)
    try:
        assert "somebody else's" in Ran(tmp_path, "true").setup.no_map
        assert not list(MAP.iterdir())
    finally:
        MAP.rmdir()


HOST = """
import sys, time
from pathlib import Path
from aclcmp.orchestrator.launch.dump_setup import DumpOrder
from aclcmp.orchestrator.launch.guarded_command import Start
from aclcmp.orchestrator.launch.rank_host import RankHost
root = Path(sys.argv[1])
host = RankHost(1)
order = DumpOrder(root / "dumps", frozenset())
environ = {"PATH": "/usr/bin:/bin", "MARK": sys.argv[1]}
host.start([Start(("bash", "-c", sys.argv[2]), environ, False, root, root / "log", root / "shards", order)])
time.sleep(600)
"""


@pytest.mark.parametrize("victim", ["host", "guard"])
def test_killed_hosts_and_guards_leave_no_map(tmp_path: Path, victim: str) -> None:
    """kill -9 of the process that started the command (an actor, in a run), or of the guard."""
    script = "setsid sleep 600 & sleep 600"
    process = subprocess.Popen([sys.executable, "-c", HOST, str(tmp_path), script])
    folder = Path(f"/tmp/{process.pid}n0")

    def running() -> list[psutil.Process]:
        return marked_processes(f"MARK={tmp_path}")

    try:
        wait_until(lambda: len(running()) >= 5, running)  # two of the guard, bash, two sleeps
        assert (folder / "ait_compare_acl_map.txt").is_file()
        if victim == "host":
            process.kill()
        else:
            kill(sorted(running(), key=lambda each: each.pid))  # the guard first, or it would end the others
        wait_until(lambda: not folder.exists(), lambda: list(folder.iterdir()))
        wait_until(lambda: not running(), running)
    finally:
        process.kill()
        process.wait()


def compiled(source: str, library: Path) -> None:
    """Compile a shared library."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    code = library.with_suffix(".c")
    code.write_text(source)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(code)], check=True)


def test_the_probe_is_loaded_into_the_command_and_not_into_its_guard(tmp_path: Path) -> None:
    cann = install(tmp_path)
    probe = tmp_path / "toolkit/tools/ait_backend/dump/libatb_probe_abi1.so"
    loaded = tmp_path / "loaded"
    compiled(
        f"""
        #include <stdio.h>
        #include <unistd.h>
        __attribute__((constructor)) static void load(void) {{
            FILE *file = fopen("{loaded}", "a");
            fprintf(file, "%d\\n", getpid());
            fclose(file);
        }}""",
        probe,
    )
    script = f"import os; print(os.getpid(), os.environ['LD_PRELOAD'], '{probe}' in open('/proc/self/maps').read())"
    ran = Ran(tmp_path, sys.executable, "-c", script, shell=cann)
    pid, preload, mapped = ran.lines[0].split()
    assert (preload, mapped) == (str(probe), "True")
    assert loaded.read_text().split() == [pid]
    assert (ran.setup.probe, ran.setup.no_probe) == (str(probe), "")


def test_the_probe_comes_before_what_was_preloaded(tmp_path: Path) -> None:
    other = tmp_path / "other.so"
    compiled("int nothing;", other)
    cann = install(tmp_path)
    compiled("int nothing;", tmp_path / "toolkit/tools/ait_backend/dump/libatb_probe_abi1.so")
    ran = Ran(tmp_path, "env", shell={"LD_PRELOAD": str(other), **cann})
    assert ran.env["LD_PRELOAD"] == f"{ran.setup.probe}:{other}"
    ran = Ran(tmp_path, "env", shell=cann, given={"LD_PRELOAD": str(other)})
    assert ran.env["LD_PRELOAD"] == f"{ran.setup.probe}:{other}"
    for start in (f"{other}", f"{other}:"):
        assert Ran(tmp_path, "env", shell={"LD_PRELOAD": start}).env["LD_PRELOAD"] == start  # without a CANN


def test_the_newer_probe_gets_its_file(tmp_path: Path) -> None:
    ran = Ran(tmp_path, "bash", "-c", 'cat "$ATB_DUMP_CONFIG"', shell=install(tmp_path, probe=b"exec_range"))
    config = json.loads("\n".join(line for line in ran.lines if not line.startswith("ERROR: ld.so")))
    assert config["dump_enable"] is True and config["save_child"] is True and config["filter_level"] == 0
    assert (config["task"], config["exec_range"], config["device"]) == ("tensor", "all", "")


def setup(number: int, **changes: Any) -> DumpSetup:
    facts: dict[str, Any] = {
        "folder": Path(f"/r/dumps/rank{number:05d}"), "variables": {}, "probe": "", "no_probe": "no CANN",
        "map_file": f"/tmp/{number}/ait_compare_acl_map.txt", "no_map": "", "elsewhere": "", "free": 1 << 40,
    }  # fmt: skip
    return DumpSetup(**(facts | changes))


def test_equal_sentences_are_folded() -> None:
    assert sentences([]) == ()
    assert sentences([setup(0)])[0] == "low level: the library's dumps go to /r/dumps/rank00000"
    assert sentences([setup(number) for number in range(8)]) == (
        "low level: the library's dumps go to /r/dumps/rank00000 ... rank00007",
        "low level: no probe library: no CANN",
        "low level: the map of wanted files is /tmp/$AIT_CMP_TASK_PID/ait_compare_acl_map.txt, for hooks that read one "
        "(CANN's probe does not)",
    )


def test_what_differs_names_its_ranks() -> None:
    mixed = [setup(number, probe="/p.so", no_probe="") for number in range(6)]
    mixed += [setup(6, free=3 << 30, map_file="", no_map="/tmp/6 is a link or somebody else's", elsewhere="/lib")]
    said = "\n".join(sentences(mixed))
    assert "probe library /p.so is preloaded (rank00000, rank00001, rank00002, rank00003, ...)\n" in said
    assert "no probe library: no CANN (rank00006)\n" in said
    assert "no map of wanted files: /tmp/6 is a link or somebody else's (rank00006)\n" in said
    assert "acltransformer dumps to /lib/tensors, outside of the run (rank00006)\n" in said
    assert said.endswith("only 3.0 GiB are free where they go")


def test_little_space_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(tmp_path).free
    ran = Ran(tmp_path, "true")
    assert abs(ran.setup.free - free) < 1 << 30
    monkeypatch.setattr(dump_setup, "SCARCE", 1 << 80)
    assert sentences([ran.setup])[-1].endswith("GiB are free where they go")


Run = Callable[..., tuple[RunRecord, Notes, RunDir]]


@pytest.mark.ray
def test_a_launch(run_job: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in install(tmp_path).items():
        monkeypatch.setenv(name, value)
    compiled("int nothing;", tmp_path / "toolkit/tools/ait_backend/dump/libatb_probe_abi1.so")
    script = "env; touch $ATB_OUTPUT_DIR/$RANK; test -e /tmp/$AIT_CMP_TASK_PID/ait_compare_acl_map.txt"
    record, notes, run = run_job("bash", "-c", script, ranks=3, device="npu", low_level=True)
    assert record.failure is None
    seen = [variables(notes, rank) for rank in range(3)]
    assert [each["ACLCMP_DUMP_DIR"] for each in seen] == [str(run.rank_dumps(rank)) for rank in range(3)]
    assert len({each["AIT_CMP_TASK_PID"] for each in seen}) == 3
    assert not any(Path("/tmp", each["AIT_CMP_TASK_PID"]).exists() for each in seen)
    assert all(each["LD_PRELOAD"].endswith("libatb_probe_abi1.so") for each in seen)
    assert [(run.rank_dumps(rank) / str(rank)).exists() for rank in range(3)] == [True] * 3
    assert stat.S_ISDIR(run.dumps.stat().st_mode)
    assert notes.sentences == record.low_level == load_record(run.record).low_level
    assert f"dumps go to {run.rank_dumps(0)} ... rank00002" in record.low_level[0]
    assert record.low_level[1].endswith("libatb_probe_abi1.so is preloaded")
    assert record.environment["ATB_OUTPUT_DIR"] == f"{run.rank_dumps(0)}/"


@pytest.mark.ray
def test_a_script_that_starts_its_own_ranks_has_one_folder_per_node(run_job: Run) -> None:
    record, notes, run = run_job("env", ranks=3, device="npu", launcher=Launcher.SCRIPT, low_level=True)
    assert variables(notes, 0)["ACLCMP_DUMP_DIR"] == str(run.node_dumps(0))
    assert run.node_dumps(0).is_dir()
    assert record.low_level[0].endswith(str(run.node_dumps(0)))


@pytest.mark.ray
def test_without_low_level_nothing_is_said(run_job: Run) -> None:
    record, notes, run = run_job("env", ranks=1)
    assert record.low_level == notes.sentences == () and not run.dumps.exists()
    assert not {"AIT_CMP_TASK", "ATB_SAVE_TENSOR", "ACLCMP_DUMP_DIR"} & variables(notes, 0).keys()
