"""deploy/systemd/ under systemd itself, as process 1 of a container."""

import contextlib
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.container.conftest import Figure
from tests.container.engine import Container, build, counted, get, number, succeeds, systemd_base
from tests.docs.console import blocks
from tests.support.waiting import wait_until

#: What systemd needs of a container, where --privileged may not be allowed.
FLAGS = (
    *("--cap-add=SYS_ADMIN", "--security-opt=seccomp=unconfined"),
    *("--security-opt=apparmor=unconfined", "--cgroupns=private"),
    *("--tmpfs=/run", "--tmpfs=/tmp", "--env=container=docker"),
)


@pytest.fixture(scope="module")
def systemd_image(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A machine with the page as its service."""
    context = tmp_path_factory.mktemp("systemd")
    shutil.copytree(checkout, context, dirs_exist_ok=True)
    (context / ".dockerignore").unlink()  # which is for the image of the page
    shutil.copy(Path(__file__).parent / "systemd" / "Dockerfile", context)
    return build(context, "systemd", systemd_base())


def commands(heading: str) -> list[list[str]]:
    """Return the commands below a heading of docs/systemd.md, block by block."""
    every = [block for block in blocks("docs/systemd.md") if block[0].section == heading]
    return [[shown.command.removeprefix("sudo ") for shown in block] for block in every]


class Machine(Container):
    """A container whose process 1 is systemd, and on which the service has been started."""

    def __init__(self, image: str) -> None:
        super().__init__(image, *FLAGS)
        wait_until(lambda: succeeds("docker", "exec", self.id, "systemctl", "is-system-running"))

    def systemctl(self, *arguments: str) -> str:
        return self.exec("systemctl", *arguments)

    def tells(self, name: str) -> str:
        return self.systemctl("show", "--value", f"--property={name}", "friendlyhello")

    def journal(self) -> str:
        return self.exec("journalctl", "--unit=friendlyhello", "--output=cat", "--no-pager")

    @property
    def url(self) -> str:
        return f"http://{self.address}/"

    def counted(self) -> int:
        return counted(self.url)  # Valkey may be a moment later

    def follow(self, *lines: str) -> None:
        for line in lines:
            self.exec("sh", "-ec", line)


@pytest.fixture(scope="module")
def machine(systemd_image: str) -> Iterator[Machine]:
    """One for all tests that leave it as it was."""
    with contextlib.closing(Machine(systemd_image)) as one:
        # Tests start the service more often than systemd starts a unit in ten seconds.
        folder = "/etc/systemd/system/friendlyhello.service.d"
        limit = f"printf '[Unit]\nStartLimitIntervalSec=0\n' >{folder}/often.conf"
        one.follow(f"mkdir {folder}", limit, "systemctl daemon-reload")
        yield one


def test_it_counts_as_a_service_that_may_do_nothing_else(machine: Machine, figure: Figure) -> None:
    assert machine.tells("ActiveState") == "active", "it has said that it is ready"
    assert machine.counted()
    status = machine.exec("cat", f"/proc/{machine.tells('MainPID')}/status")
    for line in (
        *(r"Uid:(\t6[1-5]\d{3}){4}", "NoNewPrivs:\t1", "Seccomp:\t2"),
        *(f"Cap{kind}:\t0*400" for kind in ("Prm", "Eff", "Bnd", "Amb")),
    ):
        assert re.search(f"^{line}$", status, re.MULTILINE), line
    rating = machine.exec("systemd-analyze", "security", "--no-pager", "friendlyhello")
    figure("systemd-analyze security", rating.splitlines()[-1].partition(": ")[2])


def test_it_stops_whole_and_goes_on_from_its_number(machine: Machine) -> None:
    last = machine.counted()
    machine.systemctl("stop", "friendlyhello")
    assert (machine.tells("Result"), machine.tells("ExecMainStatus")) == ("success", "0")
    running = machine.exec("sh", "-c", "cat /proc/[0-9]*/cmdline; true")
    assert "systemd" in running
    assert "friendlyhello" not in running, "server, keeper or Valkey"
    wait_until(lambda: "stopping" in machine.journal())
    machine.systemctl("start", "friendlyhello")
    assert machine.counted() == last + 1


def test_its_settings_are_a_file_and_a_bad_one_is_a_line_in_the_journal(machine: Machine) -> None:
    settings = "printf 'NAME=Ada\nPROCESSES=2\n' >/etc/friendlyhello.conf"
    machine.follow(settings, "systemctl restart friendlyhello")
    assert "<h3>Hello Ada!</h3>" in get(machine.url)
    assert "reception only permitted" not in machine.journal()
    machine.follow("echo PORT=http >/etc/friendlyhello.conf", "! systemctl restart friendlyhello")
    said = "PORT=http: allowed is a whole number from 0 to 65535"
    assert machine.tells("ActiveState") == "failed", "it is not started again: it would fail again"
    wait_until(lambda: said in machine.journal())
    assert machine.journal().count(said) == 1
    machine.follow("rm /etc/friendlyhello.conf", "systemctl restart friendlyhello")


def test_what_its_page_says_brings_a_backup_back_and_removes_all_of_it(systemd_image: str) -> None:
    with contextlib.closing(Machine(systemd_image)) as machine:
        assert [machine.counted() for _ in range(2)] == [1, 2]
        backup, restore = commands("Back up and restore")
        machine.follow(*backup)
        assert [machine.counted() for _ in range(2)] == [3, 4]
        machine.follow(*restore)
        assert machine.counted() == 3
        (remove,) = commands("Remove")
        machine.follow("touch /etc/friendlyhello.conf", *remove)
        states = [f"/var/{kind}{own}" for kind in ("lib", "cache") for own in ("", "/private")]
        left = machine.exec("ls", "/etc", "/etc/systemd/system", "/opt", *states)
        assert "friendlyhello" not in left


def test_with_its_socket_a_restart_refuses_nobody(machine: Machine, figure: Figure) -> None:
    machine.systemctl("stop", "friendlyhello")
    machine.systemctl("enable", "--now", "friendlyhello.socket")
    assert number(machine.url), "the first client starts it"
    restarts = ThreadPoolExecutor(1).submit(
        lambda: [machine.systemctl("restart", "friendlyhello") for _ in range(3)]
    )
    pages = 0
    while not restarts.done():
        get(machine.url)
        pages += 1
    restarts.result()
    figure("pages during three restarts by systemd, none refused", str(pages))
    assert pages > 3
    machine.follow(
        "python3 /opt/friendlyhello/friendlyhello.pyz --healthcheck",
        "systemctl disable --now friendlyhello.socket",
        "systemctl restart friendlyhello",
    )
