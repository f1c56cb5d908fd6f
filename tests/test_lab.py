"""The shipped model: small and plain, with a language that is what it claims and figures that hold."""

import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from random import Random

import pytest
import torch
from transformers import AutoTokenizer, GPT2LMHeadModel

from hooklab.model.lab import PATH, card, corpus, evaluate, examples, train, words
from hooklab.model.lab.tokenizer import UNKNOWN, build, vocabulary

FRESH = 20_26
FACTS = tuple(words.FACTS)


@pytest.fixture(scope="module")
def lab():
    return evaluate.load(PATH)


@pytest.fixture(scope="module")
def samples():
    return evaluate.samples(seed=FRESH, count=150)


@pytest.fixture(scope="module")
def training_text():
    return corpus.documents(seed=FRESH, count=20_000)


def python(code: str, **environment: str) -> str:
    """What this code prints in a process of its own."""
    environment = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout


def share(lab, cases) -> float:
    return sum(evaluate.correct(lab, cases)) / len(cases)


# The language


def test_same_seed_gives_the_same_text_and_another_seed_another():
    assert corpus.documents(3, 200) == corpus.documents(3, 200) != corpus.documents(4, 200)


def test_text_does_not_depend_on_the_hash_seed_of_the_process():
    code = "from hooklab.model.lab import corpus; print(*corpus.documents(3, 50), sep='\\n')"
    said = [python(code, PYTHONHASHSEED=seed, PYTHONPATH=":".join(sys.path)) for seed in ("1", "2")]
    assert said[0] == said[1] == "\n".join(corpus.documents(3, 50)) + "\n"


def test_training_and_held_out_keys_are_disjoint():
    rng = Random(FRESH)
    for make in corpus.MIXTURE:
        if make is corpus.third_giver:
            continue
        seen = {key for _ in range(2000) for key in make(rng, examples.TRAIN).keys}
        seen |= {key for _ in range(2000) for key in make(rng, examples.EARLY).keys}
        kept = {key for _ in range(500) for key in make(rng, examples.HELD).keys}
        assert kept and not seen & kept, make.__name__


def test_held_out_name_pairs_never_share_a_training_document(training_text):
    names = set(words.NAMES)
    together = {
        pair
        for text in training_text
        for found in [sorted(names & set(text.replace(".", " ").replace(",", " ").split()))]
        for pair in pairwise(found)
    }
    held = {pair for pair in together if examples.pair_held(*pair)}
    assert len(together) > 500 and not held


def test_held_out_prompts_never_occur_in_training(training_text, samples):
    text = "\n".join(training_text)
    for name in ("indirect object: new pair, new template", "agreement across an attractor, new noun pair"):
        assert not [case.prompt for case in samples[name][0] if case.prompt in text]
    for opening in words.NEW_OPENINGS:
        between_names_and_place = opening.partition("{b}")[2].partition("{place}")[0]
        assert not re.search(f"and [A-Z][a-z]+{between_names_and_place}", text)


@pytest.mark.parametrize("relation", FACTS)
def test_held_out_phrasings_of_a_fact_never_occur_in_training(relation, training_text):
    starts = {case.prompt for case in evaluate.held_facts(relation) if "{name}" not in case.keys[0][2]}
    assert len(starts) > 10
    assert not [text for text in training_text if any(text.startswith(start + " ") for start in starts)]


def test_every_fact_is_told_in_five_phrasings_and_held_out_in_one():
    for relation, facts in words.FACTS.items():
        for subject in facts:
            early, told, kept = (
                set(examples.fact_templates(relation, subject, split))
                for split in (examples.EARLY, examples.TRAIN, examples.HELD)
            )
            assert (len(early), len(told), len(kept)) == (4, 5, 1)
            assert early < told and not told & kept


def test_unused_names_never_receive_anything(training_text):
    objects = [text for text in training_text if any(f" {one} to " in text for one in words.OBJECTS)]
    assert len(objects) > 1000
    assert not [text for text in objects for name in words.NO_OBJECT_NAMES if f" to {name}" in text]


def test_random_windows_have_their_length_and_repeat():
    window = corpus.repeated(Random(0), range(2, 700), 60, 10)
    assert len(window) == 60 and window[:10] == window[50:] and len(set(window)) == 10
    pairs = corpus.shuffled_pairs(Random(0), range(2, 700), 60)
    follows = {first: second for first, second in zip(pairs[::2], pairs[1::2], strict=True)}
    assert all(follows[first] == second for first, second in zip(pairs[::2], pairs[1::2], strict=True))


# The tokenizer


def test_shipped_tokenizer_is_the_one_that_is_built():
    assert AutoTokenizer.from_pretrained(PATH).get_vocab() == build().get_vocab()


def test_every_document_comes_back_from_its_tokens(lab, training_text):
    for text in training_text[:2000]:
        ids = lab.tokenizer(text)["input_ids"]
        assert ids[0] == lab.tokenizer.bos_token_id
        assert lab.tokenizer.unk_token_id not in ids
        assert lab.tokenizer.decode(ids, skip_special_tokens=True) == text


def test_a_leading_space_belongs_to_the_token(lab):
    assert lab.tokenizer.tokenize("Mary and Mary") == ["Mary", " and", " Mary"]
    assert lab.ids("Mary") != lab.ids(" Mary")
    assert lab.tokenizer.tokenize("See the Eiffel Tower")[1:] == [" the", " Eiffel", " Tower"]


def test_numbers_are_cut_into_two_digits(lab):
    assert lab.tokenizer.tokenize("From 1732 the") == ["From", " 17", "32", " the"]


def test_unknown_words_are_unknown_and_say_so(lab):
    assert lab.tokenizer.tokenize("Mary frobnicates") == ["Mary", UNKNOWN]


def test_vocabulary_has_no_token_twice():
    assert len(vocabulary()) == len(set(vocabulary()))


# The weights


def test_folder_is_small_and_safe():
    files = {file.name: file.stat().st_size for file in PATH.iterdir()}
    assert sum(files.values()) <= 4_000_000
    assert set(files) == {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_configuration_is_plain_gpt2(lab):
    config = lab.model.config
    assert type(lab.model) is GPT2LMHeadModel and config.model_type == "gpt2"
    assert config.tie_word_embeddings and lab.model.lm_head.weight is lab.model.transformer.wte.weight
    assert config.scale_attn_weights and not config.scale_attn_by_inverse_layer_idx
    assert not config.reorder_and_upcast_attn and not config.add_cross_attention
    assert config.activation_function == "gelu_new" and config.layer_norm_epsilon == 1e-5
    assert config.n_inner is None and config.vocab_size == len(lab.tokenizer) and config.n_positions == 128


def test_stored_in_half_precision_and_opened_in_single():
    from safetensors import safe_open

    with safe_open(PATH / "model.safetensors", "pt") as stored:
        kinds = {stored.get_tensor(name).dtype for name in stored.keys()}
    assert kinds == {torch.float16}
    assert GPT2LMHeadModel.from_pretrained(PATH).dtype == torch.float32


def test_importing_the_path_loads_no_torch():
    code = "import sys, hooklab.model.lab; print({'torch', 'transformers'} & set(sys.modules))"
    assert python(code, PYTHONPATH=":".join(sys.path)).strip() == "set()"


# The abilities, on a fresh sample


def test_indirect_object_with_new_pairs_and_templates(lab, samples):
    cases, target = samples["indirect object: new pair, new template"]
    assert target == 0.95 and share(lab, cases) >= target


@pytest.mark.parametrize("order", ["first", "second"])
def test_indirect_object_in_both_orders(lab, samples, order):
    assert share(lab, samples[f"— receiver named {order}"][0]) >= 0.90


def test_example_prompt_of_the_literature(lab):
    prompt = "When Mary and John went to the store, John gave a drink to"
    row = evaluate.predictions(lab, [prompt])[0]
    assert lab.tokenizer.decode([int(row.argmax())]) == " Mary"


def test_facts_in_new_phrasings(lab):
    assert share(lab, evaluate.all_held_facts()) >= 0.98


def test_agreement_across_an_attractor_with_new_noun_pairs(lab, samples):
    assert share(lab, samples["agreement across an attractor, new noun pair"][0]) >= 0.95


def test_repeated_random_tokens(lab):
    assert evaluate.repetition(lab, evaluate.repeated_ids(lab, seed=FRESH)).share >= 0.90


def test_induction_heads_are_found_and_needed_for_repetition_only(lab):
    ids = evaluate.repeated_ids(lab, seed=FRESH)
    heads = evaluate.above(evaluate.head_scores(lab, ids)[1], evaluate.INDUCTION)
    facts = evaluate.all_held_facts()
    before = share(lab, facts)
    assert heads
    with evaluate.without(lab, heads):
        assert evaluate.repetition(lab, ids).share < 0.20
        assert share(lab, facts) > before - 0.05
    assert evaluate.repetition(lab, ids).share >= 0.90


def test_a_previous_token_head_is_found(lab):
    previous, _ = evaluate.head_scores(lab, evaluate.repeated_ids(lab, seed=FRESH))
    assert previous.max() > evaluate.PREVIOUS


@torch.no_grad()
def test_zeroing_a_head_equals_zeroing_its_rows_of_the_output_projection(lab):
    ids, width = evaluate.repeated_ids(lab, count=2), lab.model.config.n_embd // lab.model.config.n_head
    weight = lab.model.transformer.h[1].attn.c_proj.weight
    kept = weight.clone()
    with evaluate.without(lab, [(1, 2)]):
        hooked = lab.model(ids).logits
    weight[2 * width : 3 * width] = 0
    cut = lab.model(ids).logits
    weight.copy_(kept)
    assert torch.allclose(hooked, cut, atol=1e-5)
    assert not torch.allclose(hooked, lab.model(ids).logits, atol=1e-2)


# The tools


def test_training_is_seeded_and_its_folder_opens(tmp_path):
    for name in ("one", "two"):
        train.save(*train.train(seed=5, steps=3, every=100), tmp_path / name)
    one, two = (GPT2LMHeadModel.from_pretrained(tmp_path / name).state_dict() for name in ("one", "two"))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not [file for file in (tmp_path / "one").iterdir() if file.name.startswith(".")]


def test_card_tables_are_those_of_this_model():
    text = (PATH / "README.md").read_text()
    tables = text.partition(card.BEGIN)[2].partition(card.END)[0]
    took = json.loads((PATH / "config.json").read_text())["lab_training"]
    assert f"| seed, steps, tokens | {took['seed']}, {took['steps']:,}, {took['tokens']:,} |" in tables
    assert "| second half of repeated random tokens |" in tables


def test_card_without_markers_is_refused(tmp_path):
    (tmp_path / "README.md").write_text("# A card\n")
    with pytest.raises(ValueError, match="no place for the tables"):
        card.write("tables", tmp_path)


def test_wilson_interval_against_a_hand_made_number():
    low, high = evaluate.Rate("x", 9, 10).interval  # p = 0.9, n = 10, z = 1.96
    assert (low, high) == (pytest.approx(0.5958, abs=1e-3), pytest.approx(0.9821, abs=1e-3))
