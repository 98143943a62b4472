"""A browser, a JupyterLab for each test, and what they leave behind: pictures, and traces of a failure."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser.lab import REPOSITORY, Console, Lab, Notebook
from playwright.sync_api import Browser, Page, expect, sync_playwright

expect.set_options(timeout=30_000)  # ms: a busy machine
PICTURES = REPOSITORY / "output" / "browser"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    return report


@pytest.fixture(scope="session")
def pictures() -> Path:
    """The folder of the screenshots, empty at the start."""
    shutil.rmtree(PICTURES, ignore_errors=True)
    PICTURES.mkdir(parents=True)
    return PICTURES


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        pytest.fail("chromium is missing: install it (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    yield lab
    lab.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="pt-PT")
    yield context.new_page()
    context.close()


@pytest.fixture
def notebook(lab: Lab, page: Page, pictures: Path, request: pytest.FixtureRequest) -> Iterator[Notebook]:
    """The notebook as shipped, open in JupyterLab; a browser error fails the test at its end."""
    console = Console(page)
    notebook = Notebook(page, lab)
    yield notebook
    if request.node.stash.get(FAILED, False):
        traces = pictures / f"failed-{request.node.name}"
        traces.mkdir()
        page.screenshot(path=traces / "page.png")
        (traces / "console.txt").write_text("\n".join(console.lines), encoding="utf-8")
        shutil.copy(lab.home.parent / "server.log", traces)
        for run in lab.runs:
            shutil.copytree(run.folder, traces / run.name, ignore=shutil.ignore_patterns("*.safetensors"))
        notebook.save()
        shutil.copy(notebook.file, traces)
    assert not console.errors
