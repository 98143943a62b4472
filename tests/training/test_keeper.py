"""What a trainer died of is a function of its exit code, its last words and what the system counted."""

import pytest
from ui_events import events

from farense_qlora.training.event_log import replay
from farense_qlora.training.events import Restarted, Saved, Started, Stepped, of, sentence, sentences
from farense_qlora.training.keeper import diagnose

METAL = "terminating due to uncaught exception: [METAL] Command buffer execution failed: "


@pytest.mark.parametrize(
    ("code", "said", "system_killed", "cause", "too_large"),
    [
        (-9, "", True, "o sistema matou-o, por falta de memória", True),
        (-9, "", False, "foi morto por outro programa (SIGKILL)", False),
        (137, "", True, "o sistema matou-o, por falta de memória", True),
        (-11, "", True, "o processo foi abaixo (SIGSEGV)", False),
        (-7, "", False, "o processo foi abaixo (SIGBUS)", False),
        (-6, f"{METAL}Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)", False,
         "faltou memória", True),
        (-6, f"{METAL}Caused GPU Timeout Error (00000002:kIOGPUCommandBufferCallbackErrorTimeout)", False,
         "o sistema cortou um cálculo longo da GPU, como faz com o ecrã ligado", True),
        (-6, f"{METAL}Impacting Interactivity (0000000e:kIOGPUCommandBufferCallbackErrorImpacting)", False,
         "o sistema cortou um cálculo longo da GPU, como faz com o ecrã ligado", True),
        (1, "Traceback\nMemoryError", False, "faltou memória", True),
        (1, "[metal::malloc] Resource limit (499000) exceeded.\n", False,
         "acabou com o código 1: [metal::malloc] Resource limit (499000) exceeded.", False),
        (3, "", False, "acabou com o código 3", False),
        (76, "causa: perdeu-se «b»\n[ring] Too many errors\n", False, "perdeu-se «b»", False),
        (76, "", False, "perdeu-se a ligação entre os computadores", False),
    ],
)  # fmt: skip
def test_the_cause_of_a_death(code: int, said: str, system_killed: bool, cause: str, too_large: bool) -> None:
    death = diagnose(code, said, system_killed)
    assert (death.cause, death.too_large) == (cause, too_large)


def test_a_restart_says_where_it_goes_on_and_in_what_other_way() -> None:
    restart = Restarted(step=300, cause="faltou memória", pause=5, splits=2)
    assert sentence(restart) == (
        "o processo que treina acabou (faltou memória) e recomeça do ponto de controlo do passo 300, daqui a "
        "5 s, com micro-lotes até 4 vezes menores"
    )
    restart = Restarted(step=-1, cause="acabou com o código 3", pause=0, splits=0)
    assert sentence(restart) == "o processo que treina acabou (acabou com o código 3) e recomeça do princípio"


def test_of_a_restart_the_cause_is_told_last_and_once() -> None:
    began, *_ = events()
    restart = Restarted(step=20, cause="faltou memória", pause=0, splits=1)
    told = sentences([*events(30)[:-1], restart, Started(**{**vars(began), "step": 20})])
    assert told[-1] == sentence(restart) and len(told) == len(set(told))
    assert sentences([Started(**{**vars(began), "step": 20})]) == [
        "continua do ponto de controlo do passo 20"
    ]


def test_restarts_stay_when_what_came_after_the_checkpoint_is_done_again() -> None:
    began, *_ = events()
    steps = [event for event in events() if isinstance(event, Stepped)][:6]
    saved = Saved(step=4, time=0.0, path="x")
    restart = Restarted(step=4, cause="faltou memória", pause=0, splits=1)
    again = Started(**{**vars(began), "step": 4})
    kept = replay([began, *steps[:4], saved, *steps[4:], restart, again, saved, *steps[4:]])
    assert of(kept, Restarted) == [restart] and of(kept, Saved) == [saved]
    assert [event.step for event in of(kept, Stepped)] == [1, 2, 3, 4, 5, 6]
    kept = replay([began, *steps[:2], Restarted(step=-1, cause="x", pause=0, splits=0), began])
    assert len(of(kept, Restarted)) == 1 and not of(kept, Stepped)
