"""What a newcomer meets first: the locks, make's idea of what is to be done, and .ci/setup."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("requirements.lock", "requirements-torch.lock")
TOOLS = shlex.split("awk bash cat cmp cp dirname env grep make mkdir rm sort tail tee touch")

# Stands in for an interpreter, its venv and its pip; pip fails while a file `offline` lies in the project.
PYTHON = """#!/usr/bin/env bash
case "$*" in
  "-c import sys"*) echo "3.10 $0" ;;
  "-c import pip") [ ! -e .venv/no-pip ] ;;
  "-c "*) ;;
  -V) echo "Python 3.10.0" ;;
  "-m venv "*) mkdir "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip "*) echo "$@" >>calls; [ ! -e offline ] || { echo "no network"; exit 1; } ;;
esac
"""


def locked(lock):
    """Return {name: (version, number of hashes)} of a lock file."""
    text = (ROOT / lock).read_text()
    entries = re.findall(r"^([a-z][^ ;]*)==(\S+)(?: ; .*?)? \\\n((?:    --hash=.*\n)+)", text, re.M)
    return {name: (version, hashes.count("--hash=sha256:")) for name, version, hashes in entries}


def pyproject():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_is_hashed_and_names_no_host(lock):
    text = (ROOT / lock).read_text()
    assert "make lock" in text.splitlines()[0]
    assert "://" not in text
    # A line that is neither a comment, nor a requirement with its hashes, would be missed by `locked`.
    assert len(locked(lock)) == len(re.findall(r"^[^\s#]", text, re.M)) > 40
    assert all(hashes for _, hashes in locked(lock).values())


@pytest.mark.parametrize(
    ("lock", "extras", "python", "absent"),
    [
        ("requirements.lock", "lava plot data detection test dev", "3.10", set()),
        ("requirements-torch.lock", "plot data detection test dev", "3.11", {"torch", "torchvision"}),
    ],
)
def test_lock_serves_what_the_project_asks_for(lock, extras, python, absent):
    project = pyproject()["project"]
    texts = project["dependencies"] + [t for e in extras.split() for t in project["optional-dependencies"][e]]
    texts += pyproject()["build-system"]["requires"]
    wanted = [r for r in map(Requirement, texts) if not r.marker or r.marker.evaluate({"python_version": python})]
    found = locked(lock)
    assert {r.name for r in wanted} - set(found) == absent
    for requirement in wanted:
        if requirement.name in found:
            assert found[requirement.name][0] in requirement.specifier


def test_torch_is_named_alike_in_the_makefile_and_the_lock():
    """torch for Python 3.11 and later has no line in its lock, so its version must show in the header."""
    torch = re.search(r"^TORCH := (torch==\S+)$", (ROOT / "Makefile").read_text(), re.M)[1]
    assert f"Not in here: {torch}." in (ROOT / "requirements-torch.lock").read_text()


def test_wheel_holds_the_hardware_configs(tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    configs = [path.name for path in (ROOT / "hw_configs").glob("*.toml")]
    assert configs
    assert {f"lava_casc/hw_configs/{name}" for name in configs} <= set(names)
    dist_info = f"lava_casc-{pyproject()['project']['version']}.dist-info"
    assert {name.split("/")[0] for name in names} == {"lava_casc", dist_info}


class Project:
    """A copy of the set-up files, and a PATH that leads to nothing but the tools they need."""

    def __init__(self, folder):
        self.folder = folder / "a project"  # with a space
        self.bin = folder / "bin"
        self.bin.mkdir()
        for tool in TOOLS:
            self.bin.joinpath(tool).symlink_to(shutil.which(tool))
        self.folder.mkdir()
        for name in ("Makefile", "pyproject.toml", *LOCKS):
            shutil.copy2(ROOT / name, self.folder)
        shutil.copytree(ROOT / ".ci", self.folder / ".ci")

    def run(self, *command):
        env = {"PATH": str(self.bin), "HOME": str(self.folder), "LC_ALL": "C"}
        return subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, timeout=60)

    def setup(self):
        return self.run("make", "-s", ".venv/ready")

    def install_python(self, script=PYTHON):
        python = self.bin / "python3.10"
        python.write_text(script)
        python.chmod(0o755)

    def calls(self):
        """Return what pip was asked to do since the last call."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [line.partition("install --disable-pip-version-check ")[2] for line in lines]

    def age(self, name, seconds):
        stamp = (self.folder / ".venv/ready").stat().st_mtime + seconds
        os.utime(self.folder / name, (stamp, stamp))


LOCKED = "--require-hashes --no-deps --only-binary :all: -r requirements.lock"
EDITABLE = "--no-build-isolation --no-deps -e ."


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


SHIM = "#!/usr/bin/env bash\necho 'pyenv: python3.10: command not found' >&2\nexit 127\n"
OTHER = PYTHON.replace("3.10", "3.9")


@pytest.mark.parametrize("script", [None, SHIM, OTHER])
def test_no_python_is_one_line(project, script):
    if script:
        project.install_python(script)
    result = project.run(".ci/setup", ".venv", "requirements.lock", "3.10")
    assert result.returncode != 0
    assert result.stdout == ""
    assert re.fullmatch(r"No Python 3\.10 found: install it .*\n", result.stderr)
    assert not (project.folder / ".venv").exists()


def test_python_is_found_in_pyenv_where_the_shim_fails(project):
    project.install_python()
    version = project.folder / ".pyenv/versions/3.10.9/bin"
    version.mkdir(parents=True)
    (project.bin / "python3.10").rename(version / "python")
    assert project.setup().returncode == 0
    assert project.calls() == [LOCKED, EDITABLE]


def test_second_setup_does_nothing(project):
    project.install_python()
    first = project.setup()
    assert first.returncode == 0, first.stderr
    assert "6 GB" in first.stdout
    assert project.calls() == [LOCKED, EDITABLE]

    assert project.run("make", "-n", "demo").stdout.split() == [".venv/bin/python", "-m", "lava_casc.demo"]
    assert project.setup().stdout == ""
    assert project.calls() == []


def test_changed_pyproject_installs_the_project_alone(project):
    project.install_python()
    project.setup()
    project.calls()
    project.age("pyproject.toml", 5)
    assert project.setup().returncode == 0
    assert project.calls() == [EDITABLE]


def test_changed_lock_starts_from_an_empty_environment(project):
    project.install_python()
    project.setup()
    project.calls()
    leftover = project.folder / ".venv/leftover"
    leftover.touch()
    with open(project.folder / "requirements.lock", "a") as lock:
        lock.write("# changed\n")
    project.age("requirements.lock", 5)
    assert project.setup().returncode == 0
    assert project.calls() == [LOCKED, EDITABLE]
    assert not leftover.exists()


def test_an_environment_without_pip_is_made_again(project):
    """As uv makes them: where uv is gone, nothing could be installed into it."""
    project.install_python()
    assert project.setup().returncode == 0
    (project.folder / ".venv/no-pip").touch()
    project.calls()
    project.age("pyproject.toml", +1)
    assert project.setup().returncode == 0
    assert project.calls() == [LOCKED, EDITABLE]
    assert not (project.folder / ".venv/no-pip").exists()


def test_failed_installation_does_not_count_as_ready(project):
    project.install_python()
    (project.folder / "offline").touch()
    result = project.setup()
    assert result.returncode != 0
    assert "no network\n.venv could not be installed; the whole output is in .venv/install.log\n" in result.stderr
    assert not (project.folder / ".venv/ready").exists()

    (project.folder / "offline").unlink()
    project.calls()
    assert project.setup().returncode == 0
    assert project.calls() == [LOCKED, EDITABLE]


def test_an_environment_of_the_user_is_left_alone(project):
    project.install_python()
    theirs = project.folder / ".venv/theirs"
    theirs.parent.mkdir()
    theirs.touch()
    result = project.setup()
    assert result.returncode != 0
    assert "was not made by this Makefile" in result.stderr
    assert theirs.exists()
    assert project.calls() == []


def test_help_lists_every_target(project):
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)[1].split()
    listed = [line.split()[1] for line in project.run("make").stdout.splitlines()]
    assert sorted(listed) == sorted(targets)


def test_what_is_checked_before_a_commit_is_what_continuous_integration_checks():
    hooks = re.findall(r"entry: make (?:--[a-z-]+ )*([a-z-]+)", (ROOT / ".pre-commit-config.yaml").read_text())
    targets = re.search(r"^for target in (.*); do$", (ROOT / ".ci" / "run").read_text(), re.M)[1].split()
    assert hooks == ["lint"]
    assert set(hooks) < set(targets)
