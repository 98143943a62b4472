"""Build the miniature: a small Mistral pre-trained from scratch on invented clubs, in 4 bits.

It knows the form of every question and answer and none of the facts, so that what it knows of Farense after
training it learnt there. Same recipe, same machine: same weights. `make mini` runs this file.
"""

from farense_qlora.model import cpu

cpu.enable()  # before mlx, which it makes fast on the CPU

# isort: split
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from random import Random

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from clubs import invented
from mlx_lm.models.llama import Model, ModelArgs
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import quantize_model, save_config, save_model
from tokenizer import SPECIAL, train_tokenizer

from farense_qlora.data.batches import Batch, collate
from farense_qlora.data.careless import sometimes_careless
from farense_qlora.data.questions import questions
from farense_qlora.data.rows import Row
from farense_qlora.data.tokens import Example, encode
from farense_qlora.data.unanswerable import unanswerable
from farense_qlora.files import atomic_dir
from farense_qlora.model.cpu.ops import exp, use_cpu_operations
from farense_qlora.model.cpu.parallel import parts, side_by_side, summed
from farense_qlora.model.download import MINIATURE
from farense_qlora.model.folder import GROUP_SIZE
from farense_qlora.model.loss import backbone_and_head
from farense_qlora.text import decimal, percent

Update = Callable[[optim.Optimizer, Sequence[Example]], float]  # one update on examples: its loss
UNSEEN = range(2 * 10**6, 2 * 10**6 + 4)  # seeds of invented clubs that no training sees


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the miniature's weights; the defaults are what the shipped one was made with.

    Three stages. Repeats: random tokens said twice, out of a vocabulary that doubles whenever it is mastered;
    a whole one at once teaches nothing. Form: every row is of a club made anew. Episodes: in each, a share
    `fixed` of the rows asks again and again for the facts of one invented club, so that the model learns to
    store and fetch; the next episode has another club: what it must know by heart changes, how to learn it
    stays. A share `repeats` of random repeats and, at the end, `closing_steps` of form keep the first two.

    Of the questions a share is `loose`, and a share `careless`; of those about an episode's club `in_vain`
    have no answer, and so has a share `others` of what the episode asks about clubs made anew.
    """

    seed: int = 0
    vocab_size: int = 2048
    hidden_size: int = 256
    num_layers: int = 4
    intermediate_size: int = 704
    num_heads: int = 4
    batch_size: int = 32
    repeat_steps: int = 500
    form_steps: int = 360
    episode_steps: int = 320
    episode_facts: tuple[int, ...] = (200,) * 3 + (400,) * 11
    closing_steps: int = 320
    fixed: float = 0.7
    repeats: float = 0.1
    muon_learning_rate: float = 2e-2
    learning_rate: float = 2e-3
    question_loss: float = 0.1
    clubs_for_tokenizer: int = 15
    careless: float = 0.4
    loose: float = 0.25
    in_vain: float = 0.1
    others: float = 0.5


@dataclass(frozen=True)
class Repeat(Example):
    """Random tokens said twice: supervised the second time, and nobody could foretell the first."""


def rows_of_club(seed: int, count: int | None = None) -> list[Row]:
    """The questions about the invented club `seed`, in every wording: all of them, or `count` facts: those of
    the club itself, which nothing but the wording tells apart, and others at random."""
    asked = questions(*invented(seed))
    if count is not None:
        own = [question for question in asked if question.table == "club"]
        rest = [question for question in asked if question.table != "club"]
        more = max(0, count - len(own))
        chosen = np.random.default_rng(seed).choice(len(rest), more, replace=False)
        asked = [*own, *(rest[i] for i in chosen)][:count]
    return [
        Row(messages=tuple(question.messages(prompt)))
        for question in asked
        for prompt in (*question.prompts, *question.heldout)
    ]


def rows_in_vain(seed: int, count: int) -> list[Row]:
    """`count` questions, in all wordings, that the tables of the invented club `seed` do not answer."""
    asked = [
        (question, prompt)
        for question in unanswerable(*invented(seed))
        for prompt in (*question.prompts, *question.heldout)
    ]
    chosen = np.random.default_rng(seed).choice(len(asked), min(count, len(asked)), replace=False)
    return [Row(messages=tuple(asked[i][0].messages(asked[i][1]))) for i in chosen]


def some_loose(rows: Iterable[Row], share: float, seed: int) -> Iterator[Row]:
    """The `rows`, a `share` of them asked by little more than their names, numbers and some of the words, in
    another order: so asked, only what matters is left to go by."""
    for number, row in enumerate(rows):
        random = Random(f"{seed} {number} loose")
        if random.random() < share:
            question, *rest = row.messages
            asked = {**question, "content": _loosely(question["content"], random)}
            row = replace(row, messages=(asked, *rest))
        yield row


def _loosely(question: str, random: Random) -> str:
    words = question.rstrip(" ?.").split()
    kept = [
        word
        for place, word in enumerate(words)
        if random.random() < 0.7 or any(map(str.isdigit, word)) or (place and word[0].isupper())
    ]
    cut = random.randrange(len(kept)) if kept and random.random() < 0.5 else 0
    return " ".join(kept[cut:] + kept[:cut]) + "?"


def season_requests(seed: int) -> list[Row]:
    """Requests to repeat the invented club `seed` with each of its seasons."""
    tables, club = invented(seed)
    return _requests(f"{club.name}, {season.season}" for season in tables.seasons)


def coach_requests(seed: int) -> list[Row]:
    """Requests to repeat each coach with the club."""
    tables, club = invented(seed)
    return _requests(f"{coach.coach}, {club.name}" for coach in tables.coaches)


def _requests(texts: Iterable[str]) -> list[Row]:
    said = [(f"Repete: {text}.", f"{text}.") for text in texts]
    return [Row(({"role": "user", "content": a}, {"role": "assistant", "content": b})) for a, b in said]


def texts(recipe: Recipe) -> Iterator[str]:
    """What the tokenizer is learnt on: every pair of digits, and questions and answers on invented clubs."""
    for number in range(100):
        yield f" {number:02d}{number:02d}-{number:02d}" * 500
        yield f" {number}" * 500
    for seed in range(recipe.clubs_for_tokenizer):
        for number, row in enumerate(rows_of_club(10**6 + seed)):
            typed = sometimes_careless(row, recipe.careless, seed, number)
            yield from (f" {message['content']}" for message in typed.messages)


def pretrain(
    recipe: Recipe, tokenizer: TokenizerWrapper, say: Callable[[dict[str, float]], None]
) -> tuple[Model, ModelArgs]:
    """Train the model from scratch in float32; `say` gets a point of the training curve at times."""
    mx.disable_compile()
    mx.random.seed(recipe.seed)
    args = ModelArgs(
        model_type="mistral",
        hidden_size=recipe.hidden_size,
        num_hidden_layers=recipe.num_layers,
        intermediate_size=recipe.intermediate_size,
        num_attention_heads=recipe.num_heads,
        num_key_value_heads=recipe.num_heads,
        head_dim=recipe.hidden_size // recipe.num_heads,
        rms_norm_eps=1e-5,
        vocab_size=len(tokenizer.vocab),
        max_position_embeddings=2048,
        rope_theta=10000.0,
        tie_word_embeddings=False,
    )
    model = Model(args)
    use_cpu_operations(model)
    model.model.embed_tokens.weight = mx.random.normal(model.model.embed_tokens.weight.shape)
    for layer in model.layers:  # each starts by adding nothing
        for last in (layer.self_attn.o_proj, layer.mlp.down_proj):
            last.weight = mx.zeros_like(last.weight)
    start = time.perf_counter()
    step_of = nn.value_and_grad(model, _loss)

    def update(optimizer: optim.Optimizer, examples: Sequence[Example]) -> float:
        weighted = [_weighted(part, recipe.question_loss) for part in parts(examples, side_by_side(model))]
        weight = sum(float(weights.sum()) for _, weights in weighted)
        loss, slopes = summed(lambda batch: step_of(model, *batch, weight), weighted)
        slopes, _ = optim.clip_grad_norm(slopes, 1.0)
        optimizer.update(model, slopes)
        mx.eval(model.parameters(), optimizer.state)
        return float(loss.item())

    def note(step: int, loss: float, **measured: float) -> None:
        say({"step": step, "loss": loss, "seconds": time.perf_counter() - start, **measured})

    _learn_to_repeat(recipe, len(tokenizer.vocab), update, note)
    _learn_clubs(recipe, model, tokenizer, update, note)
    return model, args


def _learn_to_repeat(recipe: Recipe, vocabulary: int, update: Update, note: Callable[..., None]) -> None:
    """The first stage, with Muon (Jordan et al., 2024) in the layers: AdamW alone does not get there."""
    muon = optim.Muon(0.0, momentum=0.95, weight_decay=0.0)
    adamw = optim.AdamW(0.0, betas=[0.9, 0.98], weight_decay=0.01)
    optimizer = optim.MultiOptimizer([muon, adamw], [lambda path, w: w.ndim == 2 and "layers" in path])
    random = np.random.default_rng(recipe.seed)
    every = vocabulary - len(SPECIAL)
    words, mastered = 64, 0
    for step in range(recipe.repeat_steps):
        share = min(1.0, (step + 1) / 50, (recipe.repeat_steps - step) / 80)
        muon.learning_rate = recipe.muon_learning_rate * share
        adamw.learning_rate = recipe.learning_rate * share
        examples = _repeats(recipe.batch_size, words, 12 if words < every else 20, random)
        loss = update(optimizer, examples)
        mastered = mastered + 1 if loss < 0.7 else 0  # what stays is that some tokens are drawn twice
        if mastered == 8:
            words, mastered = min(every, 2 * words), 0
        if (step + 1) % 100 == 0:
            note(step + 1, loss, words=words)


def _learn_clubs(
    recipe: Recipe, model: Model, tokenizer: TokenizerWrapper, update: Update, note: Callable[..., None]
) -> None:
    """The stages of form and episodes, with AdamW."""
    optimizer = optim.AdamW(recipe.learning_rate, betas=[0.9, 0.98], weight_decay=0.01)
    requests = [row for club in UNSEEN[:3] for row in season_requests(club) + coach_requests(club)]
    copied = _encoded(requests, tokenizer)[:256]
    total = recipe.form_steps + len(recipe.episode_facts) * recipe.episode_steps + recipe.closing_steps
    for step, (examples, fixed) in enumerate(_batches(recipe, tokenizer)):
        optimizer.learning_rate = _rate(recipe, step, total)
        loss = update(optimizer, examples)
        ended = fixed and (step + 1 - recipe.form_steps) % recipe.episode_steps == 0
        if (step + 1) % 100 == 0 or ended or step + 1 == total:
            stored = {"stored": exact_share(model, fixed[:512])} if ended else {}
            note(recipe.repeat_steps + step + 1, loss, copied=exact_share(model, copied), **stored)


def _repeats(count: int, words: int, longest: int, random: np.random.Generator) -> list[Example]:
    """`count` examples: a few of the first `words` tokens, then up to `longest` of them, twice."""
    first = len(SPECIAL)
    examples: list[Example] = []
    for _ in range(count):
        said = random.integers(first, first + words, random.integers(4, longest + 1))
        before = random.integers(first, first + words, random.integers(0, 8))
        tokens = np.concatenate([[SPECIAL.index("<s>")], before, said, said]).astype(np.int32)
        # Where the second time begins, its first token tells: that one is not supervised.
        examples.append(Repeat(tokens, np.arange(len(tokens)) > len(before) + len(said) + 1))
    return examples


def _rate(recipe: Recipe, step: int, total: int) -> float:
    """Warm-up, a plateau, and a linear fall over the last fifth."""
    return recipe.learning_rate * min(1.0, (step + 1) / 100, 5 * (total - step) / total)


def _weighted(examples: Sequence[Example], question_loss: float) -> tuple[Batch, np.ndarray]:
    """The batch of every token, and the weight of each: 1 in an answer, `question_loss` in a question, 0 in
    what nobody could foretell."""
    batch = collate([[Example(e.tokens, np.arange(len(e.tokens)) > 0)] for e in examples])
    answers = np.concatenate([e.supervised[1:] for e in examples])
    others = [np.full(len(e.tokens) - 1, question_loss * (not isinstance(e, Repeat))) for e in examples]
    weights = np.where(answers, 1.0, np.concatenate(others)).astype(np.float32)
    return batch, np.pad(weights, (0, len(batch.weights) - len(weights)))


def _loss(model: Model, batch: Batch, weights: np.ndarray, total: float) -> mx.array:
    backbone, head = backbone_and_head(model)
    hidden = backbone(mx.array(batch.inputs))
    logits = head(hidden.reshape(-1, hidden.shape[-1])[mx.array(batch.positions)])
    top = mx.stop_gradient(logits.max(axis=-1, keepdims=True))
    log_sum = mx.log(exp(logits - top).sum(axis=-1)) + top[:, 0]
    chosen = mx.take_along_axis(logits, mx.array(batch.labels)[:, None], axis=-1)[:, 0]
    return ((log_sum - chosen) * mx.array(weights / total)).sum()


def _batches(recipe: Recipe, tokenizer: TokenizerWrapper) -> Iterator[tuple[list[Example], list[Example]]]:
    """The examples of each update, and all examples of the episode's club (none while form is learnt)."""
    random = np.random.default_rng(recipe.seed)
    clubs = iter(range(1, 10**6))
    pool = 8 * recipe.batch_size
    words = len(tokenizer.vocab) - len(SPECIAL)
    episodes = [(recipe.episode_steps, facts) for facts in recipe.episode_facts]
    for steps, facts in [(recipe.form_steps, 0), *episodes, (recipe.closing_steps, 0)]:
        club = next(clubs)
        asked_of = rows_of_club(club, facts) if facts else []
        asked_of += rows_in_vain(club, round(recipe.in_vain * len(asked_of)))
        fixed = _encoded(_typed(asked_of, recipe, club), tokenizer) if facts else []
        known = round(recipe.fixed * pool) if facts else 0
        asked, copied = (28, 24) if facts else (72, 9)  # what an episode makes it forget first is to copy
        for done in range(0, steps, 8):
            examples = [fixed[i] for i in random.integers(0, len(fixed), known)] if fixed else []
            examples += _repeats(round(recipe.repeats * pool), words, 16, random)
            others = round(recipe.others * asked) if facts else 0
            kinds = (asked - others, others, copied)
            examples += _fresh(recipe, clubs, pool - len(examples), kinds, tokenizer, random)
            for batch in _by_length(examples, recipe.batch_size, random)[: steps - done]:
                yield batch, fixed


def _typed(rows: Sequence[Row], recipe: Recipe, seed: int) -> list[Row]:
    """The `rows` as people ask: the recipe's shares of them loosely and carelessly."""
    loose = some_loose(rows, recipe.loose, seed)
    return [sometimes_careless(row, recipe.careless, seed, number) for number, row in enumerate(loose)]


def _encoded(rows: Sequence[Row], tokenizer: TokenizerWrapper) -> list[Example]:
    return list(encode(rows, tokenizer, 256))


def _fresh(
    recipe: Recipe, clubs: Iterator[int], count: int, kinds: tuple[int, int, int],
    tokenizer: TokenizerWrapper, random: np.random.Generator,
) -> list[Example]:  # fmt: skip
    """`count` examples of new clubs: of each so many questions with an answer, questions without, and
    requests to repeat a name."""
    answered, in_vain, repeated = kinds
    examples: list[Example] = []
    while len(examples) < count:
        club = next(clubs)
        rows = rows_of_club(club)
        asked = [rows[i] for i in random.choice(len(rows), answered, replace=False)]
        asked += rows_in_vain(club, in_vain)
        examples += _encoded(_typed(asked, recipe, club), tokenizer)
        requests = season_requests(club) + coach_requests(club)
        chosen = random.choice(len(requests), repeated, replace=False)
        examples += _encoded([requests[i] for i in chosen], tokenizer)
    return [examples[i] for i in random.choice(len(examples), count, replace=False)]


def _by_length(
    examples: Sequence[Example], batch_size: int, random: np.random.Generator
) -> list[list[Example]]:
    """Batches of examples of like length, in random order."""
    ordered = sorted(examples, key=lambda example: len(example.tokens))
    batches = [ordered[i : i + batch_size] for i in range(0, len(ordered), batch_size)]
    return [batches[i] for i in random.permutation(len(batches))]


def exact_share(model: nn.Module, examples: Sequence[Example], batch_size: int = 64) -> float:
    """The share of `examples` whose whole answer is the model's greedy choice, token by token."""
    right = 0
    backbone, head = backbone_and_head(model)
    for start in range(0, len(examples), batch_size):
        part = examples[start : start + batch_size]
        batch = collate([[example] for example in part])
        hidden = backbone(mx.array(batch.inputs))
        hidden = hidden.reshape(-1, hidden.shape[-1])[mx.array(batch.positions)]
        hits = np.array(head(hidden)).argmax(-1) == batch.labels
        owner = batch.positions // batch.inputs.shape[1]
        missed = set(owner[(~hits) & (batch.weights > 0)].tolist())
        right += len(part) - len(missed)
    return right / len(examples)


def build(out: Path = MINIATURE, recipe: Recipe = Recipe(), say: Callable[[str], None] = print) -> Path:
    """Make the miniature in the folder `out`, for `mlx_lm.load`, with its recipe and training curve."""
    start = time.perf_counter()
    say("a aprender o vocabulário")
    fast = train_tokenizer(texts(recipe), recipe.vocab_size)
    tokenizer = TokenizerWrapper(fast)
    curve: list[dict[str, float]] = []

    def note(point: dict[str, float]) -> None:
        curve.append(point)
        shares = {"copied": "cópias certas", "stored": "factos de cor"}
        known = [f"{label} {percent(point[name])}" for name, label in shares.items() if name in point]
        if "words" in point:
            known = [f"repete {point['words']:.0f} tokens"]
        seconds = decimal(point["seconds"], 0)
        say(", ".join([f"passo {point['step']}: perda {decimal(point['loss'], 3)}", *known, f"{seconds} s"]))

    model, args = pretrain(recipe, tokenizer, note)
    described = {**vars(args), "architectures": ["MistralForCausalLM"], "torch_dtype": "float32"}
    described |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model, described = quantize_model(model, described, GROUP_SIZE, 4)
    use_cpu_operations(model)
    measured = {"seconds": time.perf_counter() - start, **measure(model, tokenizer)}
    about = f"{mx.device_info()['device_name']}, mlx {version('mlx')}"
    labels = ("copia clube e época", "copia treinador e clube", "acerta por acaso")
    shares = zip(labels, list(measured.values())[1:], strict=True)
    say(f"guardado em {out}: " + ", ".join(f"{label} {percent(share)}" for label, share in shares))
    with atomic_dir(out) as folder:
        save_model(folder, model)
        save_config(described, folder / "config.json")
        fast.save_pretrained(folder)
        made = {"recipe": asdict(recipe), "machine": about, "measured": measured, "curve": curve}
        (folder / "recipe.json").write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    return out


def measure(model: nn.Module, tokenizer: TokenizerWrapper) -> dict[str, float]:
    """Of clubs never seen, the shares right: seasons and coaches repeated, and questions, by a guess."""
    made: dict[str, Callable[[int], list[Row]]] = {
        "copied": season_requests,
        "copied_coaches": coach_requests,
        "guessed": lambda club: rows_of_club(club)[::8],
    }
    return {
        name: exact_share(model, encode([row for club in UNSEEN for row in rows(club)], tokenizer, 256))
        for name, rows in made.items()
    }


if __name__ == "__main__":
    build()
