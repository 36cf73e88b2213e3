"""The way of a fresh user, as README.md and docs/ci.md say it: install, label, run, open the page, tolerate, check."""

import os
import re
import shutil
import subprocess
import venv
from itertools import takewhile
from pathlib import Path
from sysconfig import get_path

import pytest

from tests.processes import PATIENCE
from tests.report.html.conftest import CHROMIUM, SWITCHES
from tests.test_house import ROOT

pytestmark = [pytest.mark.ray, pytest.mark.browser]

README = (ROOT / "README.md").read_text()
MODEL = """
import torch

{snippet_imports}

made = torch.Generator().manual_seed(0)
for layer in range(4):
    golden_output = torch.randn(16, 32, generator=made)
    actual_output = golden_output * (1.02 if layer == 2 else 1)
{labels}
"""


def typed(command: str) -> str:
    """Return a command, after a look whether the README or the page on CI says it."""
    words = command.partition(" ")[0] if command.startswith("aclcmp report") else command
    assert words in README or words in (ROOT / "docs" / "ci.md").read_text(), command
    return command


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an environment into which the package was installed from its sources, as `pip install .` does."""
    folder = tmp_path_factory.mktemp("user")
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / "bin" / "python"
    where = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True
    )
    packages = Path(where.stdout.decode().strip())
    (packages / "tests-dependencies.pth").write_text(get_path("purelib"))  # what it depends on is not fetched again
    typed("pip install .")
    ignored = shutil.ignore_patterns(".git", ".venv*", ".*cache", ".trained", "build", "tests", "__pycache__", "*.so")
    shutil.copytree(ROOT, folder / "sources", symlinks=True, ignore=ignored)  # pip writes into the sources
    command = [str(python), "-m", "pip", "install", "-q", "--no-deps", str(folder / "sources")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return folder


def run(user: Path, command: str) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"PATH": f"{user / 'env' / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    environ.pop("PYTHONPATH", None)  # which may lead to the sources
    return subprocess.run(
        ["bash", "-c", command], cwd=user, env=environ, capture_output=True, text=True, timeout=PATIENCE
    )


def opened(user: Path, page: Path) -> str:
    """Return what a browser makes of a page."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine; scripts/install-chromium installs the distribution's")
    options = ["--headless", *SWITCHES, f"--user-data-dir={user / 'browser'}", "--virtual-time-budget=20000"]
    command = [CHROMIUM, *options, "--dump-dom", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE).stdout


def test_the_way_of_a_fresh_user(user: Path) -> None:
    where = run(user, "python -c 'import aclcmp; print(aclcmp.__file__)'").stdout
    assert str(user) in where, "it is the installed package"

    snippet = re.findall(r"```python\n(from aclcmp import set_label.*?)```", README, re.DOTALL)[0]
    imports, *calls = [line for line in snippet.splitlines() if line.strip() and not line.startswith("set_task_id")]
    labels = [f"    {line}".replace('"layers.0.mlp"', 'f"layers.{layer}.mlp"') for line in calls]
    (user / "run.py").write_text(MODEL.format(snippet_imports=imports, labels="\n".join(labels)))
    (user / "run.sh").write_text("exec python run.py\n")

    command = typed('aclcmp --exec "bash run.sh args" --ranks 8').replace("--ranks 8", "--ranks 2 --device cpu")
    done = run(user, command)
    assert done.returncode == 1, done
    assert "First divergence: layers.2.mlp (op), task 0, ranks 0-1" in done.stdout, done.stdout
    assert "labelled at run.py:" in done.stdout and "every value is 1.02 times golden's" in done.stdout

    done = run(user, typed("aclcmp report --html"))
    page = done.stdout.partition("Page: ")[2].strip()
    assert done.returncode == 0 and page, done
    shown = opened(user, user / page)
    assert re.search(r"<h1[^>]*>layers\.2\.mlp</h1>", shown) and 'id="grid"' in shown
    assert len(re.findall(r'<td class="[^"]* first"', shown)) == 1, "the cell in which the error begins is ringed"

    assert "`aclcmp explain LABEL`" in README
    told = run(user, "aclcmp explain layers.2.mlp").stdout.splitlines()
    rule = takewhile(lambda line: line[:1] not in ("", "g"), (line.strip() for line in told[_start(told) :]))
    (user / "policy.toml").write_text("\n".join(line for line in rule if line.startswith(("[[", "pattern", "up_to"))))
    assert run(user, "aclcmp verdict --policy policy.toml").returncode == 0
    done = run(user, f"{command} --policy policy.toml")
    assert done.returncode == 0, done.stdout
    changed = run(user, typed("aclcmp diff"))
    assert changed.returncode == 0 and "mended" in changed.stdout, changed


def _start(lines: list[str]) -> int:
    return next(number for number, line in enumerate(lines) if line.strip().startswith("[["))
