"""The repository installs anywhere: no addresses, no machine paths, one set of commands."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from heartbit.apps import QUEUES
from tests.support.repository import ROOT, compose_services, tracked

ADDRESS = re.compile(
    r"https?://[^\s\"')]+/simple\b"
    r"|\"resolved\":\s*\"https?:"
    r"|source = \{ registry"
    r"|https?://[^\s\"')]+\.(?:whl|tgz|tar\.gz)\b"
    r"|\s@ (?:file|https?)://"
    r"|^\s*--?(?:extra-)?(?:index-url|find-links)\b",
    re.MULTILINE,
)
MACHINE_PATH = re.compile(r"(?<![\w.~})>:$/-])/(?:home|root|Users|work|opt|mnt)/[\w.]+")
TEXTS = [path for path in tracked() if b"\0" not in path.read_bytes()[:8192]]


@pytest.mark.parametrize("pattern", [ADDRESS, MACHINE_PATH], ids=["address", "machine path"])
def test_no_tracked_file_says_where_somebody_downloads_or_works(pattern: re.Pattern[str]) -> None:
    """A clone works behind any mirror and in any directory."""
    found = [
        f"{path.relative_to(ROOT)}: {match.group().strip()}"
        for path in TEXTS
        for match in pattern.finditer(path.read_text(errors="replace"))
    ]
    assert [] == found


def test_the_pattern_for_addresses_finds_what_lock_files_write() -> None:
    """The guard above guards: each of these must be found."""
    host = "https:" + "//example.test"  # in pieces, or this file would be found
    lines = [
        f'"resolved": "{host}/a"',
        f"{host}/simple",
        f"{host}/a.whl",
        "source = { " + 'registry = "x" }',
        "numpy @ " + "file:///numpy",
        f"--extra-index-url {host}",
    ]
    assert [True] * len(lines) == [bool(ADDRESS.search(line)) for line in lines]


def test_no_lock_file_is_tracked() -> None:
    """uv.lock, poetry.lock and package-lock.json record addresses."""
    names = {path.name for path in tracked()}
    locks = {"uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "package-lock.json", "yarn.lock"}
    assert set() == names & locks


def test_constraints_hold_names_and_versions_and_nothing_else() -> None:
    """Each line is `name==version`, each name once, in order."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    odd = [line for line in lines if not re.fullmatch(r"[A-Za-z0-9][\w.-]*==[\w.+!]+", line)]
    assert [] == odd
    names = [line.partition("==")[0].lower().replace("_", "-") for line in lines]
    assert len(names) == len(set(names))


def test_every_direct_dependency_is_pinned() -> None:
    """What `make setup` asks for by name has a line in constraints.txt."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["mcp"],
        *project["project"]["optional-dependencies"]["embedded"],
        *project["dependency-groups"]["dev"],
        *project["build-system"]["requires"],
    ]
    names = {re.split(r"[^\w.-]", line, maxsplit=1)[0].lower() for line in wanted}
    pinned = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    assert set() == {name.replace("_", "-") for name in names} - pinned


def procfile() -> dict[str, str]:
    """The lines of the Procfile, by name."""
    lines = (ROOT / "Procfile").read_text().splitlines()
    return dict(line.split(": ", 1) for line in lines if line)


def test_the_procfile_and_compose_start_the_same_processes() -> None:
    """Each line of the Procfile is the command of the service with its name."""
    services = compose_services()
    assert procfile() == {name: services.get(name, {}).get("command") for name in procfile()}
    assert {"migrate", "postgres", "redis"} == services.keys() - procfile().keys()


def test_the_workers_of_the_fleet_read_every_queue_between_them() -> None:
    """A queue that nobody reads would hold runs for ever."""
    commands = [command.split() for name, command in procfile().items() if "worker" in name]
    read = [queue for command in commands for queue in command[command.index("-Q") + 1].split(",")]
    assert sorted(QUEUES) == sorted(read)


def test_every_process_of_the_fleet_waits_for_its_tables_and_its_broker() -> None:
    """`docker compose up` on an empty machine starts in the right order."""
    for name, service in compose_services().items():
        if name in procfile():
            assert {"migrate", "redis"} == set(service["depends_on"])


def test_every_process_of_the_fleet_says_whether_it_is_well() -> None:
    """All that go on for ever; `migrate` ends by itself."""
    services = compose_services()
    assert {"migrate"} == {name for name, each in services.items() if "healthcheck" not in each}


def can_compose() -> bool:
    """Whether there is a docker with its compose plugin."""
    if shutil.which("docker") is None:
        return False
    asked = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    return asked.returncode == 0


@pytest.mark.slow
def test_docker_compose_accepts_the_file() -> None:
    """Keys and values are those that compose knows, and every reference leads somewhere."""
    if not can_compose():
        pytest.skip("`docker compose version` fails here: install Docker's compose plugin")
    done = subprocess.run(
        ["docker", "compose", "-f", "docker-compose.yml", "config", "-q"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stderr)


def test_the_licence_is_the_one_the_metadata_names() -> None:
    """The whole text, unchanged."""
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert text.rstrip().endswith("limitations under the License.")
    assert 202 == len(text.splitlines())
