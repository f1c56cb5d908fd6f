"""The page for those who come from elsewhere: all code that can be run here is run, and says the same numbers."""

from __future__ import annotations

import copy
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from pages import missing, run

pytest.importorskip("transformer_lens", reason="transformer-lens is not installed (extra: test)")

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "coming_from.md").read_text("utf-8")
SYSTEMS = ("hooklab", "TransformerLens", "nnsight")
OTHERS = ("easyroutine", "Arrakis", "transformer-debugger")
COMPARED = {
    "Load a model": ["layers"], "Read one activation": ["stream"], "Read all attention patterns": ["patterns"],
    "Edit an activation with a function": ["logits"], "Ablate a head": ["difference"],
    "Patch from a clean run, over layers and positions": ["grid"], "Logit lens": ["lens"],
    "Direct logit attribution": ["heads"], "Steer while writing, and keep what happens": ["text", "stream"],
    "Run over a data set, and keep the results": ["rows", "mean"],
}
"""Section -> what comes out under the same name whichever library is used."""

_parts = re.split(r"^## (.+)$", PAGE, flags=re.MULTILINE)
SECTIONS = dict(zip(_parts[1::2], _parts[2::2], strict=True))


def blocks(text: str) -> dict[str, str]:
    return dict(re.findall(r"^\*\*(.+?)\*\*\n\n```python\n(.*?)```", text, re.DOTALL | re.MULTILINE))


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: Any) -> dict[str, dict[str, Any]]:
    """The names that the code of each library has made; it runs section by section in an empty folder."""
    found: dict[str, dict[str, Any]] = {}
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.chdir(tmp_path_factory.mktemp("coming_from"))
        start: dict[str, Any] = {}
        run(blocks(_parts[0])["For all"], "<docs/coming_from.md, all>", start)
        found |= {system: {**start, "kept": {}} for system in SYSTEMS}
        for title, text in SECTIONS.items():
            for system, code in blocks(text).items():
                for name in COMPARED[title]:  # none is left over from another task
                    found[system].pop(name, None)
                run(code, f"<docs/coming_from.md, {title}, {system}>", found[system])
                found[system]["kept"] |= {(title, name): found[system].get(name) for name in COMPARED[title]}
    return found


def test_every_task_is_shown_in_every_library():
    assert list(SECTIONS) == list(COMPARED) and len(SECTIONS) == 10
    for title, text in SECTIONS.items():
        assert tuple(blocks(text)) == SYSTEMS, title
        table = text.split("| from its documentation, not run | |")[1]
        assert tuple(re.findall(r"^\| ([A-Za-z-]+) \|", table, re.MULTILINE)) == OTHERS, title


@pytest.mark.parametrize("title", COMPARED)
@pytest.mark.parametrize("other", SYSTEMS[1:])
def test_the_same_numbers_come_out(libraries, title, other):
    for name in COMPARED[title]:
        ours, theirs = (libraries[system]["kept"][title, name] for system in ("hooklab", other))
        assert ours is not None, name
        if isinstance(ours, (str, int)):
            assert ours == theirs, name
            continue
        ours, theirs = torch.as_tensor(ours).double(), torch.as_tensor(theirs).detach().double()
        assert ours.shape == theirs.shape, name
        assert ours.std(unbiased=False) > 0 or ours.ndim == 0, name
        assert (ours - theirs).abs().max() < 1e-4 * max(1, ours.abs().max()), name


def test_the_numbers_are_those_of_transformers(libraries):
    kept, hf, ids = libraries["hooklab"]["kept"], libraries["hooklab"]["hf"], libraries["hooklab"]["tokenizer"]
    text = libraries["hooklab"]["clean"]
    with torch.no_grad():
        hf.set_attn_implementation("eager")
        out = hf(**ids(text, return_tensors="pt"), output_hidden_states=True, output_attentions=True)
    assert torch.allclose(kept["Read one activation", "stream"], out.hidden_states[3], atol=1e-4)
    assert torch.allclose(kept["Read all attention patterns", "patterns"], torch.stack(out.attentions), atol=1e-5)
    grid = kept["Patch from a clean run, over layers and positions", "grid"]
    assert torch.allclose(grid[:, :10], torch.zeros(5, 10).double()) and grid[0, 10] == pytest.approx(1, abs=1e-4)


def test_what_the_page_says_of_edits_between_attention_and_mlp_holds(libraries):
    """The bottleneck: where the whole stream is 0 there, nothing of the prompt can come through."""
    clean, corrupt = (libraries["hooklab"][name] for name in ("clean", "corrupt"))
    model, bridge = libraries["hooklab"]["model"], libraries["TransformerLens"]["bridge"]
    ours = [model.capture(text, "L2.resid_post", edits={"L2.resid_mid": torch.zeros_like})["L2.resid_post"]
            for text in (clean, corrupt)]
    theirs = []
    for text in (clean, corrupt):
        with bridge.hooks(fwd_hooks=[("blocks.2.hook_resid_mid", lambda x, hook: torch.zeros_like(x))]):
            theirs.append(bridge.run_with_cache(text)[1]["resid_post", 2])
    assert torch.equal(*ours)
    assert (theirs[0] - theirs[1]).abs().max() > 1


def test_heads_differ_under_the_default_of_compatibility_mode_by_their_value_bias(libraries):
    found = libraries["TransformerLens"]
    folded = found["TransformerBridge"].boot_transformers("gpt2", hf_model=copy.deepcopy(found["hf"]), device="cpu",
                                                          tokenizer=found["tokenizer"])
    folded.enable_compatibility_mode()
    other = found["direct_logit_attribution"](folded, found["clean"], " Mary", " John", unit="head").attribution[:-1, 0]
    hf, ours = found["hf"], libraries["hooklab"]["kept"]["Direct logit attribution", "heads"]
    d, size = hf.config.n_embd, hf.config.n_embd // hf.config.n_head
    with torch.no_grad():
        stream = []
        handle = hf.transformer.ln_f.register_forward_pre_hook(lambda module, args: stream.append(args[0][0, -1]))
        hf.transformer(**found["tokenizer"](found["clean"], return_tensors="pt"))
        handle.remove()
        values = [block.attn.c_attn.bias[2 * d:] + block.ln_1.bias @ block.attn.c_attn.weight[:, 2 * d:]
                  for block in hf.transformer.h]  # with the norm's bias, which was folded in before
        outs = [block.attn.c_proj.weight.reshape(-1, size, d) for block in hf.transformer.h]
        bias = torch.stack([torch.einsum("hi,hid->hd", value.reshape(-1, size), out)
                            for value, out in zip(values, outs, strict=True)])
        divisor = (stream[0].var(unbiased=False) + hf.transformer.ln_f.eps).sqrt()
        way = hf.lm_head.weight[found["right"]] - hf.lm_head.weight[found["wrong"]]
        moved = (bias - bias.mean(-1, keepdim=True)) / divisor * hf.transformer.ln_f.weight @ way
    assert torch.allclose(ours - moved, other.reshape(5, 6).double(), atol=1e-4) and moved.abs().max() > 0.01


def test_links_lead_somewhere():
    for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", PAGE):
        text = (DOCS / target).read_text("utf-8") if target else PAGE
        slugs = {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^#+ (.+)$", text, re.M)}
        assert not anchor or anchor in slugs, (target, anchor)


def test_every_name_on_the_page_is_there():
    assert missing(PAGE) == []
