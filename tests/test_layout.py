"""Where things are: packages resolve here, scripts run from anywhere, help needs no torch."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("backbones", "bench", "protocols")
RUNNABLE = sorted(
    path.relative_to(ROOT)
    for folder in ("bench", "protocols")
    for path in (ROOT / folder).glob("*.py")
    if path.name != "__init__.py"
)


def run(*command: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env={"PATH": "", "HOME": str(cwd), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("name", PACKAGES)
def test_packages_resolve_inside_the_repository(name):
    assert Path(import_module(name).__file__).parents[1] == ROOT


def test_no_module_shadows_the_standard_library():
    """A script's own folder comes first on the path until the script has replaced it."""
    names = {path.stem for name in PACKAGES for path in (ROOT / name).iterdir()}
    assert not names & sys.stdlib_module_names
    assert not {path.stem for path in ROOT.iterdir()} & sys.stdlib_module_names


@pytest.mark.parametrize("script", RUNNABLE, ids=str)
def test_help_as_script_as_module_and_from_its_own_folder(script, tmp_path):
    # A rival package of the same name, where a script run from elsewhere would look first.
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "__init__.py").write_text("raise ImportError('the wrong bench')\n")
    module = ".".join(script.with_suffix("").parts)
    answers = {
        "script": run(ROOT / script, "--help", cwd=tmp_path, PYTHONPATH=str(tmp_path)),
        "module": run("-m", module, "--help", cwd=ROOT),
        "own folder": run(script.name, "--help", cwd=ROOT / script.parent),
    }
    for how, done in answers.items():
        assert done.returncode == 0, (how, done.stderr)
        assert done.stdout.startswith("usage: "), how
    assert len({done.stdout for done in answers.values()}) == 1


@pytest.mark.parametrize("script", RUNNABLE, ids=str)
def test_help_imports_no_torch(script):
    code = (
        "import runpy, sys\n"
        f"sys.argv = [{script.name!r}, '--help']\n"
        f"try: runpy.run_path({str(ROOT / script)!r}, run_name='__main__')\n"
        "except SystemExit as end: print(end.code)\n"
        "print(sorted({'torch', 'pandas', 'matplotlib', 'h5py'} & set(sys.modules)))"
    )
    done = run("-c", code, cwd=ROOT)
    assert done.stdout.splitlines()[-2:] == ["0", "[]"], done.stderr
