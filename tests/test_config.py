"""The settings: where they come from, what they do, and what is said when they cannot be."""

import contextlib
import ctypes
import ipaddress
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

import config
from server import StartError, listen, new_visits
from tests.support import ROOT
from tests.support.here import refused, run_here
from tests.support.processes import children
from tests.support.program import Program, run_to_end
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE, wait_until
from watch import Metrics

Start = Callable[..., Program]
Connect = Callable[[Program], HTTPConnection]

SETTINGS = {
    "name": "world",
    "address": None,
    "port": 80,
    "redis-url": "redis://redis:6379/0",
    "redis-password-file": None,
    "redis-sentinel-password-file": None,
    "redis-timeout": 2,
    "redis-wait": 0,
    "processes": 1,
    "drain-delay": 0,
    "grace": 5,
    "access-log": True,
    "log-format": "text",
    "log-level": "info",
    "idle-timeout": 75,
    "tls-cert": None,
    "tls-key": None,
    "tls-client-ca": None,
    "trusted-proxies": None,
    "path-prefix": "",
    "version-label": None,
    "labels": None,
    "admin-port": None,
    "admin-address": "127.0.0.1",
    "echo": False,
    "faults": False,
    "fault-rate": 0,
    "fault-wait": config.Wait(),
    "start-wait": 0,
}

GOOD = [
    ("name", "Zoë <&>", "Zoë <&>"),
    ("address", "127.0.0.1", "127.0.0.1"),
    ("address", "::1", "::1"),
    ("address", "localhost", "localhost"),
    ("address", "0.0.0.0", "0.0.0.0"),
    ("address", "fe80::1%eth0", "fe80::1%eth0"),
    ("address", "::", None),
    ("address", "0:0::0", None),
    ("port", "0", 0),
    ("port", "65535", 65535),
    ("redis-url", "redis://h", "redis://h"),
    ("redis-url", "redis://user:pass%40word@h:1/15", "redis://user:pass%40word@h:1/15"),
    ("redis-url", "redis://[::1]:6379", "redis://[::1]:6379"),
    ("redis-url", "rediss://h/0?ssl_cert_reqs=none", "rediss://h/0?ssl_cert_reqs=none"),
    ("redis-url", "unix:///run/redis.sock?db=1", "unix:///run/redis.sock?db=1"),
    ("redis-url", "embedded:data", "embedded:data"),
    *(
        ("redis-url", url, url)
        for url in (
            "redis+sentinel://a/mymaster",
            "redis+sentinel://a,b:26380,[::1]:1/my-master/2",
            "rediss+sentinel://user:pass@a:1,b:2/m/0?ssl_cert_reqs=none",
            "redis+cluster://a:7000,b",
            "rediss+cluster://:pass@a:7000/",
        )
    ),
    ("redis-wait", "1", 1),
    ("redis-password-file", "/run/secrets/redis", "/run/secrets/redis"),
    ("redis-timeout", "0.5", 0.5),
    ("processes", "0", 0),
    ("drain-delay", "5", 5),
    ("grace", "0", 0),
    ("grace", ".25", 0.25),
    ("access-log", "false", False),
    ("access-log", "TRUE", True),
    ("access-log", "0", False),
    ("access-log", "1", True),
    *(("log-format", text, "json") for text in ("json", "JSON", "Json")),
    *(("log-level", text, "debug") for text in ("debug", "DEBUG")),
    *(("log-level", text, "info") for text in ("INFO", "Info")),
    *(("log-level", text, "warning") for text in ("Warning", "WARNING", "warn", "WARN", "Warn")),
    ("log-level", "ERROR", "error"),
    *(("log-level", text, "critical") for text in ("critical", "CRITICAL")),
    ("idle-timeout", "620", 620),
    ("idle-timeout", "1", 1),
    ("labels", "zone=eu-1", {"zone": "eu-1"}),
    ("labels", "zone=eu-1,node=,_a9=x=y z", {"zone": "eu-1", "_a9": "x=y z"}),
    ("labels", "node=,zone=", {}),
    ("labels", os.fsdecode(b"zone=caf\xe9"), {"zone": "caf\\xe9"}),
    ("labels", "k" * 63 + "=" + "ü" * 128, {"k" * 63: "ü" * 128}),
    ("labels", ",".join(f"l{i}={i}" for i in range(8)), {f"l{i}": f"{i}" for i in range(8)}),
    *(
        ("trusted-proxies", text, tuple(map(ipaddress.ip_network, networks)))
        for text, networks in (
            ("10.0.0.0/8", ["10.0.0.0/8"]),
            ("10.0.0.0/8, FD00::/8,192.0.2.7,::1", ["10.0.0.0/8", "fd00::/8", "192.0.2.7", "::1"]),
            ("0.0.0.0/0,::/0", ["0.0.0.0/0", "::/0"]),
        )
    ),
    *(
        ("path-prefix", text, path)
        for text, path in (
            *(("/hello", "/hello"), ("/hello/", "/hello"), ("/a/B-1._~/c", "/a/B-1._~/c")),
            *(("/", ""), ("/...", "/..."), ("/.a", "/.a"), ("/" + "x" * 127, "/" + "x" * 127)),
        )
    ),
    ("version-label", "v1.2.3-4-gabc+dirty", "v1.2.3-4-gabc+dirty"),
    ("version-label", "blue", "blue"),
    ("version-label", "registry/app@sha256:" + "f" * 64, "registry/app@sha256:" + "f" * 64),
    ("faults", "true", True),
]

#: Each with a word of what is allowed.
BAD = [
    *(
        ("port", value, "65535")
        for value in ("-1", "65536", "x", "8_0", "80.0", " 80", "٨٠", "1e3", "0x50")
    ),
    *(("processes", value, "0") for value in ("-1", "two", "1.5", "1025", "9999999999")),
    *(
        ("redis-timeout", value, "seconds")
        for value in ("0", "-1", "soon", "nan", "inf", "2s", "1e1", "3601")
    ),
    *(
        (name, value, "seconds")
        for name in ("grace", "drain-delay")
        for value in ("-1", "x", "nan", "inf", "-0.1", "1_0", "5 ", "3601")
    ),
    *(("idle-timeout", value, "from 1 to 3600") for value in ("0", "0.9", "-1", "3601", "none")),
    *(("access-log", value, "true or false") for value in ("maybe", "2", "tru", "truee")),
    *(("log-format", value, "text or json") for value in ("xml", "json5", "text,json")),
    *(
        ("version-label", value, "letters, digits")
        for value in ("a b", "v1;", "gr\u00fcn", '"', "1,2")
    ),
    *(
        ("labels", value, "key=value,… , at most 8")
        for value in (
            *(
                "zone",
                "=x",
                "9a=x",
                "a-b=x",
                "é=x",
                "__a=x",
                "version=x",
                "program_version=x",
                f"{'k' * 64}=x",
            ),
            *("a=1,a=2", "a=,a=", "a=1,", ",", "a=1, b=2"),
            ",".join(f"l{i}=" for i in range(9)),
        )
    ),
    *(
        ("trusted-proxies", value, "10.0.0.0/8,fd00::/8")
        for value in (
            *("10.0.0.1/8", "10.0.0.0/33", "10.0.0/8", "fd00::/129", "fd00::1/8", "*", "localhost"),
            *("10.0.0.0/255.0.0.0", "10.0.0.0/", "fe80::%1/64", "::ffff:10.0.0.0/104", "010.0.0.0"),
            *(
                "10.0.0.0/8,",
                ",",
                "10.0.0.0/8;fd00::/8",
                "10.0.0.0/8 fd00::/8",
                "1/8",
                "10.0.0.0/٨",
            ),
        )
    ),
    *(
        ("path-prefix", value, "a path such as /hello")
        for value in (
            *(
                "hello",
                "hello/",
                "//",
                "/hello//",
                "//hello",
                "/a//b",
                "/a b",
                "/h?x",
                "/h#x",
                "/%20",
            ),
            *("/h\u00e9llo", "/.", "/..", "/a/../b", "/a/./", "/a/..", "http://h/hello"),
            *("/a$", "/(a)", "/a:b", "/a+b"),
        )
    ),
    *(("faults", value, "true or false") for value in ("maybe", "2", "off")),
    *(
        ("log-level", value, "debug, info, warning, error, critical or warn")
        for value in ("trace", "10", "warned", "fatal")
    ),
    *(("address", value, "IP address") for value in ("a b", "-x", "1.2.3.4/8", "http://h", "a..b")),
    *(
        ("redis-url", value, "redis://")
        for value in (
            *("redis", "http://h", "redis:h", "redis://", "redis://h:x", "redis://h:0"),
            *("redis://h:65536", "redis://h/x", "redis://h/0/1", "redis://[::1", "redis://h#f"),
            *("unix:", "unix://host/path", "embedded:", "redis://h/0?db=x", "://", "redis://a b"),
        )
    ),
    *(
        ("redis-url", value, "redis://")
        for value in (
            *("redis+sentinel://h", "redis+sentinel://h/", "redis+sentinel:///m", "redis+x://h"),
            *("redis+sentinel://h,/m", "redis+sentinel://h:x/m", "redis+sentinel://h/m/x"),
            *("redis+sentinel://h/m/0/1", "redis+cluster://h/0", "redis+cluster://h,,h"),
            *("redis+cluster://", "redis+cluster://h:0", "unix+cluster://h"),
        )
    ),
    ("redis-url", "redis+cluster://h?ssl_ca_certs=ca.pem", "'?'"),
    *(("redis-wait", value, "0 to 1000") for value in ("-1", "one", "1001")),
    ("redis-url", "redis://h?db", "redis://"),
    ("redis-url", "redis://h?socket_timeout=9", "'?'"),
    ("redis-url", "redis://h?retry_on_timeout=true", "'?'"),
    ("redis-url", "redis://h?ssl_ca_certs=ca.pem", "'?'"),
    ("address", "1.2.3.4:80", "IP address"),
    ("redis-url", "rediss://h?ssl_cert_reqs=maybe", "ssl_cert_reqs"),
    ("redis-url", "rediss://h?ssl_check_hostname=maybe", "true or false"),
]


def variable(setting: str) -> str:
    return setting.upper().replace("-", "_")


def says(url: str) -> str:
    """What ``--redis-url`` is refused with."""
    with pytest.raises(config.SettingError) as error:
        config.load([f"--redis-url={url}"], {})
    return str(error.value)


def serves(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=PATIENCE).close()
    except OSError:
        return False
    return True


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as one:
            one.bind(("::1", 0))
    except OSError:
        return False
    return True


def stop(server: Program) -> list[str]:
    """End a program and return the lines of its log."""
    server.signal()
    assert server.wait() == 0
    return server.log.decode().splitlines()


# Where a setting comes from.


def test_defaults_are_the_contracts() -> None:
    settings = config.load([], {})
    assert {name: getattr(settings, name.replace("-", "_")) for name in SETTINGS} == SETTINGS


@pytest.mark.parametrize(("setting", "text", "value"), GOOD)
def test_flag_beats_variable_beats_default(setting: str, text: str, value: object) -> None:
    field = setting.replace("-", "_")
    other = next(str(one[1]) for one in [*GOOD[::-1], ("name", "me")] if one[0] == setting)
    for load in (
        lambda: config.load([f"--{setting}={text}"], {}),
        lambda: config.load([f"--{field}={text}"], {}),
        lambda: config.load([], {variable(setting): text}),
        lambda: config.load([f"--{setting}={text}"], {variable(setting): other}),
        lambda: config.load([f"--{setting}={text}"], {variable(setting): ""}),
    ):
        assert getattr(load(), field) == value
    default = SETTINGS[setting]
    assert getattr(config.load([], {variable(setting): ""}), field) == default


def test_variables_that_tools_set_to_something_else_are_left_alone() -> None:
    """As npm, conda and ``/etc/os-release`` export them."""
    settings = config.load([], {"PREFIX": "/usr/local", "VERSION": "24.04 LTS"})
    assert settings == config.load([], {})


def test_the_level_that_is_set_is_the_least_that_is_logged(program: Start) -> None:
    server = program("--redis-url=unix:/nowhere/redis.sock", LOG_LEVEL="Warn", wait=False)
    server.wait_for(b"counter off")
    server.signal()
    assert server.wait() == 0
    assert not re.search(rb"^.I ", server.log, re.MULTILINE)


def test_running_program_heeds_flag_then_variable_then_default(
    program: Start, valkey: Valkey
) -> None:
    server = program(
        "--name=flag",
        f"--redis_url={valkey.url}",
        NAME="variable",
        REDIS_URL="unix:/nowhere/redis.sock",
        LOG_FORMAT="json",
        PROCESSES="2",
        ACCESS_LOG="",
    )
    assert "<h3>Hello flag!</h3>" in server.get()[1]
    assert valkey.counter() == 1
    wait_until(lambda: len(children(server.process.pid)) == 2)
    lines = [json.loads(line) for line in stop(server)]
    assert [one["status"] for one in lines if "status" in one] == [200]
    for line in lines:
        assert all(isinstance(line[name], str) for name in ("time", "level", "logger", "message"))


def test_bare_boolean_flag_is_true(program: Start) -> None:
    server = program("--redis-url=unix:/nowhere/redis.sock", "--access-log", ACCESS_LOG="false")
    server.get("/nothing")
    assert any("404 GET /nothing" in line for line in stop(server))


def test_bad_variable_that_a_good_flag_overrides_is_no_error() -> None:
    for setting, value, _ in BAD:
        good = next(text for name, text, _ in GOOD if name == setting)
        config.load([f"--{setting}={good}"], {variable(setting): value})
    assert "no answer" in refused(
        run_here("--healthcheck", "--address=127.0.0.1", "--port=1", PORT="x"), 1
    )


def test_value_that_is_not_used_is_not_looked_at() -> None:
    assert config.load(["--name=me"], {"NAME": os.fsdecode(b"\xff")}).name == "me"


def test_switches_are_read_as_tornado_reads_them() -> None:
    assert config.load(["--access-log"], {"ACCESS_LOG": "false"}).access_log
    assert not config.load(["--access_log=FALSE"], {}).access_log
    assert config.load(["--healthcheck"], {}).healthcheck
    assert not config.load([], {"HEALTHCHECK": "true"}).healthcheck


# What is refused.


@pytest.mark.parametrize(("setting", "value", "allowed"), BAD)
def test_bad_value_is_refused_with_its_setting_and_what_is_allowed(
    setting: str, value: str, allowed: str
) -> None:
    for source, arguments, environment in (
        (f"--{setting}", [f"--{setting}={value}"], {}),
        (variable(setting), [], {variable(setting): value}),
    ):
        with pytest.raises(config.SettingError) as error:
            config.load(arguments, environment)
        message = str(error.value)
        assert message.startswith(f"{source}={value}: ")
        assert allowed in message.removeprefix(f"{source}={value}: ")
        assert message.isprintable()


@pytest.mark.parametrize("setting", sorted({setting for setting, _, _ in BAD}))
def test_bad_value_is_one_line_and_status_2_and_starts_nothing(setting: str, folder: Path) -> None:
    _, value, allowed = next(one for one in BAD if one[0] == setting)
    for run in (run_here, *([run_to_end] if setting == "port" else [])):
        good = {} if setting == "redis-url" else {"REDIS_URL": f"embedded:{folder / 'data'}"}
        by_flag = refused(run(f"--{setting}={value}", **good), 2)
        assert f"--{setting}={value}: " in by_flag
        by_variable = refused(run(**good | {variable(setting): value}), 2)
        assert f"{variable(setting)}={value}: " in by_variable
        assert allowed in by_flag
        assert allowed in by_variable
        assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("argument", "part"),
    [
        ("--no-such-flag", "--no-such-flag"),
        ("--nmae=me", "--nmae"),
        ("me", "me"),
        ("--", "--"),
        ("--port", "--port"),
        ("--name", "--name"),
        ("--redis_url", "--redis_url"),
        ("--redis-password-file=", "--redis-password-file="),
        ("--new\nline", r"--new\nline"),
    ],
)
def test_what_is_no_flag_or_has_no_value_is_one_line_and_status_2(argument: str, part: str) -> None:
    assert refused(run_here(argument), 2).startswith(f"{part}: ")


@pytest.mark.parametrize("value", ["x" * 129, "x\ny", "\x1b[1m", "\udce9" * 33])
def test_labels_values_are_128_printable_characters_at_the_most(value: str) -> None:
    with pytest.raises(config.SettingError, match="128 printable") as error:
        config.load([], {"LABELS": f"node={value}"})
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("text", "wait"),
    [
        ("0", config.Wait(0, 0)),
        ("200ms", config.Wait(200, 200)),
        ("100ms-2s", config.Wait(100, 2000)),
        ("0s-1.5s", config.Wait(0, 1500)),
        ("10s-10000ms", config.Wait(10_000, 10_000)),
    ],
)
def test_faults_may_be_there_from_the_start(text: str, wait: config.Wait) -> None:
    for rate in ("0", "1", "0.25", ".5", "1.000"):
        flags = [f"--fault-wait={text}", "--faults", f"--fault-rate={rate}"]
        settings = config.load(flags, {})
        assert (settings.fault_rate, settings.fault_wait) == (float(rate), wait)


@pytest.mark.parametrize(
    ("setting", "value", "allowed"),
    [
        *(
            ("fault-rate", value, "a number from 0 to 1")
            for value in ("-0.1", "1.1", "2", "x", "nan", "1e-3", "0,5", ".", "01")
        ),
        *(
            (
                "fault-wait",
                value,
                "0, a time up to 10s as in 200ms or 1.5s, or a range as in 100ms-2s",
            )
            for value in (
                *("1", "2s-1s", "-1s", "1s-", "1s-2s-3s", "11s", "10001ms", "0-1s", "1 s", "s"),
            )
        ),
    ],
)
def test_bad_faults_are_refused(setting: str, value: str, allowed: str) -> None:
    for source, flags, environment in (
        (f"--{setting}", [f"--{setting}={value}"], {}),
        (variable(setting), [], {variable(setting): value}),
    ):
        with pytest.raises(config.SettingError) as error:
            config.load([*flags, "--faults"], environment)
        assert str(error.value) == f"{source}={value}: allowed is {allowed}"


@pytest.mark.parametrize("faults", [[], ["--faults=false"]])
@pytest.mark.parametrize(
    ("setting", "value"), [("fault-rate", "0.1"), ("fault-wait", "1s"), ("start-wait", "1s")]
)
def test_faults_from_the_start_are_allowed_with_faults_only(
    setting: str, value: str, faults: list[str]
) -> None:
    for source, flags, environment in (
        (f"--{setting}", [f"--{setting}={value}"], {}),
        (variable(setting), [], {variable(setting): value}),
    ):
        with pytest.raises(config.SettingError) as error:
            config.load([*flags, *faults], environment)
        assert str(error.value) == f"{source}={value}: allowed is this only together with --faults"


@pytest.mark.parametrize(
    ("text", "seconds"), [("20s", 20), ("20", 20), ("1.5s", 1.5), ("500ms", 0.5), ("60m", 3600)]
)
def test_a_start_may_wait(text: str, seconds: float) -> None:
    assert config.load(["--faults", f"--start-wait={text}"], {}).start_wait == seconds


@pytest.mark.parametrize("text", ["x", "-1s", "1h", "3601", "61m", "1s-2s", "1e3"])
def test_a_start_does_not_wait_for_what_is_no_time(text: str) -> None:
    with pytest.raises(config.SettingError) as error:
        config.load(["--faults", f"--start-wait={text}"], {})
    allowed = "allowed is a time up to an hour, as in 500ms, 20s or 2m"
    assert str(error.value) == f"--start-wait={text}: {allowed}"


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("1KiB", 1024), ("1536KiB", 1536 * 1024), ("64MiB", 64 << 20), ("64GiB", 64 << 30)],
)
def test_a_size_is_read_and_written_alike(text: str, number: int) -> None:
    assert config.size(text) == number
    assert config.size_text(number) == text


def test_version_label_is_128_characters_at_the_most() -> None:
    assert config.load([], {"VERSION_LABEL": "x" * 128}).version_label == "x" * 128
    with pytest.raises(config.SettingError):
        config.load([], {"VERSION_LABEL": "x" * 129})


def test_prefix_is_128_characters_at_the_most_and_holds_no_line_end() -> None:
    for prefix in ("/" + "x" * 128, "/hello\n", "/a\\b"):
        with pytest.raises(config.SettingError):
            config.load([], {"PATH_PREFIX": prefix})


def test_name_that_is_not_utf_8_is_shown_with_escapes() -> None:
    name = os.fsdecode(b"caf\xe9 \xe4\xbd\xa0")
    assert config.load([], {"NAME": name}).name == "caf\\xe9 你"
    assert config.load([f"--name={name}"], {}).name == "caf\\xe9 你"


def test_help_lists_every_setting_on_standard_output() -> None:
    result = run_here("--help")
    assert (result.returncode, result.stderr) == (0, "")
    for setting, default in SETTINGS.items():
        about = re.search(rf"(?ms)^  --{setting} .*?(?=^  --)", result.stdout)
        assert about, setting
        if default not in (None, ""):
            shown = str(default).lower() if isinstance(default, bool) else str(default)
            assert f"default {shown})" in " ".join(about[0].split())
    listed = re.findall("(?m)^  --([a-z-]+) ", result.stdout)
    assert listed == [*SETTINGS, "healthcheck", "version", "help"]


def test_what_is_asked_for_may_have_no_reader_and_no_room() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        left, failed = (
            subprocess.run(
                [sys.executable, "server.py", flag],
                cwd=ROOT,
                stdout=stdout,
                stderr=subprocess.PIPE,
                text=True,
                timeout=PATIENCE,
            )
            for flag, stdout in (("--help", writing), ("--version", full))
        )
    finally:
        os.close(writing)
        os.close(full)
    assert (left.returncode, left.stderr) == (0, "")
    assert (failed.returncode, failed.stderr) == (
        2,
        "server.py: cannot write to standard output: No space left on device\n",
    )


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hush@h:99999",
        "redis://:hush@h/0?socket_timeout=1",
        "redis://user:hush@h/x",
        "REDIS://:hush@",
        "redis:/:hush@h",
        "//:hush@h",
        ":hush@h",
        "redis://:hush@quiet@h:x",
        "redis://:hush/quiet@h",
        "redis://:hush#quiet@h",
        "redis://:hush?quiet@h",
        "redis://:hush@quiet/mute#still?calm@h",
        "redis://:hush\nquiet@h",
        "redis://h?password=hush",
        "redis://h?db=0&password=hush",
        "redis://h?password=hush@quiet",
        "redis://h?password=hush/quiet#mute?still",
        "unix:///run/redis.sock?password=hush",
        "rediss://h?ssl_password=hush",
        "redis://:hush",
    ],
)
def test_password_of_a_url_is_never_shown(url: str) -> None:
    for message in (
        says(url),
        refused(run_here(f"--redis-ulr={url}"), 2),
        refused(run_here(url), 2),
        refused(run_here(REDIS_URL=url), 2),
    ):
        shown = message.partition("allowed is")[0]
        assert not re.search("hush|quiet|mute|still|calm", shown), message


# What cannot be had: status 1.


def test_port_that_is_taken_is_one_line_and_status_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refused(run_to_end("--address=127.0.0.1", f"--port={port}"), 1)
    assert f"port {port} of 127.0.0.1" in line
    assert "in use" in line


def test_address_that_is_not_to_be_had_is_one_line_and_status_1() -> None:
    with pytest.raises(StartError, match=r"cannot listen on port 0 of nowhere\.invalid: "):
        listen(config.load(["--address=nowhere.invalid", "--port=0"], {}))
    line = refused(run_to_end("--address=192.0.2.1", "--port=0"), 1)
    assert "cannot listen on port 0 of 192.0.2.1: " in line


def without_privileges(*flags: str) -> subprocess.CompletedProcess[str]:
    """Run the program as a user who may not listen on port 1 nor read what is not his.

    Root keeps being root, but without what makes root one (capabilities(7)). Where the system
    lets everybody listen everywhere, as in a container, its refusal is played.
    """
    drop = "".join(f"libc.prctl(24, {capability}, 0, 0, 0);" for capability in (1, 2, 10))
    everybody = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    play = (
        "import socket\n"
        "def bind(*_): raise PermissionError(13, 'Permission denied')\n"
        "socket.socket.bind = bind\n"
        if everybody.exists() and int(everybody.read_text()) <= 1 and "--port=1" in flags
        else ""
    )
    run = (
        f"{play}import runpy, sys\nsys.path[0] = {str(ROOT)!r}\n"
        "runpy.run_path('server.py', run_name='__main__')"
    )
    code = (
        "import ctypes, os, sys\nlibc = ctypes.CDLL(None)\n"
        f"{drop}\n"
        f"os.execv(sys.executable, [sys.executable, '-c', {run!r}, *sys.argv[1:]])"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def test_port_that_is_not_permitted_is_one_line_and_status_1() -> None:
    assert ctypes.CDLL(None).prctl is not None
    line = refused(without_privileges("--address=127.0.0.1", "--port=1"), 1)
    assert "port 1 of 127.0.0.1: Permission denied" in line
    assert "--port=4000" in line


def test_password_file_that_cannot_be_used_is_one_line_and_status_1(folder: Path) -> None:
    (folder / "folder").mkdir()
    (folder / "empty").touch()
    (folder / "newline").write_text("\n")
    (folder / "latin-1").write_bytes(b"p\xe9ss")
    for name, said in (
        ("missing", "No such file"),
        ("folder", "Is a directory"),
        ("empty", "the file is empty"),
        ("newline", "the file is empty"),
        ("latin-1", "not UTF-8"),
    ):
        for setting in ("redis_password_file", "redis_sentinel_password_file"):
            settings = config.Settings(**{setting: str(folder / name)})  # type: ignore[arg-type]
            with pytest.raises(config.SettingError, match=re.escape(f"{folder / name}: {said}")):
                new_visits(settings, Metrics())
    (folder / "forbidden").write_text("hush")
    (folder / "forbidden").chmod(0)
    line = refused(without_privileges("--port=0", f"--redis-password-file={folder}/forbidden"), 1)
    assert "forbidden: Permission denied" in line


def test_certificate_that_cannot_be_used_is_one_line_and_status_1(folder: Path) -> None:
    garbage = folder / "garbage.pem"
    garbage.write_text("garbage")
    url = "rediss://:hush@127.0.0.1:1/0?ssl_ca_certs="
    with pytest.raises(OSError, match=str(folder / "missing.pem")) as error:
        new_visits(config.Settings(redis_url=f"{url}{folder}/missing.pem"), Metrics())
    line = refused(run_to_end("--port=0", REDIS_URL=f"{url}{garbage}"), 1)
    assert str(garbage) in line
    assert "hush" not in f"{error.value}{line}"


# What the settings do.


def test_default_listens_on_every_interface(program: Start) -> None:
    server = program("--redis-url=unix:/nowhere/redis.sock")
    assert f"http://localhost:{server.port}/" in server.log.decode()
    assert serves("127.0.0.1", server.port)
    assert serves("::1", server.port) == has_ipv6()


@contextlib.contextmanager
def listening(*flags: str, processes: int = 1) -> Iterator[int]:
    """Listen as the program does, and return the port."""
    sockets = listen(config.load(["--port=0", *flags], {}), processes)
    try:
        yield int(sockets[0][0].getsockname()[1])
    finally:
        for one in {one for those in sockets for one in those}:
            one.close()


@pytest.mark.parametrize("processes", [1, 2])
def test_two_colons_are_every_interface_too(processes: int) -> None:
    with listening("--address=::", processes=processes) as port:
        assert serves("127.0.0.1", port)
        assert serves("::1", port) == has_ipv6()


def test_no_interface_but_those_of_ipv4_is_listened_on_where_that_is_said() -> None:
    with listening("--address=0.0.0.0") as port:
        assert serves("127.0.0.2", port)
        assert not serves("::1", port)


def test_address_is_the_only_one_listened_on() -> None:
    with listening("--address=127.0.0.1") as port:
        assert serves("127.0.0.1", port)
        assert not serves("127.0.0.2", port)
        assert not serves("::1", port)


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_address_may_be_of_ipv6(program: Start) -> None:
    server = program("--redis-url=unix:/nowhere/redis.sock", ADDRESS="::1")
    assert f"http://[::1]:{server.port}/" in server.log.decode()
    assert serves("::1", server.port)
    assert not serves("127.0.0.1", server.port)
    health = run_to_end("--healthcheck", "--address=::1", f"--port={server.port}")
    assert (health.returncode, health.stderr) == (0, "")


def test_port_0_of_the_environment_is_logged() -> None:
    environment = os.environ | {"PORT": "0", "REDIS_URL": "unix:/nowhere/redis.sock"}
    with subprocess.Popen(
        [sys.executable, "server.py"], cwd=ROOT, env=environment, stderr=subprocess.PIPE
    ) as process:
        try:
            assert process.stderr is not None
            assert select.select([process.stderr], [], [], 10)[0]
            line = process.stderr.readline().decode()
            match = re.search(r"listening on http://localhost:(\d+)/$", line.strip())
            assert match, line
            assert serves("127.0.0.1", int(match[1]))
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE)


def test_wrong_password_turns_the_counter_off_and_is_not_logged(
    program: Start, valkey: Valkey, folder: Path
) -> None:
    valkey.client.config_set("requirepass", "hush")
    (folder / "password").write_text("quiet\n")
    for flags in (
        [f"--redis-url={valkey.url}", f"--redis-password-file={folder / 'password'}"],
        [f"--redis-url=unix://:quiet@{valkey.path}"],
    ):
        server = program(*flags)
        assert server.visits() is None
        lines = stop(server)
        assert sum("counter off" in line for line in lines) == 1
        assert not any("hush" in line or "quiet" in line for line in lines)


def test_password_of_the_file_opens_redis_and_beats_the_one_of_the_url(
    counting: Start, valkey: Valkey, folder: Path
) -> None:
    valkey.client.config_set("requirepass", "hush hush é")
    (folder / "password").write_text("hush hush é\n")
    server = counting(
        f"--redis-url=unix://:quiet@{valkey.path}",
        f"--redis-password-file={folder / 'password'}",
    )
    assert server.visits() == 1
    assert not any("hush" in line or "quiet" in line for line in stop(server))


def test_access_log_may_be_off(program: Start) -> None:
    server = program("--redis-url=unix:/nowhere/redis.sock", ACCESS_LOG="false")
    for path in ("/", "/healthz", "/nothing"):
        server.get(path)
    lines = stop(server)
    assert not any(path in line for line in lines for path in ("GET", "/healthz", "/nothing"))
    assert any("stopping" in line for line in lines)


def test_idle_connection_is_kept_for_the_time_that_is_set(program: Start, connect: Connect) -> None:
    client = connect(program("--redis-url=unix:/nowhere/redis.sock", IDLE_TIMEOUT="1"))
    before = time.monotonic()
    client.request("GET", "/healthz")
    assert client.getresponse().read() == b'{"status": "ok"}'
    assert client.sock.recv(1) == b""  # not after the default's 75 s, which nobody waits for here
    assert time.monotonic() - before > 0.95
