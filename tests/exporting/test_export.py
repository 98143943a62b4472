"""An export is whole, says where it comes from, and answers in plain mlx-lm as it does here."""

import ast
import errno
import hashlib
import json
import re
import shlex
from pathlib import Path

import mlx_lm
import pytest

from farense_qlora.answers.generate import ask
from farense_qlora.data import sources
from farense_qlora.data.chat import prompt_tokens
from farense_qlora.data.rows import parse_row
from farense_qlora.errors import UserError
from farense_qlora.exporting import export as module
from farense_qlora.exporting.export import export, export_folder
from farense_qlora.exporting.kinds import FORMATS
from farense_qlora.exporting.metadata import (
    QUESTION,
    example,
    exported_config,
    integration_guide,
    metadata,
    model_card,
)
from farense_qlora.files import touched
from farense_qlora.model.adapters import load_adapter
from farense_qlora.model.base import load_base
from farense_qlora.training.run import Run


@pytest.fixture
def output(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("output")
    monkeypatch.setattr(module, "OUTPUT", folder)
    return folder


@pytest.fixture
def run(trained: Path, home: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(sources, "HOME", home)
    monkeypatch.setattr(module, "HOME", home)
    return Run(trained)


def test_an_export_answers_in_plain_mlx_lm_as_here(run: Run, tmp_path: Path) -> None:
    folder = export(run, tmp_path / "levar")
    base = load_base(run.config)
    load_adapter(base.model, run.best_adapter)
    model, tokenizer = mlx_lm.load(str(base.path), adapter_path=str(folder))
    for name in ("Hajry", "Rui", "Kiki"):
        question = f"{name}: quem foi?"
        prompt = prompt_tokens([{"role": "user", "content": question}], tokenizer)
        assert mlx_lm.generate(model, tokenizer, prompt, max_tokens=256) == ask(base, question)


def test_metadata_says_what_the_adapter_is_and_comes_from(run: Run, home: Path, tmp_path: Path) -> None:
    folder = export(run, tmp_path / "levar")
    about = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
    train_data = (home / "data" / "train_data.jsonl").read_bytes()
    assert about["base_model"] == run.config.model
    assert about["data"]["train"]["sha256"] == hashlib.sha256(train_data).hexdigest()
    assert about["metrics"]["steps"] == 80
    assert about["metrics"]["val_loss"] < 0.3
    assert about["metrics"]["ended"] == "completed"
    assert set(about["versions"]) == {"python", "farense-qlora", "mlx", "mlx-lm", "transformers"}
    assert exported_config(folder) == run.config


def test_the_model_card_gives_commands_for_this_folder(run: Run, tmp_path: Path) -> None:
    card = (export(run, tmp_path / "levar") / "README.md").read_text(encoding="utf-8")
    assert f"mlx_lm.generate --model {run.config.model} --adapter-path {tmp_path / 'levar'}" in card
    assert f"farense-qlora ask --adapter {tmp_path / 'levar'}" in card
    assert card.startswith("---\nlanguage: pt\n")
    guide = (tmp_path / "levar" / "INTEGRATION_GUIDE.md").read_text(encoding="utf-8")
    assert f"farense-qlora serve --adapter {tmp_path / 'levar'} --port 8080" in guide
    assert "/v1/chat/completions" in guide


def test_the_card_of_others_rows_says_nothing_of_the_club(run: Run) -> None:
    report = dict.fromkeys(("consumer", "questions", "kl", "kl_base", "kl_packed", "top1", "same_answers"), 1)
    about = metadata(run)
    card = model_card(about, report, Path("pasta"))
    assert "\n- farense\n" in card and "sobre o Sporting Clube Farense" in card and "em 1 pergunta de" in card
    about["config"]["train_data"] = "meus/rios.csv"
    rows = [
        parse_row({"prompt": ask, "completion": "Em Faro."}) for ask in ('Onde é a "ria"?', "Onde é o rio?")
    ]
    question = example(run.config.changed(train_data="meus/rios.csv"), rows)
    assert question == "Onde é o rio?" and example(run.config, rows) == QUESTION
    card = model_card(about, report, Path("pasta"), question)
    assert "treinado com as linhas de `meus/rios.csv`." in card.replace("\n", " ") and "com rank 32" in card
    for text in (card, integration_guide(about, Path("pasta"), question)):
        assert question in text and "Farense" not in text and "- farense\n" not in text


@pytest.mark.parametrize("format", FORMATS)
def test_the_commands_for_a_folder_with_spaces_find_it(run: Run, format: str) -> None:
    folder = Path("/tmp/O meu clube/d'ouro $1")
    about = metadata(run, format)
    about["config"]["model"] = "/modelos do clube/base"
    report = dict.fromkeys(("consumer", "questions"), 1) | dict.fromkeys(
        ("kl", "kl_base", "kl_packed", "top1", "same_answers"), 1.0
    )
    guide = integration_guide(about, folder)
    card = model_card(about, report, folder)
    commands = [
        card.split("## Perguntar")[1].split("`INTEGRATION_GUIDE.md`")[0],
        *re.findall(r"```sh\n(.*?)```", guide, re.DOTALL),
        *re.findall(r"(?m)^    (mlx_lm\..*)$", guide),
    ]
    words = shlex.split("\n".join(commands).replace("\\\n", " "), comments=True)
    paths = {word for word in words if word.startswith("/")}
    files = {str(folder / name) for name in ("model.gguf", "adapter.gguf", "Modelfile")}
    named = {str(folder), *files, "/modelos do clube/base"}
    assert paths <= named and (paths or format == "peft")
    (code,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    strings = {node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)}
    assert named & strings


def test_without_a_folder_the_export_goes_to_that_of_the_run_and_the_format(run: Run, output: Path) -> None:
    assert export(run, format="fused") == output / "decorado-fused"


def test_exporting_the_same_again_replaces_it(run: Run, tmp_path: Path) -> None:
    first = {path.name: path.read_bytes() for path in export(run, tmp_path / "levar").iterdir()}
    (tmp_path / "levar" / ".DS_Store").touch()  # macOS, when somebody looked
    again = {path.name: path.read_bytes() for path in export(run, tmp_path / "levar").iterdir()}
    assert again == first
    assert [path.name for path in tmp_path.iterdir()] == ["levar"]


def test_what_somebody_changed_is_replaced_only_when_told(run: Run, tmp_path: Path) -> None:
    folder = export(run, tmp_path / "levar")
    for name, said in (
        ("sub/notas.txt", "sub/notas.txt foi lá posto depois"),
        ("README.md", "README.md não é o que foi gravado"),
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("do autor", encoding="utf-8")
        with pytest.raises(UserError, match=f"levar já existe e {said}: .* com --replace"):
            export(run, folder)
        assert (folder / name).read_text(encoding="utf-8") == "do autor"
    export(run, folder, replace=True)
    assert touched(folder) is None


def test_a_run_that_took_the_name_of_another_does_not_take_its_export(run: Run, tmp_path: Path) -> None:
    folder = export(run, tmp_path / "levar")
    about = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
    (folder / "metadata.json").write_text(json.dumps({**about, "began": 0.0}), encoding="utf-8")
    with pytest.raises(UserError, match=r"tem a exportação «mlx» do treino «decorado»: .* com --replace"):
        export(run, folder)


def test_a_folder_with_something_else_is_never_replaced(run: Run, tmp_path: Path) -> None:
    (tmp_path / "tese").mkdir()
    (tmp_path / "tese" / "tese.txt").touch()
    for replace in (False, True):
        with pytest.raises(UserError, match=r"tese já existe e não é uma exportação: indique outra pasta$"):
            export(run, tmp_path / "tese", replace=replace)
    assert [path.name for path in (tmp_path / "tese").iterdir()] == ["tese.txt"]
    with pytest.raises(UserError, match=r"tese\.txt é um ficheiro"):
        export(run, tmp_path / "tese" / "tese.txt", replace=True)


def test_no_folder_that_holds_runs_or_the_project_is_replaced(run: Run, home: Path) -> None:
    for folder in (run.folder, run.folder.parent, home, Path("/"), Path()):
        with pytest.raises(UserError, match="não é só de uma exportação"):
            export(run, folder, replace=True)
    assert run.best_adapter.is_dir()


def test_latest_leads_to_the_newest_export(run: Run, tmp_path: Path, output: Path) -> None:
    latest = output / "latest"
    first = export(run, output / "um")
    assert latest.is_symlink() and latest.resolve() == first and str(latest.readlink()) == "um"
    second = export(run, tmp_path / "dois")
    assert latest.resolve() == second
    assert export(run, latest) == second  # in the place of what the link leads to
    assert exported_config(latest) == run.config


def test_what_somebody_called_latest_stays(run: Run, output: Path) -> None:
    (output / "latest").mkdir(parents=True)
    export(run, output / "um")
    assert not (output / "latest").is_symlink()


def test_a_disk_without_links_is_no_error(run: Run, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    assert export(run, output / "um").is_dir()
    assert [path.name for path in output.iterdir()] == ["um"]


def test_a_failed_export_leaves_the_old_one(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = export(run, tmp_path / "levar")
    monkeypatch.setattr(module, "ADAPTER_FILES", ("adapters.safetensors", "perdido"))
    with pytest.raises(UserError):
        export(run, folder)
    assert (folder / "adapter_config.json").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["levar"]


def test_the_default_folder_is_that_of_the_run_and_the_format(run: Run, output: Path) -> None:
    assert export_folder(run) == output / "decorado-mlx"
    assert export_folder(run, "gguf") == output / "decorado-gguf"
