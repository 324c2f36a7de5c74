"""A headless Chromium and a JupyterLab on loopback, for the tests that look at the page itself.

Run with `make test-browser`. Skipped, with the reason, where playwright or Chromium is not installed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
RUN_ALL = """async () => {
    const app = window.jupyterapp;
    await app.restored;
    const notebook = app.shell.currentWidget;
    await notebook.context.ready;
    await notebook.sessionContext.ready;
    await notebook.sessionContext.session.kernel.info;
    await app.commands.execute('notebook:run-all-cells');
}"""


def chromium() -> str | None:
    """The browser to use: $CHROMIUM, or what is installed under one of the usual names."""
    names = [os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome"]
    return next((found for name in names if name and (found := shutil.which(name))), None)


@pytest.fixture(scope="session")
def browser():
    """A Chromium through playwright; one process for all tests."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    path = chromium()
    if path is None:
        pytest.skip("no Chromium found: install chromium, or set CHROMIUM to its path")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, headless=True, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser):
    """A function that gives a page of a size: `page.asked` lists each request to a host other than those allowed.

    Such a request is stopped, so a page that needs one is seen broken. `page.faults` lists the page's script errors.
    """
    contexts = []

    def open_(
        width: int = 1280, height: int = 1000, allowed: tuple[str, ...] = ("file:",), scripts: bool = True,
        bypass_csp: bool = False, color_scheme: str = "light",
    ):  # fmt: skip
        context = browser.new_context(
            viewport={"width": width, "height": height},
            java_script_enabled=scripts,
            bypass_csp=bypass_csp,
            color_scheme=color_scheme,
        )
        contexts.append(context)
        page = context.new_page()
        page.asked, page.faults, page.runs_scripts = [], [], scripts
        page.on("pageerror", lambda fault: page.faults.append(str(fault)))

        def guard(route):
            if route.request.url.startswith((*allowed, "data:", "blob:")):
                route.continue_()
            else:
                page.asked.append(route.request.url)
                route.abort()

        context.route("**/*", guard)
        return page

    yield open_
    for context in contexts:
        context.close()


class Lab:
    """A running server of notebooks: its address, and a notebook opened in a page of it with all cells run."""

    def __init__(self, base: str, token: str, folder: Path, view: str = "doc/tree"):
        self.base, self.token, self.folder, self.view = base, token, folder, view

    def run(self, open_page, notebook: Path, *, width: int = 1280, height: int = 1000, changes=()):
        """The page of `notebook` after all its cells ran; `changes` are (old, new) texts that its source must hold."""
        text = notebook.read_text()
        for old, new in changes:
            assert text.count(old) == 1, f"{notebook.name}: {old!r} stands {text.count(old)} times"
            text = text.replace(old, new)
        (self.folder / notebook.name).write_text(text)
        page = self._page(open_page, notebook.name, width, height)
        # The status line says "idle" too early; Lab's own promises say when the kernel can take work.
        page.evaluate(RUN_ALL)
        faults = page.locator("[data-mime-type='application/vnd.jupyter.error']")
        assert faults.count() == 0, faults.all_inner_texts()
        return page

    def open(self, open_page, notebook: Path):
        """The page of `notebook`, of which no cell is run."""
        if notebook.parent != self.folder:
            shutil.copy(notebook, self.folder)
        return self._page(open_page, notebook.name, 1280, 1000)

    def _page(self, open_page, name: str, width: int, height: int):
        from playwright.sync_api import TimeoutError as NotShown

        # Where the machine stands still a page can miss an answer that it waits for: it is opened anew.
        for timeout in (90_000, 90_000, 300_000):
            page = open_page(width, height, allowed=(self.base, self.base.replace("http", "ws", 1)))
            page.set_default_timeout(300_000)
            page.goto(f"{self.base}/{self.view}/{name}?token={self.token}&reset", wait_until="domcontentloaded")
            try:
                page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=timeout)
                return page
            except NotShown:
                seen = f"{name} is not shown: {page.faults}, {page.asked}, {page.locator('body').inner_text()}"
                page.close()
        raise AssertionError(seen)


@pytest.fixture(scope="session")
def lab(tmp_path_factory, browser):
    """A JupyterLab on loopback with settings of its own: nothing of the user's is read or written."""
    home = tmp_path_factory.mktemp("lab")
    folder = home / "notebooks"
    folder.mkdir()
    settings = home / "config" / "labconfig"
    settings.mkdir(parents=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True}
    (settings / "default_setting_overrides.json").write_text(
        json.dumps({"@jupyterlab/apputils-extension:notification": quiet})
    )
    with served(server("lab", folder, "LabApp"), home, f"/api/status?token={TOKEN}") as base:
        yield Lab(base, TOKEN, folder)


@pytest.fixture(scope="session")
def notebook_7(tmp_path_factory, browser):
    """A Jupyter Notebook 7 in the same way."""
    pytest.importorskip("notebook", reason="notebook is not installed: pip install 'notebook>=7'")
    home = tmp_path_factory.mktemp("notebook")
    folder = home / "notebooks"
    folder.mkdir()
    with served(server("notebook", folder, "JupyterNotebookApp"), home, f"/api/status?token={TOKEN}") as base:
        yield Lab(base, TOKEN, folder, "notebooks")


TOKEN = "loopback"


def server(command: str, folder: Path, app: str) -> list[str]:
    """The arguments of a server that has no news and no other host."""
    return [
        "jupyter", command, "--no-browser", "--ip=127.0.0.1", "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder}", "--allow-root",
        "--LabApp.extension_manager=readonly", "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", f"--{app}.expose_app_in_browser=True",
    ]  # fmt: skip


def environment(home: Path) -> dict[str, str]:
    """The variables under which Jupyter reads and writes nothing outside of `home`, and takes ratekit from here."""
    return {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "IPYTHONDIR": str(home / "ipython"),
        "RATEKIT_CACHE": str(home / "rewrites"),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        "HF_HUB_OFFLINE": "1",
    }


@contextlib.contextmanager
def served(arguments: list[str], home: Path, ready: str):
    """The address of a server of Jupyter's on loopback, which reads and writes nothing outside of `home`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    base, log = f"http://127.0.0.1:{port}", home / "jupyter.log"
    with log.open("w") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", *arguments, f"--port={port}"],
            env=environment(home), stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 300
        while True:
            assert server.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(base + ready, timeout=10)
                break
            except OSError:
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.25)
        yield base
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
