"""Real stores, each by each way to it: what is promised of counting, and of the live page."""

import contextlib
import re
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import trustme

from tests.container.conftest import Figure
from tests.container.engine import docker
from tests.stores.machines import STORES, Proxy, Store
from tests.support import ROOT
from tests.support.program import Start
from tests.support.waiting import wait_until

#: A store, and the URL of a way to it.
Way = contextlib.AbstractContextManager[tuple[Store, str]]

EXACTLY, AT_MOST = "exactly once", "at most once"


@contextlib.contextmanager
def alone(name: str, *lines: str, user: str = "") -> Iterator[tuple[Store, str]]:
    with contextlib.closing(Store(name, *lines)) as store:
        yield store, f"redis://{user}127.0.0.1:{store.port}"


@contextlib.contextmanager
def behind(kind: str, name: str) -> Iterator[tuple[Store, str]]:
    with alone(name) as (store, _), contextlib.closing(Proxy(kind, store)) as proxy:
        yield store, f"redis://127.0.0.1:{proxy.port}"


@contextlib.contextmanager
def over_tls(name: str) -> Iterator[tuple[Store, str]]:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    (chain,) = certificate.cert_chain_pems
    blobs = {
        "ca.pem": authority.cert_pem,
        "cert.pem": chain,
        "key.pem": certificate.private_key_pem,
    }
    pems = {file: blob.bytes().decode() for file, blob in blobs.items()}
    with contextlib.closing(Store(name, pems=pems)) as store:
        yield store, f"rediss://127.0.0.1:{store.port}?ssl_ca_certs={store.folder}/ca.pem"


#: The two lists of docs/counting.md: to count exactly once, and at most once.
USERS = re.findall(r"^on >secret .*$", (ROOT / "docs/counting.md").read_text(), re.MULTILINE)


def allowed(which: int, name: str) -> Way:
    return alone(name, f"user hello {USERS[which]}", user="hello:secret@")


WAYS: dict[str, tuple[Callable[[str], Way], str]] = {
    "alone": (alone, EXACTLY),
    "HAProxy": (partial(behind, "HAProxy"), EXACTLY),
    "twemproxy": (partial(behind, "twemproxy"), EXACTLY),
    "TLS": (over_tls, EXACTLY),
    "the longer list": (partial(allowed, 0), EXACTLY),
    "the shorter list": (partial(allowed, 1), AT_MOST),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", STORES)
def test_it_counts_as_documented_through_a_cut_and_a_restart(
    name: str, way: str, program: Start, figure: Figure
) -> None:
    assert len(USERS) == 2
    make, counting = WAYS[way]
    with make(name) as (store, url):
        server = program(f"--redis-url={url}", "--redis-timeout=5")

        def visits() -> list[int | None]:
            """Visit until it counts, and some more."""
            return [wait_until(server.visits), *(server.visits() for _ in range(20))]

        shown = visits()
        store.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        shown += visits()
        _, ready = server.get("/readyz")
        assert f'"counting": "{counting}"' in ready
        event = server.event()
        if event["redis"] == "up":
            page = "in part" if event.get("refused") or not event["replicas"] else "yes"
        else:
            page = "no"
            assert event["reason"]
        docker("kill", store.id)
        wait_until(lambda: server.visits() is None)
        docker("start", store.id)
        shown += visits()
        server.signal()
        assert server.wait() == 0
        counter = int(store.client.get("counter") or 0)
        if counting == EXACTLY:
            assert (shown, counter) == (list(range(1, len(shown) + 1)), len(shown))
        else:
            assert shown == sorted(set(shown)), "a number is shown once"
            assert counter >= len(shown)
    figure(f"{name}, {way}", f"{counting}; live page: {page}")
