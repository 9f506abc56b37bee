"""A bad argument of ``check.py`` is said in one line, which holds no secret."""

import shlex

import pytest

from tests.audit.conftest import check, refused

#: Of each line what it says, and command lines that get it.
BAD_URLS = {
    "not a URL such as http://localhost:4000": [
        *("localhost:4000", "ftp://h:21", "http://", "http://.", "http://h:x", "http://h:99999"),
        *("http://h:0", "'http://a b'", "http://[::1", "http://[::1]x:80", "'http://h\n'"),
    ],
    "http://a..b: not a URL": ["http://a..b"],
    "the URL: not a URL": ["'http://me:secret@a b'", "me:secret@h"],
    "no user is allowed in it": ["http://me:secret@h", "http://@h"],
    "the following arguments are required: URL": [""],
    "unrecognized arguments: another": ["http://h another"],
}
BAD_FLAGS = {
    "argument --requests: ": ["--requests=0", "--requests=many"],
    "argument --duration: ": ["--duration=-1", "--duration=nan"],
    "argument --concurrency: ": ["--concurrency=10001"],
    "argument --max-failures: ": ["--max-failures=-1", "--max-failures=100000001"],
    "argument --max-uncounted: ": [f"--max-uncounted={bad}" for bad in ("-1", "101%", "few")],
    "argument --wait: ": ["--wait=0"],
    "argument --replicas: ": ["--wait=1 --replicas=0"],
    "--replicas is allowed with --wait": ["--replicas=3"],
    "--plot /no/such/x.svg: No such file or directory": ["--plot=/no/such/x.svg"],
    "--plot : ": ["--plot="],
    "--unknown": ["--unknown"],
    **{
        f"argument --connect: {bad!r}: allowed is HOST:PORT, IPv6 in brackets": [f"--connect={bad}"]
        for bad in (
            *("", "h", "h:", ":80", "h:0", "h:65536", "::1:80", "[::1]", "[::1]x:80", "[h]:80"),
            "a/b:80",
        )
    },
    "--cacert is allowed with an https:// URL": ["--cacert=x"],
    "--insecure is allowed with an https:// URL": ["--insecure"],
    "--key is allowed with an https:// URL": ["--key="],
    "argument --header: allowed is 'Name: value'": [
        f"--header={bad}" for bad in ("X", "'a b: secret'", "'X : secret'", "': secret'")
    ],
    "a value of printable ASCII in one line is allowed": [
        f"--header='X: {bad}'" for bad in ("secret\nY: z", "secret\r", "secret\0", "sécret")
    ],
    "any is allowed but Accept-Encoding, Connection, Content-Length, Transfer-Encoding": [
        *("--header='Connection: secret'", "--header='content-length: 0'"),
        *("--header='TRANSFER-ENCODING: chunked'", "--header='Accept-Encoding: gzip'"),
    ],
    "--header Host is allowed once": ["--header='Host: secret' --header='host: b'"],
}
BAD_TLS = {
    "not allowed with argument --insecure": ["--insecure --cacert=x"],
    "--key is allowed with --cert": ["--key=x"],
    "--cacert /no/such: No such file or directory": ["--cacert=/no/such"],
    "--cacert : ": ["--cacert="],
    "--cert /: Is a directory": ["--cert=/"],
    "allowed is a file of certificates in PEM": [f"--cacert={__file__}"],
    "allowed is a certificate and its unencrypted key": [f"--cert={__file__}"],
}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"{before}{line}", said)
        for before, bad in (("", BAD_URLS), ("http://h ", BAD_FLAGS), ("https://h ", BAD_TLS))
        for said, lines in bad.items()
        for line in lines
    ],
)
def test_a_bad_argument_is_said_in_one_line_with_what_is_allowed(line: str, said: str) -> None:
    error = refused(*shlex.split(line))
    assert said in error
    assert "secret" not in error


def test_help_says_what_the_exit_statuses_mean() -> None:
    result = check("--help")
    assert (result.returncode, "exit status:" in result.stdout) == (0, True)
