"""The project as a whole: layers, dependencies, what must not stand in its files, and the Makefile."""

import ast
import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "negdistill"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
README = (ROOT / "README.md").read_text("utf-8")
# The README's file map: the rooms from the top of the house to the bottom.
MAP = README.split("negdistill/  ")[1].split("notebooks/  ")[0]
ROOMS = re.findall(r"^  (\w+)/  +\S", MAP, re.MULTILINE)
TOP = re.search(r"^  (\w+(?:, \w+)*)  +\S", MAP, re.MULTILINE)[1].split(", ")
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name not in ("__init__.py", "__main__.py"))

each_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())


def tracked() -> list[Path]:
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("not a git clone")
    return [ROOT / line for line in listing.stdout.splitlines() if (ROOT / line).is_file()]


def texts() -> dict[Path, str]:
    found = {}
    for path in tracked():
        try:
            found[path] = path.read_text("utf-8")
        except UnicodeDecodeError:  # weights and pictures
            continue
    return found


def imports(path: Path) -> set[str]:
    """Full names of everything a module imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


# --- layout -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("README.md", "LICENSE", "CITATION.cff", "CONTRIBUTING.md", "CHANGELOG.md"),
        *("Makefile", "pyproject.toml", "constraints.txt", "environment.yml", ".ci/run"),
        *("_config.yml", "_toc.yml", "book", "negdistill", "notebooks/profiles", "tests"),
    ],
)
def test_the_house_from_the_street(name):
    assert (ROOT / name).exists()


def room_of(place: str) -> str:
    """Room of a module's full name or of its path in the package; "" for the modules above all rooms."""
    parts = place.removeprefix("negdistill.").split(".")
    return parts[0] if parts[0] in ROOMS else ""


def test_the_file_map_has_every_room_and_every_module_above_them():
    assert sorted(ROOMS) == sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
    assert sorted(TOP) == sorted(path.stem for path in MODULES if path.parent == PACKAGE)


@each_module
def test_a_room_imports_only_from_rooms_above_it(path):
    own = room_of(".".join(path.relative_to(PACKAGE).with_suffix("").parts))
    above = ["", *ROOMS][: ["", *ROOMS].index(own) + 1]
    assert {room_of(full) for full in imports(path) if full.startswith("negdistill.")} <= set(above)


def test_there_is_no_circle_of_imports():
    """With `pytest -s` it prints the rooms and the arrows between them."""

    def below(path: Path) -> set[str]:
        return {full.rpartition(".")[0] for full in imports(path)} | imports(path)

    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in MODULES}
    left = {name: below(path) & set(names) - {name} for name, path in names.items()}
    arrows = Counter((room_of(name), room_of(used)) for name, needs in left.items() for used in needs)
    lines = [
        f"{room or 'above':10} -> {used or 'above':10} {n}" for (room, used), n in sorted(arrows.items())
    ]
    sys.stdout.write("\n".join(["", *lines, f"{len(names)} modules, {sum(arrows.values())} arrows", ""]))
    while ready := {name for name, needs in left.items() if not needs & set(left)}:
        left = {name: needs for name, needs in left.items() if name not in ready}
    assert not left


def test_tests_mirror_the_rooms():
    for path in (ROOT / "tests").glob("*/test_*.py"):
        module = path.stem.removeprefix("test_")
        there = {name.stem for name in MODULES if name.parent.name == path.parent.name}
        assert any(module == name or module.startswith(f"{name}_") for name in there), path


LIGHT = ["", "checks", "stats", "runs.folder", "runs.files", "runs.digests"]
NO_MODEL = [f"data.{path.stem}" for path in sorted((PACKAGE / "data").glob("*.py")) if path.stem[0] != "_"]
RUNNER = ["bookmaking.planning", "bookmaking.pipeline", "bookmaking.pages", "teachers.generate", "__main__"]


@pytest.mark.parametrize("names", [LIGHT, NO_MODEL, RUNNER], ids=["light", "data", "runner"])
def test_plain_python_needs_no_torch(names):
    lines = ["import sys", *(f"import negdistill.{name}".rstrip(".") for name in names)]
    check = "assert not {'torch', 'transformers', 'peft'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", "\n".join([*lines, check])], check=True, cwd=ROOT)


def test_the_package_is_light_and_gives_its_public_names():
    script = """import sys, time
began = time.perf_counter()
import negdistill
seconds = time.perf_counter() - began
assert seconds < 0.2 and not {'torch', 'numpy', 'pandas'} & set(sys.modules), seconds
for name in negdistill.__all__:
    found = getattr(negdistill, name)
    assert found.__doc__ and found.__module__ == negdistill.PUBLIC[name], name"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


@each_module
def test_a_module_is_short_and_plain(path):
    text = path.read_text("utf-8")
    tree = ast.parse(text)
    assert text.count("\n") <= 300
    assert ast.get_docstring(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 50, node.name
        if isinstance(node, ast.ExceptHandler):
            assert node.type, f"bare except in line {node.lineno}"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("eval", "exec", "torch.load", "pickle.load", "pickle.loads"), node.lineno


# --- dependencies -------------------------------------------------------------------------------------


def requirements(*extras: str) -> list[Requirement]:
    """Requirements of the project itself and of the extras named."""
    optional = PROJECT["project"]["optional-dependencies"]
    return [
        Requirement(text) for text in sum((optional[e] for e in extras), PROJECT["project"]["dependencies"])
    ]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    parsed = [Requirement(line) for line in lines if line and line[0] != "#"]
    versions = {canonicalize_name(line.name): str(line.specifier) for line in parsed}
    assert len(versions) == len(parsed)
    return versions


def test_all_is_the_union_of_the_extras():
    optional = dict(PROJECT["project"]["optional-dependencies"])
    (everything,) = map(Requirement, optional.pop("all"))
    assert everything.name == "negdistill" and everything.extras == set(optional)


def test_every_dependency_has_a_range_and_the_pins_are_in_it():
    for requirement in requirements("notebooks", "book", "pdf", "test"):
        pin = pins()[canonicalize_name(requirement.name)]
        assert re.fullmatch(r"==[\w.!]+", pin), requirement.name
        assert requirement.specifier and requirement.specifier.contains(pin[2:]), requirement.name


def test_constraints_pin_all_that_is_brought_in():
    todo, seen = (
        [(r.name, frozenset(r.extras)) for r in requirements("notebooks", "book", "pdf", "test")],
        set(),
    )
    while todo:
        name, extras = todo.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        for line in distribution(name).requires or ():
            requirement = Requirement(line)
            gpu = requirement.name.startswith(
                ("nvidia-", "cuda-", "triton")
            )  # of the builds of torch for GPUs only
            wanted = (
                any(requirement.marker.evaluate({"extra": e}) for e in extras or ("",))
                if requirement.marker
                else True
            )
            if wanted and not gpu:
                todo.append((requirement.name, frozenset(requirement.extras)))
    missing = {canonicalize_name(name) for name, _ in seen} - set(pins())
    assert not missing


def test_constraints_name_no_local_build():
    assert not [pin for pin in pins().values() if "+" in pin or "@" in pin or "/" in pin]


def test_conda_file_repeats_nothing():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    assert conda["name"] == PROJECT["project"]["name"] and conda["channels"] == ["conda-forge"]
    python, pip, by_pip = conda["dependencies"]
    assert pip == "pip" and by_pip == {"pip": ["--constraint constraints.txt", "--editable .[all]"]}
    version = python.removeprefix("python=")
    assert Requirement(f"python{PROJECT['project']['requires-python']}").specifier.contains(version)


def foreign(folder: Path) -> dict[str, set[str]]:
    """Each third-party module that a folder imports, and the distributions it may come from."""
    names = {full.split(".")[0] for path in folder.rglob("*.py") for full in imports(path)}
    names -= {
        *sys.stdlib_module_names,
        "negdistill",
        *(path.stem for path in folder.rglob("*.py")),
        *(path.name for path in folder.iterdir()),
    }
    owners = packages_distributions()
    return {name: {canonicalize_name(owner) for owner in owners.get(name, ())} for name in names}


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("negdistill", ["notebooks", "book", "pdf", "real"]),
        ("tests", ["notebooks", "book", "pdf", "real", "test"]),
    ],
)
def test_imports_are_declared(folder, extras):
    declared = {canonicalize_name(requirement.name) for requirement in requirements(*extras)}
    assert not {name for name, owners in foreign(ROOT / folder).items() if not owners & declared}


def test_what_the_package_requires_it_imports():
    core = {canonicalize_name(requirement.name) for requirement in requirements()}
    assert not core - set().union(*foreign(PACKAGE).values())


def test_data_of_the_package_is_installed_with_it():
    data = PROJECT["tool"]["setuptools"]["package-data"]
    patterns = [f"{room.replace('.', '/')}/{glob}" for room, globs in data.items() for glob in globs]
    for path in tracked():
        if PACKAGE in path.parents and path.suffix != ".py":
            name = path.relative_to(ROOT).as_posix()
            assert any(fnmatch.fnmatch(name, pattern) for pattern in patterns), name


# --- what stands in the files -------------------------------------------------------------------------


def test_no_path_of_a_machine():
    pattern = re.compile(r"(?<![\w./])/(?:root|home|work|Users|opt|tmp/pytest)/|site-packages/")
    hits = {f"{path.name}: {match[0]}" for path, text in texts().items() if (match := pattern.search(text))}
    assert hits <= {"test_project.py: site-packages/"}


def test_the_address_stands_in_one_place():
    address = PROJECT["project"]["urls"]["Repository"]
    assert yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))["repository"]["url"] == address
    owner = address.removeprefix("https://").rsplit("/", 1)[0] + "/"
    alone = {path.name for path in (ROOT / "notebooks").glob("*.ipynb")}  # each says where the package is
    holders = {path for path, text in texts().items() if owner in text}
    assert {path.name for path in holders} - alone == {"pyproject.toml", "_config.yml"}
    assert all(text.count(owner) == text.count(address) for path, text in texts().items() if path in holders)


def test_version_and_licence_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == PROJECT["project"]["version"]
    assert citation["license"] == PROJECT["project"]["license"] == (ROOT / "LICENSE").read_text("utf-8")[:3]


# --- Makefile -----------------------------------------------------------------------------------------


@pytest.fixture
def clone(tmp_path) -> Path:
    folder = tmp_path / "clone"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    return folder


def make(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MAKE", "MFLAGS", "NEGDIST"))
    }
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=folder, env={**kept, **variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_help_is_the_default_and_names_every_target(clone):
    targets = re.search(r"^\.PHONY: (.*)$", (clone / "Makefile").read_text(), re.MULTILINE)[1].split()
    told = [line.split()[1] for line in make(clone).stdout.splitlines()]
    assert ["help", *told] == targets
    assert [target for target in ("env", "book", "html", "test", "clean") if target not in told] == []


def test_a_failing_environment_stops_everything(clone):
    done = make(clone, "test", PYTHON="false")
    assert done.returncode == 2 and "pytest" not in done.stdout and "done" not in done.stdout
    assert not (clone / ".venv").exists()


def test_an_environment_is_made_once_for_each_set_of_versions(clone):
    (clone / ".venv").mkdir()
    made = subprocess.run(
        "cat pyproject.toml constraints.txt | cksum", shell=True, cwd=clone, capture_output=True, text=True
    )
    (clone / ".venv" / "environment").write_text(f"{made.stdout.strip()} {clone}\n")
    done = make(clone, "env", PYTHON="false")
    assert done.returncode == 0 and re.fullmatch(r"env: done after \d s\n", done.stdout)

    with open(clone / "constraints.txt", "a") as file:
        file.write("# another\n")
    assert make(clone, "env", PYTHON="false").returncode == 2  # .venv/bin/python is not there
    assert not (clone / ".venv" / "environment").exists()


def test_the_environment_is_made_by_uv_where_there_is_one(clone, tmp_path):
    called = clone / "called"
    for name in ("bin/uv", "clone/.venv/bin/python"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f'#!/bin/sh\necho {Path(name).name} "$@" >> {called}\n')
        (tmp_path / name).chmod(0o755)
    install = "install{} --quiet --constraint constraints.txt --editable .[all]\n"
    folders = [one for one in os.environ["PATH"].split(":") if not (Path(one) / "uv").exists()]
    for path, tool, into in (
        (":".join([f"{tmp_path}/bin", *folders]), "uv pip ", " --python .venv/bin/python"),
        (":".join(folders), "python -m pip ", ""),
    ):
        called.unlink(missing_ok=True)
        (clone / ".venv" / "environment").write_text("another")
        done = make(clone, "env", PATH=path)
        assert done.returncode == 0, done.stderr
        assert called.read_text() == f"{tool}{install.format(into)}{tool}check{into}\n"


def test_data_beside_the_clone_is_used_where_nothing_else_is_set(clone):
    show = ("--eval", "show: ; @echo data=$$NEGDISTILL_DATA", "show")
    assert make(clone, *show).stdout == "data=\n"
    (clone.parent / "shared" / "data").mkdir(parents=True)
    assert make(clone, *show).stdout == f"data={clone.parent}/shared/data\n"
    assert make(clone, *show, NEGDISTILL_DATA="elsewhere").stdout == "data=elsewhere\n"


def test_clean_keeps_the_environment(clone):
    for name in ("_build/html", "_runs/smoke", ".venv/bin", "negdistill/__pycache__", ".venv/__pycache__"):
        (clone / name).mkdir(parents=True)
    assert make(clone, "clean").returncode == 0
    left = {path.relative_to(clone).as_posix() for path in clone.rglob("*") if path.is_dir()}
    assert left == {".venv", ".venv/bin", ".venv/__pycache__", "negdistill"}


def test_continuous_integration_is_the_makefile():
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    assert os.access(ROOT / ".ci" / "run", os.X_OK) and "set -euo pipefail" in script
    assert re.findall(r"^make (\w+)", script, re.MULTILINE) == ["env", "html", "test"]
    assert script.rstrip().endswith('wait "$pages"')  # a render that fails is a failure
    runs = {
        path.stem: yaml.safe_load(path.read_text("utf-8"))
        for path in (ROOT / ".github/workflows").glob("*.yml")
    }
    steps = {
        name: [step.get("run") for job in flow["jobs"].values() for step in job["steps"]]
        for name, flow in runs.items()
    }
    assert "bash .ci/run" in steps["ci"] and "make html" in steps["pages"]


def test_tests_that_fail_leave_no_render_behind(tmp_path):
    """With a make that starts, as a render does, a process in a session of its own."""
    render = "import subprocess; subprocess.run(['sleep', '60'], start_new_session=True)"
    make = tmp_path / "make"
    make.write_text(
        f'#!/bin/sh\ncase $1 in html) exec {sys.executable} -c "{render}";; test) sleep 1; exit 3;; esac\n'
    )
    make.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    # runs until nobody holds its output
    done = subprocess.run(
        [ROOT / ".ci" / "run"], env=environment, capture_output=True, timeout=30, check=False
    )
    assert done.returncode == 3
