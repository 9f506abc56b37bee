"""A password in a file that may change, or go."""

import os
import subprocess
from pathlib import Path

from process import PasswordFile
from tests.support import Caplog


def test_without_its_file_the_last_password_is_used(tmp_path: Path, caplog: Caplog) -> None:
    file = tmp_path / "password"
    file.write_text("hush")
    password = PasswordFile(str(file), "--redis-password-file")
    file.write_text("")
    assert [password(), password()] == ["hush", "hush"]
    file.unlink()
    assert password() == "hush"
    assert len(caplog.records) == 1
    assert "hush" not in caplog.text
    file.write_text("new")
    assert password() == "new"
    file.unlink()
    os.mkfifo(file)  # it is read once
    with subprocess.Popen(["sh", "-c", f"echo piped >{file}"]):
        password = PasswordFile(str(file), "--redis-password-file")
    assert [password(), password()] == ["piped", "piped"]
