"""Files through a log: whole, resumed, damaged, changed, and names that lead elsewhere. No Ray."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from aclcmp.orchestrator.core.job import Fetch
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.submit.submission import pack_request
from aclcmp.orchestrator.transfer.log_frames import (
    CHUNK,
    LONGEST,
    Frame,
    FrameError,
    FrameKind,
    decode,
    encode,
    safe_name,
)
from aclcmp.orchestrator.transfer.log_receive import LogReceiver, ReceivedFiles, present_sizes
from aclcmp.orchestrator.transfer.log_send import FileRequest, read_request, send


def made_run(folder: Path) -> Path:
    """A run directory with files of all kinds, one larger than several lines."""
    run = folder / "run"
    (run / "shards").mkdir(parents=True)
    (run / "logs").mkdir()
    (run / "dumps/rank00000").mkdir(parents=True)
    (run / "run.json").write_text("{}")
    (run / "report.json").write_text(json.dumps({"labels": ["x"] * 50_000}))
    (run / "logs/rank00000.log").write_bytes("é\n".encode() * 10)
    (run / "logs/empty.log").touch()
    (run / "shards/rank00000.h5").write_bytes(random.Random(0).randbytes(5 * CHUNK + 17))
    (run / "dumps/rank00000/ünïcode name.bin").write_bytes(b"\0" * 100)
    return run


def lines(run: Path, what: Fetch, have: dict[str, int], limit: int = 1 << 30) -> list[str]:
    sent: list[str] = []
    send(run, FileRequest(what, have, limit), sent.append)
    return sent


def received(target: Path, sent: list[str], seed: int = 0) -> ReceivedFiles:
    """Feed lines in pieces of any length, with other output between them."""
    receiver = LogReceiver(target, lambda *_: None)
    text = "Running entrypoint for job x: y\n" + "warning: something\n".join(line + "\n" for line in sent)
    at, chance = 0, random.Random(seed)
    while at < len(text):
        step = chance.randint(1, 70_000)
        if receiver.feed(text[at : at + step]):
            break
        at += step
    receiver.close()
    return receiver.result


def same(run: Path, target: Path) -> bool:
    names = {path.relative_to(target) for path in target.rglob("*") if path.is_file()}
    return bool(names) and all((run / name).read_bytes() == (target / name).read_bytes() for name in names)


@pytest.mark.parametrize(("what", "count"), [(Fetch.REPORT, 4), (Fetch.SHARDS, 5), (Fetch.ALL, 6)])
def test_whole(tmp_path: Path, what: Fetch, count: int) -> None:
    run, target = made_run(tmp_path), tmp_path / "here"
    target.mkdir()
    found = received(target, lines(run, what, {}))
    assert found.done and not found.more and not found.wrong and len(found.files) == count
    assert same(run, target)
    again = received(target, sent := lines(run, what, present_sizes(target)))
    assert again.bytes == 0 and len(again.files) == count and same(run, target)
    assert not any(" data " in line or " packed " in line for line in sent)


def test_into_the_run_directory_itself(tmp_path: Path) -> None:
    """On one machine both may be the same folder; nothing happens to it."""
    run = made_run(tmp_path)
    before = {path: path.stat().st_ino for path in run.rglob("*")}
    found = received(run, lines(run, Fetch.ALL, present_sizes(run)))
    assert found.bytes == 0 and len(found.files) == 6 and not found.wrong
    assert {path: path.stat().st_ino for path in run.rglob("*")} == before


def test_every_line_is_short_and_plain(tmp_path: Path) -> None:
    for line in lines(made_run(tmp_path), Fetch.ALL, {}):
        assert len(line) < 100_000 and line.isascii() and line.isprintable()


@pytest.mark.parametrize("cut", [1, 3, 6, 9, 11])
def test_resumed_after_the_log_broke_off(tmp_path: Path, cut: int) -> None:
    run, target = made_run(tmp_path), tmp_path / "here"
    target.mkdir()
    sent = lines(run, Fetch.ALL, {})
    half = sent[cut][: len(sent[cut]) // 2]
    first = received(target, [*sent[:cut], half])
    assert not first.done
    second = received(target, lines(run, Fetch.ALL, present_sizes(target)))
    assert second.done and not second.wrong and same(run, target)
    assert first.bytes + second.bytes == sum(path.stat().st_size for path in run.rglob("*") if path.is_file())


@pytest.mark.parametrize("how", ["flipped", "lost", "twice", "shortened"])
def test_a_damaged_line_ends_its_file_only(tmp_path: Path, how: str) -> None:
    run, target = made_run(tmp_path), tmp_path / "here"
    target.mkdir()
    sent = lines(run, Fetch.ALL, {})
    at = next(number for number, line in enumerate(sent) if " data " in line and " 49152 " in line)
    word = sent[at]
    if how == "flipped":
        sent[at] = word[:-9] + ("A" if word[-9] != "A" else "B") + word[-8:]
    elif how == "lost":
        del sent[at]
    elif how == "twice":
        sent.insert(at, word)
    else:
        sent[at] = word[:-8]
    first = received(target, sent)
    assert first.done and len(first.wrong) == 1 and "shards/rank00000.h5" in first.wrong[0]
    assert (target / "shards/rank00000.h5.part").stat().st_size % CHUNK == 0
    second = received(target, lines(run, Fetch.ALL, present_sizes(target)))
    assert not second.wrong and second.bytes < 5 * CHUNK and same(run, target)


def test_other_bytes_here_are_found_out_and_fetched_anew(tmp_path: Path) -> None:
    run, target = made_run(tmp_path), tmp_path / "here"
    (target / "shards").mkdir(parents=True)
    (target / "shards/rank00000.h5.part").write_bytes(b"x" * CHUNK)
    (target / "run.json").write_text("[]")  # as many bytes, others
    (target / "report.json").write_text("longer than it is there" * 20_000)
    first = received(target, lines(run, Fetch.ALL, present_sizes(target)))
    assert len(first.wrong) == 2 and all("fetched anew" in line for line in first.wrong)
    assert received(target, lines(run, Fetch.ALL, present_sizes(target))).wrong == [] and same(run, target)


def test_a_limit_leaves_the_rest_to_another_job(tmp_path: Path) -> None:
    run, target = made_run(tmp_path), tmp_path / "here"
    target.mkdir()
    jobs = 0
    while (
        found := received(target, lines(run, Fetch.ALL, present_sizes(target), limit=CHUNK))
    ).more or not found.files:
        jobs += 1
        assert found.bytes < 2 * CHUNK and jobs < 30
    assert same(run, target) and jobs > 5


def test_a_file_that_becomes_shorter_is_told(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    shard = run / "shards/rank00000.h5"
    sent: list[str] = []

    def write(line: str) -> None:
        if " data " in line and len(line) > CHUNK and shard.stat().st_size > CHUNK:
            with shard.open("r+b") as file:
                file.truncate(CHUNK)
        sent.append(line)

    send(run, FileRequest(Fetch.SHARDS, {}, 1 << 30), write)
    (tmp_path / "here").mkdir()
    found = received(tmp_path / "here", sent)
    assert found.done and found.wrong == ["shards/rank00000.h5: it became shorter while it was sent"]


def test_no_run_directory(tmp_path: Path) -> None:
    found = received(tmp_path, lines(tmp_path / "none", Fetch.REPORT, {}))
    assert found.done and "no run directory" in found.error and not found.files


def test_links_are_not_followed_on_the_cluster(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    (tmp_path / "secret").write_text("hush")
    (run / "logs/link.log").symlink_to(tmp_path / "secret")
    assert not any("link.log" in name for name in _names(lines(run, Fetch.ALL, {})))


def _names(sent: list[str]) -> list[str]:
    frames = [frame for line in sent if (frame := decode(line)) is not None]
    return [json.loads(frame.payload)["path"] for frame in frames if frame.kind is FrameKind.FILE]


def hostile(name: object) -> list[str]:
    header = json.dumps({"path": name, "size": 4}).encode()
    end = b"0" * 32
    frames = [
        Frame(FrameKind.FILE, 0, 0, header),
        Frame(FrameKind.DATA, 0, 0, b"evil"),
        Frame(FrameKind.END, 0, 4, end),
    ]
    done = json.dumps({"more": False, "left_out": [], "error": ""}).encode()
    return [*map(encode, frames), encode(Frame(FrameKind.DONE, 0, 0, done))]


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "a/../../x", "", ".", "..", "a//b", "a/", "a\\b", "a\0b", 7, None, "./a", "sub/../a"]
)
def test_names_that_lead_out_are_refused(tmp_path: Path, name: object) -> None:
    target = tmp_path / "inner/here"
    target.mkdir(parents=True)
    found = received(target, hostile(name))
    assert found.wrong and found.wrong[0].startswith("refused: ")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    with pytest.raises(ValueError):
        safe_name(name)


def test_links_that_lead_out_are_refused(tmp_path: Path) -> None:
    target, outside = tmp_path / "here", tmp_path / "outside"
    target.mkdir()
    outside.mkdir()
    (target / "logs").symlink_to(outside)
    (outside / "victim").write_text("safe")
    (target / "run.json").symlink_to(outside / "victim")
    (target / "report.json.part").symlink_to(outside / "victim")
    for name in ("logs/x", "run.json"):
        assert received(target, hostile(name)).wrong[0].startswith("refused: ")
    with pytest.raises(UsageError, match="cannot write"):
        received(target, hostile("report.json"))
    assert (outside / "victim").read_text() == "safe" and len(list(outside.iterdir())) == 1


HEADERS = [
    b"[" * 30_000,
    b'{"path": "x", "size": 1e999}',
    b'{"path": "\\ud800", "size": 1}',
    b'{"path": "x.part", "size": 4}',
    b'{"size": 1}',
]


@pytest.mark.parametrize("header", HEADERS)
def test_headers_that_are_none(tmp_path: Path, header: bytes) -> None:
    found = received(tmp_path, [encode(Frame(FrameKind.FILE, 0, 0, header)), *hostile("y")[1:]])
    assert found.wrong and found.wrong[0].startswith("refused: ") and found.done and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("last", [b"[]", b"x", b"{}", b"[" * 30_000, b'{"more": 1, "error": "", "left_out": 5}'])
def test_last_lines_that_are_none(tmp_path: Path, last: bytes) -> None:
    found = received(tmp_path, [encode(Frame(FrameKind.DONE, 0, 0, last))])
    assert not found.done and not found.more


def test_an_endless_line_is_not_kept(tmp_path: Path) -> None:
    receiver = LogReceiver(tmp_path, lambda *_: None)
    for _ in range(100):
        receiver.feed("@aclcmp data 0 0 " + "A" * 50_000)
    assert len(receiver._rest) <= LONGEST
    receiver.feed("A\n")
    for line in hostile("y")[-1:]:
        assert receiver.feed(line + "\n")


def test_what_another_program_left_half_written_is_not_sent(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    (run / "dumps/rank00000/ünïcode name.bin.part").write_bytes(b"half")
    (tmp_path / "here").mkdir()
    found = received(tmp_path / "here", lines(run, Fetch.ALL, {}))
    assert len(found.files) == 6 and not found.wrong


@pytest.mark.parametrize(
    "line", ["@aclcmp", "@aclcmp data", "@aclcmp what 0 0 00000000 =", "@aclcmp data x 0 00000000 ="]
)
def test_broken_lines(line: str) -> None:
    if line == "@aclcmp":
        assert decode(line) is None
    else:
        with pytest.raises(FrameError):
            decode(line)


def test_a_line_that_grows_too_much_is_refused() -> None:
    import base64
    import zlib

    bomb = zlib.compress(b"\0" * (64 << 20), 9)
    with pytest.raises(FrameError, match="more than it may"):
        decode(f"@aclcmp packed 0 0 00000000 {base64.b64encode(bomb).decode()}")


def test_a_full_disk_is_told_at_once(tmp_path: Path) -> None:
    """A file that may not grow stands for it; what came before stays."""
    script = """
import resource, signal, sys
from pathlib import Path
from aclcmp.orchestrator.errors import UsageError
from tests.transfer.test_log_transfer import lines, made_run, received
from aclcmp.orchestrator.core.job import Fetch
run, target = made_run(Path(sys.argv[1])), Path(sys.argv[1]) / "here"
target.mkdir()
sent = lines(run, Fetch.SHARDS, {})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    received(target, sent)
except UsageError as error:
    print(error, (target / "report.json.part").stat().st_size)
"""
    command, root = [sys.executable, "-c", script, str(tmp_path)], Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert "cannot write report.json: File too large 100000" in done.stdout, done


def test_requests() -> None:
    request = FileRequest(Fetch.SHARDS, {f"shards/rank{rank:05d}.h5": rank * 1009 for rank in range(4096)}, 5)
    assert read_request(pack_request(request.to_json())) == request
    assert len(pack_request(request.to_json())) < 60_000
    for wrong in ("", "x", pack_request(b"[]"), pack_request(b'{"what": "x", "have": {}, "limit": 1}')):
        with pytest.raises(UsageError, match="aclcmp fetch"):
            read_request(wrong)
