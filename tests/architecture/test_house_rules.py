"""Rules that no other tool checks: names, module size, docstrings, and that the docs name files that exist."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("agent", "collector", "console", "controlplane", "scripts")
MODULES = sorted(
    path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if "versions" not in path.parts
)
FORBIDDEN = {"utils", "util", "common", "helpers", "helper", "manager", "models", "base", "misc"}
MAX_LINES = 400


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_a_module_is_short_documented_and_well_named(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= MAX_LINES, "split it"
    assert not set(path.relative_to(ROOT).with_suffix("").parts) & FORBIDDEN, "a thing without a name"
    assert ast.get_docstring(ast.parse(text)), "say what it is for"


@pytest.mark.parametrize("path", [p for p in MODULES if named(p).startswith(("agent/", "controlplane/"))], ids=named)
def test_nothing_is_run_through_a_shell(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"os.system", "os.popen", "subprocess.getoutput", "eval", "exec"}
            assert not any(keyword.arg == "shell" for keyword in node.keywords)
            assert called != "asyncio.create_subprocess_shell"


def test_files_that_the_readme_names_exist() -> None:
    for name in re.findall(r"\]\((?!http)([^)#]+)\)|`((?:\w+/)+[\w.]+)`", (ROOT / "README.md").read_text()):
        path = name[0] or name[1]
        assert (ROOT / path).exists(), path


def test_the_lock_names_no_registry() -> None:
    assert "://" not in (ROOT / "requirements.lock").read_text()


def test_dependencies_of_the_project_are_all_locked() -> None:
    locked = set(re.findall(r"^([a-z0-9._-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    wanted = set(re.findall(r'^  "([a-zA-Z0-9_-]+)', (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
    assert {name.lower().replace("_", "-") for name in wanted} <= locked


@pytest.mark.parametrize("script", ["demo", "test", "check", "lock"])
def test_scripts_are_valid_bash(script: str) -> None:
    subprocess.run(["bash", "-n", ROOT / "scripts" / script], check=True)
