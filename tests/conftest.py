"""What every test runs under: one thread, quiet libraries, nothing fetched. And what tests in a browser share."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest


def pytest_configure(config):
    """Prepare the libraries, except in a process that only hands out tests to others."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        import torch
        import transformers

        torch.set_num_threads(1)
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()


def pytest_collection_finish():
    """The million objects that libraries and tests consist of stay to the end: collecting garbage need not visit them."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """How tests are handed out where nothing else is asked for."""
    if config.getoption("dist") == "loadfile":
        from schedule import Files

        return Files(config, log)


@pytest.fixture(autouse=True, scope="session")
def interruptible():
    """A process that was started in the background ignores interrupts, and so do its children; the tests send them."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def seeded():
    """A fixed seed for every test, and the process's own random state back afterwards.

    `torch.manual_seed` writes down its caller for every kind of device that is not in use, which takes longer than many
    a test and is kept for ever.
    """
    import torch

    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(0)
        yield


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """A real IPython shell with the magic, in its own folder."""
    from IPython.core.interactiveshell import InteractiveShell

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.delattr("builtins._", raising=False)
    monkeypatch.chdir(tmp_path)
    InteractiveShell.clear_instance()
    made = InteractiveShell.instance()
    made.history_manager.enabled = False
    hook, traceback = sys.displayhook, sys.excepthook
    made.run_cell("%load_ext hooklab")
    yield made
    sys.displayhook, sys.excepthook = hook, traceback
    made.history_manager.end_session()
    InteractiveShell.clear_instance()


@pytest.fixture(scope="session")
def jupyter(tmp_path_factory):
    """A server of notebooks."""
    from browser import serve

    with serve(tmp_path_factory.mktemp("jupyter")) as server:
        yield server


@pytest.fixture(scope="module")
def chromium():
    """A browser; its driver keeps an event loop running, so it ends with the module that used it."""
    from browser import chromium

    with chromium() as browser:
        yield browser
