"""A bad argument of ``check.py`` is said in one line, which holds no secret."""

import pytest

from tests.audit.auditing import check, refused

PLACE = "allowed is HOST:PORT, IPv6 in brackets"
NO_URL = "not a URL such as http://localhost:4000"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        *(
            (url, f"{url}: {NO_URL}")
            for url in ("localhost:4000", "ftp://h", "http://", "http://.")
        ),
        *((url, f"{url}: {NO_URL}") for url in ("http://h:x", "http://h:99999", "http://h:0")),
        *((url, f"{url}: {NO_URL}") for url in ("http://a b", "http://a..b", "http://[::1")),
        *((url, NO_URL) for url in ("http://[::1]x:80", "http://h\n")),
        *((url, "the URL: not a URL") for url in ("http://me:secret@a b", "me:secret@h")),
        *((url, "no user is allowed in it") for url in ("http://me:secret@h", "http://@h")),
    ],
)
def test_a_bad_url_is_said_in_one_line_with_what_is_allowed(url: str, said: str) -> None:
    error = refused(url)
    assert said in error
    assert "secret" not in error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("http://h --requests=0", "argument --requests: "),
        ("http://h --requests=many", "argument --requests: "),
        ("http://h --duration=-1", "argument --duration: "),
        ("http://h --duration=nan", "argument --duration: "),
        ("http://h --concurrency=10001", "argument --concurrency: "),
        ("http://h --max-failures=-1", "argument --max-failures: "),
        ("http://h --max-uncounted=-1", "argument --max-uncounted: "),
        ("http://h --max-uncounted=101%", "argument --max-uncounted: "),
        ("http://h --max-uncounted=few", "argument --max-uncounted: "),
        ("http://h --wait=0", "argument --wait: "),
        ("http://h --wait=1 --replicas=0", "argument --replicas: "),
        ("http://h --replicas=3", "--replicas is allowed with --wait"),
        ("http://h --plot=/no/such/x.svg", "--plot /no/such/x.svg: No such file or directory"),
        ("http://h --plot=", "--plot : "),
        ("http://h --unknown", "--unknown"),
        ("http://h another", "another"),
        *(
            (f"http://h --connect={text}", f"argument --connect: {text!r}: {PLACE}")
            for text in (
                *("", "h", "h:", ":80", "h:0", "h:65536", "::1:80", "[::1]", "[::1]x:80"),
                *("[h]:80", "a/b:80"),
            )
        ),
        ("http://h --cacert=x", "--cacert is allowed with an https:// URL"),
        ("http://h --insecure", "--insecure is allowed with an https:// URL"),
        ("http://h --key=", "--key is allowed with an https:// URL"),
        ("https://h --insecure --cacert=x", "not allowed with argument --insecure"),
        ("https://h --key=x", "--key is allowed with --cert"),
        ("https://h --cacert=/no/such", "--cacert /no/such: No such file or directory"),
        ("https://h --cacert=", "--cacert : "),
        ("https://h --cert=/", "--cert /: Is a directory"),
        (f"https://h --cacert={__file__}", "allowed is a file of certificates in PEM"),
        (f"https://h --cert={__file__}", "allowed is a certificate and its unencrypted key"),
    ],
)
def test_a_bad_argument_is_said_in_one_line_with_what_is_allowed(arguments: str, said: str) -> None:
    assert said in refused(*arguments.split(" "))


@pytest.mark.parametrize(
    "header",
    [
        *("X", "a b: secret", "X : secret", ": secret", "X: secret\nY: z", "X: secret\r"),
        *("X: secret\0", "X: sécret", "Connection: close", "content-length: 0"),
        *("TRANSFER-ENCODING: chunked", "Accept-Encoding: gzip"),
    ],
)
def test_a_header_not_to_be_sent_is_refused_without_its_value(header: str) -> None:
    error = refused("http://h", f"--header={header}")
    assert error.startswith("argument --header: ")
    assert "allowed" in error
    assert "secret" not in error


def test_host_is_allowed_once_and_a_url_is_needed() -> None:
    twice = refused("http://h", "--header=Host: a", "--header=host: b")
    assert "--header Host is allowed once" in twice
    assert refused()


def test_help_says_what_the_exit_statuses_mean() -> None:
    result = check("--help")
    assert result.returncode == 0
    assert "exit status:" in result.stdout
