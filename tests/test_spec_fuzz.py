"""Whatever is typed, the reader answers with a `Spec` or a `SpecError`; what it accepts survives being printed."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.fuzz import SIGNS, Mutator, cells, verdict
from hooklab.spec.verbs import FUNCTIONS, METRICS, VERBS, VIEWS

VALID, INVALID = cells("valid.txt"), cells("invalid.txt")
FINE = ("accepted", "refused")
quick = settings(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
WORDS = [*VERBS, *VIEWS, *METRICS, *FUNCTIONS, *(option for verb in VERBS.values() for option in verb.option_names), "main",
         "x", "resid",
         "qq", "L5", "L9H9", "L*", "H*", "N3", "F2", "q", "pattern", "from", "by", "to", "with", "over", "along", "on", "in",
         "at", "as", "vs",
         "except", "each", "@", "@last", "@each", '"a"', "'b'", "{v}", "{", "}", "3", "0.5", "-1", "0:6", "=", "==", ":",
         ",", ".", "->", "\n"]


@given(st.integers(0, 2**32))
@settings(quick, max_examples=40)
def test_damaged_cells(seed):
    """Each example is fifty texts, so that most of the time goes to reading."""
    mutator = Mutator(VALID + INVALID, seed)
    for _ in range(50):
        text = mutator.text()
        assert verdict(text) in FINE, text


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=12), st.sampled_from(["", 'prompt "a"\n',
                                                                                   'prompt "a"\nrun x on main:\n    ']),
       st.sampled_from([" ", ""]))
@settings(quick, max_examples=800)
def test_any_words(words, start, between):
    text = start + between.join(words)
    assert verdict(text) in FINE, text


@given(st.sampled_from([*VERBS]), st.lists(st.sampled_from([*SIGNS, *WORDS]), max_size=6))
@settings(quick, max_examples=600)
def test_a_verb_and_anything(verb, rest):
    text = f'prompt "a"\n{verb} {" ".join(rest)}'
    assert verdict(text) in FINE, text


@given(st.one_of(st.text(max_size=60), st.text(alphabet="zeroL9H[]{}()@\"' \n\t:.,=-#\\", max_size=40)))
@settings(quick, max_examples=800)
def test_any_text(text):
    assert verdict(text) in FINE, text


def test_the_cells_themselves():
    assert {verdict(text) for text in VALID} == {"accepted"} and {verdict(text) for text in INVALID} == {"refused"}
