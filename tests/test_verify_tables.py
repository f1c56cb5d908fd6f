"""Tables of one's own that are wrong: a failed check that says which site and why, or one sentence at the door."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
from tiny_models import build

import hooklab as hl
from hooklab.errors import FamilyError, HooklabWarning
from hooklab.families import FAMILIES, register, unregister

IDS = [[3, 4, 5, 6, 7, 8]]
NOPE = "has no 'nope': it has self_attn, mlp, input_layernorm, post_attention_layernorm."


@pytest.fixture
def opened():
    """A function that opens a model of a family under a table of its own, changed; the table is forgotten afterwards."""
    def load(family, changes):
        hf = build(family)
        right = FAMILIES[hf.config.model_type]
        hf.config.model_type = "own"
        register(replace(right, name="own", **changes))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", HooklabWarning)
            return hl.load(hf)

    yield load
    unregister("own")


REFUSED = [  # family, changes, a site that must be refused and words of the reason, sites that may be refused with it
    ("phi", dict(q="self_attn.k_proj", k="self_attn.q_proj"), "q", "16 numbers per token; q needs head 4 · d_head 8", "k"),
    ("llama", dict(q="self_attn.k_proj", k="self_attn.q_proj"), "k", "has 32 numbers per token; k needs kv_head 2", "q"),
    ("llama", dict(q="mlp.up_proj"), "q", "has 48 numbers per token; q needs head 4", ""),
    ("llama", dict(gate="self_attn.v_proj", up="mlp.gate_proj"), "mlp_pre", "mlp_pre needs d_mlp 48", "mlp_pre_linear"),
    ("llama", dict(up="mlp.down_proj"), "mlp_pre_linear", "mlp_pre_linear needs d_mlp 48", ""),
    ("llama", dict(gate="mlp.down_proj", down="mlp.gate_proj"), "mlp_out", "mlp_out needs d_model 32",
     "mlp_pre_linear mlp_post"),
    ("llama", dict(ln1="nope"), "ln1", "says ln1 = 'nope', but LlamaDecoderLayer " + NOPE, "ln1_scale"),
    ("llama", dict(ln2="nope"), "ln2", "says ln2 = 'nope', but LlamaDecoderLayer " + NOPE, "ln2_scale resid_mid"),
    ("llama", dict(q="self_attn.query"), "q", "says q = 'self_attn.query', but LlamaAttention has no 'query'", ""),
    ("llama", dict(v="self_attn.v_proj.weight"), "v", "says v = 'self_attn.v_proj.weight', but that is Parameter", ""),
    ("llama", dict(k="self_attn.config"), "k", "but that is LlamaConfig, no module", ""),
    ("llama", dict(k="self_attn.q_proj.weight.T.nope"), "k", "has no 'nope': it has no modules", ""),
    ("llama", dict(k=5), "k", "says k = 5, which is no path", ""),
    ("llama", dict(v=("self_attn", "v_proj")), "v", "which is no path", ""),
    ("llama", dict(q=None), "q", "leaves out q", ""),
    ("llama", dict(gate_up="mlp.both"), "mlp_pre", "says gate_up = 'mlp.both', but LlamaMLP has no", "mlp_pre_linear"),
    ("llama", dict(mid="nope"), "resid_mid", "says mid = 'nope'", ""),
    ("llama", dict(post_attn="nope"), "attn_out", "says post_attn = 'nope'", ""),
    ("llama", dict(post_mlp="nope"), "mlp_out", "says post_mlp = 'nope'", ""),
    ("llama", dict(pos_embed="wpe"), "pos_embed", "says pos_embed = 'wpe', but LlamaModel has no 'wpe'", ""),
    ("llama", dict(ln_final="ln_f"), "ln_final", "says ln_final = 'ln_f', but LlamaModel has no 'ln_f'", "ln_final_scale"),
    ("llama", dict(ln_final="embed_tokens"), "ln_final", "unembed(ln_final) = logits fails by", "ln_final_scale"),
    ("llama", dict(embed="norm"), "embed", "fails by", "ln_final_scale"),
    ("mixtral", dict(mlp="experts"), "mlp_out", "says mlp = 'experts'", ""),
    ("mixtral", dict(mlp="mlp.gate"), "mlp_out", "names MixtralTopKRouter", ""),
    ("gpt2", dict(packing="grouped"), "q", "fails by", "k v rot_q rot_k z pattern scores"),
    ("gpt2", dict(qkv="attn.c_proj"), "v", "qkv = 'attn.c_proj' names Conv1D, whose output has 32", "q k"),
    ("phi3", dict(gate_up="mlp.down_proj"), "mlp_pre", "mlp_pre needs 2 · d_mlp = 96", "mlp_pre_linear"),
    ("gpt2", dict(attn="mlp"), "pattern", "computes no attention that can be read", "rot_q rot_k scores"),
]


@pytest.mark.parametrize(("family", "changes", "site", "words", "others"), REFUSED,
                         ids=[f"{family} {' '.join(changes)} {i}" for i, (family, changes, *_) in enumerate(REFUSED)])
def test_only_the_sites_that_are_wrong_are_refused_and_the_check_says_why(opened, family, changes, site, words, others):
    model = opened(family, changes)
    report = model.verify()
    assert not report.ok
    assert any(check.status == "FAILED" and site in check.sites for check in report)
    assert words in report.broken[site], report.broken[site]
    assert set(report.broken) <= {site, *others.split()}, report.broken
    assert site in repr(report)
    assert set(model.interleaver.refused) == set(report.broken)
    at = site if site in ("pos_embed", "embed", "ln_final") else f"L0.{site}"
    with pytest.raises(LookupError) as refusal:
        model.capture(IDS, at)
    assert str(refusal.value) in (report.broken[site], model.sites.missing(site))
    with torch.no_grad():
        expected = model.hf(torch.tensor(IDS)).logits
    assert torch.equal(model.capture(IDS, ["L1.resid_post", "logits"])["logits"], expected)


@pytest.mark.parametrize(("changes", "words"), [
    (dict(blocks="nope"), "says blocks = 'nope', but LlamaModel has no 'nope'"),
    (dict(blocks="layers.0"), "LlamaDecoderLayer is no list of blocks"),
    (dict(blocks="norm.weight"), "that is Parameter, no module"),
    (dict(blocks=None), "leaves out a row that every model needs"),
    (dict(embed="nope"), "says embed = 'nope'"),
    (dict(embed=None), "leaves out a row that every model needs"),
    (dict(attn="nope"), "says attn = 'nope'"),
    (dict(attn=None), "leaves out attn"),
    (dict(o="self_attn"), "LlamaAttention is no linear map"),
    (dict(o=None), "leaves out o, and z is found by it"),
    (dict(down="mlp"), "LlamaMLP is no linear map"),
    (dict(never="nope"), "says never = 'nope', but LlamaModel has no ids of tokens there"),
    (dict(never="norm.weight"), "has no ids of tokens there"),
    (dict(norm="batch"), "says norm = 'batch'; it is one of layer, "),
    (dict(packing="packed"), "says packing = 'packed'; it is one of concat, per_head, grouped, multi_query"),
    (dict(residual="none"), "says residual = 'none'; it is one of sequential, parallel, post"),
    (dict(attention="flash"), "says attention = 'flash'; it is one of registry, inline"),
    (dict(variants=((lambda config: config.nope, {}),)), "A variant of the table of \"own\" cannot be applied"),
    (dict(variants=((lambda config: True, dict(nope=1)),)), "unexpected keyword argument 'nope'"),
    (dict(why=dict(resid_pre="it has none")), "leaves out resid_pre, which every model has"),
])
def test_a_table_that_no_model_can_be_read_by_is_refused_at_the_door_in_one_sentence(opened, changes, words):
    with pytest.raises(FamilyError) as refusal:
        opened("llama", changes)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("site", ["rot_q", "pattern", "z", "v", "ln1", "mlp_out"])
def test_a_site_may_be_left_out_by_a_reason_of_ones_own(opened, site):
    model = opened("llama", dict(why={site: "nobody needs it"}))
    assert model.verify().ok
    assert model.sites.missing(site) == f"own has no {site}: nobody needs it."
    assert site not in model.sites
    acts = model.capture(IDS, "L*.resid_post")
    whole = hl.load(build("llama")).capture(IDS, "L*.resid_post")
    assert all(torch.equal(acts[address], whole[address]) for address in whole)
