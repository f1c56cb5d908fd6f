"""Kernels that need not load the libraries: each is forked from one process that has, and from nothing of hooklab's.

`kernels(environment)` starts that process and gives the class of kernel manager to run a notebook with. A kernel is a
process of its own, with its own folder, environment and memory; hooklab itself it imports anew. Run as a program, the
file is the process to fork from (`host ADDRESS`) or what a kernel manager starts and ends (`kernel ADDRESS ARGUMENTS`).
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LIBRARIES = ("torch", "transformers", "transformers.modeling_utils", "transformers.models.gpt2.modeling_gpt2",
             "transformers.models.llama.modeling_llama", "nnsight", "matplotlib.pyplot", "anywidget", "ipykernel.kernelapp")
PATIENCE = 120
"""Seconds after which the libraries should be loaded."""


@contextmanager
def kernels(environment: dict[str, str]) -> Iterator[type]:
    """The class of managers whose kernels are forked from a process with this environment, which lives as long."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    folder = tempfile.TemporaryDirectory()  # the name of a socket must be short
    address = f"{folder.name}/host"
    command = [sys.executable, __file__, "kernel", address, "-f", "{connection_file}"]

    class Forked(AsyncKernelManager):
        kernel_spec = KernelSpec(argv=command, display_name="Python 3", language="python", interrupt_mode="message")

    host = subprocess.Popen([sys.executable, __file__, "host", address], stdin=subprocess.PIPE,
                            env={**environment, "MPLBACKEND": "module://matplotlib_inline.backend_inline"})
    try:
        yield Forked
    finally:
        host.communicate()
        folder.cleanup()


def serve(address: str) -> None:
    """Load the libraries and fork a kernel for everyone who asks, until the standard input ends."""
    for name in LIBRARIES:
        importlib.import_module(name)
    assert threading.active_count() == 1, "a process with threads cannot be forked safely"
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(address)
        door.listen()
        while door in select.select([door, sys.stdin], [], [])[0]:
            caller, _ = door.accept()
            if not os.fork():
                door.close()
                _become_kernel(caller)
            caller.close()
    os._exit(0)


def _become_kernel(caller: socket.socket) -> None:
    """Never returns; the caller hears of the end because its line is cut, and cuts it to end the kernel."""
    with caller.makefile() as lines:
        wish = json.loads(lines.readline())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    os.chdir(wish["folder"])
    os.environ.clear()
    os.environ.update(wish["environment"])
    sys.argv = ["ipykernel_launcher", *wish["arguments"]]
    sys.path.remove(str(Path(__file__).parent))
    threading.Thread(target=lambda: (caller.recv(1), os._exit(1)), daemon=True).start()
    from ipykernel.kernelapp import launch_new_instance

    try:
        launch_new_instance()
    finally:
        os._exit(0)


def wait(address: str, *arguments: str) -> None:
    """Ask for a kernel with these arguments, here and now, and wait until it ends."""
    end = time.monotonic() + PATIENCE
    while not Path(address).exists() and time.monotonic() < end:
        time.sleep(0.05)
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(address)
        wish = {"arguments": arguments, "folder": str(Path.cwd()), "environment": dict(os.environ)}
        line.sendall(json.dumps(wish).encode() + b"\n")
        line.recv(1)


if __name__ == "__main__":
    {"host": serve, "kernel": wait}[sys.argv[1]](*sys.argv[2:])
