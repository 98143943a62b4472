"""The notebook as a person meets it: in JupyterLab, in a browser, with mouse and keyboard."""

import re
from pathlib import Path

from browser.lab import SLOW, Lab, Notebook, until
from browser.layout import pictures_of
from playwright.sync_api import Locator, Page, expect

from farense_qlora.config import Config
from farense_qlora.training.checkpoints import FOLDER
from farense_qlora.training.event_log import EventReader
from farense_qlora.training.events import Finished, Paused, RateChanged, Resumed, Saved, Started, Stepped
from farense_qlora.training.requests import STOP
from farense_qlora.training.run import Run

SETTINGS = ("ambiente", "painel", "config")


def written(run: Run, kind: type) -> list:
    """The events of one kind in the log of `run`, also those that were undone."""
    return [event for event in EventReader(run.folder).poll() if isinstance(event, kind)]


def drawing(output: Locator) -> str:
    """The plot in `output`, as a checksum of the bytes of its image."""
    return output.locator("img").first.evaluate(
        """async image => {
            const bytes = await (await fetch(image.src)).arrayBuffer();
            return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).join();
        }"""
    )


def marks(output: Locator) -> list[str]:
    """What stands before the widgets in `output` that lost their kernel."""
    return output.locator(".jupyter-widgets-disconnected").evaluate_all(
        """widgets => widgets.map(widget => getComputedStyle(widget, "::before"))
            .filter(style => style.display !== "none").map(style => style.content)"""
    )


def training(lab: Lab, notebook: Notebook, updates: int = 1, seconds: float = 60) -> Run:
    """The only run, once it has done `updates`."""

    def under_way() -> bool:
        assert notebook.errors() == []
        return bool(lab.runs) and len(written(lab.runs[0], Stepped)) >= updates

    until(under_way, seconds)
    (run,) = lab.runs
    return run


def press_stop(notebook: Notebook, run: Run, cell: str = "treino") -> None:
    """Press Parar in the output of `cell`; the run ends within two updates, with the last of them saved."""
    notebook.output(cell).get_by_role("button", name="Parar").click()
    until(lambda: not run.alive)
    asked_at = (run.folder / STOP).stat().st_mtime
    assert len([step for step in written(run, Stepped) if step.time > asked_at]) <= 2
    last = written(run, Stepped)[-1].step
    assert written(run, Finished)[-1].reason == "stopped"
    assert (run.folder / FOLDER / f"step-{last:06d}" / "adapters.safetensors").is_file()


def test_run_all(notebook: Notebook, lab: Lab, pictures: Path) -> None:
    notebook.run_all()
    run = training(lab, notebook, seconds=240)
    live = notebook.output("treino")
    seen: set[str] = set()
    until(lambda: seen.add(drawing(live)) or len(seen) > 2, 180)  # a slow machine draws seldom

    settings = notebook.output("painel")
    costs = settings.locator("tr", has_text=re.compile("Memória máxima|Parâmetros a treinar"))
    foretold = costs.all_inner_texts()
    settings.get_by_role("slider").first.focus()  # that of the rank
    for _ in range(32):
        notebook.page.keyboard.press("ArrowRight")
    until(lambda: all(new != old for new, old in zip(costs.all_inner_texts(), foretold, strict=True)))
    expect(settings.get_by_label("Taxa de aprendizagem", exact=True)).to_have_value("0,0008")

    rank = settings.get_by_label("Rank", exact=True)
    expect(rank).to_have_value("64")  # the kernel has dealt with every key
    for value, message in (("0", "tem de ser pelo menos 1"), ("muitas", "tem de ser um número inteiro")):
        rank.fill(value)
        expect(notebook.output("painel")).to_contain_text(message)
    rank.fill("8")
    expect(notebook.output("painel")).not_to_contain_text("tem de ser")

    live.get_by_role("button", name="Pausar").click()
    expect(live.get_by_role("button", name="Retomar")).to_be_visible()
    until(lambda: written(run, Paused))
    before = len(written(run, Stepped))
    wrong = pictures_of(notebook, pictures, "training", "treino")
    assert len(written(run, Stepped)) == before
    live.get_by_role("button", name="Retomar").click()
    until(lambda: len(written(run, Stepped)) > before)
    assert written(run, Resumed)

    rate = live.get_by_label("Taxa de aprendizagem")
    rate.fill("muito")
    live.get_by_role("button", name="Aplicar").click()
    expect(live).to_contain_text("«muito» não é um número")
    rate.fill("0,0001")
    live.get_by_role("button", name="Aplicar").click()
    until(lambda: written(run, RateChanged))
    (changed,) = written(run, RateChanged)
    assert changed.learning_rate == 1e-4
    until(lambda: written(run, Stepped)[-1].step > changed.step)
    assert written(run, Stepped)[-1].learning_rate <= 1e-4

    saves = len(written(run, Saved))
    live.get_by_role("button", name="Guardar agora").click()
    until(lambda: len(written(run, Saved)) > saves)

    press_stop(notebook, run)
    notebook.done(*notebook.code_cells, timeout=2 * SLOW)
    assert notebook.errors() == []
    wrong += pictures_of(notebook, pictures, "done")
    assert wrong == []

    notebook.type("perguntar", "1989-90", "1990-91")
    notebook.run("perguntar")
    notebook.done("perguntar")
    expect(notebook.output("perguntar")).to_have_text(re.compile(r"[A-ZÀ-Ú0-9].*\.\s*$"))
    assert notebook.errors() == []

    (cell,) = [cell for cell in notebook.save().cells if cell.id == "treino"]
    assert [output for output in cell.outputs if "image/png" in output.get("data", {})]


def test_a_restarted_kernel_takes_the_run_up_where_it_is(
    notebook: Notebook, lab: Lab, pictures: Path
) -> None:
    notebook.run(*SETTINGS, "treino")
    run = training(lab, notebook, updates=10)
    before = written(run, Stepped)[-1].step
    notebook.restart_kernel()
    assert run.alive
    for name, says in (("painel", "corra a célula outra vez"), ("treino", "fq.watch() volta a mostrá-lo")):
        until(lambda name=name, says=says: says in "".join(marks(notebook.output(name))))
        assert len(marks(notebook.output(name))) == 1
        notebook.output(name).locator(".fq-controls").screenshot(path=pictures / f"restarted-{name}.png")
    notebook.type("rever", "# ", "")
    notebook.run("rever")
    expect(notebook.output("rever").get_by_role("button", name="Parar")).to_be_visible()
    expect(notebook.output("rever")).to_contain_text("A decorrer")
    assert marks(notebook.output("rever")) == []
    notebook.run(*SETTINGS, "treino")
    live = notebook.output("treino")
    seen: set[str] = set()
    until(lambda: seen.add(drawing(live)) or len(seen) > 2)
    assert len(lab.runs) == 1 and len(written(run, Started)) == 1
    assert written(run, Stepped)[-1].step > before
    press_stop(notebook, run)
    stopped = written(run, Stepped)[-1].step
    notebook.run("treino")  # goes on from the last checkpoint, in a new worker
    until(lambda: written(run, Stepped)[-1].step > stopped)
    assert [event.step for event in written(run, Started)] == [0, stopped]
    assert [event.step for event in written(run, Stepped)] == list(
        range(1, written(run, Stepped)[-1].step + 1)
    )
    press_stop(notebook, run)
    assert notebook.errors() == []


def test_a_tab_closed_in_mid_training_is_taken_up_as_the_notebook_says(
    notebook: Notebook, lab: Lab, page: Page
) -> None:
    notebook.run(*SETTINGS, "treino", "esperar")
    run = training(lab, notebook, updates=5)
    page.goto("about:blank")
    again = Notebook(page, lab)
    again.type("rever", "# ", "")
    again.run("rever")  # waits behind the cell that waits for the end
    expect(again.cell("rever-texto")).to_contain_text("Se ela ficar em [*]")
    expect(again.cell("rever").locator(".jp-InputPrompt")).to_have_text("[*]:")
    again.restart_kernel()
    again.run("rever")
    expect(again.output("rever")).to_contain_text("A decorrer")
    assert run.alive and len(lab.runs) == 1
    press_stop(again, run, "rever")


def test_the_kernel_answers_other_cells_while_training_runs(notebook: Notebook, lab: Lab) -> None:
    notebook.run(*SETTINGS, "treino")
    notebook.done("treino")
    run = training(lab, notebook, updates=5)
    notebook.run("preparar", "ambiente")
    notebook.done("preparar", "ambiente")
    assert run.alive and not written(run, Finished)
    notebook.run("esperar")
    press_stop(notebook, run)
    notebook.done("esperar")
    assert notebook.errors() == []


def test_every_slider_moves_its_field_and_what_it_costs(notebook: Notebook) -> None:
    notebook.run("ambiente", "painel")
    notebook.done("ambiente", "painel")
    settings = notebook.output("painel")
    for group in Config.by_group():
        settings.get_by_text(group, exact=True).click()  # opens it, and closes the one before
        rows = settings.locator(".widget-hbox:has(> .widget-text):has(> .widget-hslider)")
        for row in rows.all():
            if not row.is_visible():
                continue
            field = row.get_by_role("textbox")
            for key, end in (("End", "max"), ("Home", "min")):
                before = field.input_value()
                row.get_by_role("slider").press(key)
                expect(field, end).not_to_have_value(before)
    expect(settings).not_to_contain_text("⚠")
    assert notebook.errors() == []
