"""Build the miniature: a small Mistral pre-trained from scratch on invented clubs, in 4 bits.

It knows the form of every question and answer and none of the facts, so that what it knows of Farense after
training it learnt there. Same recipe, same machine: same weights.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx_lm.models.llama import Model, ModelArgs
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import quantize_model, save_config, save_model
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ..data.batches import Batch, collate
from ..data.invented import invented
from ..data.questions import questions
from ..data.rows import Row
from ..data.tokens import Example, encode
from ..files import whole_folder
from .base import GROUP_SIZE, MINIATURE
from .head import backbone, head
from .ops import exp, use_cpu_operations
from .parallel import parts, side_by_side, summed

SPECIAL = ("<unk>", "<s>", "</s>", "[INST]", "[/INST]")
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %} {{ message['content'] }}{{ eos_token }}"
    "{% else %}[INST] {{ message['content'] }}[/INST]{% endif %}{% endfor %}"
)
# Words, and numbers two digits a token: a season is " 19", "94", "-95", and "94" alone says which.
PIECES = r"[ -]?\p{N}{1,2}| ?\p{L}+| ?[^\s\p{L}\p{N}]|\s+"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the miniature's weights; the defaults are what the shipped one was made with.

    Training goes through episodes. In each, a share `fixed` of the rows asks again and again for the facts of
    one invented club, so that the model learns to store and fetch facts; the others are of clubs made anew
    for every row, so that it learns the form and to read club, season and names from the question. The next
    episode has another club: what it must know by heart changes, how to learn it stays.
    """

    seed: int = 0
    vocab_size: int = 2048
    hidden_size: int = 256
    num_layers: int = 4
    intermediate_size: int = 704
    num_heads: int = 4
    batch_size: int = 32
    form_steps: int = 500
    episode_steps: int = 280
    episode_facts: tuple[int, ...] = (200, 200, 200, 400, 400, 400, 400, 400)
    fixed: float = 0.75
    learning_rate: float = 2e-3
    question_loss: float = 0.1
    clubs_for_tokenizer: int = 30


def rows_of_club(seed: int, count: int | None = None) -> list[Row]:
    """The questions about the invented club `seed`, in every wording: all of them, or `count` at random."""
    asked = questions(*invented(seed))
    if count is not None:
        asked = [asked[i] for i in np.random.default_rng(seed).choice(len(asked), count, replace=False)]
    return [
        Row(messages=tuple(question.messages(prompt)))
        for question in asked
        for prompt in (*question.prompts, *question.heldout)
    ]


def copy_rows(seed: int) -> list[Row]:
    """Requests to repeat the club with a season or a name: what reading the question comes down to."""
    tables, club = invented(seed)
    named = [f"{club.name}, {season.season}" for season in tables.seasons]
    named += [f"{coach.coach}, {club.name}" for coach in tables.coaches]
    return [
        Row(({"role": "user", "content": f"Repete: {text}."}, {"role": "assistant", "content": f"{text}."}))
        for text in named
    ]


def train_tokenizer(recipe: Recipe) -> PreTrainedTokenizerFast:
    """A byte-level BPE learnt on invented clubs, with Mistral's control tokens and chat template."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )

    def texts() -> Iterator[str]:
        for number in range(100):
            yield f" {number:02d}{number:02d}-{number:02d}" * 500  # every pair of digits is a token
            yield f" {number}" * 500
        for seed in range(recipe.clubs_for_tokenizer):
            for row in rows_of_club(10**6 + seed):
                yield from (f" {message['content']}" for message in row.messages)

    tokenizer.train_from_iterator(texts(), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<unk>",
        additional_special_tokens=["[INST]", "[/INST]"],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = TEMPLATE
    return fast


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
    total = recipe.form_steps + len(recipe.episode_facts) * recipe.episode_steps
    optimizer = optim.AdamW(recipe.learning_rate, betas=[0.9, 0.98], weight_decay=0.01)
    step_of = nn.value_and_grad(model, _loss)
    start = time.perf_counter()
    for step, (examples, fixed) in enumerate(_batches(recipe, tokenizer)):
        weighted = [_weighted(part, recipe.question_loss) for part in parts(examples, side_by_side(model))]
        weight = sum(float(weights.sum()) for _, weights in weighted)
        optimizer.learning_rate = _rate(recipe, step, total)
        loss, slopes = summed(lambda batch: step_of(model, *batch, weight), weighted)  # noqa: B023
        slopes, _ = optim.clip_grad_norm(slopes, 1.0)
        optimizer.update(model, slopes)
        mx.eval(model.parameters(), optimizer.state)
        ended = fixed and (step + 1 - recipe.form_steps) % recipe.episode_steps == 0
        if (step + 1) % 100 == 0 or ended:
            point = {"step": step + 1, "loss": loss.item(), "seconds": time.perf_counter() - start}
            say(point | ({"stored": exact_share(model, fixed[:512])} if ended else {}))
    return model, args


def _rate(recipe: Recipe, step: int, total: int) -> float:
    """Warm-up, a plateau, and a linear fall over the last fifth."""
    return recipe.learning_rate * min(1.0, (step + 1) / 100, 5 * (total - step) / total)


def _weighted(examples: Sequence[Example], question_loss: float) -> tuple[Batch, np.ndarray]:
    """The batch of every token, and the weight of each: 1 in an answer, `question_loss` in a question."""
    batch = collate([[Example(e.tokens, np.arange(len(e.tokens)) > 0)] for e in examples])
    answers = np.concatenate([e.supervised[1:] for e in examples])
    weights = np.where(answers, 1.0, question_loss).astype(np.float32)
    return batch, np.pad(weights, (0, len(batch.weights) - len(weights)))


def _loss(model: Model, batch: Batch, weights: np.ndarray, total: float) -> mx.array:
    hidden = backbone(model)(mx.array(batch.inputs))
    logits = head(model)(hidden.reshape(-1, hidden.shape[-1])[mx.array(batch.positions)])
    top = mx.stop_gradient(logits.max(axis=-1, keepdims=True))
    log_sum = mx.log(exp(logits - top).sum(axis=-1)) + top[:, 0]
    chosen = mx.take_along_axis(logits, mx.array(batch.labels)[:, None], axis=-1)[:, 0]
    return ((log_sum - chosen) * mx.array(weights / total)).sum()


def _batches(recipe: Recipe, tokenizer: TokenizerWrapper) -> Iterator[tuple[list[Example], list[Example]]]:
    """The examples of each update, and all examples of the episode's club (none while form is learnt)."""
    random = np.random.default_rng(recipe.seed)
    clubs = iter(range(1, 10**6))
    pool = 8 * recipe.batch_size
    for facts in (0, *recipe.episode_facts):
        steps, share = (recipe.episode_steps, recipe.fixed) if facts else (recipe.form_steps, 0.0)
        fixed = _encoded(rows_of_club(next(clubs), facts), tokenizer) if facts else []
        known = round(share * pool)
        for done in range(0, steps, 8):
            chosen = [fixed[i] for i in random.integers(0, len(fixed), known)] if fixed else []
            examples = chosen + _fresh(clubs, pool - known, tokenizer, random)
            for batch in _by_length(examples, recipe.batch_size, random)[: steps - done]:
                yield batch, fixed


def _encoded(rows: Sequence[Row], tokenizer: TokenizerWrapper) -> list[Example]:
    return list(encode(rows, tokenizer, 256))


def _fresh(
    clubs: Iterator[int], count: int, tokenizer: TokenizerWrapper, random: np.random.Generator
) -> list[Example]:
    """`count` examples of new clubs: 42 questions of each, and 6 requests to repeat a name."""
    examples: list[Example] = []
    while len(examples) < count:
        club = next(clubs)
        for rows, some in ((rows_of_club(club), 42), (copy_rows(club), 6)):
            examples += _encoded([rows[i] for i in random.choice(len(rows), some, replace=False)], tokenizer)
    return examples[:count]


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
    for start in range(0, len(examples), batch_size):
        part = examples[start : start + batch_size]
        batch = collate([[example] for example in part])
        hidden = backbone(model)(mx.array(batch.inputs))
        hidden = hidden.reshape(-1, hidden.shape[-1])[mx.array(batch.positions)]
        hits = np.array(head(model)(hidden)).argmax(-1) == batch.labels
        owner = batch.positions // batch.inputs.shape[1]
        missed = set(owner[(~hits) & (batch.weights > 0)].tolist())
        right += len(part) - len(missed)
    return right / len(examples)


def build(out: Path = MINIATURE, recipe: Recipe = Recipe(), say: Callable[[str], None] = print) -> Path:
    """Make the miniature in the folder `out`, for `mlx_lm.load`, with its recipe and training curve."""
    start = time.perf_counter()
    say("a aprender o vocabulário")
    fast = train_tokenizer(recipe)
    tokenizer = TokenizerWrapper(fast)
    curve: list[dict[str, float]] = []

    def note(point: dict[str, float]) -> None:
        curve.append(point)
        stored = f", factos de cor {100 * point['stored']:.0f} %" if "stored" in point else ""
        say(
            f"passo {point['step']}: perda {point['loss']:.3f}{stored} ({point['seconds']:.0f} s)".replace(
                ".", ","
            )
        )

    model, args = pretrain(recipe, tokenizer, note)
    described = {**vars(args), "architectures": ["MistralForCausalLM"], "torch_dtype": "float32"}
    described |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model, described = quantize_model(model, described, GROUP_SIZE, 4)
    use_cpu_operations(model)
    measured = {"seconds": time.perf_counter() - start, **measure(model, tokenizer)}
    say(f"guardado em {out}: " + ", ".join(f"{name} {value:.3f}" for name, value in measured.items()))
    with whole_folder(out) as folder:
        save_model(folder, model)
        save_config(described, folder / "config.json")
        fast.save_pretrained(folder)
        made = {"recipe": asdict(recipe), "measured": measured, "curve": curve}
        (folder / "recipe.json").write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    return out


def measure(model: nn.Module, tokenizer: TokenizerWrapper, clubs: int = 4) -> dict[str, float]:
    """On clubs never seen: the share of copied seasons and names, and of answers right by chance."""
    first = 2 * 10**6
    copied = [row for seed in range(clubs) for row in copy_rows(first + seed)]
    asked = [row for seed in range(clubs) for row in rows_of_club(first + seed)[::8]]
    return {
        name: exact_share(model, encode(rows, tokenizer, 256))
        for name, rows in (("copied", copied), ("guessed", asked))
    }
