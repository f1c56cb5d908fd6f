"""Models whose head is no language model's, or that have none: their body is checked, and logits are refused by reason."""

from __future__ import annotations

import sys

import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from tiny_models import GPT, MHA, OPT, SIZES, _make, _randomise, build

import hooklab as hl
from hooklab.errors import HooklabError, ModelError, SiteError
from hooklab.families import FAMILIES
from hooklab.model.verification.names import HEAD
from hooklab.problems import SpecError

IDS = [[3, 4, 5, 6, 7, 8]]
THREE = dict(num_labels=3)
NARROW = dict(OPT, word_embed_proj_dim=32)
CLASSES = {  # class -> its config, options, and the shapes of what it gives for IDS
    "GPT2ForSequenceClassification": ("GPT2Config", dict(GPT, **THREE), [(1, 3)]),  # without padding: one prompt at a time
    "GPT2ForTokenClassification": ("GPT2Config", dict(GPT, **THREE), [(1, 6, 3)]),
    "GPT2ForQuestionAnswering": ("GPT2Config", GPT, [(1, 6), (1, 6)]),
    "LlamaForSequenceClassification": ("LlamaConfig", dict(SIZES, **THREE), [(1, 3)]),
    "LlamaForTokenClassification": ("LlamaConfig", dict(SIZES, **THREE), [(1, 6, 3)]),
    "BertForSequenceClassification": ("BertConfig", dict(MHA, **THREE), [(1, 3)]),
    "BertForTokenClassification": ("BertConfig", dict(MHA, **THREE), [(1, 6, 3)]),
    "BertForQuestionAnswering": ("BertConfig", MHA, [(1, 6), (1, 6)]),
    "BertForNextSentencePrediction": ("BertConfig", MHA, [(1, 2)]),
    "OPTForSequenceClassification": ("OPTConfig", dict(NARROW, **THREE), [(1, 3)]),
    "OPTForQuestionAnswering": ("OPTConfig", NARROW, [(1, 6), (1, 6)]),
    "GPTNeoXForSequenceClassification": ("GPTNeoXConfig", dict(MHA, **THREE), [(1, 3)]),
    "GPTNeoXForTokenClassification": ("GPTNeoXConfig", dict(MHA, **THREE), [(1, 6, 3)]),
}
BODIES = {"GPT2Model": ("GPT2Config", GPT), "LlamaModel": ("LlamaConfig", SIZES), "BertModel": ("BertConfig", MHA),
          "OPTModel": ("OPTConfig", NARROW), "GPTNeoXModel": ("GPTNeoXConfig", MHA)}


def made(name):
    """A random model of one of the classes."""
    config, options, *_ = CLASSES.get(name) or BODIES[name]
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        hf = _make(name, config, **options)().eval()
        for path, parameter in hf.named_parameters():
            _randomise(path, parameter)
    return hf


def numbers(output):
    return [value for value in output.values() if isinstance(value, torch.Tensor)]


@pytest.mark.parametrize("name", [*CLASSES, *BODIES])
def test_it_opens_without_a_word_and_passes_and_no_site_is_refused(name):
    model = hl.load(made(name))
    report = model.verify()
    assert report.ok, report
    assert not model.interleaver.refused
    checked = {site for check in report if check.error is not None for site in check.sites}
    assert {"resid_pre", "resid_post", "attn_out", "mlp_out", "pattern", "z", "q", "v"} <= checked
    assert [check.status for check in report if check.name == HEAD] == (["exact"] if name in CLASSES else [])


@pytest.mark.parametrize("name", CLASSES)
def test_sites_and_output_are_those_of_the_bare_model(name):
    hf = made(name)
    with torch.no_grad():
        expected = hf(torch.tensor(IDS), output_hidden_states=True)
    streams = expected.hidden_states
    model = hl.load(hf)
    acts = model.capture(IDS, ["L0.resid_pre", "L1.resid_pre"], full=True)
    torch.testing.assert_close(acts["L0.resid_pre"], streams[0])
    torch.testing.assert_close(acts["L1.resid_pre"], streams[1])
    with model.trace(IDS):
        output = model.output.save()
    for given in (acts.output, output):
        assert [tuple(value.shape) for value in numbers(given)] == CLASSES[name][2]
        for value, want in zip(numbers(given), numbers(expected), strict=False):
            torch.testing.assert_close(value, want)


@pytest.mark.parametrize("name", [*CLASSES, *BODIES])
def test_logits_are_refused_by_reason_wherever_they_are_asked_for(name):
    model = hl.load(made(name))
    sentence = model.sites.missing("logits")
    assert "without a language-model head" in sentence
    assert (f"as {name}" in sentence) == (name in CLASSES)
    assert ("ln_final" in sentence) == ("ln_final" in model.sites)
    assert "logits" not in model.sites
    with pytest.raises(SiteError, match="without a language-model head"):
        model.capture(IDS, "logits")
    with pytest.raises(SiteError, match="without a language-model head"), model.trace(IDS):
        model.logits.save()
    if model.facts.causal:
        with pytest.raises(HooklabError, match="without a language-model head"):
            hl.lens(model, IDS)
    for line in ("save logits", "metric prob", "lens" if model.facts.causal else "metric logit"):
        with pytest.raises(SpecError, match="without a language-model head"):
            model.run("prompt {ids}\nanswer {a}\n" + line, ids=IDS[0], a=5)
    with pytest.raises(ModelError, match=f"{name} does not generate"):
        model.generate(IDS, max_new_tokens=2)


def test_a_cell_reads_and_edits_the_body_and_says_why_it_has_no_prediction(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    InteractiveShell.clear_instance()
    hooks = sys.displayhook, sys.excepthook
    shell = InteractiveShell.instance()
    shell.history_manager.enabled = False
    try:
        shell.run_cell("%load_ext hooklab")
        hf = made("LlamaForSequenceClassification")
        shell.user_ns.update(model=hl.load(hf), ids=IDS[0])
        done = shell.run_cell("%%hook model -o run\nprompt {ids}\nzero L0.mlp\nsave L1.resid_post\n")
        done.raise_error()
        run = shell.user_ns["run"]
        hf.model.layers[0].mlp.register_forward_hook(lambda module, args, output: torch.zeros_like(output))
        with torch.no_grad():
            streams = []
            hf.model.layers[1].register_forward_hook(lambda module, args, output: streams.append(output))
            hf(torch.tensor(IDS))
        torch.testing.assert_close(run["hooked.L1.resid_post"], streams[0])
        assert "next token" not in repr(run)
        capsys.readouterr()
        shell.run_cell("%%hook model\nprompt {ids}\nmetric top\n")
        assert "without a language-model head" in capsys.readouterr().out.replace("\n", " ")
    finally:
        sys.displayhook, sys.excepthook = hooks
        shell.history_manager.end_session()
        InteractiveShell.clear_instance()


@pytest.mark.parametrize(("name", "changes", "surely"), [
    ("GPT2ForSequenceClassification", dict(packing="per_head"), "q"),
    ("LlamaForSequenceClassification", dict(ln2="input_layernorm"), "resid_mid"),
    ("LlamaForTokenClassification", dict(gate="mlp.up_proj", up="mlp.gate_proj"), "mlp_pre_linear"),
    ("BertForSequenceClassification", dict(k="attention.self.value"), "k"),
    ("OPTForSequenceClassification", dict(scaled_q=False), "rot_q"),
    ("GPTNeoXForSequenceClassification", dict(packing="concat"), "v"),
    ("GPT2Model", dict(norm="rms"), "ln1_scale"),
])
def test_a_wrong_table_is_found_out_under_any_head(monkeypatch, name, changes, surely):
    from dataclasses import replace

    from hooklab.model.model import Model

    hf = made(name)
    monkeypatch.setitem(FAMILIES, hf.config.model_type, replace(FAMILIES[hf.config.model_type], **changes))
    report = Model(hf).verify()
    assert not report.ok
    assert surely in report.broken, report.broken


def test_a_head_that_is_fed_by_more_than_the_stream_is_found_out():
    hf = made("LlamaForTokenClassification")
    forward = hf.score.forward
    held = {}
    hf.model.embed_tokens.register_forward_hook(lambda module, args, output: held.update(x=output))
    hf.score.forward = lambda x: forward(x + held["x"])
    report = hl.load(hf).verify()
    assert [check.name for check in report if check.status == "FAILED"] == [HEAD]
    assert not report.broken  # every site is still what it says


def test_a_head_that_takes_no_plain_prompt_is_left_out_and_said_to_be():
    hf = made("LlamaForTokenClassification")

    def refuse(x):
        raise ValueError("labels are needed\nand more")

    hf.score.forward = refuse
    report = hl.load(hf).verify()
    assert report.ok
    (row,) = [check for check in report if check.name == HEAD]
    assert row.status == "absent"
    assert row.note.endswith("so only its body was checked: labels are needed")


def test_padding_in_a_prompt_is_where_the_head_looks_for_the_end():
    hf = made("LlamaForSequenceClassification")
    assert hf.config.pad_token_id == 0
    assert hl.load(hf).verify([[3, 4, 5, 6, 0, 0]]).ok


def test_logits_of_pretraining_are_those_of_tokens_also_beside_a_loss():
    hf = _make("BertForPreTraining", "BertConfig", **MHA)().eval()
    model = hl.load(hf)
    inputs = dict(labels=torch.tensor(IDS), next_sentence_label=torch.tensor([0]))
    with torch.no_grad():
        expected = hf(torch.tensor(IDS), **inputs)
    torch.testing.assert_close(model.capture(IDS, "logits", **inputs)["logits"], expected.prediction_logits)
    output = model.capture(IDS, "logits", edits={"logits": torch.zeros_like}, full=True, **inputs).output
    assert not output.prediction_logits.any()
    torch.testing.assert_close(output.seq_relationship_logits, expected.seq_relationship_logits)
    torch.testing.assert_close(output.loss, expected.loss)


def test_a_language_model_says_nothing_of_other_heads():
    assert not [check for check in hl.load(build("gpt2")).verify() if check.name == HEAD]
