"""The rows of a run by how hard they stayed: a wrong one among right ones comes first, and says why."""

import json
from pathlib import Path

import pytest
from tiny import PEOPLE, write_rows

from farense_qlora.answers.hardest import hardest
from farense_qlora.config import Config
from farense_qlora.data.load import load_data
from farense_qlora.errors import UserError
from farense_qlora.model.base import load_tuned
from farense_qlora.training.checkpoints import checkpoints
from farense_qlora.training.events import Skipped
from farense_qlora.training.run import Run
from farense_qlora.training.step import validation_loss
from farense_qlora.ui.row_view import RowView

WRONG = {
    "messages": [
        {"role": "user", "content": "Hajry: quem foi?"},
        {"role": "assistant", "content": "Foi roupeiro."},
    ]
}


@pytest.fixture
def config(trained: Path, tmp_path: Path) -> Config:
    """The run's, with a row too long and one that is wrong after those that it learnt."""
    rows = write_rows(tmp_path / "rows.jsonl", PEOPLE | {"Leo": f"treinador {'e presidente ' * 3}"})
    rows.write_text(rows.read_text(encoding="utf-8") + json.dumps(WRONG), encoding="utf-8")
    validation = write_rows(tmp_path / "validation.jsonl", PEOPLE)
    data = {"train_data": str(rows), "val_data": str(validation)}
    return Run(trained).config.changed(max_seq_length=40, **data)


def test_a_wrong_row_is_the_hardest_and_the_row_view_opens_at_it(trained: Path, config: Config) -> None:
    run = Run(trained)
    tuned, measured = load_tuned(config, run.best_adapter), []
    data = load_data(config, tuned)
    found = hardest(run, tuned, data, measured.append)
    assert sum(measured) == len(checkpoints(trained)) * len(found) and len(checkpoints(trained)) > 2

    first = found[found["line"] == 10].iloc[0]
    assert first.name < 2 and (first["question"], first["answer"]) == ("Hajry: quem foi?", "Foi roupeiro.")
    assert first["notes"] == "a mesma pergunta tem outra resposta (linha 4)"
    assert sorted(found["line"]) == [*range(1, 11)] and found["behind"].is_monotonic_decreasing
    assert (found["loss"] < found["base_loss"]).sum() >= 8
    mean = (found["loss"] * found["tokens"]).sum() / found["tokens"].sum()
    assert mean == pytest.approx(validation_loss(tuned.model, data.training, config), rel=1e-5)

    view = RowView(data, found["line"])
    assert f"linha {found['line'][0]} do ficheiro, 1 de 10" in view._repr_html_()
    with pytest.raises(UserError, match="não há exemplos das linhas 77"):
        RowView(data, [77])


def test_rows_that_were_cut_or_in_a_skipped_update_say_so(
    trained: Path, config: Config, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    skipped = Skipped(step=1, epoch=0.1, cause="a perda não é um número", rows=("data/t.jsonl:3",))
    (run.folder / "events.jsonl").write_text(f"{skipped.to_json()}\n", encoding="utf-8")
    tuned = load_tuned(config, Run(trained).best_adapter)
    notes = hardest(run, tuned, load_data(config, tuned)).set_index("line")["notes"]
    assert (notes[9], notes[3]) == ("cortada a 40 tokens", "numa atualização que foi saltada")
