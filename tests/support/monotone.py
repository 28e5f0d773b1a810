"""Whether what was said about one thing ever goes back, for whoever asks again after an answer was there."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Said(Generic[Answer]):
    """One answer: when it was asked for and there, what it is about, and how far that is."""

    asked: float
    answered: float
    about: object
    number: int
    answer: Answer


def regressions(said: Iterable[Said[Answer]]) -> Iterator[tuple[Answer, Answer]]:
    """Yield each answer that stands before one about the same thing that was there before it was asked for, and that.

    Answers to questions that overlap may come in any order.
    """
    everything = list(said)
    by_answer = sorted(everything, key=lambda one: one.answered)
    highest: dict[object, Said[Answer]] = {}
    there = 0
    for one in sorted(everything, key=lambda one: one.asked):
        while there < len(by_answer) and by_answer[there].answered < one.asked:
            earlier = by_answer[there]
            if earlier.about not in highest or earlier.number > highest[earlier.about].number:
                highest[earlier.about] = earlier
            there += 1
        if one.about in highest and one.number < highest[one.about].number:
            yield one.answer, highest[one.about].answer
