"""The settings, each by running ``python server.py``."""

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from config import SettingError, Settings, load
from server import StartError, listen
from tests.conftest import Program, Valkey, run_to_end

Start = Callable[..., Program]

NOWHERE = "--redis-url=unix:/nowhere/redis.sock"

VARIABLES = (
    *("NAME", "ADDRESS", "PORT", "REDIS_URL", "REDIS_PASSWORD_FILE", "REDIS_TIMEOUT"),
    *("PROCESSES", "GRACE", "ACCESS_LOG", "LOG_FORMAT"),
)

BAD = [
    ("address", "a b"),
    ("address", "-a"),
    ("address", "1.2.3.4:80"),
    *(("port", text) for text in ("http", "-1", "65536", "8_0", "80.0", "0x50", "٨٠", "1e3")),
    *(("redis_url", text) for text in ("redis", "redis://", "http://a", "//a", "redis:a", "unix:")),
    *(("redis_url", "redis://" + text) for text in ("a:b", "a:0", "a:65536", "a b", "[::1", "a/b")),
    *(("redis_url", "redis://a" + text) for text in ("/0/1", "?db=x", "?x=1", "?db", "#0")),
    ("redis_url", "redis://a?retry_on_timeout=true"),
    ("redis_url", "redis://a?ssl_ca_certs=b"),
    ("redis_url", "rediss://a?ssl_cert_reqs=maybe"),
    ("redis_url", "rediss://a?ssl_check_hostname=maybe"),
    ("redis_url", "unix://host/path"),
    ("redis_url", "embedded:"),
    *(("redis_timeout", text) for text in ("0", "-1", "nan", "inf", "2s", "1e3", "3601", "1_0")),
    *(("processes", text) for text in ("-1", "two", "1.5", "1025")),
    *(("grace", text) for text in ("-1", "nan", "5 ", "3601")),
    *(("access_log", text) for text in ("maybe", "2", "truee")),
    *(("log_format", text) for text in ("xml", "JSON", "text,json")),
]


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def only_line(result: subprocess.CompletedProcess[str], status: int) -> str:
    assert (result.returncode, result.stdout) == (status, ""), result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("server.py: ")
    return line


@pytest.mark.parametrize(("name", "text"), BAD)
def test_bad_value_is_one_line_that_names_setting_value_and_what_is_allowed(
    name: str, text: str
) -> None:
    for source, arguments, environment in (
        (flag(name), [f"{flag(name)}={text}"], {}),
        (name.upper(), [], {name.upper(): text}),
    ):
        with pytest.raises(SettingError) as error:
            load(arguments, environment)
        assert str(error.value).startswith(f"{source}={text}: allowed is ")
        assert str(error.value).isprintable()


@pytest.mark.parametrize("name", sorted({name for name, _ in BAD}))
def test_program_with_a_bad_value_ends_with_status_2(name: str) -> None:
    text = next(text for bad, text in BAD if bad == name)
    for arguments, environment in (
        ([f"{flag(name)}={text}"], {}),
        ([], {name.upper(): text}),
    ):
        line = only_line(run_to_end(*arguments, **environment), 2)
        assert text in line
        assert "allowed is" in line


def test_name_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(SettingError, match="text in UTF-8"):
        load([], {"NAME": os.fsdecode(b"\xff")})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--prot=80"], "--prot: no such flag; --help"),
        (["80"], "80: no such flag"),
        (["--port=80", "more"], "more: no such flag"),
        (["--"], "--: no such flag"),
        (["--port"], "--port: a value is missing"),
        (["--redis-passwrd=hunter2"], "--redis-passwrd: no such flag"),
        (["--a\nb=c"], r"--a\nb: no such flag"),
    ],
)
def test_unknown_flag_is_one_line_with_status_2(arguments: list[str], said: str) -> None:
    line = only_line(run_to_end(*arguments), 2)
    assert said in line
    assert "hunter2" not in line


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2@host:99999",
        "redis://user:hunter2@host:x",
        "redis://:hunter2@more@host:x",
        "redis://:hunter2/more@host",
        "redis://:hun/hunter2@host:x",
        "redis://:more#hunter2@host",
        "redis://:more?hunter2@host",
        "redis://host?password=hunter2",
        "redis://host?db=0&password=hunter2",
        "rediss:/:hunter2@host",
        ":hunter2@host",
    ],
)
def test_password_of_a_bad_url_is_not_shown(url: str) -> None:
    with pytest.raises(SettingError) as error:
        load([f"--redis-url={url}"], {})
    assert "hunter2" not in str(error.value)
    assert "hun/" not in str(error.value)
    assert "***" in str(error.value)


def test_help_lists_every_setting_on_standard_output() -> None:
    result = run_to_end("--help")
    assert (result.returncode, result.stderr) == (0, "")
    listed = re.findall(r"^  (--[a-z-]+) ", result.stdout, re.MULTILINE)
    assert listed == [flag(name.lower()) for name in VARIABLES] + ["--healthcheck", "--help"]
    for default in ("world", "80", "redis://redis:6379/0", "2", "1", "5", "true", "text"):
        assert re.search(rf"\(default\s+{default}\)", result.stdout)


def test_defaults_are_the_contracts() -> None:
    assert load([], {}) == Settings(
        name="world",
        address=None,
        port=80,
        redis_url="redis://redis:6379/0",
        redis_password_file=None,
        redis_timeout=2.0,
        processes=1,
        grace=5.0,
        access_log=True,
        log_format="text",
    )


@pytest.mark.parametrize(
    ("name", "by_flag", "by_variable"),
    [("name", "flag", "variable"), ("port", "1", "2"), ("access_log", "true", "false")],
)
def test_flag_beats_variable_beats_default(name: str, by_flag: str, by_variable: str) -> None:
    def value(arguments: list[str], environment: dict[str, str]) -> str:
        return str(getattr(load(arguments, environment), name)).lower()

    variable = {name.upper(): by_variable}
    assert value([f"{flag(name)}={by_flag}"], variable) == by_flag
    assert value([f"--{name}={by_flag}"], variable) == by_flag
    assert value([], variable) == by_variable
    default = str(getattr(Settings(), name)).lower()
    assert value([], {}) == value([], {name.upper(): ""}) == default
    # What is not used is not looked at.
    assert value([f"{flag(name)}={by_flag}"], {name.upper(): "\udc80"}) == by_flag


def test_switches_are_read_as_tornado_reads_them() -> None:
    assert load(["--access-log"], {"ACCESS_LOG": "false"}).access_log
    assert not load(["--access_log=FALSE"], {}).access_log
    assert load(["--healthcheck"], {}).healthcheck
    assert not load([], {"HEALTHCHECK": "true"}).healthcheck


def test_program_takes_flags_and_variables(program: Start) -> None:
    server = program("--name=flag", NOWHERE, NAME="variable", ACCESS_LOG="false")
    assert server.get()[1].startswith("<h3>Hello flag!</h3>")
    server.signal()
    assert server.wait() == 0
    assert b"GET /" not in server.log
    assert program(NOWHERE, NAME="variable").get()[1].startswith("<h3>Hello variable!</h3>")
    assert program(NOWHERE, NAME="").get()[1].startswith("<h3>Hello world!</h3>")


def answers(family: socket.AddressFamily, host: str, port: int) -> bool:
    with socket.socket(family) as client:
        client.settimeout(5)
        return client.connect_ex((host, port)) == 0


def test_listens_on_ipv4_and_ipv6_unless_told_where(program: Start) -> None:
    every, four = program(NOWHERE), program(NOWHERE, "--address=127.0.0.1")
    assert answers(socket.AF_INET, "127.0.0.1", every.port)
    assert answers(socket.AF_INET6, "::1", every.port)
    assert answers(socket.AF_INET, "127.0.0.1", four.port)
    assert not answers(socket.AF_INET6, "::1", four.port)
    six = program(NOWHERE, "--address=::1")
    assert b"listening on http://[::1]:" in six.log
    assert answers(socket.AF_INET6, "::1", six.port)
    assert not answers(socket.AF_INET, "127.0.0.1", six.port)


def test_port_that_is_taken_is_one_line_with_status_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = only_line(run_to_end("--address=127.0.0.1", f"--port={port}", NOWHERE), 1)
    assert f"cannot listen on port {port} of 127.0.0.1: Address already in use" in line


@pytest.mark.parametrize("address", ["192.0.2.1", "name.invalid"])
def test_address_that_is_not_here_is_one_line_with_status_1(address: str) -> None:
    line = only_line(run_to_end(f"--address={address}", "--port=0", NOWHERE), 1)
    assert f"cannot listen on port 0 of {address}: " in line


def test_port_that_is_not_permitted_says_which_one_to_try(monkeypatch: pytest.MonkeyPatch) -> None:
    # Which ports are, and to whom, differs from machine to machine: only the refusal is made up.
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("server.bind_sockets", refuse)
    with pytest.raises(StartError, match=r"port 80: Permission denied; try --port=4000$"):
        listen(Settings())


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "No such file"), (b"", "empty"), (b"\n", "empty"), (b"\xff", "not UTF-8")],
)
def test_password_file_that_cannot_be_used_is_one_line_with_status_1(
    content: bytes | None, said: str, folder: Path
) -> None:
    path = folder / "password"
    if content is not None:
        path.write_bytes(content)
    line = only_line(run_to_end("--port=0", NOWHERE, REDIS_PASSWORD_FILE=str(path)), 1)
    assert str(path) in line
    assert said in line


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_certificate_that_cannot_be_used_is_one_line_with_status_1(
    content: bytes | None, folder: Path
) -> None:
    path = folder / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    url = f"rediss://:hunter2@localhost?ssl_ca_certs={path}"
    line = only_line(run_to_end("--port=0", f"--redis-url={url}"), 1)
    assert f"cannot use ssl_ca_certs={path}: " in line
    assert "hunter2" not in line


def test_password_file_opens_redis_and_is_never_logged(
    valkey: Valkey, program: Start, folder: Path
) -> None:
    valkey.client.config_set("requirepass", "hunter2")
    right, wrong = folder / "right", folder / "wrong"
    right.write_text("hunter2\n")
    wrong.write_text("hunter3\n")
    # The file beats the password of the URL.
    url = f"unix://:hunter4@{valkey.path}"
    opened = program(f"--redis-url={url}", f"--redis-password-file={right}")
    assert [opened.visits() for _ in range(2)] == [1, 2]
    refused = program(f"--redis-url={url}", f"--redis-password-file={wrong}")
    assert refused.visits() is None
    for server in (opened, refused):
        server.signal()
        assert server.wait() == 0
        assert b"hunter" not in server.log
    assert b"counter off" in refused.log


def test_json_log_is_one_object_a_line(valkey: Valkey, program: Start) -> None:
    server = program(f"--redis-url={valkey.url}", LOG_FORMAT="json")
    server.get("/", Accept="application/json", X_Request_ID="mine-1")
    server.get("/nothing")
    server.signal()
    assert server.wait() == 0
    lines = [json.loads(line) for line in server.log.splitlines()]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    visit, lost = (line for line in lines if "method" in line)
    assert visit["request_id"] == "mine-1"
    assert (visit["method"], visit["path"], visit["status"]) == ("GET", "/", 200)
    assert (visit["level"], lost["level"], lost["status"]) == ("INFO", "WARNING", 404)
    assert (visit["remote"], lost["path"]) == ("127.0.0.1", "/nothing")
    assert visit["duration_ms"] > 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(\+00:00|Z)", visit["time"])


@pytest.mark.parametrize("address", [[], ["--address=127.0.0.1"], ["--address=::"]])
def test_healthcheck_tells_whether_the_server_of_its_settings_answers(
    address: list[str], program: Start
) -> None:
    server = program(NOWHERE, *address)
    ask = ("--healthcheck", f"--port={server.port}", *address)
    healthy = run_to_end(*ask)
    assert (healthy.returncode, healthy.stdout, healthy.stderr) == (0, "", "")
    server.signal()
    assert server.wait() == 0
    assert f"port {server.port}" in only_line(run_to_end(*ask), 1)


def test_healthcheck_does_not_wait_for_a_server_that_hangs(program: Start) -> None:
    server = program(NOWHERE)
    server.signal(signal.SIGSTOP)
    line = only_line(run_to_end("--healthcheck", PORT=str(server.port)), 1)
    assert "timed out" in line
    server.signal(signal.SIGCONT)
