"""The classic experiments as cells on the shipped model: each must give what the experiment is known for, or its null."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import hooklab as hl
from hooklab.sae import Dictionary

TO_MARY = "When Mary and John went to the store, John gave a drink to"
TO_JOHN = "When Mary and John went to the store, Mary gave a drink to"
PARIS = "The Eiffel Tower is in the city of"
IOI = f"""
prompt clean = "{TO_MARY}"
prompt corrupt = "{TO_JOHN}"
answer " Mary" vs " John"
metric logit_diff
"""


@pytest.fixture(scope="module")
def lab():
    with hl.load("lab") as model:
        yield model


def test_the_next_token_is_shown(lab):
    run = lab.run(f'prompt "{PARIS}"\nshow top 5')
    assert run.scores["main.top"].labels[0, 0] == " Paris"
    with torch.no_grad():
        ids = torch.tensor([list(run.tokens.ids[0])])
        probs = lab.hf(ids, attention_mask=torch.ones_like(ids)).logits[0, -1].softmax(-1)
    assert run.scores["main.top"].values[0, 0] == pytest.approx(float(probs.max()), abs=1e-6)


def test_ablating_the_name_movers_takes_the_answer_away(lab):
    """Heads that write the name into the answer, found by direct attribution, carry it: without them it is lost."""
    found = lab.run(f'prompt "{TO_MARY}"\nanswer " Mary" vs " John"\nattribute L*H* with dla').scores["main.attribute"]
    movers = [cell for cell, value in found.top(30) if value > 0.3]
    assert {(c["layer"], c["head"]) for c in movers} == {(1, 3), (4, 1), (2, 1), (4, 0)}
    run = lab.run(f"""
prompt "{TO_MARY}"
answer " Mary" vs " John"
metric logit_diff
group movers = {{movers}}
run without on main:
    zero movers
run others on main:
    zero L2H[2,4], L3H[1,4]
expect without.logit_diff < 0
expect others.logit_diff ~= baseline.logit_diff
""", movers=movers)
    assert run.metrics["main"]["logit_diff"] > 5
    assert all(claim.holds for claim in run.expectations)


def test_a_patching_grid_shows_where_the_answer_travels(lab):
    run = lab.run(IOI + "run patched on corrupt:\n    patch each L*.resid_pre @each from clean\nshow grid")
    grid, metrics = run.grid.values, run.metrics
    changed = [i for i, (a, b) in enumerate(zip(run.tokens_of["clean"].ids[0], run.tokens_of["corrupt"].ids[0], strict=True))
               if a != b]
    assert run.grid.axes == ("layer", "pos") and len(changed) == 1
    clean, corrupt = metrics["clean"]["logit_diff"], metrics["corrupt"]["logit_diff"]
    assert clean > 5 and corrupt < -5
    assert grid[0, changed[0]] == pytest.approx(clean, abs=1e-4)  # the only token that differs
    same = [p for p in range(grid.shape[1]) if p != changed[0]]
    np.testing.assert_allclose(grid[0, same], corrupt, atol=1e-4)
    np.testing.assert_allclose(grid[:, :changed[0]], corrupt, atol=1e-4)  # nothing differs before it
    assert grid[-1, -1] > 0 > grid[-1, changed[0]]  # at the end the answer is at the last token


def test_induction_heads_are_found(lab):
    run = lab.run("prompt rep = repeat_random(20, batch=4, seed=0)\nscore each L*H* with induction\n"
                  "score L*H* with previous\nshow heads top=5")
    induction, previous = run.scores["rep.induction"], run.scores["rep.previous"]
    assert {cell["layer"] for cell, _ in induction.top(5)} == {1}
    assert induction.top(1)[0][1] > 0.8
    assert previous.top(1)[0][0] == {"layer": 0, "head": 4}
    plain = lab.run("prompt r = random(40, batch=4, seed=0)\nscore each L*H* with first")
    assert plain.scores["r.first"].values.shape == (5, 6)


def test_the_lens_sees_the_answer_form_with_depth(lab):
    run = lab.run(f'prompt "{PARIS}"\nanswer " Paris"\nlens L*.resid @each top=3\nshow lens')
    lens, answer = run.scores["main.lens"], run.scores["main.lens_prob"]
    assert lens.axes == ("layer", "pos", "rank") and lens.labels[-1, -1, 0] == " Paris"
    assert lens.values[-1, -1, 0] == pytest.approx(run.scores["main.top"].values[0, 0], abs=1e-6)
    assert answer.values[0, -1] < 0.1 < 0.9 < answer.values[-1, -1]


def test_causal_tracing_restores_the_fact_where_it_is_looked_up(lab):
    run = lab.run(f"""
prompt "{PARIS}"
mark subject = "The Eiffel Tower"
answer " Paris"
metric prob
run corrupted on main:
    noise embed @subject by 3 * sigma samples=10 seed=0
run restored on corrupted:
    patch each L*.mlp @each from baseline window=2
run everything on corrupted:
    patch L*.resid_post from baseline
show grid
""")
    grid, metrics = run.grid.values, run.metrics
    assert metrics["main"]["prob"] > 0.9 and metrics["corrupted"]["prob"] < 0.3
    assert metrics["everything"]["prob"] == pytest.approx(metrics["main"]["prob"], abs=1e-5)
    layer, position = np.unravel_index(grid.argmax(), grid.shape)
    assert grid.max() > 0.9 and position == grid.shape[1] - 1 and layer <= 1  # this model looks facts up at the last token
    np.testing.assert_allclose(grid[:, 0], metrics["corrupted"]["prob"], atol=1e-5)  # before the noise: nothing to restore


def test_steering_with_a_vector_changes_what_is_written(lab):
    def last(text):
        return lab.capture(text, "L4.resid_post", at="last")["L4.resid_post"][0]

    vec = last("The Red Square is in the city of") - last(PARIS)
    text = f'prompt "{PARIS}"\nsweep c in [0, 1]\nsteer L4.resid @last by c * {{vec}}\ngenerate 3 temperature=0'
    run = lab.run(text, vec=vec)
    plain, steered = (text.new for text in run.texts["hooked"])
    assert plain.startswith(" Paris") and steered.startswith(" Moscow")


def test_a_knock_out_sweep_finds_the_heads_that_matter(lab):
    prompts = [TO_MARY, "When John and Mary went to the store, John gave a drink to"]
    run = lab.run('prompt abc = {p}\nanswer {c} vs {w}\nmetric logit_diff\nablate each L*H* with mean over abc\nshow heads',
                  p=prompts, c=[" Mary", " Mary"], w=" John")
    effect = run.grid.values - run.metrics["abc"]["logit_diff"]
    assert effect.shape == (5, 6) and effect.min() < -1.5
    assert run.grid.examples.shape == (2, 5, 6)
    np.testing.assert_allclose(run.grid.examples.mean(0), run.grid.values, atol=1e-9)
    assert np.abs(effect[2, 2]) < 0.3  # a head that does nothing here


def test_direct_attribution_adds_up_to_the_logit_difference(lab):
    run = lab.run(f'prompt "{TO_MARY}"\nanswer " Mary" vs " John"\nmetric logit_diff\n'
                  "attribute L*H*, L*.mlp, embed, pos_embed with dla\nshow heads\nshow table top=10")
    found = run.scores["main.attribute"]
    assert found.axes == ("site",) and len(found.values) == 30 + 5 + 2
    # What is left over is the output biases of attention and the final norm's bias, in the same direction.
    norm = lab.hf.transformer.ln_f
    stream = lab.capture(TO_MARY, "L4.resid_post")["L4.resid_post"][0, -1].double()
    ids = [lab.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in (" Mary", " John")]
    unembed = (lab.hf.lm_head.weight[ids[0]] - lab.hf.lm_head.weight[ids[1]]).detach().double()
    direction = norm.weight.detach().double() * unembed / (stream.var(unbiased=False) + norm.eps).sqrt()
    direction = direction - direction.mean()
    biases = sum(block.attn.c_proj.bias.detach().double() for block in lab.hf.transformer.h)
    rest = float(biases @ direction + norm.bias.detach().double() @ unembed)
    assert found.values.sum() + rest == pytest.approx(run.metrics["main"]["logit_diff"], abs=1e-4)


def test_features_of_a_dictionary_are_ablated_with_the_error_kept(lab):
    d = lab.facts.d_model
    made = torch.Generator().manual_seed(0)
    enc, dec = (torch.randn(shape, generator=made) / shape[0] ** 0.5 for shape in ((d, 300), (300, d)))
    sae = Dictionary(enc, torch.zeros(300), dec, torch.zeros(d))
    text = f'prompt "{PARIS}"\nsae enc = {{sae}} at L2.resid_pre\nsave enc.F* @last as feats\nmetric kl(baseline)\n'
    stream = lab.capture(PARIS, "L2.resid_pre")["L2.resid_pre"]
    features = sae.encode(stream)
    live, dead = int(features[0].sum(0).argmax()), int(features[0].amax(0).argmin())
    run = lab.run(text + f"zero enc.F{live} @all\nshow features top=10", sae=sae)
    expected = stream - features[..., live, None] * dec[live]
    logits = lab.capture(PARIS, "logits", edits={"L2.resid_pre": lambda x: expected})["logits"][0, -1].log_softmax(-1)
    base = lab.capture(PARIS, "logits")["logits"][0, -1].log_softmax(-1)
    kl = float((base.exp() * (base - logits)).sum())
    assert run.metrics["hooked"]["kl"] == pytest.approx(kl, rel=1e-3) and kl > 1e-5
    after = features[0, -1].clone()
    after[live] = 0
    torch.testing.assert_close(run["feats"][0, 0], sae.encode(expected)[0, -1], atol=1e-4, rtol=1e-4)
    if float(features[0, :, dead].amax()) == 0:
        null = lab.run(text + f"zero enc.F{dead} @all", sae=sae)
        assert null.metrics["hooked"]["kl"] == pytest.approx(0, abs=1e-7)


def test_cutting_the_edges_from_the_subject_loses_the_fact(lab):
    run = lab.run(f"""
prompt "{PARIS}"
mark subject = "Eiffel Tower"
answer " Paris"
metric prob
run swept on main:
    cut each L* @subject -> @last window=3
run whole on main:
    cut L* @subject -> @3:
run nothing on main:
    cut L* @" is" -> @last
run late on main:
    cut L3: @subject -> @last
show grid
""")
    grid = run.scores["swept.prob"].values
    assert grid.shape == (5,)
    assert run.metrics["whole"]["prob"] < 0.01 < 0.9 < run.metrics["main"]["prob"]
    assert run.metrics["nothing"]["prob"] > 0.9 and run.metrics["late"]["prob"] > 0.9
    assert grid.argmin() <= 2 and grid.min() < 0.01 and grid[-1] > 0.9


def test_generation_with_a_steering_sweep(lab):
    def act(word, layer):
        return lab.capture(f"{word}", f"L{layer}.resid_post", at="last")[f"L{layer}.resid_post"][0]

    text = f"""
prompt "{PARIS}"
let love = {{act("Mary", 2)}} - {{act("John", 2)}}
sweep c in [0, 2, 4, 8]
steer L2.resid @prompt by c * love
generate 6 temperature=0.7 seed=0 samples=3
show text
"""
    values = {f'act("{name}", 2)': act(name, 2) for name in ("Mary", "John")}
    run, again = (lab.run(text, values=values) for _ in range(2))
    assert len(run.texts["hooked"]) == 12
    assert [t.text for t in run.texts["hooked"]] == [t.text for t in again.texts["hooked"]]
    unsteered = lab.run(f'prompt "{PARIS}"\ngenerate 6 temperature=0.7 seed=0 samples=3')
    assert [t.new for t in run.texts["hooked"][:3]] == [t.new for t in unsteered.texts["main"]]
    assert [t.new for t in run.texts["hooked"][9:]] != [t.new for t in run.texts["hooked"][:3]]
