"""Run the program as a host of another name would: ``HOSTNAME=web-1 python replica.py``."""

import os
import runpy
import socket
import sys
from pathlib import Path

SERVER = Path(__file__).parent.parent.parent / "server.py"

socket.gethostname = lambda: os.environ["HOSTNAME"]
sys.argv[0] = str(SERVER)
sys.path[0] = str(SERVER.parent)
runpy.run_path(str(SERVER), run_name="__main__")
