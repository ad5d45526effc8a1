"""The project as it is laid out and shipped."""

import ast
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"geoinv": "geoinv", "geoinv.operators": "operators", "geoinv.datasets": "datasets"}
#: What the modules of each folder may import of the project, besides their own folder.
ALLOWED = {"operators": set(), "datasets": {"geoinv.operators"}, "geoinv": {"geoinv.operators", "geoinv.datasets"}}


def python_files(folder: str) -> list[Path]:
    """The Python files of a top-level folder, not those behind the links."""
    files = (ROOT / folder).rglob("*.py")
    return sorted(path for path in files if not any(parent.is_symlink() for parent in path.parents))


def test_package_list_is_what_is_on_disk() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = set()
    for package, folder in FOLDERS.items():
        for path in python_files(folder):
            found.add(".".join((package, *path.parent.relative_to(ROOT / folder).parts)))
    assert sorted(listed) == sorted(found)


def test_links_for_type_checkers() -> None:
    for folder in ("operators", "datasets"):
        assert os.readlink(ROOT / "geoinv" / folder) == f"../{folder}"


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(level, dotted name) of every import of a file, including those inside functions; `from geoinv import x` counts as geoinv.x."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            names = [f"{base}.{alias.name}" for alias in node.names] if base == "geoinv" else [base]
            yield from ((node.level, name) for name in names)


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_go_one_way(folder: str) -> None:
    own = next(package for package, place in FOLDERS.items() if place == folder)
    for path in python_files(folder):
        depth = len(path.parent.relative_to(ROOT / folder).parts)
        for level, name in imports(path):
            where = f"{path.relative_to(ROOT)} imports {'.' * level}{name}"
            assert level <= depth + 1, f"{where}: relative imports stay inside a folder"
            assert name.split(".")[0] not in {"scripts", "tests", "operators", "datasets"} or level, where
            if level == 0 and name.split(".")[0] == "geoinv":
                other = next((package for package in ("geoinv.operators", "geoinv.datasets") if f"{name}.".startswith(f"{package}.")), "geoinv")
                assert other in ALLOWED[folder] or other == own == "geoinv", f"{where}: not along operators <- datasets <- geoinv <- scripts"


@pytest.mark.parametrize("folder", ["operators", "datasets", "geoinv", "scripts", "tests"])
def test_files_are_short(folder: str) -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in python_files(folder)}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


@pytest.mark.parametrize("code", ["import geoinv, geoinv.operators, geoinv.datasets", "from geoinv.cli import main; main()", "import geoinv.config"])
def test_heavy_libraries_wait_until_needed(code: str) -> None:
    heavy = "import sys, atexit; atexit.register(lambda: print({'tensorflow', 'xarray', 'matplotlib'} & set(sys.modules), file=sys.stderr)); "
    result = subprocess.run([sys.executable, "-c", heavy + code, "--help"], capture_output=True, text=True, check=True)
    assert result.stderr.strip() == "set()"
    assert ("Commands" in result.stdout) == ("main" in code)


@pytest.fixture(scope="module")
def clean_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's own files, links kept, without what running it leaves behind."""
    copy = tmp_path_factory.mktemp("clean") / "project"
    unwanted = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "build", "dist", "*-output")
    shutil.copytree(ROOT, copy, symlinks=True, ignore=unwanted)
    return copy


def build(project: Path, kind: str) -> Path:
    """Build a wheel or an sdist with the setuptools at hand, so that no network is needed."""
    code = f"import setuptools.build_meta as backend; backend.build_{kind}('dist')"
    subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, check=True)
    return next((project / "dist").glob("*.whl" if kind == "wheel" else "*.tar.gz"))


def expected_modules() -> set[str]:
    return {str(Path(*package.split("."), path.relative_to(ROOT / folder))) for package, folder in FOLDERS.items() for path in python_files(folder)}


def test_wheel_installs_and_runs(clean_copy: Path, tmp_path: Path) -> None:
    wheel = build(clean_copy, "wheel")
    with zipfile.ZipFile(wheel) as archive:
        assert Counter(name for name in archive.namelist() if name.endswith(".py")) == Counter(expected_modules())
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", tmp_path, wheel]
    subprocess.run(install, capture_output=True, check=True)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}  # goes before the editable installation
    where = subprocess.run(
        [sys.executable, "-c", "import geoinv; print(geoinv.__file__)"], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert Path(where.stdout.strip()).is_relative_to(tmp_path)
    result = subprocess.run([tmp_path / "bin" / "geoinv", "--help"], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "invert" in result.stdout


def test_sdist_holds_every_module_once(clean_copy: Path) -> None:
    with tarfile.open(build(clean_copy, "sdist")) as archive:
        names = [Path(*Path(name).parts[1:]) for name in archive.getnames()]
    modules = Counter(str(name) for name in names if name.suffix == ".py" and name.parts[0] in FOLDERS.values())
    assert modules == Counter(str(path.relative_to(ROOT)) for folder in FOLDERS.values() for path in python_files(folder))
