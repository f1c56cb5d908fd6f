"""The demo: its numbers against plain hooks, its page self-contained, escaped and never written over another."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
import torch

import hooklab as hl
from hooklab.cli import main
from hooklab.demo import svg
from hooklab.demo.experiments import CLEAN, CORRUPT, NextTokens, induction, next_tokens, patching
from hooklab.demo.page import page, write_new
from hooklab.errors import HooklabError, ModelError, PromptError


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
    text = out.read_text()
    seen = Page()
    seen.feed(text)
    assert seen.tags.count("svg") == 5
    assert "script" not in seen.tags
    assert seen.fetched == []
    assert "url(" not in text
    assert "prefers-color-scheme: dark" in text
    assert main(["demo", "--out", str(out)]) == 0
    assert "demo-2.html" in capsys.readouterr().out.replace("\n", "")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["demo-2.html", "demo.html"]
    assert out.read_text() == text


def test_the_page_tells_every_number_without_a_mouse(lab):
    patched, heads = patching(lab), induction(lab)
    evil = NextTokens("<b>&", ("<i>",), (0.5,))
    text = page("t", "f", ("ok", "<table></table>"), evil, patched, heads)
    for value in (v for row in (*patched.effect, *heads.induction, *heads.previous, *heads.pattern) for v in row):
        assert f"<td>{svg.decimal(value, 4)}</td>" in text
    assert "<b>" not in text
    assert "<i>" not in text


def drawn(picture):
    """(class, opacity, tooltip) of every cell of a map."""
    return re.findall(r'<rect class="cell (\w+)" [^>]*fill-opacity="([\d.]+)"><title>(.*?)</title>', picture)


def test_a_map_is_centred_at_zero_and_says_its_values():
    picture = svg.heatmap([[1.0, -0.5], [0.0, 0.25]], ["a", "b"], ["x", "y"], title="t", row_axis="layer",
                          column_axis="head")
    assert drawn(picture) == [("pos", "1.000", "layer a · head x: 1.0000"), ("neg", "0.500", "layer a · head y: -0.5000"),
                              ("pos", "0.000", "layer b · head x: 0.0000"), ("pos", "0.250", "layer b · head y: 0.2500")]
    shares = re.findall(r'fill-opacity="([\d.]+)"/>', picture)  # the scale
    assert shares == ["1.000", "0.500", "0.000", "0.500", "1.000"]
    assert ">-1.00<" in picture


def test_a_map_of_one_sign_starts_at_zero_and_keeps_its_limit():
    picture = svg.heatmap([[0.25]], ["a"], ["x"], title="t", row_axis="r", column_axis="c", limit=1.0, centred=False)
    assert drawn(picture) == [("seq", "0.250", "r a · c x: 0.2500")]
    assert "nan" not in svg.heatmap([[0.0]], ["a"], ["x"], title="t", row_axis="r", column_axis="c")


def test_pictures_are_well_formed_and_escaped():
    evil = "<script>alert('1')</script> & \"x\""
    for picture in (svg.heatmap([[1.0]], [evil], [evil], title=evil, row_axis="a", column_axis="b"),
                    svg.bars([evil], [1.0], title=evil, unit="x")):
        assert "<script" not in picture
        assert ElementTree.fromstring(picture).attrib["aria-label"] == evil


def luminance(colour):
    channels = (int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(("theme", "ink"), [(0, "#1b1b1b"), (1, "#f2f2f0")])
@pytest.mark.parametrize("colour", ["pos", "neg", "seq"])
def test_numbers_can_be_read_on_every_shade(theme, ink, colour):
    def named(name):
        short = re.findall(rf"--{name}: (#\w+)", svg.STYLE)[theme]
        return "#" + "".join(c * 2 for c in short[1:]) if len(short) == 4 else short

    for percent in range(5, 101):
        share = percent / 100
        zero, full = named("zero"), named(colour)
        mixed = "#" + "".join(f"{round(int(zero[i:i + 2], 16) * (1 - share) + int(full[i:i + 2], 16) * share):02x}"
                              for i in (1, 3, 5))
        light, dark = sorted((luminance(mixed), luminance(named("strong") if share >= svg.STRONG else ink)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 3.4


def test_a_model_that_answers_both_prompts_alike_is_refused(lab):
    with pytest.raises(ModelError, match="nothing to restore"):
        patching(lab, CLEAN, CLEAN)


def test_writing_keeps_what_is_there(tmp_path):
    path = tmp_path / "x.html"
    assert write_new("a", path) == path
    assert write_new("b", path) == tmp_path / "x-2.html"
    assert write_new("c", path, replace=True) == path
    assert (path.read_text(), (tmp_path / "x-2.html").read_text()) == ("c", "b")
    with pytest.raises(HooklabError, match="no folder"):
        write_new("a", tmp_path / "no" / "x.html")


@pytest.mark.parametrize("replace", [False, True])
def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch, replace):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    path = tmp_path / "x.html"
    path.write_text("old")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(HooklabError, match="No space left"):
        write_new("new", path, replace=replace)
    assert [p.name for p in tmp_path.iterdir()] == ["x.html"]
    assert path.read_text() == "old"
