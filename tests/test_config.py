"""The settings: where they come from, what they do, and what is said when they cannot be."""

import contextlib
import ipaddress
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import config
from server import StartError, listen
from tests.support import ROOT, Patch
from tests.support.here import Serve, refused, run_here
from tests.support.program import NOWHERE, Connect, run_to_end
from tests.support.valkey import Valkey


def same(*texts: str) -> dict[str, object]:
    return {text: text for text in texts}


def networks(*texts: str) -> tuple[object, ...]:
    return tuple(map(ipaddress.ip_network, texts))


#: Values that are taken, by their settings, each with what it means.
GOOD: dict[str, dict[str, object]] = {
    "name": {"Zoë <&>": "Zoë <&>", os.fsdecode(b"caf\xe9 \xe4\xbd\xa0"): "caf\\xe9 你"},
    "address": {
        **same("127.0.0.1", "::1", "localhost", "0.0.0.0", "fe80::1%eth0"),
        **{"::": None, "0:0::0": None},
    },
    "port": {"0": 0, "65535": 65535},
    "redis-url": same(
        *("redis://h", "redis://user:pass%40word@h:1/15", "redis://[::1]:6379"),
        *("rediss://h/0?ssl_cert_reqs=none", "unix:///run/redis.sock?db=1", "embedded:data"),
        *("redis+sentinel://a/mymaster", "redis+sentinel://a,b:26380,[::1]:1/my-master/2"),
        "rediss+sentinel://user:pass@a:1,b:2/m/0?ssl_cert_reqs=none",
        *("redis+cluster://a:7000,b", "rediss+cluster://:pass@a:7000/"),
    ),
    "redis-wait": {"1": 1},
    "redis-password-file": same("/run/secrets/redis"),
    "redis-timeout": {"0.5": 0.5},
    "processes": {"0": 0},
    "drain-delay": {"5": 5},
    "grace": {"0": 0, ".25": 0.25},
    "access-log": {"false": False, "TRUE": True, "0": False, "1": True},
    "log-format": dict.fromkeys(("json", "JSON", "Json"), "json"),
    "log-level": {
        **dict.fromkeys(("Warning", "WARN", "warn"), "warning"),
        **{"debug": "debug", "INFO": "info", "Error": "error", "CRITICAL": "critical"},
    },
    "idle-timeout": {"620": 620, "1": 1},
    "labels": {
        "zone=eu-1": {"zone": "eu-1"},
        "zone=eu-1,node=,_a9=x=y z": {"zone": "eu-1", "_a9": "x=y z"},
        "node=,zone=": {},
        os.fsdecode(b"zone=caf\xe9"): {"zone": "caf\\xe9"},
        "k" * 63 + "=" + "ü" * 128: {"k" * 63: "ü" * 128},
        ",".join(f"l{i}={i}" for i in range(8)): {f"l{i}": f"{i}" for i in range(8)},
    },
    "trusted-proxies": {
        "10.0.0.0/8, FD00::/8,::1": networks("10.0.0.0/8", "fd00::/8", "::1"),
        "0.0.0.0/0,::/0": networks("0.0.0.0/0", "::/0"),
    },
    "path-prefix": {
        **same("/hello", "/a/B-1._~/c", "/...", "/.a", "/" + "x" * 127),
        **{"/hello/": "/hello", "/": ""},
    },
    "version-label": same("v1.2.3-4-gabc+dirty", "registry/app@sha256:" + "f" * 64, "x" * 128),
    "faults": {"true": True},
    "fault-rate": {"0": 0, "1": 1, "0.25": 0.25, ".5": 0.5, "1.000": 1},
    "fault-wait": {
        **{"0": config.Wait(0, 0), "200ms": config.Wait(200, 200)},
        **{"100ms-2s": config.Wait(100, 2000), "0s-1.5s": config.Wait(0, 1500)},
        "10s-10000ms": config.Wait(10_000, 10_000),
    },
    "start-wait": {"20s": 20, "20": 20, "1.5s": 1.5, "500ms": 0.5, "60m": 3600},
}

#: Values that are refused, by their settings, and what is said to be allowed.
REFUSED: dict[tuple[str, str], list[str]] = {
    ("port", "65535"): ["-1", "65536", "x", "8_0", "80.0", " 80", "٨٠", "1e3", "0x50"],
    ("processes", "0"): ["-1", "1.5", "1025", "9999999999"],
    ("redis-timeout", "seconds"): ["0", "-1", "soon", "nan", "inf", "2s", "1e1", "3601"],
    ("grace", "seconds"): ["-1", "x", "nan", "-0.1", "1_0", "5 ", "3601"],
    ("drain-delay", "seconds"): ["-1", "3601"],
    ("idle-timeout", "from 1 to 3600"): ["0", "0.9", "-1", "3601", "none"],
    ("access-log", "true or false"): ["maybe", "2", "tru", "truee"],
    ("faults", "true or false"): ["maybe", "off"],
    ("log-format", "text or json"): ["xml", "json5", "text,json"],
    ("log-level", "debug, info, warning, error, critical or warn"): ["trace", "10", "warned"],
    ("version-label", "letters, digits"): ["a b", "v1;", "gr\u00fcn", '"', "1,2", "x" * 129],
    ("labels", "key=value,… , at most 8"): [
        *("zone", "=x", "9a=x", "a-b=x", "é=x", "__a=x", "version=x", "program_version=x"),
        f"{'k' * 64}=x",
        *("a=1,a=2", "a=,a=", "a=1,", ",", "a=1, b=2", ",".join(f"l{i}=" for i in range(9))),
    ],
    ("labels", "128 printable"): [
        *(f"node={value}" for value in ("x" * 129, "x\ny", "\x1b[1m", "\udce9" * 33)),
    ],
    ("trusted-proxies", "10.0.0.0/8,fd00::/8"): [
        *("10.0.0.1/8", "10.0.0.0/33", "fd00::/129", "localhost", "10.0.0.0/255.0.0.0", "1/8"),
        *("fe80::%1/64", "::ffff:10.0.0.0/104", "010.0.0.0", "10.0.0.0/8,", "10.0.0.0/٨"),
    ],
    ("path-prefix", "a path such as /hello"): [
        *("hello", "//", "/hello//", "/a//b", "/a b", "/h\u00e9llo", "/.", "/..", "/a/./", "/a/.."),
        *("/a$", "/a:b", "/" + "x" * 128, "/hello\n", "http://h/hello"),
    ],
    ("address", "IP address"): ["a b", "-x", "1.2.3.4/8", "http://h", "a..b", "1.2.3.4:80"],
    ("redis-wait", "0 to 1000"): ["-1", "one", "1001"],
    ("redis-url", "redis://"): [
        *("redis", "http://h", "redis:h", "redis://", "redis://h:x", "redis://h:0"),
        *("redis://h:65536", "redis://h/x", "redis://h/0/1", "redis://[::1", "redis://h#f"),
        *("unix:", "unix://host/path", "embedded:", "redis://h/0?db=x", "://", "redis://a b"),
        *("redis+sentinel://h", "redis+sentinel://h/", "redis+sentinel:///m", "redis+x://h"),
        *("redis+sentinel://h,/m", "redis+sentinel://h:x/m", "redis+sentinel://h/m/x"),
        *("redis+sentinel://h/m/0/1", "redis+cluster://h/0", "redis+cluster://h,,h"),
        *("redis+cluster://", "redis+cluster://h:0", "unix+cluster://h", "redis://h?db"),
    ],
    ("redis-url", "'?'"): [
        "redis://h?retry_on_timeout=true",
        "redis+cluster://h?ssl_ca_certs=ca.pem",
    ],
    ("redis-url", "ssl_cert_reqs"): ["rediss://h?ssl_cert_reqs=maybe"],
    ("redis-url", "true or false"): ["rediss://h?ssl_check_hostname=maybe"],
    ("fault-rate", "a number from 0 to 1"): ["-0.1", "1.1", "x", "1e-3", "0,5", ".", "01"],
    ("fault-wait", "0, a time up to 10s such as 200ms or 1.5s, or a range such as 100ms-2s"): [
        *("1", "2s-1s", "-1s", "1s-", "1s-2s-3s", "11s", "10001ms", "0-1s", "1 s", "s"),
    ],
    ("start-wait", "a time up to an hour, such as 500ms, 20s or 2m"): ["-1s", "3601", "61m"],
}


def refusal(*arguments: str, **environment: str) -> str:
    """What `config.load` says."""
    with pytest.raises(config.SettingError) as error:
        config.load(list(arguments), environment)
    assert str(error.value).isprintable()
    return str(error.value)


def sources(setting: str, value: str) -> list[tuple[list[str], dict[str, str]]]:
    """The places that a value may come from: flags and variables."""
    variable = setting.upper().replace("-", "_")
    return [([f"--{setting}={value}"], {}), ([], {variable: value})]


def serves(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as client:
        return client.connect_ex((host, port)) == 0


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


@pytest.mark.parametrize("setting", GOOD)
def test_flag_beats_variable_beats_default(setting: str) -> None:
    field = setting.replace("-", "_")
    other = {field.upper(): [*GOOD[setting]][-1]}
    for text, value in GOOD[setting].items():
        for flags, variables in (
            *sources(setting, text),
            ([f"--{field}={text}"], {field.upper(): ""}),
            ([f"--{setting}={text}"], other),
        ):
            settings = config.load(flags, {"FAULTS": "true"} | variables)
            assert getattr(settings, field) == value
    # What npm, conda and /etc/os-release export as something else is left alone.
    others = {"PREFIX": "/usr/local", "VERSION": "24.04 LTS", "HEALTHCHECK": "true"}
    assert config.load([], {field.upper(): ""} | others) == config.Settings()


def test_switches_are_read_as_tornado_reads_them() -> None:
    assert config.load(["--access-log", "--healthcheck"], {"ACCESS_LOG": "false"}) == (
        config.Settings(access_log=True, healthcheck=True)
    )


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("1KiB", 1024), ("1536KiB", 1536 * 1024), ("64GiB", 64 << 30)],
)
def test_a_size_is_read_and_written_alike(text: str, number: int) -> None:
    assert (config.size(text), config.size_text(number)) == (number, text)


@pytest.mark.parametrize(("setting", "allowed"), REFUSED)
def test_bad_value_is_refused_unless_a_good_flag_overrides_it(setting: str, allowed: str) -> None:
    good = f"--{setting}={next(iter(GOOD[setting]))}"
    for value in REFUSED[setting, allowed]:
        for flags, variables in sources(setting, value):
            source = [*flags, *map("=".join, variables.items())][0]
            message = refusal(*flags, **{"FAULTS": "true"} | variables)
            # What is long or odd is cut or escaped.
            plain = len(value) < 100 and value.isprintable() and "\\" not in value
            assert message.startswith(f"{source}: " if plain else source.partition("=")[0] + "=")
            assert allowed in (message.removeprefix(f"{source}: ") if plain else message)
            config.load([good], {"FAULTS": "true"} | variables)
    for length, shown in ((100, "x" * 100), (101, "x" * 99 + "…")):
        assert refusal(f"--port={'x' * length}").startswith(f"--port={shown}: allowed is")


def test_what_is_refused_is_one_line_and_status_2_and_starts_nothing(folder: Path) -> None:
    embedded = {"REDIS_URL": f"embedded:{folder / 'data'}"}
    for run in run_here, run_to_end:
        line = refused(run("--port=-1", **embedded), 2)
        assert line.startswith("--port=-1: ")
    assert not list(folder.iterdir())
    for argument in (
        *("--no-such-flag", "--nmae=me", "me", "--", "--port", "--name", "--redis_url"),
        *("--redis-password-file=", "--new\nline"),
    ):
        part = argument.removesuffix("=me").replace("\n", r"\n")
        assert refused(run_here(argument, **embedded), 2).startswith(f"{part}: ")


@pytest.mark.parametrize("faults", [[], ["--faults=false"]])
def test_faults_from_the_start_are_allowed_with_faults_only(faults: list[str]) -> None:
    for setting, value in ("fault-rate", "0.1"), ("fault-wait", "1s"), ("start-wait", "1s"):
        for flags, variables in sources(setting, value):
            said = refusal(*flags, *faults, **variables)
            assert said.endswith(f"={value}: allowed only together with --faults")


@pytest.mark.parametrize(
    ("flag", "status", "said"),
    [
        pytest.param("--help", 0, "", marks=pytest.mark.slow),
        ("--version", 2, "server.py: cannot write to standard output: No space left on device\n"),
    ],
)
def test_what_is_asked_for_may_have_no_reader_and_no_room(
    flag: str, status: int, said: str
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    if status:
        os.close(writing)
        writing = os.open("/dev/full", os.O_WRONLY)
    run = [sys.executable, "server.py", flag]
    done = subprocess.run(run, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (status, said)


SECRET = [
    *("redis://:hush@h:99999", "redis://:hush@h/0?socket_timeout=1", "redis://user:hush@h/x"),
    *("REDIS://:hush@", "redis:/:hush@h", "//:hush@h", ":hush@h", "redis://:hush@quiet@h:x"),
    *("redis://:hush/quiet@h", "redis://:hush#quiet@h", "redis://:hush?quiet@h"),
    *("redis://:hush@quiet/mute#still?calm@h", "redis://:hush\nquiet@h", "redis://:hush"),
    *("redis://h?password=hush", "redis://h?db=0&password=hush"),
    *("redis://h?password=hush@quiet", "redis://h?password=hush/quiet#mute?still"),
    *("unix:///run/redis.sock?password=hush", "rediss://h?ssl_password=hush"),
]


def test_password_of_a_url_is_never_shown() -> None:
    for url in SECRET:
        for said in (
            refusal(f"--redis-url={url}"),
            refusal(f"--redis-ulr={url}"),
            refusal(REDIS_URL=url),
            refusal(url),
        ):
            shown = said.partition("allowed is")[0]
            assert not re.search("hush|quiet|mute|still|calm", shown), shown


def test_port_that_is_not_to_be_had_is_one_line_and_status_1(
    served: Serve, monkeypatch: Patch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refused(run_to_end("--address=127.0.0.1", f"--port={port}"), 1)
    assert line == f"cannot listen on port {port} of 127.0.0.1: Address already in use"

    def bind(*args: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("socket.socket.bind", bind)
    said = "^cannot listen on port 80 of 127.0.0.1: Permission denied; try --port=4000$"
    with pytest.raises(StartError, match=said):
        served("--address=127.0.0.1", "--port=80")


def test_what_cannot_be_had_is_one_line_without_a_secret(served: Serve, folder: Path) -> None:
    (folder / "folder").mkdir()
    for name, content in ("empty", b""), ("newline", b"\n"), ("latin-1", b"p\xe9ss"):
        (folder / name).write_bytes(content)
    passwords = {
        **{"missing": "No such file", "folder": "Is a directory", "empty": "the file is empty"},
        **{"newline": "the file is empty", "latin-1": "not UTF-8"},
    }
    url = f"rediss://:hush@127.0.0.1:1/0?ssl_ca_certs={folder}"
    pair = f"ssl_certfile={folder}/empty", f"ssl_keyfile={folder}/missing"
    for flag, said in (
        ("address=nowhere.invalid", "cannot listen on port 0 of nowhere.invalid: "),
        ("address=192.0.2.1", "cannot listen on port 0 of 192.0.2.1: "),
        (f"redis-url={url}/missing", f"cannot use ssl_ca_certs={folder}/missing: "),
        (f"redis-url={url}/latin-1", f"cannot use ssl_ca_certs={folder}/latin-1: "),
        (
            f"redis-url=rediss://:hush@127.0.0.1:1/0?{'&'.join(pair)}",
            f"cannot use {', '.join(pair)}: ",
        ),
        (f"redis-sentinel-password-file={folder}/empty", f"{folder}/empty: the file is empty"),
        *(
            (f"redis-password-file={folder}/{one}", f"{folder}/{one}: {why}")
            for one, why in passwords.items()
        ),
    ):
        with pytest.raises(StartError, match=re.escape(said)) as error:
            served(f"--{flag}")
        assert str(error.value).isprintable()
        assert "hush" not in str(error.value)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    ("address", "hosts"),
    [
        *((address, ["127.0.0.1", "127.0.0.2", "::1"]) for address in ("", "::")),
        ("0.0.0.0", ["127.0.0.1", "127.0.0.2"]),
        ("127.0.0.1", ["127.0.0.1"]),
    ],
)
def test_address_says_which_interfaces_are_listened_on(
    address: str, hosts: list[str], processes: int
) -> None:
    sockets = listen(config.load([], {"ADDRESS": address}).address, 0, processes)
    port = int(sockets[0][0].getsockname()[1])
    serving = [one for one in ("127.0.0.1", "127.0.0.2", "::1") if serves(one, port)]
    for each in {one for those in sockets for one in those}:
        each.close()
    assert serving == [one for one in hosts if one != "::1" or has_ipv6()]


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_address_may_be_of_ipv6(served: Serve) -> None:
    server = served(NOWHERE, ADDRESS="::1")
    server.wait_for(rb"listening on http://\[::1\]:%d/" % server.port)
    assert (serves("::1", server.port), serves("127.0.0.1", server.port)) == (True, False)
    # And a bad variable beside a good flag is none.
    health = run_here("--healthcheck", "--address=::1", f"--port={server.port}", PORT="x")
    assert (health.returncode, health.stderr) == (0, "")


def test_wrong_password_turns_the_counter_off_and_is_not_logged(
    served: Serve, valkey: Valkey, folder: Path
) -> None:
    """The one of the file opens Redis, and beats the one of the URL."""
    valkey.client.config_set("requirepass", "hush hush é")
    file, other = folder / "password", f"--redis-url=unix://:quiet@{valkey.path}"
    for text, flags, visits in (
        ("quiet\n", [f"--redis-url={valkey.url}", f"--redis-password-file={file}"], None),
        ("", [other], None),
        ("hush hush é\n", [other, f"--redis-password-file={file}"], 1),
    ):
        file.write_text(text)
        server = served(*flags)
        assert server.visits() == visits
        lines = server.stop()
        assert sum("counter off" in line for line in lines) == (visits is None)
        assert not any("hush" in line or "quiet" in line for line in lines)


def test_access_log_may_be_off_and_the_level_is_the_least_that_is_logged(served: Serve) -> None:
    server = served(NOWHERE, ACCESS_LOG="false")
    paths = ("/", "/healthz", "/nothing")
    for path in paths:
        server.get(path)
    lines = server.stop()
    assert not any(word in line for line in lines for word in ("GET", *paths[1:]))
    assert any("stopping" in line for line in lines)
    server = served(NOWHERE, LOG_LEVEL="Warn")
    server.wait_for(b"counter off")
    for path in paths:
        server.get(path)
    assert {line[1] for line in server.stop()} == {"W"}


def test_idle_connection_is_kept_for_the_time_that_is_set(served: Serve, connect: Connect) -> None:
    client = connect(served(NOWHERE, IDLE_TIMEOUT="1"))
    before = time.monotonic()
    client.request("GET", "/healthz")
    assert client.getresponse().read() == b'{"status": "ok"}'
    assert client.sock.recv(1) == b""  # not after the default's 75 s, which nobody waits for here
    assert time.monotonic() - before > 0.95
