"""The demo: its numbers against plain hooks, its page self-contained, escaped and never written over another."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest
import torch

import hooklab as hl
from hooklab.cli import main
from hooklab.demo import svg
from hooklab.demo.experiments import CLEAN, CORRUPT, induction, next_tokens, patching
from hooklab.demo.page import write_new
from hooklab.errors import HooklabError, PromptError


@pytest.fixture(scope="module")
def lab():
    return hl.load("lab")


@torch.no_grad()
def test_patching_equals_plain_hooks(lab):
    found = patching(lab)
    clean, corrupt = (torch.tensor([lab.tokens(p).ids[0]]) for p in (CLEAN, CORRUPT))
    mary, john = (lab.tokenizer(w, add_special_tokens=False)["input_ids"][0] for w in (" Mary", " John"))
    states = lab.hf(clean, output_hidden_states=True).hidden_states
    top, bottom = ((out[0, -1, mary] - out[0, -1, john]) for out in (lab.hf(clean).logits, lab.hf(corrupt).logits))
    assert found.clean_logit_diff == pytest.approx(float(top), abs=1e-4)
    for layer, position in [(0, 10), (0, 2), (1, 10), (2, -1), (lab.facts.n_layers - 1, -1)]:
        def restore(module, args, layer=layer, position=position):
            stream = args[0].clone()
            stream[:, position] = states[layer][:, position]
            return (stream, *args[1:])

        handle = lab.hf.transformer.h[layer].register_forward_pre_hook(restore)
        out = lab.hf(corrupt).logits
        handle.remove()
        expected = float((out[0, -1, mary] - out[0, -1, john] - bottom) / (top - bottom))
        assert found.effect[layer][position] == pytest.approx(expected, abs=1e-4)


def test_the_clean_stream_at_the_last_position_of_a_late_layer_brings_the_answer_back(lab):
    found = patching(lab)
    assert found.clean_logit_diff > 2 > -2 > found.corrupt_logit_diff
    assert found.effect[-1][-1] > 0.8
    assert abs(found.effect[-1][2]) < 0.1


def test_next_tokens_and_induction(lab):
    told = next_tokens(lab, CLEAN)
    assert told.tokens[0].strip() == "Mary"
    assert list(told.probabilities) == sorted(told.probabilities, reverse=True)
    heads = induction(lab)
    layer, head = heads.best
    assert heads.induction[layer][head] == max(map(max, heads.induction)) > 0.5
    eager = lab.hf.__class__.from_pretrained(hl.load("lab").hf.config.name_or_path, attn_implementation="eager")
    special = set(lab.tokenizer.all_special_ids)
    usable = [i for i in range(lab.facts.d_vocab) if i not in special]
    chosen = torch.randperm(len(usable), generator=torch.Generator().manual_seed(0))[:12]
    ids = [lab.tokenizer.bos_token_id] + [usable[i] for i in chosen.tolist()] * 2
    pattern = eager.eval()(torch.tensor([ids]), output_attentions=True).attentions[layer][0, head]
    expected = sum(float(pattern[13 + i, 2 + i].detach()) for i in range(12)) / 12
    assert heads.induction[layer][head] == pytest.approx(expected, abs=1e-4)


def test_prompts_of_unequal_length_are_refused(lab):
    with pytest.raises(PromptError, match="equal length"):
        patching(lab, CLEAN, "When Mary went")


class Page(HTMLParser):
    """Collects tags and whatever a page would fetch."""

    def __init__(self):
        super().__init__()
        self.tags, self.fetched = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.fetched += [value for name, value in attrs if name in ("src", "href", "srcset", "data")]


def test_the_command_writes_a_page_that_needs_nothing(tmp_path, capsys):
    out = tmp_path / "demo.html"
    assert main(["demo", "--json", "--out", str(out)]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["page"] == str(out)
    assert data["verified"] is True
    page = Page()
    page.feed(out.read_text())
    assert page.tags.count("svg") == 5
    assert "script" not in page.tags
    assert page.fetched == []
    assert "url(" not in out.read_text()
    assert main(["demo", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "demo-2.html" in text.replace("\n", "")
    assert (tmp_path / "demo-2.html").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["demo-2.html", "demo.html"]


def test_text_is_escaped():
    evil = "<script>alert(1)</script>"
    for picture in (svg.heatmap([[1.0]], [evil], [evil], title=evil, row_axis="a", column_axis="b"),
                    svg.bars([evil], [1.0], title=evil, unit="x")):
        assert "<script" not in picture
        assert "&lt;script" in picture


def test_colours_are_centred_and_distinct():
    assert svg.diverging(0.0, 1.0) == svg.sequential(0.0, 1.0) == "rgb(247,247,247)"
    assert svg.diverging(1.0, 1.0) != svg.diverging(-1.0, 1.0)
    assert svg.diverging(9.0, 1.0) == svg.diverging(1.0, 1.0)


def test_writing_keeps_what_is_there(tmp_path):
    path = tmp_path / "x.html"
    assert write_new("a", path) == path
    assert write_new("b", path) == tmp_path / "x-2.html"
    assert write_new("c", path, replace=True) == path
    assert (path.read_text(), (tmp_path / "x-2.html").read_text()) == ("c", "b")
    with pytest.raises(HooklabError, match="no folder"):
        write_new("a", tmp_path / "no" / "x.html")
