"""Run the program as a host of another name would: ``HOSTNAME=web-1 python replica.py``.

SILENT_AFTER may say when another replica counts as silent, which a busy machine is late to look at.
"""

import importlib
import os
import runpy
import socket
import sys
from pathlib import Path

SERVER = Path(__file__).parent.parent.parent / "server.py"

socket.gethostname = lambda: os.environ["HOSTNAME"]
sys.argv[0] = str(SERVER)
sys.path[0] = str(SERVER.parent)

states = importlib.import_module("replicas.states")
vars(states)["SILENT_AFTER"] = float(os.environ.get("SILENT_AFTER", states.SILENT_AFTER))
runpy.run_path(str(SERVER), run_name="__main__")
