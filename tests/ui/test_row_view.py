"""The data view shows what the model will see, token by token."""

import re
from pathlib import Path

import pytest
from tiny import PEOPLE, write_rows

from farense_qlora.config import Config
from farense_qlora.data.load import Data, load_data
from farense_qlora.model.base import Base, load_base
from farense_qlora.ui.row_view import LEARNT, MASKED, RowView, pieces


@pytest.fixture
def config(tiny_model: Path, tmp_path: Path) -> Config:
    rows = write_rows(tmp_path / "rows.jsonl", PEOPLE)
    return Config.of("mini", model=str(tiny_model), train_data=str(rows), val_data=str(rows), batch_size=2)


def rows_of(config: Config, base: Base) -> Data:
    return load_data(config, base)


def said_of(config: Config, base: Base) -> str:
    return repr(rows_of(config, base))


@pytest.fixture
def view(config: Config) -> RowView:
    base = load_base(config)
    return RowView(rows_of(config, base))


def test_the_pieces_are_the_text() -> None:
    base = load_base(Config())
    for example in rows_of(Config.of("mini"), base).training[:40]:
        tokens = example.tokens.tolist()
        assert "".join(pieces(base.tokenizer, tokens)) == base.tokenizer.decode(tokens)


def test_the_colours_are_the_mask(view: RowView) -> None:
    html = view._repr_html_()
    learnt = int(view.data[0].supervised.sum())
    assert html.count(LEARNT) == learnt + 1 and html.count(MASKED) == len(view.data[0].tokens) - learnt + 1
    assert html.count("font-weight:700") >= 2  # at least its BOS and its EOS
    assert "&lt;s&gt;" in html and "&lt;/s&gt;" in html


def test_one_leafs_through_and_searches(view: RowView) -> None:
    view.show(-1)
    assert view.row == len(view.data) - 1
    view.show(len(view.data))
    assert view.row == 0
    assert view.find("HAJRY") and "Hajry" in view.tokenizer.decode(view.data[view.row].tokens.tolist())
    assert not view.find("ninguém")


def test_the_summary_counts_what_training_will_see(config: Config) -> None:
    base = load_base(config)
    said = said_of(config, base)
    assert re.search(rf"^Linhas +{len(PEOPLE)}$", said, re.MULTILINE) and "janelas" in said
    assert "toda a validação está no treino" in said  # the same file
    assert "sem empacotar" in said_of(config.changed(packing=False), base)
    cut = config.changed(max_seq_length=int(rows_of(config, base).training.lengths.max()) - 1)
    assert "cortadas: 1" in said_of(cut, base)


def test_repeats_are_left_out_and_named_by_line(config: Config, tmp_path: Path) -> None:
    rows = Path(config.train_data).read_text(encoding="utf-8")
    train, val = tmp_path / "train.jsonl", tmp_path / "val.jsonl"
    train.write_text(rows + rows.splitlines()[2] + "\n", encoding="utf-8")
    val.write_text(
        rows.splitlines()[1] + "\n" + rows.replace("quem foi", "o que era").splitlines()[0], encoding="utf-8"
    )
    asked = config.changed(train_data=str(train), val_data=str(val))
    data = rows_of(asked, load_base(config))
    assert f"a {len(PEOPLE) + 1} repete a 3; a 1 da validação está no treino (2)" in repr(data)
    assert len(data.training) == len(PEOPLE)


def test_what_is_cut_is_said_and_the_first_token_of_a_text_is_not_learnt(
    tmp_path: Path, config: Config
) -> None:
    text = tmp_path / "text.jsonl"
    text.write_text(
        '{"text": "O Farense subiu em 1970, em 1983, em 1986 e em 1990."}\n'
        '{"text": "O Farense desceu, e voltou."}\n',
        encoding="utf-8",
    )
    asked = config.changed(train_data=str(text))
    base = load_base(config)
    whole = RowView(rows_of(asked, base))
    html, tokens = whole._repr_html_(), len(whole.data[0].tokens)
    assert html.count(LEARNT) == tokens - 1 + 1 and html.count(MASKED) == 1 + 1 and "cortados" not in html
    view = RowView(rows_of(asked.changed(max_seq_length=tokens - 2), base))
    assert "2 tokens cortados no fim" in view._repr_html_()
    short = asked.changed(max_seq_length=16, skip_bad=True)
    text.write_text(
        '{"prompt": "' + 40 * "quem " + '", "completion": "a"}\n{"text": "O Farense subiu."}\n',
        encoding="utf-8",
    )
    said = said_of(short.changed(batch_size=1), base)
    assert re.search(
        "^Saltada, linha 1 +perde toda a resposta ao ser cortada a 16 tokens", said, re.MULTILINE
    )
