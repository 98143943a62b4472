"""JupyterLab on loopback with folders of its own, and a notebook in it as a person handles it."""

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import nbformat
from playwright.sync_api import ConsoleMessage, Error, Locator, Page, expect

from farense_qlora.training.run import Run
from farense_qlora.training.worker import LOCK

REPOSITORY = Path(__file__).resolve().parents[2]
NOTEBOOK = Path("notebooks") / "mistral_qlora_training.ipynb"
SLOW = 120_000  # ms: a cell that computes, on two cores that others use too
DARK, LIGHT = "JupyterLab Dark", "JupyterLab Light"
# Console errors that are JupyterLab's own and cost nobody anything.
HARMLESS = (
    # Restarting a kernel drops requests that nobody waits for.
    r"Could not restore the debugger state: Canceled future for debug_request message",
    r"Canceled future for kernel_info_request message",
)
# What JupyterLab asks on its first start, answered: no news, no look for updates.
SETTINGS = {"@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False}}


class Lab:
    """A server whose home, settings, workspaces and kernels live in the folder `scratch`, and end with it."""

    def __init__(self, scratch: Path):
        self.home, self._token = scratch / "home", secrets.token_hex(16)
        shutil.copytree(REPOSITORY / "data", self.home / "data")
        (self.home / "notebooks").mkdir()
        shutil.copy(REPOSITORY / NOTEBOOK, self.home / NOTEBOOK)
        for name, values in SETTINGS.items():
            path = scratch / "settings" / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values), encoding="utf-8")
        folders = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_DATA_DIR": "data",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
            "IPYTHONDIR": "ipython",
        }
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._url = f"http://127.0.0.1:{free.getsockname()[1]}"
        self._log = open(scratch / "server.log", "wb")  # noqa: SIM115  closed by `close`
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
                f"--ServerApp.root_dir={self.home}",
                "--ServerApp.ip=127.0.0.1",
                f"--ServerApp.port={self._url.rsplit(':')[-1]}",
                "--ServerApp.port_retries=0",
                f"--IdentityProvider.token={self._token}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env={
                **os.environ,
                **{name: str(scratch / folder) for name, folder in folders.items()},
                "FARENSE_HOME": str(self.home),
            },
        )
        self._wait_until_it_answers()

    def address(self, path: Path) -> str:
        """Where a browser opens the file `path`."""
        return f"{self._url}/lab/tree/{path}?token={self._token}"

    @property
    def runs(self) -> list[Run]:
        """The training runs in its home, oldest first."""
        return [Run(path.parent) for path in sorted(self.home.glob("checkpoints_qlora/*/config.json"))]

    def close(self) -> None:
        """End the server, its kernels and the workers, which would outlive them."""
        self._process.terminate()
        self._process.wait(timeout=30)
        self._log.close()
        for run in self.runs:
            if run.alive:
                os.kill(json.loads((run.folder / LOCK).read_text())["pid"], signal.SIGKILL)

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{self._url}/api?token={self._token}", timeout=5).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    log = Path(self._log.name).read_text(errors="replace")
                    raise RuntimeError(f"JupyterLab does not answer:\n{log[-4000:]}") from None
                time.sleep(0.1)


class Notebook:
    """A notebook open in a browser tab; cells go by their ids."""

    def __init__(self, page: Page, lab: Lab):
        self.page, self.file = page, lab.home / NOTEBOOK
        cells = nbformat.read(self.file, 4).cells
        self._ids = [cell.id for cell in cells]
        self.code_cells = [cell.id for cell in cells if cell.cell_type == "code"]
        page.goto(lab.address(NOTEBOOK))
        self.ready()

    def ready(self) -> None:
        """Wait until there is a kernel, with nothing to do; what is run before there is one is lost."""
        status = self.page.locator("#jp-main-statusbar").get_by_text("| Idle")
        expect(status).to_be_visible(timeout=SLOW)

    def cell(self, name: str) -> Locator:
        """The cell called `name`, scrolled into view."""
        cell = self.page.locator(f'.jp-Cell[data-windowed-list-index="{self._ids.index(name)}"]')
        cell.scroll_into_view_if_needed()
        return cell

    def menu(self, *path: str) -> None:
        """Choose `path` in the menus, as in menu("Kernel", "Restart Kernel…")."""
        self.page.locator(".lm-MenuBar-itemLabel", has_text=re.compile(f"^{path[0]}$")).click()
        for name in path[1:]:
            label = self.page.locator(".lm-Menu-itemLabel", has_text=re.compile(f"^{re.escape(name)}$"))
            label.last.click()

    def run_all(self) -> None:
        """Menu Run, Run All Cells; returns at once."""
        self.menu("Run", "Run All Cells")
        first = self.cell(self.code_cells[0]).locator(".jp-InputPrompt")
        expect(first).to_have_text(re.compile(r"^\[[*\d]+\]:$"))

    def run(self, *names: str) -> None:
        """Run the cells called `names`, one after the other, each with Shift-Enter; returns at once."""
        for name in names:
            prompt = self.cell(name).locator(".jp-InputPrompt")
            before = prompt.inner_text()
            for _ in range(3):  # JupyterLab can lose the first keystroke after it has loaded
                self.cell(name).locator(".cm-content").click()
                self.page.keyboard.press("Shift+Enter")
                try:
                    expect(prompt).not_to_have_text(before, timeout=2000)
                    break
                except AssertionError:
                    continue
            else:
                raise AssertionError(f"the cell «{name}» does not run")

    def done(self, *names: str, timeout: float = SLOW) -> None:
        """Wait until the cells called `names` have run."""
        for name in names:
            expect(self.cell(name).locator(".jp-InputPrompt")).to_have_text(
                re.compile(r"^\[\d+\]:$"), timeout=timeout
            )

    def output(self, name: str) -> Locator:
        """What the cell called `name` shows."""
        return self.cell(name).locator(".jp-Cell-outputArea")

    def restart_kernel(self) -> None:
        """Menu Kernel, Restart Kernel, and yes."""
        self.menu("Kernel", "Restart Kernel…")
        self.page.locator(".jp-Dialog").get_by_role("button", name="Confirm Kernel Restart").click()
        expect(self.page.locator(".jp-Dialog")).to_have_count(0)
        self.ready()

    def type(self, name: str, old: str, new: str) -> None:
        """Type `new` in place of `old` in the cell called `name`."""
        editor = self.cell(name).locator(".cm-content")
        text = "\n".join(editor.locator(".cm-line").all_text_contents())
        assert old in text
        editor.click()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.insert_text(text.replace(old, new))
        expect(editor).to_contain_text(new)

    def theme(self, name: str) -> None:
        """Menu Settings, Theme."""
        self.menu("Settings", "Theme", name)
        light = str(name == LIGHT).lower()
        expect(self.page.locator("body")).to_have_attribute("data-jp-theme-light", light)
        expect(self.page.locator("#jupyterlab-splash")).to_have_count(0)

    def save(self) -> nbformat.NotebookNode:
        """Save with Ctrl-S; what is then in the file."""
        unsaved = self.page.locator("#jp-main-dock-panel .lm-TabBar-tab.jp-mod-dirty")
        before = self.file.stat().st_mtime_ns
        if unsaved.count():
            self.page.keyboard.press("Control+s")
            until(lambda: self.file.stat().st_mtime_ns > before)
        until(lambda: self.file.read_bytes().endswith(b"}\n"))  # the server empties it before it writes it
        expect(unsaved).to_have_count(0)
        return nbformat.read(self.file, 4)

    def errors(self) -> list[str]:
        """What cells wrote as errors or to stderr."""
        kinds = ("application/vnd.jupyter.error", "application/vnd.jupyter.stderr")
        query = ", ".join(f'.jp-OutputArea-output[data-mime-type="{kind}"]' for kind in kinds)
        return self.page.locator(query).all_inner_texts()


def until(holds: Callable[[], object], seconds: float = 60) -> None:
    """Return as soon as `holds()`; for what no page shows, such as a run folder."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


class Console:
    """What the browser said, and what of it is an error or an exception that nobody caught."""

    def __init__(self, page: Page):
        self.lines: list[str] = []
        self.errors: list[str] = []
        page.on("console", self._said)
        page.on("pageerror", self._uncaught)

    def _said(self, message: ConsoleMessage) -> None:
        line = f"{message.type}: {message.text} ({message.location.get('url', '')})"
        self._keep(line, message.type == "error")

    def _uncaught(self, error: Error) -> None:
        self._keep(f"uncaught: {error}", True)

    def _keep(self, line: str, is_error: bool) -> None:
        self.lines.append(line)
        if is_error and not any(re.search(pattern, line) for pattern in HARMLESS):
            self.errors.append(line)
