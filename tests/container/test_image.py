"""What the image is made of."""

import itertools
import json
import os
import shutil
from datetime import datetime
from pathlib import Path
from unittest.mock import ANY

from config import VERSION
from tests.container.conftest import Figure, Run
from tests.container.engine import RUN, build, docker, first_page, inspect, layers
from tests.support import ROOT
from tests.support.waiting import wait_until

#: Bytes that the image may add to its base.
MOST_ADDED = 45_000_000

#: Prints what a user finds in the image as JSON: files that are not root's among the program's,
#: and whatever anybody but root may write to.
LOOK = """
import json, os, shutil
ours, foreign, writable = [], [], []
for top in os.listdir("/"):
    if top in ("proc", "sys", "dev"):
        continue
    for folder, _, files in os.walk("/" + top):
        for path in [folder, *(os.path.join(folder, file) for file in files)]:
            if folder.startswith(("/app", "/opt/venv")):
                ours.append(path)
                if os.lstat(path).st_uid or os.lstat(path).st_gid:
                    foreign.append(path)
            if not os.path.islink(path) and os.access(path, os.W_OK):
                writable.append(path)
tools = [one for one in ("cc", "gcc", "g++", "clang", "make", "ld", "cargo") if shutil.which(one)]
print(json.dumps({"ours": ours, "foreign": foreign, "writable": writable, "tools": tools}))
"""


def look(image: str) -> dict[str, list[str]]:
    """Return what `LOOK` finds, as the user that the image runs as."""
    return json.loads(docker("run", "--rm", image, "python", "-c", LOOK))


def test_it_adds_little_to_its_base_and_nothing_to_make_or_test_the_program(
    image: str, python_image: str, figure: Figure
) -> None:
    size, base = (inspect("image", one)["Size"] for one in (image, python_image))
    figure("image", f"{(size - base) / 1e6:.1f} MB on a base of {base / 1e6:.0f} MB")
    assert size - base <= MOST_ADDED
    found = look(image)
    assert {"/app/server.py", "/app/check.py"} <= {*found["ours"]}
    parts = {part for path in found["ours"] for part in Path(path).parts[2:4]}
    assert not parts & {".git", ".ci", "tests", "bench", "deploy", "Makefile", "Dockerfile"}
    assert not found["tools"]
    # Nor pip, nor its cache.
    files = "ls -A ~root /tmp /var/tmp; find /opt -name pip -o -name 'pip-*' -o -name 'pip[0-9]*'"
    ours, theirs = (
        {*docker("run", "--rm", "--user=0", one, "sh", "-c", files).splitlines()}
        for one in (image, python_image)
    )
    assert ours <= theirs


def test_files_are_roots_and_it_runs_as_a_user_that_cannot_write_them_and_has_no_name(
    image: str, run: Run
) -> None:
    found = look(image)
    assert found["foreign"] == []
    assert set(found["writable"]) <= {"/tmp", "/var/tmp", "/run/lock"}  # for everybody, in Debian
    assert inspect("image", image)["Config"]["User"] == "10001:10001"
    status = run(image).exec("cat", "/proc/1/status")
    for kind in ("Uid", "Gid"):
        assert f"{kind}:\t10001\t10001\t10001\t10001" in status


def test_another_build_after_a_change_of_a_handler_reuses_the_dependencies(
    image: str, checkout: Path, python_image: str, tmp_path: Path
) -> None:
    copy = shutil.copytree(checkout, tmp_path / "changed")
    with (copy / "handlers" / "health.py").open("a") as handler:
        handler.write("\n# changed\n")
    one, other = layers(image), layers(build(copy, "changed", python_image))
    base = len(layers(python_image))
    assert one[: base + 1] == other[: base + 1], "the layer with the dependencies was made anew"
    assert one != other


def test_a_checkout_of_any_umask_makes_the_same_image_which_runs_as_any_user_and_writes_nothing(
    image: str, checkout: Path, python_image: str, run: Run, tmp_path: Path
) -> None:
    private = shutil.copytree(checkout, tmp_path / "private")
    for path, mask in zip((private, *private.rglob("*")), itertools.cycle((0o077, 0o000))):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)
    other = build(private, "umask", python_image)
    assert look(other) == look(image)
    # As OpenShift does: a number without a name, in the group of root, and a port above 1023.
    flags = ("--user=1000680000:0", "--cap-drop=ALL", "--env=PORT=8080", "--env=HOME=")
    web = run(other, "--publish=127.0.0.1::8080", *flags)
    url = "http://" + docker("port", web.id, "8080/tcp").splitlines()[0]
    greeting = f"<h3>Hello World!</h3><b>Hostname:</b> {web.short_id}<br/>"
    assert first_page(url).startswith(greeting)
    wait_until(lambda: web.health == "healthy")
    assert web.exec("python", "check.py", "--help").startswith("usage: check.py")
    assert docker("diff", web.id) == ""
    web.stop()
    assert web.state["ExitCode"] == 0, web.logs()


def labels(image: str) -> dict[str, str]:
    every, prefix = inspect("image", image)["Config"]["Labels"], "org.opencontainers.image."
    return {name.removeprefix(prefix): every[name] for name in every if name.startswith(prefix)}


def test_its_labels_say_where_it_comes_from_when_its_build_does(
    image: str, checkout: Path, python_image: str
) -> None:
    own = {"title": "friendlyhello", "version": VERSION, "description": ANY}
    assert labels(image) == own, "none is empty"
    source, commit, created = "https://example.com/hello", "0" * 40, "2026-11-29T20:00:00Z"
    told = {"SOURCE": source, "COMMIT": commit, "CREATED": created, "URL": "https://hello.example"}
    assert labels(build(checkout, "labelled", python_image, **told)) == own | {
        **{"source": source, "documentation": source, "url": told["URL"]},
        **{"revision": commit, "created": created},
    }
    assert labels(build(checkout, "labelled", python_image, SOURCE=source)) == own


def test_the_one_of_bake_is_healthy_before_others_are_checked_first(
    image: str, run: Run, figure: Figure, tmp_path: Path
) -> None:
    override = tmp_path / "override.hcl"
    plain = f'contexts = {{ plain = "docker-image://{image}" }}'
    override.write_text(f'target "default" {{\n{plain}\n}}\n')
    files = (f"--file={ROOT / 'docker-bake.hcl'}", f"--file={override}")
    env = os.environ | {"IMAGE": f"{RUN}/baked"}
    docker("buildx", "bake", *files, "--load", "default", env=env)

    def seconds() -> float:
        web = run(f"{RUN}/baked:latest")
        wait_until(lambda: web.health == "healthy")
        begun, end = web.state["StartedAt"], web.state["Health"]["Log"][-1]["End"]
        web.stop()
        return (datetime.fromisoformat(end) - datetime.fromisoformat(begun)).total_seconds()

    every = [seconds() for _ in range(3)]
    figure("healthy, as docker buildx bake makes it, after", ", ".join(f"{s:.2f} s" for s in every))
    first_check = inspect("image", image)["Config"]["Healthcheck"]["Interval"] / 1e9
    assert min(every) < first_check == 4, "on a machine that is not busy, it takes 0.35 s"
