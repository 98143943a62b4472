"""An export is whole, says where it comes from, and answers in plain mlx-lm as it does here."""

import hashlib
import json
from pathlib import Path

import mlx_lm
import pytest

from farense_qlora.data.chat import prompt_tokens
from farense_qlora.errors import UserError
from farense_qlora.model.adapters import load_adapter
from farense_qlora.model.base import load_base
from farense_qlora.results import export as module
from farense_qlora.results import verify
from farense_qlora.results.export import export, export_folder, exported_config
from farense_qlora.results.generate import ask
from farense_qlora.training.run import Run


@pytest.fixture
def run(trained: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(verify, "HOME", home)
    return Run(trained)


def test_an_export_answers_in_plain_mlx_lm_as_here(run: Run, tmp_path: Path) -> None:
    folder = export(run, tmp_path / "levar")
    base = load_base(run.config.model)
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


def test_exporting_again_replaces_the_export_and_nothing_else(run: Run, tmp_path: Path) -> None:
    first = {path.name: path.read_bytes() for path in export(run, tmp_path / "levar").iterdir()}
    (tmp_path / "levar" / "README.md").write_text("estragado", encoding="utf-8")
    again = {path.name: path.read_bytes() for path in export(run, tmp_path / "levar").iterdir()}
    assert again == first
    assert [path.name for path in tmp_path.iterdir()] == ["levar"]
    (tmp_path / "outra").mkdir()
    (tmp_path / "outra" / "tese.txt").touch()
    with pytest.raises(UserError, match="não é um adaptador exportado"):
        export(run, tmp_path / "outra")


def test_a_failed_export_leaves_the_old_one(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = export(run, tmp_path / "levar")
    monkeypatch.setattr(module, "ADAPTER_FILES", ("adapters.safetensors", "perdido"))
    with pytest.raises(UserError):
        export(run, folder)
    assert (folder / "adapter_config.json").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["levar"]


def test_the_default_folder_follows_profile_and_format(run: Run) -> None:
    assert export_folder(run.config, "gguf").name == "mini-farense-qlora-gguf"
    assert export_folder(run.config.changed(profile="mistral-7b")).name == "mistral-7b-farense-qlora"
    assert export_folder(run.config.changed(profile="mini", bits=16)).name == "mini-farense-lora"
