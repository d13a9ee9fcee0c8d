"""The files under `deploy/` are right, as far as that can be told without the machines they are for."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import make_url

from etl.cli.parser import build_parser
from etl.config import load_config, read_token
from etl.crontab import parse as parse_crontab
from etl.sandbox import SandboxServer
from tests import command
from tests.command import CHECKOUT
from tests.snapshots import body, record

DEPLOY = CHECKOUT / "deploy"
GUIDE = (CHECKOUT / "docs" / "deployment.md").read_text(encoding="utf-8")
PROJECT: dict[str, Any] = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
UNITS = sorted((DEPLOY / "systemd").iterdir())
SERVICES = [unit for unit in UNITS if unit.suffix == ".service"]
INSTALLED = "/opt/virtual-numbers-etl/bin"
TOKEN = "5d41402a-token"

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def assert_is_a_command(words: list[str]) -> None:
    """Fail unless the command line understands what follows `etl`; it would end the process."""
    assert build_parser().parse_args(words).module


@contextmanager
def served() -> Iterator[SandboxServer]:
    with SandboxServer(token=TOKEN) as server:
        server.serve_body(body([record(1), record(2)]))
        yield server


# systemd --------------------------------------------------------------------------------------------------------------


def verified(folder: Path, unit: Path, old: str = "", new: str = "") -> "subprocess.CompletedProcess[str]":
    """Let systemd read a unit, with a program that this machine has in the place of the installed one."""
    for each in UNITS:
        text = each.read_text(encoding="utf-8").replace(f"{INSTALLED}/etl", "/bin/true")
        (folder / each.name).write_text(text.replace(old, new) if old else text, encoding="utf-8")
    return subprocess.run(
        ["systemd-analyze", "verify", str(folder / unit.name)], capture_output=True, text=True, check=False
    )


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=names(UNITS))
def test_systemd_understands_each_unit(tmp_path: Path, unit: Path) -> None:
    result = verified(tmp_path, unit)
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


@needs_systemd
def test_systemd_would_complain_of_a_setting_it_does_not_know(tmp_path: Path) -> None:
    unit = DEPLOY / "systemd" / "virtual-numbers-etl.service"
    assert "Unknown key" in verified(tmp_path, unit, "ProtectHome=", "ProtectHomes=").stderr


@needs_systemd
@pytest.mark.parametrize("service", SERVICES, ids=names(SERVICES))
def test_systemd_finds_the_services_well_confined(service: Path) -> None:
    # In tenths of a point, from 0 (nothing is exposed) to 100.
    result = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=15", "--no-pager", str(service)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-200:] + result.stderr


def settings(unit: Path) -> list[str]:
    """Return the lines of a unit that are no comments."""
    return [line for line in unit.read_text(encoding="utf-8").splitlines() if line and not line.startswith(("#", "["))]


@pytest.mark.parametrize("service", SERVICES, ids=names(SERVICES))
def test_the_services_run_commands_that_exist_and_get_their_secrets_as_credentials(service: Path) -> None:
    (start,) = [line.partition("=")[2] for line in settings(service) if line.startswith("ExecStart=")]
    program, *words = shlex.split(start)
    assert program == f"{INSTALLED}/etl"
    assert_is_a_command(words)
    for line in (
        "DynamicUser=yes",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "StateDirectory=virtual-numbers-etl",
    ):
        assert line in settings(service)
    loaded = [line.partition("=")[2].partition(":")[0] for line in settings(service) if "LoadCredential=" in line]
    assert loaded == ["config.toml", "token"]


def test_both_services_are_confined_alike() -> None:
    confined = [
        text.partition("# The user exists")[2].partition("[Install]")[0].strip() for text in map(read, SERVICES)
    ]
    assert confined[0] == confined[1] != ""


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_a_service_finds_its_configuration_and_token_among_its_credentials(tmp_path: Path) -> None:
    credentials, state = tmp_path / "credentials", tmp_path / "state"
    credentials.mkdir(mode=0o700)
    state.mkdir(mode=0o700)
    (section,) = re.findall(r"```toml\n(.*?)```", GUIDE, flags=re.DOTALL)
    with served() as server:
        (credentials / "config.toml").write_text(f'{section}base_url = "{server.base_url}"\n', encoding="utf-8")
        (credentials / "token").write_text(f"{TOKEN}\n", encoding="utf-8")
        (credentials / "token").chmod(0o400)
        variables = {"ETL_CONFIG": str(credentials / "config.toml"), "CREDENTIALS_DIRECTORY": str(credentials)}
        ended = command.run("sync", cwd=state, variables=variables)
        assert ended.code == 0, ended.stderr
        assert ended.stdout.startswith("main: succeeded: 2 added")
        assert [line["level"] for line in ended.logged if line["level"] != "info"] == []
        ended = command.run("sync", cwd=state, variables={"ETL_CONFIG": variables["ETL_CONFIG"]})
        assert ended.code == 78
        assert "LoadCredential" in ended.stderr


def test_only_a_path_that_begins_with_the_variable_is_one_of_a_credential(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    for written, found in [
        ("$CREDENTIALS_DIRECTORY/token", "/run/c/token"),
        ("$CREDENTIALS_DIRECTORYX/token", "$CREDENTIALS_DIRECTORYX/token"),
        ("/etc/$CREDENTIALS_DIRECTORY/token", "/etc/$CREDENTIALS_DIRECTORY/token"),
        ("~/token", "~/token"),
    ]:
        file.write_text(f'[[sources]]\nname = "main"\ntoken_file = "{written}"\n', encoding="utf-8")
        config = load_config(str(file), {"CREDENTIALS_DIRECTORY": "/run/c"})
        assert config.sources[0].token_file == found


# cron -----------------------------------------------------------------------------------------------------------------


def crontab() -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Read the file as cron does: variables, and pairs of an expression and a command."""
    variables: dict[str, str] = {}
    jobs = []
    for line in read(DEPLOY / "crontab").splitlines():
        if match := re.fullmatch(r'(\w+)="?([^"]*)"?', line):
            variables[match[1]] = match[2]
        elif line and not line.startswith("#"):
            *fields, job = line.split(None, 5)
            jobs.append((" ".join(fields), job))
    return variables, jobs


def test_the_crontab_is_one_that_cron_and_the_command_line_understand() -> None:
    variables, jobs = crontab()
    assert jobs
    for expression, job in jobs:
        assert parse_crontab(expression).minutes
        assert not re.search(r"(?<!\\)%", job), "an unescaped % would end the command"
        assert_is_a_command(shlex.split(job.partition("2>&1")[0])[1:])
    assert variables["PATH"].split(":")[0] == INSTALLED
    assert "$" not in "".join(variables.values()), "cron expands nothing there"
    assert read(DEPLOY / "crontab").endswith("\n"), "cron ignores a last line without an end"


def test_the_crontabs_command_works_in_the_environment_that_cron_gives(tmp_path: Path) -> None:
    variables, [(_, job)] = crontab()
    programs = tmp_path / "bin"
    programs.mkdir()
    log = tmp_path / "log"
    for name, script in {
        "etl": f'PYTHONPATH={shlex.quote(str(CHECKOUT))} exec {shlex.quote(sys.executable)} -m etl "$@"',
        "logger": f"exec cat > {shlex.quote(str(log))}",
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (programs / name).chmod(0o755)
    config = tmp_path / "config.toml"
    with served() as server:
        source = f'[[sources]]\nname = "main"\nbase_url = "{server.base_url}"\ntoken = "{TOKEN}"\n'
        config.write_text(source, encoding="utf-8")
        config.chmod(0o600)
        environment = {
            **variables,
            "HOME": str(tmp_path),
            "PATH": variables["PATH"].replace(INSTALLED, str(programs)),
            "ETL_CONFIG": str(config),
        }
        for status, logged in ((200, 0), (401, 1)):
            server.token = TOKEN if status == 200 else "another"
            ended = subprocess.run(
                [variables["SHELL"], "-c", job], cwd=tmp_path, env=environment, capture_output=True, check=False
            )
            assert ended.stdout + ended.stderr == b"", "cron would mail it"
            lines = log.read_text(encoding="utf-8").splitlines()
            assert len(lines) == logged
            assert "Интеграции" in "".join(lines) or not logged, "the locale knows Cyrillic"
    assert (tmp_path / "numbers.db").exists()


# Containers -----------------------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions and their arguments."""
    text = re.sub(r"\\\n\s*", "", read(DEPLOY / "Dockerfile"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


@pytest.mark.skipif(shutil.which("hadolint", path=str(Path(sys.executable).parent)) is None, reason="no hadolint here")
def test_hadolint_has_nothing_to_say_about_the_dockerfile() -> None:
    linter = Path(sys.executable).parent / "hadolint"
    result = subprocess.run(
        [str(linter), "--no-color", str(DEPLOY / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout) == (0, "")


def test_the_image_has_a_stage_of_its_own_for_building_and_does_not_run_as_root() -> None:
    words = [word for word, _ in instructions()]
    assert words.count("FROM") == 2
    last = instructions()[len(words) - words[::-1].index("FROM") :]
    assert [rest for word, rest in last if word == "COPY"] == [
        "--from=build /opt/virtual-numbers-etl /opt/virtual-numbers-etl"
    ]
    assert dict(last)["USER"] == "10001:10001"
    assert dict(last)["ENTRYPOINT"] == '["etl"]'
    assert_is_a_command(yaml.safe_load(dict(last)["CMD"]))


def test_what_the_image_copies_is_enough_to_build_the_package(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling is not installed")
    source, wheels = tmp_path / "source", tmp_path / "wheels"
    source.mkdir()
    ignored = read(DEPLOY / "Dockerfile.dockerignore").splitlines()
    for rest in [rest for word, rest in instructions() if word == "COPY" and not rest.startswith("--from")]:
        *copied, target = rest.split()
        for name in copied:
            assert f"!{name}" in ignored, "it would not reach the build"
            if (CHECKOUT / name).is_dir():
                shutil.copytree(CHECKOUT / name, source / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(CHECKOUT / name, source / target)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    assert len(list(wheels.glob("virtual_numbers_etl-*.whl"))) == 1


def test_every_extra_that_is_named_exists() -> None:
    places = [read(DEPLOY / "Dockerfile"), GUIDE]
    lists = [found for text in places for found in re.findall(r"(?:\.|etl)\[([a-z,]+)\]", text)]
    named = ",".join(lists).split(",")
    assert len(named) > 4
    assert set(named) <= PROJECT["optional-dependencies"].keys()


# Kubernetes -----------------------------------------------------------------------------------------------------------

MANIFESTS: list[dict[str, Any]] = list(yaml.safe_load_all(read(DEPLOY / "kubernetes.yaml")))


@pytest.mark.parametrize("manifest", MANIFESTS, ids=[manifest["kind"] for manifest in MANIFESTS])
@pytest.mark.parametrize("version", ["1.27", "1.31"])
def test_kubernetes_knows_every_field(manifest: dict[str, Any], version: str) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    validator.validate(manifest, version, strict=True)


def test_the_cron_job_runs_one_confined_pod_at_a_time() -> None:
    secret, settings_map, job = MANIFESTS
    spec = job["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert parse_crontab(spec["schedule"]).minutes
    pod = spec["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert_is_a_command(container["args"])
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    for variable in container["env"]:
        reference = variable.get("valueFrom", {}).get("secretKeyRef")
        assert reference is None or reference["key"] in secret["stringData"]
    assert pod["volumes"][0]["configMap"]["name"] == settings_map["metadata"]["name"]


def test_the_config_map_is_a_configuration(tmp_path: Path) -> None:
    secret, settings_map, _ = MANIFESTS
    file = tmp_path / "config.toml"
    file.write_text(settings_map["data"]["config.toml"], encoding="utf-8")
    environment = {"ETL_TOKEN": TOKEN, "ETL_DATABASE_URL": secret["stringData"]["database-url"]}
    config = load_config(str(file), environment)
    assert make_url(config.database.url).get_backend_name() == "postgresql"
    assert read_token(config.sources[0], environment) == TOKEN


# The guide ------------------------------------------------------------------------------------------------------------


def test_the_guide_names_files_and_units_that_exist() -> None:
    linked = [target.partition("#")[0] for target in re.findall(r"\]\(([^)]+)\)", GUIDE)]
    missing = [target for target in linked if target and not (CHECKOUT / "docs" / target).exists()]
    assert missing == []
    named = set(re.findall(r"virtual-numbers-etl[a-z-]*\.(?:service|timer)", GUIDE))
    assert named == set(names(UNITS))
    assert all((CHECKOUT / name).exists() for name in re.findall(r"\bdeploy/[\w./-]*\w", GUIDE))
