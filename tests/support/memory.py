"""A program that may use so much memory, and no more, where the machine lets a test say so."""

import contextlib
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

MOUNTED = Path("/sys/fs/cgroup")

#: Enters a control group, and becomes the program.
_ENTER = (
    "import os, sys\n"
    "_, group, *program = sys.argv\n"
    "if group:\n"
    "    open(f'{group}/cgroup.procs', 'w').write(str(os.getpid()))\n"
    "os.execv(sys.executable, [sys.executable, *program])\n"
)


class Group:
    """A control group, or nothing where none can be made.

    :arg path: its folder.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path

    @property
    def python(self) -> tuple[str, ...]:
        """What runs Python in it; see `Program`."""
        return sys.executable, "-c", _ENTER, str(self.path or "")

    @property
    def kills(self) -> int:
        """How many processes the system has killed for want of memory."""
        for name in ("memory.events", "memory.oom_control") if self.path else ():
            with contextlib.suppress(OSError):
                text = (self.path / name).read_text().split()  # type: ignore[operator]
                return int(text[text.index("oom_kill") + 1])
        return 0


@contextlib.contextmanager
def memory_group(most: int) -> Iterator[Group]:
    """Make a control group, of version 2 or 1, for the context.

    :arg most: bytes.
    """
    name = f"friendlyhello-{uuid.uuid4().hex}"
    for parent, limit in (MOUNTED, "memory.max"), (MOUNTED / "memory", "memory.limit_in_bytes"):
        group = parent / name
        if not (parent / "cgroup.procs").exists():
            continue
        with contextlib.ExitStack() as stack:
            try:
                group.mkdir()
                stack.callback(group.rmdir)  # its processes have ended
                (group / limit).write_text(str(most))
            except OSError:
                continue
            yield Group(group)
            return
    yield Group(None)
