"""Questions as a model is asked them: a prompt through a template or a chat, its tokens, and the tokens of the choices.

In: a `Question` (`tasks.tasks`). Out: `Asked`, with the text and the ids that the model reads; for choices also the tokens
whose probability is compared. Nothing runs here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from ...errors import PromptError, RecordError, did_you_mean
from ...model.unknown import told_once
from ..tasks import values as value
from ..tasks.pictures import IMAGE
from ..tasks.tasks import Question
from .asking import asking
from .pictures import continued, seen

if TYPE_CHECKING:
    from ...model.inputs import Prompt
    from ...model.model import Model

FINAL_ANSWER = "{prompt}\n\nThink step by step. End with a line that holds nothing but\nFINAL ANSWER: your answer"
"""A template for `extract="FINAL ANSWER:"`."""
Template = str | Callable[[Question], Any] | None
ChoiceTexts = str | Callable[[Question], Sequence[str]] | None
CHOICES_AS = ("letters", "texts")


@dataclass(frozen=True)
class Asked:
    """A question, ready to be run.

    Attributes:
        number: Which question, counted from 0.
        question: The question.
        text: What the model reads.
        ids: Its tokens; with choices, what all of them begin with.
        choices: For each choice the tokens that follow on `ids`.
        written: For each choice its text.
        names: For each choice what it is called: its letter, or its text.
        read: The prompt with its pixels, where the question has images.
        shape: What the further inputs are like, which agree within a batch; empty without images.
    """

    number: int
    question: Question
    text: str
    ids: tuple[int, ...] = ()
    choices: tuple[tuple[int, ...], ...] = ()
    written: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    read: Prompt | None = None
    shape: tuple[Any, ...] = ()

    @property
    def single(self) -> bool:
        """Whether every choice is one token."""
        return all(len(choice) == 1 for choice in self.choices)

    @property
    def right(self) -> int:
        """The number of the right choice."""
        answer = self.question.answer
        return self.names.index(answer) if isinstance(answer, str) and answer in self.names else -1


def said(question: Question, prompt: Template = None, *, chat: bool = False) -> Any:
    """The prompt of a question: text, or messages of a chat.

    Args:
        question: The question.
        prompt: A text with `{prompt}`, `{choices}` (a line each), `{id}`, `{image}` (all images of the question) or names
            of its metadata in braces; a function of the question that gives a text or messages; None for the prompt as it
            is.
        chat: Make a text the user's turn.

    Raises:
        RecordError: a name in the template is none, or the function gave something else.

    >>> said(Question("q", "2 + 2 =", metadata={"hint": "a sum"}), "{prompt} ({hint})", chat=True)
    [{'role': 'user', 'content': '2 + 2 = (a sum)'}]
    """
    found: Any = question.prompt
    if isinstance(prompt, str):
        named, images = value.columns(prompt), IMAGE * len(question.images)
        filling = {**question.metadata, "prompt": question.prompt, "choices": value.lines(question.choices),
                   "id": question.id}
        if images and "image" in named:  # which then stand there, and no more before the question's own prompt
            filling |= {"image": images, "prompt": question.prompt.removeprefix(images).removeprefix("\n")}
        filling.setdefault("image", "")
        for name in named:
            if name not in filling:
                raise RecordError(f"the template has {{{name}}}, and question {question.id!r} has {', '.join(filling)}."
                                  f"{did_you_mean(name, filling)}")
        found = prompt.format_map(filling)
    elif prompt is not None:
        with asking("prompt=", question):
            found = prompt(question)
    if isinstance(found, str):
        return [{"role": "user", "content": found}] if chat else found
    if isinstance(found, list) and found and all(isinstance(turn, Mapping) and "role" in turn for turn in found):
        return [dict(turn) for turn in found]
    raise RecordError(f"the prompt of question {question.id!r} is {found!r}; it is to be a text or a list of turns")


def asked(model: Model, number: int, question: Question, prompt: Any, room: int) -> Asked:
    """A question that the model writes an answer to.

    Args:
        model: Its tokenizer and its number of positions count.
        number: Which question.
        question: The question.
        prompt: What `said` made of it.
        room: How many tokens will be written.
    """
    if question.images:
        look = seen(model, question, prompt)
        _fits(model, question, len(look.ids) + room - 1)
        return Asked(number, question, look.text, look.ids, read=look.read, shape=look.shape)
    text, ids = _read(model, question, prompt)
    _fits(model, question, len(ids) + room - 1)
    return Asked(number, question, text, ids)


def with_choices(model: Model, number: int, question: Question, prompt: Any, how: ChoiceTexts = None) -> Asked:
    """A question whose choices are compared by how likely the model finds them.

    A choice is tokenized together with the prompt, and what all choices and the prompt begin with is what is given: so a
    blank at the end of a prompt belongs to the word after it. Without a prompt, whole texts are compared, from their second
    token on (the first is the token for the beginning of a text, where the tokenizer puts one). A processor that ends a
    prompt with images by a token of its own has the choice follow that.

    Args:
        model: Its tokenizer and its number of positions count.
        number: Which question.
        question: The question.
        prompt: What `said` made of it.
        how: `"letters"`, `"texts"`, or a function of the question that gives the texts; by default letters where the
            prompt has them, otherwise texts as they are.

    Raises:
        RecordError: there are no two choices, none is right, or two are the same to the tokenizer.
    """
    given: tuple[int, ...] | None
    shape: tuple[Any, ...] = ()
    pixels: Prompt | None = None
    if question.images:
        look = seen(model, question, prompt)
        pixels = look.read
        names, texts = _named(question, prompt, how, alone=not look.open)
        text, given, shape = look.text, look.ids, look.shape
        whole = [continued(model, look, one) for one in texts]
    else:
        names, texts = _named(question, prompt, how)
        with told_once():
            text, given = ("", None) if prompt == "" else _read(model, question, prompt)
            whole = [_read(model, question, text + one, special=isinstance(prompt, str))[1] for one in texts]
    start = max(1, min(_common(given or other, one) for one in whole for other in whole if other is not one))
    _fits(model, question, max(map(len, whole)) - 1)
    found = Asked(number, question, text, whole[0][:start], tuple(one[start:] for one in whole), texts, names,
                  pixels, shape)
    if not all(found.choices):
        raise RecordError(f"question {question.id!r}: a choice adds no token to what all of them begin with")
    if len(set(found.choices)) < len(whole):
        raise RecordError(f"question {question.id!r}: two of the choices {', '.join(map(repr, texts))} are the same to this "
                          "model's tokenizer")
    return found


def checked(question: Question, prompt: Any, how: ChoiceTexts = None) -> None:
    """What can be said against the choices of a question before the processor reads its pictures. Raises RecordError."""
    _named(question, prompt, how)


def _check_right(question: Question, names: Sequence[str]) -> None:
    if question.answer in names:
        return
    texts = question.choices
    letters = "" if tuple(names) == tuple(texts) else f", nor a letter from {names[0]} to {names[-1]}"
    near = [one for one in texts if isinstance(question.answer, str) and one.split() == question.answer.split()]
    hint = f" Did you mean {near[0]!r}, blanks and all?" if near else ""
    raise RecordError(f"question {question.id!r}: the answer {question.answer!r} is none of its choices "
                      f"{', '.join(map(repr, texts))}{letters}.{hint}")


def _named(question: Question, prompt: Any, how: ChoiceTexts, *,
           alone: bool = False) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What the choices are called, and the texts that stand for them, `alone` behind the end of a turn."""
    count = len(question.choices)
    if count < 2:
        raise RecordError(f"question {question.id!r} has {count or 'no'} choice{'s' * (count != 1)}: comparing needs two. "
                          'Free answers are written: how="generate"')
    lettered = question.lettered or question.answer not in question.choices
    if lettered and count > len(ascii_uppercase):
        raise RecordError(f"question {question.id!r} has {count} choices, and there are {len(ascii_uppercase)} letters: its "
                          "answer is to be the text of a choice")
    names = tuple(ascii_uppercase[:count]) if lettered else tuple(question.choices)
    _check_right(question, names)
    if how is None:
        how = "letters" if lettered else "texts"
    if how == "texts":
        return names, tuple(question.choices)
    if how == "letters":
        joined = alone or isinstance(prompt, list) or prompt[-1:].isspace() or not prompt
        return names, tuple(letter if joined else f" {letter}" for letter in ascii_uppercase[:count])
    if isinstance(how, str):
        raise RecordError(f"choices_as={how!r}: it is {', '.join(CHOICES_AS)} or a function."
                          f"{did_you_mean(how, CHOICES_AS)}")
    with asking("choices_as=", question):
        texts = tuple(how(question))
    if len(texts) != count or not all(isinstance(one, str) and one for one in texts):
        raise RecordError(f"question {question.id!r}: choices_as gave {texts!r}; it is to give {count} texts")
    return names, texts


def _read(model: Model, question: Question, prompt: Any, *, special: bool = True) -> tuple[str, tuple[int, ...]]:
    """The text and the tokens of a prompt. Raises PromptError that names the question."""
    try:
        str(prompt).encode()
        found = model.tokens(prompt) if special else model.reader._encode([prompt], special=False)
    except PromptError as error:
        raise PromptError(f"question {question.id!r}: {error}") from None
    except UnicodeEncodeError:
        raise PromptError(f"question {question.id!r}: its prompt is no valid text: it holds half a character") from None
    return (prompt if isinstance(prompt, str) else found.text[0]), found.ids[0]


def _fits(model: Model, question: Question, length: int) -> None:
    most = model.facts.n_ctx
    if most is not None and length > most:
        raise PromptError(f"question {question.id!r} takes {length} tokens with its answer, and this model has {most} "
                          "positions: shorten the prompt or max_new_tokens")


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two rows begin with together."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
