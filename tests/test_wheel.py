"""What is released: the wheel works in a bare environment with nothing else, and every place names one version."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import ktodata

ROOT = Path(__file__).parents[1]
SOURCES = ("ktodata", "pyproject.toml", "README.md", "LICENSE")
MINUTES = 15  # two cores that other tests share; alone it takes about one


def call(*words: object, check: bool = False, **options) -> subprocess.CompletedProcess:
    command = [str(word) for word in words]
    return subprocess.run(command, check=check, capture_output=True, text=True, timeout=MINUTES * 60, **options)


def interpreter(version: str) -> str | None:
    """A Python of that version: this one, one on the path, or one of pyenv's."""
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        return sys._base_executable
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    places = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python"))]
    return next((str(place) for place in places if place and call(place, "-c", "import venv, ensurepip").returncode == 0), None)


def pip(python: object, *words: object) -> None:
    done = call(python, "-m", "pip", *words, "--quiet")
    if done.returncode and re.search(r"No matching distribution|Connection|resolve", done.stderr):
        pytest.skip(f"the package index does not give what is needed: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, so that nothing is left in the checkout."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", out, source)
    (built,) = out.iterdir()
    return built


@pytest.mark.slow
@pytest.mark.timeout(MINUTES * 60)
def test_the_wheel_works_alone(wheel, tmp_path):
    """In the newest Python of this machine; the release workflow tries them all."""
    python = next(filter(None, map(interpreter, ("3.13", "3.12", "3.11"))), None)
    if python is None:
        pytest.skip("there is no Python 3.11 to 3.13 on this machine that makes environments")
    call(python, "-m", "venv", tmp_path / "bare", check=True)
    # pinned, so that a release of tomorrow does not fail this one; the release workflow takes what is newest
    pip(tmp_path / "bare/bin/python", "install", "--no-compile", "--constraint", ROOT / "constraints.txt", wheel)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    command = tmp_path / "bare/bin/ktodata"
    done = call(command, "demo", "--json", cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["rows"]) == 7
    assert (tmp_path / "ktodata-demo" / "demo.html").exists()
    assert call(tmp_path / "bare/bin/python", "-m", "ktodata", "--help", cwd=tmp_path, env=environment).returncode == 0
    assert call(tmp_path / "bare/bin/python", "-c", "import torch").returncode != 0


def test_there_is_one_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert version == ktodata.__version__ == yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_release_tries_the_wheel_before_it_is_published():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())["jobs"]
    assert jobs["publish"]["needs"] == "bare" and jobs["bare"]["needs"] == "build"
    assert set(jobs["bare"]["strategy"]["matrix"]["python"]) >= {"3.11", "3.13"}
