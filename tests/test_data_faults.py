"""What was said wrongly, or in the words of a library beneath: labels, questions, graders, and words no tokenizer knows."""

from __future__ import annotations

import warnings

import pytest

import hooklab as hl
from hooklab.data import LabelGraph, Question, balanced_sample, load_labels
from hooklab.data.labels.labels import Label
from hooklab.data.tasks.graders import GRADERS
from hooklab.errors import HooklabWarning, RecordError


@pytest.fixture(scope="module")
def model():
    return hl.load("lab")


# Labels ---------------------------------------------------------------------------------------------------------------

def test_a_file_of_labels_that_cannot_be_read_is_named(tmp_path):
    for path in (tmp_path / "nope", tmp_path):
        with pytest.raises(RecordError, match=f"{path} could not be read: "):
            load_labels(path)


@pytest.mark.parametrize("edges", [["a"], ["ab"], [("a", "b", "c")], [("a", 1)], [3], {"animal": ["dog"]}, "ab"])
def test_an_edge_is_a_pair_of_ids(edges):
    with pytest.raises(RecordError, match=r"an edge is a pair \(parent, child\) of ids, not "):
        LabelGraph(edges)


def test_what_describes_a_class_is_a_label():
    assert len(LabelGraph([], [Label("a")])) == 1 and len(LabelGraph([["a", "b"]])) == 2
    with pytest.raises(RecordError, match="is a Label.* not 'a'"):
        LabelGraph([], ["a"])


@pytest.mark.parametrize(("counts", "n", "weights", "said"), [
    ({"dog": ["1", "2"]}, 2, None, r"the class 'dog' has \['1', '2'\] for a count; it is the number"),
    ({"dog": "3"}, 2, None, "the class 'dog' has '3' for a count"),
    ({"dog": float("nan")}, 0, None, "the class 'dog' has nan examples; a count is a whole number"),
    (["dog", "cat"], 2, None, r"collections.Counter\(labels\) does; not \['dog', 'cat'\]"),
    ({"dog": 2}, "2", None, "n='2': it is a whole number"),
    ({"dog": 2}, 1.5, None, "n=1.5: it is a whole number"),
    ({"dog": 2}, 1, {"dog": "1"}, "the weight of 'dog' is '1'"),
])
def test_a_sample_is_counted_in_numbers(counts, n, weights, said):
    with pytest.raises(RecordError, match=said):
        balanced_sample(counts, n, weights=weights)


# Questions ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("choices", "answer", "hint"), [
    ((" Mary", " John"), " Tom", ""), (("Mary", "John"), "Tom", ""),
    ((" Mary", " John"), "Mary", " Did you mean ' Mary', blanks and all?")])
def test_an_answer_that_is_no_choice_is_said_to_be_none(choices, answer, hint, model):
    asked = [Question("q", "When Mary and John went", choices=choices, answer=answer)]
    with pytest.raises(RecordError) as caught:
        hl.evaluate(model, asked, how="choices")
    assert str(caught.value) == (f"question 'q': the answer {answer!r} is none of its choices "
                                 f"{', '.join(map(repr, choices))}, nor a letter from A to B.{hint}")


@pytest.mark.parametrize(("pattern", "answer", "score", "reason"), [
    (" Paris", "Paris", 0, "'Paris' does not match ' Paris'; it would without the blanks around the pattern"),
    (" Paris", "Rome", 0, "'Rome' does not match ' Paris'"),
    ("Paris", "Rome", 0, "'Rome' does not match 'Paris'"),
    ("a  b\\ ", "a  b", 0, "'a b' does not match 'a  b\\\\ '"),  # without its blank it is no pattern
    (" Paris", "in Paris", 1, "'Paris' matches ' Paris'"),
])
def test_a_pattern_is_shown_with_its_blanks(pattern, answer, score, reason):
    grade = GRADERS["regex"](answer, Question("q", "?", answer=pattern))
    assert (grade.score, grade.reason) == (score, reason)


# Words that no tokenizer knows ------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("text", "shown"), [
    ("Mary went ", "' ' (a space)"), ("Mary  went", "' ' (a space)"), ("Mary went   ", "'   ' (3 spaces)"),
    ("Mary xylophones", "'xylophones'"), ("Mary\n", r"'\n'")])
def test_an_unknown_word_is_shown_as_it_is_at_the_line_that_gave_it(text, shown, model):
    calls = [lambda: model.tokens(text), lambda: model.capture(text, "L0.z"), lambda: model.trace(text),
             lambda: model.run("prompt {text}\nsave L0.z", text=text), lambda: model.generate(text, max_new_tokens=1)]
    for call in calls:
        with pytest.warns(HooklabWarning) as seen:
            call()
        assert [str(one.message) for one in seen] == [
            f"This model's tokenizer does not know {shown}: the model sees '<unk>' there."]
        assert seen[0].filename == __file__


def test_an_unknown_word_is_told_once_of_all_questions_choices_and_cells(model):
    asked = [Question(str(i), f"Mary {word} ", choices=("to", "the"), answer="to")
             for i, word in enumerate(["xylophones", "went", "zithers", "xylophones"])]
    for more in (dict(how="choices", choices_as="texts"), dict(how="generate", max_new_tokens=1, grade="exact")):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            hl.evaluate(model, asked, edits="scale L0H* by {share}", grid={"share": [1, 0]}, **more)
        told = "".join(str(one.message) for one in seen)
        assert told.count("'xylophones'") == told.count("'zithers'") == told.count("' ' (a space)") == 1
        assert {one.filename for one in seen} == {__file__}
        with pytest.warns(HooklabWarning, match="'xylophones'"):  # and of the next call again
            model.tokens("xylophones")
