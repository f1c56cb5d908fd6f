"""Tasks, answers found in replies, and graders. Oracles: files written by the test, and grades worked out by hand."""

from __future__ import annotations

import json
import math
import re
import sys
import types

import pandas
import pytest
from PIL import Image

from hooklab.data.inputs import sources
from hooklab.data.tasks.answers import after_tag, extractor, last_match, letter
from hooklab.data.tasks.graders import GRADERS, Grade, Rate, grader, potemkin_rate
from hooklab.data.tasks.pictures import IMAGE
from hooklab.data.tasks.tasks import TASKS, Question, load_task, task
from hooklab.data.tasks.vqa import normalised, vqa_accuracy
from hooklab.errors import RecordError

MMLU = '''"Which bone is ""longest""?",Ulna,Femur,Tibia,Rib,B
"Two
lines",1,2,3,4,D
Third?,w,x,y,z,A
'''


@pytest.fixture
def mmlu(tmp_path):
    folder = tmp_path / "mmlu"
    for split in ("dev", "test"):
        (folder / split).mkdir(parents=True)
        (folder / split / f"anatomy_{split}.csv").write_text(MMLU)
    (folder / "test" / "virology_test.csv").write_text("Cold?,a,b,c,d,C\n")
    return folder


def test_mmlu_is_read_from_csv_with_choices_as_lines(mmlu):
    first, second, third = load_task("mmlu", mmlu, subject="anatomy")
    assert first == Question("anatomy_test/1", 'Which bone is "longest"?\nA. Ulna\nB. Femur\nC. Tibia\nD. Rib',
                             ("Ulna", "Femur", "Tibia", "Rib"), "B",
                             {"split": "test", "subject": "anatomy", "file": "anatomy_test.csv", "line": 1})
    assert second.prompt.startswith("Two\nlines\nA. 1") and (second.answer, second.metadata["line"]) == ("D", 2)
    assert third.id == "anatomy_test/4", "the line of the file, past a question of two lines"
    assert [q.metadata["subject"] for q in load_task("mmlu", mmlu)] == ["anatomy"] * 3 + ["virology"]
    assert load_task("mmlu", mmlu / "dev" / "anatomy_dev.csv")[0].metadata["split"] == "dev"
    assert load_task("mmlu", mmlu, split="dev")[0].id == "anatomy_dev/1"


def test_the_same_seed_gives_the_same_questions_and_a_limit_comes_after_shuffling(tmp_path):
    (tmp_path / "many_test.csv").write_text("".join(f"Q{i}?,a,b,c,d,A\n" for i in range(50)))
    whole = load_task("mmlu", tmp_path)
    assert [q.prompt.split("?")[0] for q in whole] == [f"Q{i}" for i in range(50)]
    seeded = load_task("mmlu", tmp_path, seed=3)
    assert seeded == load_task("mmlu", tmp_path, seed=3) != load_task("mmlu", tmp_path, seed=4)
    assert sorted(seeded, key=whole.index) == whole and seeded != whole
    assert load_task("mmlu", tmp_path, seed=3, limit=7) == seeded[:7]
    assert load_task("mmlu", tmp_path, limit=0) == []


@pytest.mark.parametrize(("text", "said"), [
    ("Q?,a,b,c,d,A\nQ?,a,b,c,A\n", r"x_test\.csv:2: 5 fields; a row is question, four choices, letter"),
    ("Q?,a,b,c,d,A\nQ?,a,b,c,d,E\n", r"x_test\.csv:2: the answer is 'E'; it is to be a letter from A to D"),
    ('"Two\nlines?",a,b,c,d,A\n ,a,b,c,d,A\n', r"x_test\.csv:3: question is empty"),
    ('Q?,a,b,c,d,A\n"Q?,a,b,c,d,A\n', r"x_test\.csv:2: unexpected end of data"),
    ("1,a,b,c,d,A\n" + "bad\n" * 7, r"x_test\.csv:2:.*\n(.*\n){4}… and 2 more malformed rows"),
    ("", "holds no questions"),
])
def test_malformed_rows_of_csv_are_errors_with_file_and_line(tmp_path, text, said):
    (tmp_path / "x_test.csv").write_text(text)
    with pytest.raises(RecordError, match=said):
        load_task("mmlu", tmp_path)


BBH = """{
  "canary": "do not train",
  "examples": [
    {"input": "Pick.\\nOptions:\\n(A) red [\\"x\\"]\\n(B) blue", "target": "(B)"},
    {"input": "not ( True ) is",
     "target": "False"},
    {"input": "Sure?\\nOptions:\\n- Yes\\n- No", "target": "No"}
  ]
}
"""


def test_bbh_is_read_from_json_with_lettered_choices_or_a_free_answer(tmp_path):
    (tmp_path / "boolean.json").write_text(BBH)
    chosen, free, dashed = load_task("bbh", tmp_path, subject="boolean")
    assert (chosen.choices, chosen.answer) == (('red ["x"]', "blue"), "B") and chosen.prompt.endswith("(B) blue")
    assert (free.id, free.prompt, free.choices, free.answer) == ("boolean/2", "not ( True ) is", (), "False")
    assert dashed.answer == "No" and [q.metadata["line"] for q in (chosen, free, dashed)] == [4, 5, 7]
    auto = grader(TASKS["bbh"].grader)
    assert auto("(B)", chosen).score == auto("false", free).score == 1 and auto("(A)", chosen).score == 0


@pytest.mark.parametrize(("text", "said"), [
    (BBH.replace('"target": "F', '"answer": "F'), r"x\.json:5: the row has no column 'target'; it has input, answer"),
    (BBH.replace('"No"', "3"), r"x\.json:7: target is 3; it is to be a text"),
    (BBH.replace('"(B)"', '"(C)"'), r"x\.json:4: the answer is 'C'; it is to be a letter from A to B"),
    (BBH.replace("(B) blue", "(C) blue"), r"x\.json:4: the choices are not lettered in order: A, C"),
    (BBH.replace('train",', 'train"'), r"x\.json:3: no JSON"),
    (BBH.replace('"target"', '"input"'), r'x\.json: .*"input" is there twice in one object'),
    ("[]", "a file of this task is"),
])
def test_malformed_examples_of_json_are_errors_with_file_and_line(tmp_path, text, said):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(RecordError, match=said):
        load_task("bbh", tmp_path)


def test_json_lines_take_a_template_and_choices_by_letter_text_or_index(tmp_path):
    file = tmp_path / "own.jsonl"
    rows = [{"question": "Sky {colour}?", "answer": "blue", "choices": ["red", "blue"], "topic": "air"},
            {"question": "One?", "answer": 0, "choices": ["1", "2"], "topic": "maths"},
            {"question": "Grass?", "answer": "B", "choices": ["red", "green"], "topic": "earth"},
            {"id": "free", "question": "Sum?", "answer": 4, "topic": "maths"},
            {"question": "Who?", "answer": ["Ann", "Bo"], "topic": "people"}]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    found = load_task("jsonl", file, template="[{topic}] {question}")
    assert [q.answer for q in found] == ["B", "A", "B", "4", ("Ann", "Bo")]
    assert found[0].prompt == "[air] Sky {colour}?\nA. red\nB. blue" and found[4].prompt == "[people] Who?"
    assert found[3].id == "free" and found[4].references == ("Ann", "Bo") and found[3].references == ("4",)
    assert found[1].metadata == {"file": "own.jsonl", "line": 2, "question": "One?", "topic": "maths"}
    placed = load_task("jsonl", file, template="{choices}\n{question}", limit=1)
    assert placed[0].prompt == "A. red\nB. blue\nSky {colour}?"
    assert [q.answer for q in load_task("jsonl", rows)] == [q.answer for q in found], "rows in memory"
    assert load_task("jsonl", pandas.DataFrame([{"question": "q", "answer": "a"}]))[0].id == "row/1"


@pytest.mark.parametrize(("lines", "options", "said"), [
    (['{"question": "q", "answer": "a"}', "{"], {}, r"own\.jsonl:2: no JSON"),
    (['{"question": "q"}'], {}, r"own\.jsonl:1: the row has no column 'answer'; it has question"),
    (['{"question": "q", "anwser": "a"}'], {}, 'Did you mean "anwser"'),
    (['{"question": "q", "answer": "a", "answer": "b"}'], {}, r'own\.jsonl:1: .*"answer" is there twice in one object'),
    (["[1]"], {}, r"own\.jsonl:1: the row has no column 'question'; it is \[1\]"),
    (['{"question": "q", "answer": null}'], {}, r"own\.jsonl:1: answer is None; it is to be a list of texts"),
    (['{"question": "q", "answer": "C", "choices": ["C", "D", "A"]}'], {}, "fits the choices A, C; give its index"),
    (['{"question": "q", "answer": 2, "choices": ["x", "y"]}'], {}, "the answer is choice 2; 2 choices"),
    (['{"question": "q", "answer": "A", "choices": "xy"}'], {}, "choices is 'xy'; it is to be a list"),
    (['{"id": 1, "question": "q", "answer": "a"}'] * 2, {}, "two questions of 'jsonl' have the id '1'"),
    (['{"question": "q", "answer": "a"}'], {"template": "{question.__class__}"}, "is the name of a column, alone"),
    (['{"question": "q", "answer": "a"}'], {"template": "{question"}, "cannot be read"),
])
def test_malformed_lines_and_templates_are_errors(tmp_path, lines, options, said):
    (tmp_path / "own.jsonl").write_text("\n".join(lines))
    with pytest.raises(RecordError, match=said):
        load_task("jsonl", tmp_path / "own.jsonl", **options)


def test_json_lines_name_their_images_beside_the_file_or_hold_them(tmp_path):
    (tmp_path / "pictures").mkdir()
    for name in ("a", "b", "c"):
        Image.new("RGB", (4, 4)).save(tmp_path / "pictures" / f"{name}.png")
    rows = [{"question": "What?", "answer": "cat", "image": "pictures/a.png", "kind": "x"},
            {"question": "Which?", "answer": "B", "choices": ["1", "2"], "images": ["pictures/b.png", "pictures/c.png"]},
            {"question": "None?", "answer": "dog", "image": None}]
    file = tmp_path / "own.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    found = load_task("jsonl", file)
    assert [q.prompt for q in found] == [f"{IMAGE}\nWhat?", f"{IMAGE * 2}\nWhich?\nA. 1\nB. 2", "None?"]
    assert [[one.name for one in q.images] for q in found] == [["a.png"], ["b.png", "c.png"], []]
    assert all(one.is_file() for q in found for one in q.images)
    assert found[0].metadata == {"file": "own.jsonl", "line": 1, "question": "What?", "kind": "x"}
    file.write_text("\n".join(json.dumps(rows[i]) for i in (0, 2)))
    placed = load_task("jsonl", file, template="{question} {image} !")
    assert [(q.prompt, len(q.images)) for q in placed] == [(f"What? {IMAGE} !", 1), ("None?  !", 0)]
    two = {"question": "Same?", "answer": "no", "left": Image.new("RGB", (1, 1)), "right": Image.new("RGB", (2, 2))}
    (held,) = load_task("jsonl", [two], template="{right} or {left}", images=["left", "right"])
    assert held.prompt == f"{IMAGE} or {IMAGE}" and held.images == (two["right"], two["left"])
    (partly,) = load_task("jsonl", [two], template="{question} {right}", images=["left", "right"])
    assert partly.prompt == f"{IMAGE}\nSame? {IMAGE}" and partly.images == (two["left"], two["right"])
    assert load_task("jsonl", [rows[0] | {"image": "a name"}], images=())[0].metadata["image"] == "a name"
    assert IMAGE == sources.IMAGE and load_task("jsonl", pandas.DataFrame(rows[2:]))[0].images == ()


@pytest.mark.parametrize(("row", "options", "said"), [
    ({"image": "nowhere.png"}, {}, r"own\.jsonl:2: image: there is no image '.*nowhere\.png'.*say images=\(\)"),
    ({"image": "https://example.org/a.png"}, {}, r"own\.jsonl:2: image: .*nothing is fetched over HTTP"),
    ({"image": 3}, {}, r"own\.jsonl:2: image: no image is int"),
    ({"image": "a.png", "question": f"what {IMAGE}"}, {}, r"own\.jsonl:2: a text holds the character U\+FFFC"),
    ({"image": "a.png"}, {"images": "picture"}, r"own\.jsonl:2: the row has no column 'picture'")])
def test_an_image_that_is_not_there_is_an_error_with_file_line_and_name(tmp_path, row, options, said):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    good = {"question": "q", "answer": "a", "image": "a.png", "picture": "a.png"}
    bad = {"question": "q", "answer": "a", **row}
    (tmp_path / "own.jsonl").write_text(json.dumps(good) + "\n" + json.dumps(bad))
    with pytest.raises(RecordError, match=said):
        load_task("jsonl", tmp_path / "own.jsonl", **options)


def test_pairs_have_the_right_one_first(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "She", "right": " runs", "wrong": " run", "kind": "verb"}\n'
                                      '{"id": 7, "right": "Cats run.", "wrong": "Cats runs."}\n')
    first, second = load_task("pairs", tmp_path)
    assert (first.prompt, first.choices, first.answer, first.metadata["kind"]) == ("She", (" runs", " run"), " runs", "verb")
    assert (second.id, second.prompt, second.answer) == ("7", "", "Cats run.")
    with pytest.raises(RecordError, match="row 1: right and wrong are the same text: 'a'"):
        load_task("pairs", [{"right": "a", "wrong": "a"}])


def test_a_task_reads_the_hub_with_the_package_datasets(monkeypatch):
    asked = []

    def load_dataset(*args, **named):
        asked.append((args, named))
        return [{"question": "Q?", "choices": ["a", "b", "c", "d"], "answer": 2, "subject": "anatomy"}]

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    (question,) = load_task("mmlu", "hub:someone/mmlu", subject="anatomy")
    assert asked == [(("someone/mmlu", "anatomy"), {"split": "test"})]
    assert (question.answer, question.id, question.metadata["repository"]) == ("C", "anatomy/test/1", "someone/mmlu")
    with pytest.raises(RecordError, match="say which split of someone/bbh"):
        load_task("bbh", "hub:someone/bbh")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(RecordError, match="install the package datasets"):
        load_task("mmlu", "hub:someone/mmlu")


def test_what_is_not_there_is_named(mmlu):
    one = mmlu / "dev" / "anatomy_dev.csv"
    for said, arguments in {
        'no task \'mlmu\'. Did you mean "mmlu"': {"name": "mlmu", "path": mmlu},
        "no file or folder": {"name": "mmlu", "path": mmlu / "nowhere"},
        "Subjects: anatomy, virology": {"name": "mmlu", "path": mmlu, "subject": "botany"},
        "say where the data is": {"name": "mmlu"},
        "is the split 'dev' by its name, not 'test'": {"name": "mmlu", "path": one, "split": "test"},
        "is not in its name": {"name": "mmlu", "path": one, "subject": "virology"},
        "limit=-1": {"name": "mmlu", "path": mmlu, "limit": -1},
    }.items():
        with pytest.raises(RecordError, match=re.escape(said)):
            load_task(**arguments)


def test_a_task_of_ones_own_is_a_function_with_a_decorator(monkeypatch):
    monkeypatch.setattr("hooklab.data.tasks.tasks.TASKS", dict(TASKS))

    @task("doubling", grader="exact")
    def doubling(source, *, split=None, subject=None, up_to=3):
        """Twice a number."""
        return (Question(str(i), f"2·{i} =", answer=str(2 * i)) for i in range(up_to))

    assert [q.answer for q in load_task("doubling", up_to=4)] == ["0", "2", "4", "6"]
    from hooklab.data.tasks.tasks import TASKS as now
    assert (now["doubling"].grader, now["doubling"].about) == ("exact", "Twice a number.")
    with pytest.raises(RecordError, match="there is a task 'mmlu' already"):
        task("mmlu")(doubling)


@pytest.mark.parametrize(("reply", "answer"), [
    ("I do not know.", None),
    ("", None),
    ("So.\nFINAL ANSWER: B", "B"),
    ("final answer: b\n\nHope this helps!\nBye", "b"),
    ("FINAL ANSWER: A\nNo, wait.\nFINAL ANSWER: C\n", "C"),
    ("FINAL ANSWER: A FINAL ANSWER: B", "B"),
    ("**Final Answer:** (B)", "(B)"),
    ("**FINAL ANSWER**: **42**\n", "42"),
    ("FINAL ANSWER:\nParis", "Paris"),
    ("FINAL ANSWER: A\nFINAL ANSWER:", "A"),
    ("FINAL ANSWER:\n\n\nThe next question is", None),
    ("FINAL ANSWER:", None),
    ("FINAL ANSWER: New York\r\nmore", "New York"),
])
def test_the_answer_is_what_stands_after_the_last_tag_in_its_line(reply, answer):
    assert after_tag(reply) == answer


def test_answers_are_found_by_a_tag_a_pattern_a_function_or_not_at_all():
    assert extractor("####")("1 + 1\n#### 2") == "2"
    assert extractor(re.compile(r"\\boxed\{(.*?)\}"))(r"\boxed{3} so \boxed{ 4 }") == "4"
    assert extractor(str.upper)("b") == "B" and extractor(None)(" x ") == "x" and extractor(None)("  ") is None
    assert last_match("none", r"\d") is None and last_match("a1b2", r"[a-z]\d") == "b2"
    with pytest.raises(RecordError, match="a tag is the text before the answer"):
        extractor(" ")


@pytest.mark.parametrize(("reply", "named"), [
    ("B", "B"), ("b", "B"), ("(B)", "B"), ("B.", "B"), ("[b]", "B"), ("**B**", "B"), ("B) Paris", "B"), ("b: Paris", "B"),
    ("Answer: B", "B"), ("The answer is (B).", "B"), ("answer: b", "B"), ("The correct option is B because A is small", "B"),
    ("Answer: A\nAnswer: B", "B"), ("I choose (B), the city", "B"), ("Choice C is wrong; the answer is B", "B"),
    ("The answer is B, I think", "B"), ("", None), ("A dog", None), ("Paris", None), ("A or B", None), ("(A) or (B)", None),
    ("Answer: (A) or (B)", None), ("Answer: A and B", None), ("The answer is a dog", None), ("E", None), ("Answer: E", None),
    ("I am not sure", None), ("?", None), ("The answer is not B", None),
])
def test_the_letter_of_a_choice_is_read_and_no_word_is_taken_for_one(reply, named):
    assert letter(reply, 4) == named


MCQ = Question("m", "?", ("Paris", "Rome", "Paris, Texas", "a"), "B")
FREE = Question("f", "?", answer="New York")
SEVERAL = Question("s", "?", answer=("colour", "color"))
PATTERN = Question("r", "?", answer=r"^\d+ km$")
PEOPLE = Question("v", "?", answer=("2", "two", "2.", "the 2", *["3"] * 6))


@pytest.mark.parametrize(("how", "question", "answer", "score", "reason"), [
    ("multiple_choice", MCQ, "B", 1, "chose B"),
    ("multiple_choice", MCQ, "(b)", 1, "chose B"),
    ("multiple_choice", MCQ, "Answer: B", 1, "chose B"),
    ("multiple_choice", MCQ, "rome.", 1, "chose B"),
    ("multiple_choice", MCQ, "B Rome", 1, "chose B"),
    ("multiple_choice", MCQ, "A. Paris", 0, "chose A, not B"),
    ("multiple_choice", MCQ, "Berlin", 0, "'Berlin' names no single one of 4 choices"),
    ("multiple_choice", MCQ, "", 0, "no answer"),
    ("multiple_choice", MCQ, None, 0, "no answer"),
    ("exact", FREE, "new  york ", 1, "the same text"),
    ("exact", FREE, "York", 0, "'York' is not 'New York'"),
    ("exact", FREE, "", 0, "no answer"),
    ("exact", SEVERAL, "Color", 1, "the same text"),
    ("exact", SEVERAL, "colours", 0, "'colours' is not 'colour' or 'color'"),
    ("regex", PATTERN, "12 km", 1, r"'12 km' matches '^\\d+ km$'"),
    ("regex", PATTERN, "12 miles", 0, r"'12 miles' does not match '^\\d+ km$'"),
    ("regex", PATTERN, " ", 0, "no answer"),
    ("vqa", PEOPLE, "Two", 1, "4 of 10 people gave '2'"),
    ("vqa", PEOPLE, None, 0, "no answer"),
    ("auto", FREE, "NEW YORK", 1, "the same text"),
    (len, FREE, "x", 1, "graded by len"),
])
def test_grades_are_those_worked_out_by_hand(how, question, answer, score, reason):
    if how is len:
        how = lambda said, question: len(said) == 1  # noqa: E731
        how.__name__ = "len"
    assert grader(how)(answer, question) == Grade(float(score), reason)


def test_a_grader_of_ones_own_returns_a_grade_a_truth_value_or_a_number():
    assert grader(lambda said, question: Grade(0.5, "half"))("x", FREE) == Grade(0.5, "half")
    assert grader(lambda said, question: 0.25)("x", FREE).score == 0.25
    assert grader(lambda said, question: 1)("", FREE) == Grade(0.0, "no answer"), "not called without an answer"
    assert grader(GRADERS["exact"]) is GRADERS["exact"]
    for verdict in (2, float("nan"), "yes", None):
        with pytest.raises(RecordError, match="question f: the grader <lambda> returned"):
            grader(lambda said, question, verdict=verdict: verdict)("x", FREE)
    with pytest.raises(RecordError, match="no grader 'exakt'. Did you mean \"exact\""):
        grader("exakt")
    with pytest.raises(RecordError, match="question f: the answer 'New York' is no letter of its 0 choices"):
        GRADERS["multiple_choice"]("A", FREE)
    with pytest.raises(RecordError, match="is no regular expression"):
        GRADERS["regex"]("a", Question("q", "?", answer="("))


# With k of ten people: k ≥ 4 always leaves three; of 3, three ways leave 2; of 2, two leave 1; of 1, one leaves none.
@pytest.mark.parametrize(("answer", "references", "score"), [
    ("yes", ["yes"] * 10, 1.0),
    ("yes", ["yes"] * 4 + ["no"] * 6, 1.0),
    ("yes", ["yes"] * 3 + ["no"] * 7, (3 * 2 / 3 + 7) / 10),
    ("yes", ["yes"] * 2 + ["no"] * 8, (2 * 1 / 3 + 8 * 2 / 3) / 10),
    ("yes", ["yes"] + ["no"] * 9, (0 + 9 / 3) / 10),
    ("maybe", ["yes"] * 5 + ["no"] * 5, 0.0),
    ("Two dogs.", ["2 dogs"] * 3 + ["3 dogs"] * 7, 0.9),
    ("the Dog", ["a dog", "dog", "an dog", "cat", "cat", "cat", "cat", "cat", "cat", "cat"], 0.9),
    ("dont know", ["don't know"] * 2 + ["know"] * 8, 0.6),
    ("black/white", ["black white"] + ["white"] * 9, 0.3),
    ("1,000", ["1000"] * 4 + ["1 000"] * 6, 1.0),
    ("3.5", ["35"] * 5 + ["3.5."] + ["3 5"] * 4, 0.3),
])
def test_vqa_accuracy_is_what_it_is_by_hand(answer, references, score):
    assert vqa_accuracy(answer, references) == pytest.approx(score, abs=1e-12)


@pytest.mark.parametrize(("text", "form"), [
    ("None", "0"), ("yes, sir!", "yes sir"), ("hot-dog", "hot dog"), ("T-shirt - red", "tshirt red"),
    ("it's 5:30", "it's 5:30"), ("COULDNT'VE", "couldn't've"),
    ("shouldntve", "shouldn't've"), ("its well", "its well"), ("youre", "you're"),
    ("oclock", "o'clock"), ("St. Paul", "st paul"), ("a\nb", "b"), ("", ""),
])
def test_answers_are_brought_to_the_published_form_and_stay_in_it(text, form):
    assert normalised(text) == form == normalised(form)


def test_vqa_accuracy_refuses_too_few_people():
    assert vqa_accuracy("a b", ["a b"] * 3 + ["c"]) == 0.75
    with pytest.raises(RecordError, match="the answers of 4 people or more; here are 1"):
        vqa_accuracy("x", ["x"])


def test_the_potemkin_rate_counts_each_concept_once():
    # means 1, 0.5, 0: their mean is 0.5, their variance 0.25, so the error is 2 · 0.5 / √3
    rate = potemkin_rate({"a": [1] * 100, "b": [True, False], "c": [0]})
    assert (rate.value, rate.concepts) == (1.0, 3) and rate.error == pytest.approx(1 / math.sqrt(3))
    assert potemkin_rate([[1, 1], [1]]) == Rate(0.0, 0.0, 2)
    single = potemkin_rate([[1, 0, 0, 0]])
    assert single.value == 1.5 and math.isnan(single.error)
    for wrong, said in {(): "no concepts", ((),): r"the concept 0 has the items \[\]", ((2,),): "each from 0 to 1"}.items():
        with pytest.raises(RecordError, match=said):
            potemkin_rate(wrong)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"question": 1' + "0" * 5000 + ', "answer": "a"}'])
def test_json_that_python_refuses_is_an_error_of_the_file(text, tmp_path):
    for task_, name in (("jsonl", "x.jsonl"), ("bbh", "x.json")):
        (tmp_path / name).write_text(text)
        with pytest.raises(RecordError, match=name):
            load_task(task_, tmp_path / name)


def test_a_folder_with_the_name_of_a_file_and_names_that_lead_elsewhere_are_errors(tmp_path):
    (tmp_path / "x_test.csv").mkdir()
    with pytest.raises(RecordError, match="x_test.csv could not be read"):
        load_task("mmlu", tmp_path)
    for options in ({"subject": "/etc/x"}, {"subject": "../x"}, {"split": "../.."}):
        with pytest.raises(RecordError, match="without slashes"):
            load_task("mmlu", tmp_path, **options)
    with pytest.raises(RecordError, match="could not be read"):
        load_task("jsonl", "x" * 5000)


def test_a_row_without_an_id_is_named_by_its_place(tmp_path):
    (tmp_path / "q.jsonl").write_text('{"question": "a", "answer": "b", "id": null}\n' * 2)
    assert [one.id for one in load_task("jsonl", tmp_path / "q.jsonl")] == ["q/1", "q/2"]
    frame = pandas.DataFrame([{"question": "a", "answer": "b", "id": float("nan")}] * 2)
    assert [one.id for one in load_task("jsonl", frame)] == ["row/1", "row/2"]


def test_examples_are_those_of_the_file_where_another_list_has_their_name(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({"about": {"examples": [1]}, "examples": [
        {"input": "1", "target": "a"}, {"input": "2", "target": "b"}]}))
    assert [one.answer for one in load_task("bbh", tmp_path / "x.json")] == ["a", "b"]


def test_what_the_hub_has_against_it_is_an_error(monkeypatch):
    def load_dataset(*_, **__):
        raise ConnectionError("no way there\nand more")

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    with pytest.raises(RecordError, match="hub:no/such all/test could not be read: no way there$"):
        load_task("jsonl", "hub:no/such", split="test")
