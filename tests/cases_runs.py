"""Cases with sources and several runs: patches, ablations, freezes, values of other runs, sweeps, stacks, paths."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from oracle import (
    FAMILIES,
    MIDS,
    ONE,
    RAGGED,
    TWO,
    WORDS,
    Case,
    Oracle,
    add,
    change,
    diff,
    draws,
    grid,
    lose,
    one,
    onto,
    put,
    rows,
    then,
    times,
    uncut,
    zero,
)
from torch import Tensor

LAST = [-1]
VEC, OTHER = draws(32, seed=1), draws(32, seed=2)
BOTH = "prompt batch = {batch}\nanswer {right} vs {wrong}\nmetric logit_diff\n"
PASSES = (("clean", "dirty"), ("hooked",))


def moved(x: Tensor, to: list[int], source: list[int], n: int) -> Tensor:
    """A source's positions laid out at other places among `n`."""
    out = x.new_zeros((x.shape[0], n, *x.shape[2:]))
    out[:, to] = x[:, source]
    return out


PATCHES: list[Case] = [
    onto("patch the stream at one position", "patch L0.resid @3 from clean",
         lambda o: {"L0.resid_post": put(o()["L0.resid_post"], [3])}, "L0.resid_post", at=((3,),), passes=PASSES),
    onto("patch one head at all positions", "patch L0H1 from clean",
         lambda o: {"L0.result": put(o()["L0.result"], heads=[1])}, "L0H1"),
    onto("patch queries, keys and values",
         "patch L1H2.q from clean\npatch L1H0.k @last from clean\npatch L1.v @1 from clean",
         lambda o: {"L1.q": put(o()["L1.q"], heads=[2]), "L1.k": put(o()["L1.k"], LAST, heads=[0]),
                    "L1.v": put(o()["L1.v"], [1])}, "L1H2.q", "L1H0.k", "L1.v"),
    onto("patch weighted values of heads", "patch L*H[0,3].z @last from clean",
         lambda o: {f"L{n}.z": put(o()[f"L{n}.z"], LAST, heads=[0, 3]) for n in range(2)}),
    onto("patch neurons", "patch L0N[2,5:8] from clean",
         lambda o: {"L0.mlp_post": put(o()["L0.mlp_post"], units=[2, 5, 6, 7])}, "L0N[2,5,6,7]"),
    onto("patch dimensions of the stream", "patch L0.resid[1,4] @last from clean",
         lambda o: {"L0.resid_post": put(o()["L0.resid_post"], LAST, units=[1, 4])}),
    onto("patch attention", "patch L1H[1,3].pattern from clean",
         lambda o: {"L1.pattern": rows(lambda x: o()["L1.pattern"], heads=[1, 3])}, "L1H[1,3].pattern"),
    onto("patch a query's scores", "patch L0.scores @last from clean",
         lambda o: {"L0.scores": rows(lambda x: o()["L0.scores"], [5])}, "L0.scores", at=((5,),)),
    onto("patch norms", "patch L1.ln1 @last from clean\npatch ln_final_scale from clean",
         lambda o: {"L1.ln1": put(o()["L1.ln1"], LAST), "ln_final_scale": put(o()["ln_final_scale"])}),
    onto("patch the embedding of one token", "patch embed @4 from clean", lambda o: {"embed": put(o()["embed"], [4])},
         "embed"),
    onto("patch from the same run's untouched pass", "zero L0.mlp\npatch L1.attn from baseline",
         lambda o: {"L0.mlp_out": zero(), "L1.attn_out": put(o("dirty")["L1.attn_out"])}, "L0.mlp_out", "L1.attn_out"),
    onto("patch from another layer and position", "patch L1.resid_pre @last from clean.L0.resid_pre @2",
         lambda o: {"L1.resid_pre": put(o()["L0.resid_pre"][:, 2:3], LAST)}, "L1.resid_pre"),
    onto("patch from another layer at every position", "patch L1.resid from clean.L0.resid",
         lambda o: {"L1.resid_post": put(o()["L0.resid_post"])}),
    onto("patch from arithmetic on two places", "patch L1.mlp @last from 2 * clean.L0.mlp @last - clean.L1.mlp @first",
         lambda o: {"L1.mlp_out": put(2 * o()["L0.mlp_out"][:, -1:] - o()["L1.mlp_out"][:, :1], LAST)}),
    onto("patch one head from another", "patch L1H0.z @last from clean.L0H3.z @last",
         lambda o: {"L1.z": put(o()["L0.z"][:, -1:, 3:4], LAST, heads=[0])}),
    onto("patch and steer the same place", "patch L0.resid @last from clean\nsteer L0.resid by {vec}",
         lambda o: {"L0.resid_post": then(put(o()["L0.resid_post"], LAST), add(VEC))}),
    onto("a group brings its positions along", "patch some from clean",
         lambda o: {f"L{n}.mlp_out": put(o()[f"L{n}.mlp_out"], [2]) for n in range(2)}, at=((2,),),
         head=TWO + "group some = L0.mlp @2, L1.mlp @2\n"),
    one("patch from a vector", "patch L0.resid @last from {vec}", {"L0.resid_post": put(VEC, LAST)}),
    one("patch from a table", "patch L0.resid @last from {cache}\npatch L1H2 from {cache}",
        {"L0.resid_post": put(draws(1, 6, 32, seed=20), LAST), "L1.result": put(draws(1, 6, 4, 32, seed=21), heads=[2])}),
    one("patch from a file", 'patch L*.mlp @1: from "kept.safetensors"',
        {f"L{n}.mlp_out": put(draws(1, 6, 32, seed=22 + n), slice(1, None)) for n in range(2)},
        files=lambda o: {"kept.safetensors": {f"L{n}.mlp_out": draws(1, 6, 32, seed=22 + n) for n in range(2)}}),
    onto("the position is looked for in each prompt", "patch L0.resid @last from longer\npatch L1.attn @x from longer",
         lambda o: {"L0.resid_post": put(o("longer")["L0.resid_post"][:, -1:], LAST),
                    "L1.attn_out": put(o("longer")["L1.attn_out"][:, 2:3], [1])}, "L0.resid_post", "L1.attn_out",
         head="prompt longer = {longer}\nprompt dirty = {dirty}\nmark x = 2 in longer\nmark x = 1 in dirty\n"
              "answer {right} vs {wrong}\nmetric logit_diff\n"),
    onto("align by index", "patch L0.resid @[0,3] from longer align=index",
         lambda o: {"L0.resid_post": put(moved(o("longer")["L0.resid_post"], [0, 3], [0, 3], 6), [0, 3])}, at=((0, 3),),
         head=TWO.replace("clean", "longer")),
    Case("align by token", "prompt longer = {longer}\nprompt clean = {clean}\nrun on clean:\n"
         "    patch L0.resid @1: from longer align=token\n    save logits\n",
         lambda o: {"hooked.logits": o.logits("clean", {"L0.resid_post": put(
             moved(o("longer")["L0.resid_post"], [1, 2, 3, 4, 5], [2, 3, 4, 6, 7], 6), [1, 2, 3, 4, 5])})},
         ("L0.resid_post",)),
]

ABLATIONS: list[Case] = [
    one("ablate alone is zero", "ablate L0H1", {"L0.result": zero(heads=[1])}, "L0H1"),
    one("ablate by the prompt's own mean", "ablate L1.attn with mean",
        lambda o: {"L1.attn_out": put(o()["L1.attn_out"].mean((0, 1)))}),
    one("ablate by the mean over all tokens of a corpus", "ablate L0H1, L1H[0,2] with mean over {batch}",
        lambda o: {"L0.result": put(o("batch")["L0.result"].mean((0, 1)), heads=[1]),
                   "L1.result": put(o("batch")["L1.result"].mean((0, 1)), heads=[0, 2])}),
    one("ablate by the mean at each position", "ablate L0.mlp with mean over {batch} per=pos",
        lambda o: {"L0.mlp_out": put(o("batch")["L0.mlp_out"].mean(0, keepdim=True))}),
    one("ablate by the mean at one position", "ablate L1.resid @last with mean over {batch} per=pos",
        lambda o: {"L1.resid_post": put(o("batch")["L1.resid_post"].mean(0)[-1], LAST)}),
    one("ablate by the mean over prompts of different lengths", "ablate L0.z @last with mean over {ragged}",
        lambda o: {"L0.z": put(torch.cat([o(ids)["L0.z"][0] for ids in RAGGED]).mean(0), LAST)}),
    one("the mean of attention is taken at each position",
        "ablate L1H3 with zero\nablate L0H2.pattern with mean over {batch}",
        lambda o: {"L1.result": zero(heads=[3]), "L0.pattern": rows(lambda x: o("batch")["L0.pattern"].mean(0), heads=[2])}),
    onto("ablate by the mean of a named prompt", "ablate L*H* except L0H0, L1H2 with mean over clean",
         lambda o: {f"L{n}.result": put(o()[f"L{n}.result"].mean((0, 1)), heads=heads)
                    for n, heads in ((0, [1, 2, 3]), (1, [0, 1, 3]))}),
    onto("resample from a single example is a patch", "ablate L0H1 with resample over clean",
         lambda o: {"L0.result": put(o()["L0.result"], heads=[1])}),
    one("freeze attention while the input changes", "freeze L*.pattern\nset embed @1 to {vec}",
        lambda o: {"embed": put(VEC, [1]), **{f"L{n}.pattern": put_rows(o()[f"L{n}.pattern"]) for n in range(2)}},
        "embed", "L0.pattern", "L1.pattern"),
    onto("freeze to another run", "freeze L1.mlp @last to clean\nzero L0.attn",
         lambda o: {"L1.mlp_out": put(o()["L1.mlp_out"], LAST), "L0.attn_out": zero()}, "L0.attn_out", "L1.mlp_out"),
    one("freeze norms", "freeze L*.ln1_scale\nsteer embed by {vec}",
        lambda o: {"embed": add(VEC), **{f"L{n}.ln1_scale": put(o()[f"L{n}.ln1_scale"]) for n in range(2)}}),
]


def put_rows(x: Tensor) -> Any:
    """Attention replaced as a whole."""
    return rows(lambda _: x)


def _stat(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum(-1, keepdim=True) / y.norm(dim=-1, keepdim=True) ** 2 * y


VALUES: list[Case] = [
    onto("steer by the difference of two runs", "steer L0.resid @last by 2 * (clean.L0.resid @last - dirty.L0.resid @last)",
         lambda o: {"L0.resid_post": add(2 * (o()["L0.resid_post"] - o("dirty")["L0.resid_post"])[:, -1], LAST)}),
    onto("a let is a value by name", "steer L1.resid_pre by 3 * dir",
         lambda o: {"L1.resid_pre": add(3 * unit((o()["L0.resid_post"] - o("dirty")["L0.resid_post"])[0, -1]))},
         head=TWO + "let dir = unit(clean.L0.resid @last - dirty.L0.resid @last)\n"),
    onto("lets are made of lets", "steer L0.mlp @last by b",
         lambda o: {"L0.mlp_out": add(-0.5 * o()["L0.mlp_out"][0, -1] + VEC, LAST)},
         head=TWO + "let a = clean.L0.mlp @last\nlet b = {vec} - a / 2\n"),
    onto("mean over examples and positions", "steer L0.resid by mean(clean.L0.resid) - mean(dirty.L0.resid @[1,2])",
         lambda o: {"L0.resid_post": add(o()["L0.resid_post"].mean((0, 1)) - o("dirty")["L0.resid_post"][:,
             1:3].mean((0, 1)))}),
    Case("mean over the examples of two sets", "prompt pos = {batch}\nprompt neg = {others}\nprompt test = {clean}\n"
         "let v = mean(pos.L0.resid @last) - mean(neg.L0.resid @last)\nrun on test:\n    steer L0.resid by v * 2\n"
         "    save logits\n",
         lambda o: {"hooked.logits": o.logits("clean", {"L0.resid_post": add(2 * (
             o("batch")["L0.resid_post"][:, -1].mean(0) - o("others")["L0.resid_post"][:, -1].mean(0)))})}),
    onto("a length scales a direction", "steer L1.attn @last by norm(clean.L1.attn @last) * unit({vec})",
         lambda o: {"L1.attn_out": add(o()["L1.attn_out"][0, -1].norm() * unit(VEC), LAST)}),
    onto("a cosine as a factor", "scale L0.mlp by cos(clean.L0.mlp @last, {vec})",
         lambda o: {"L0.mlp_out": times(float(torch.cosine_similarity(o()["L0.mlp_out"][0, -1], VEC, dim=0)))}),
    onto("a dot product at every position", "steer L0.resid by dot(L0.resid, {vec}) * {other}",
         lambda o: {"L0.resid_post": add((o("dirty")["L0.resid_post"] @ VEC)[..., None] * OTHER)}),
    onto("a projection", "steer L0.resid @last by -proj(dirty.L0.resid @last, {vec})",
         lambda o: {"L0.resid_post": add(-_stat(o("dirty")["L0.resid_post"][:, -1], VEC), LAST)}),
    onto("a spread", "steer L1.mlp by 2 * std(clean.L0.resid)",
         lambda o: {"L1.mlp_out": add(2 * o()["L0.resid_post"].std(unbiased=False))}),
    onto("sigma is the spread of the place that is changed", "steer L1.mlp @last by 2 * sigma",
         lambda o: {"L1.mlp_out": add(2 * o("dirty")["L1.mlp_out"].std(unbiased=False), LAST)}),
    onto("sums, sizes and largest entries of vectors", "steer L0.resid by sum({vec}) / 10 + max(abs({other}))",
         lambda o: {"L0.resid_post": add(VEC.sum() / 10 + OTHER.abs().max())}),
    onto("sums over positions", "steer L0.resid @last by sum(clean.L0.mlp) / 6 + max(clean.L0.mlp @[1,2])",
         lambda o: {"L0.resid_post": add(o()["L0.mlp_out"].sum((0, 1)) / 6 + o()["L0.mlp_out"][0, 1:3].amax(0), LAST)}),
    onto("smallest entries", "steer L0.resid @last by min({vec}) - min(clean.L0.mlp @[1,2])",
         lambda o: {"L0.resid_post": add(VEC.min() - o()["L0.mlp_out"][0, 1:3].amin(0), LAST)}),
    onto("sizes of another run at each position", "steer L0.resid by abs(clean.L0.resid)",
         lambda o: {"L0.resid_post": add(o()["L0.resid_post"].abs())}),
    onto("a head's write as a direction", "steer L0.resid by clean.L0H2 @last",
         lambda o: {"L0.resid_post": add(o()["L0.result"][0, -1, 2])}),
    onto("project out another run's direction", "project_out L*.resid along clean.L1.resid @last",
         lambda o: {f"L{n}.resid_post": change(lambda x: x - _stat(x, o()["L1.resid_post"][0, -1])) for n in range(2)}),
    onto("set neurons to another run's", "set L0N[3,4] @last to clean.L0N[3,4] @0",
         lambda o: {"L0.mlp_post": change(lambda x: moved_last(x, o()["L0.mlp_post"][:, 0]), LAST, units=[3, 4])}),
    onto("negative values and parentheses", "steer L0.resid by -(0.5 * {vec} - -1 * {other})",
         lambda o: {"L0.resid_post": add(-(0.5 * VEC + OTHER))}),
]


def unit(x: Tensor) -> Tensor:
    """A vector of length one."""
    return x / x.norm()


def moved_last(x: Tensor, value: Tensor) -> Tensor:
    """One position's value at all positions."""
    return value[:, None].expand_as(x)


def each_head(site: str, edit: Any) -> Any:
    """A cell for every head of every layer."""
    return lambda o: [{f"L{n}.{site}": edit(o, n, h)} for n in range(o.layers) for h in range(o.heads)]


GRIDS: list[Case] = [
    grid("patch the stream layer by layer, position by position", "patch each L*.resid @each from clean",
         lambda o: [{f"L{n}.resid_post": put(o()[f"L{n}.resid_post"], [p])} for n in range(2) for p in range(6)],
         (("layer", 2), ("pos", 6)), "L0.resid_post", prompt="dirty", at=((0,),), passes=PASSES, families=FAMILIES),
    grid("zero every head in turn", "zero each L*H*", each_head("result", lambda o, n, h: zero(heads=[h])),
         (("layer", 2), ("head", 4)), "L0H0", passes=(("main", "hooked"),), families=FAMILIES),
    grid("ablate every head in turn by a corpus mean", "ablate each L*H* with mean over {batch}",
         each_head("result", lambda o, n, h: put(o("batch")[f"L{n}.result"].mean((0, 1)), heads=[h])),
         (("layer", 2), ("head", 4))),
    grid("patch every head's attention in turn", "patch each L*H*.pattern from clean",
         each_head("pattern", lambda o, n, h: rows(lambda x: o()[f"L{n}.pattern"], heads=[h])), (("layer", 2), ("head", 4)),
         prompt="dirty"),
    grid("one head after another of one layer", "zero each L1H[0,2] @last",
         lambda o: [{"L1.result": zero(LAST, heads=[h])} for h in (0, 2)], (("head", 2),)),
    grid("key heads in turn", "zero each L*H*.v",
         lambda o: [{f"L{n}.v": zero(heads=[h])} for n in range(2) for h in range(2)],
         (("layer", 2), ("kv_head", 2)), families=("llama", "gemma2", "phi3", "chameleon")),
    grid("neurons in turn", "scale each L0N[1,5,9] by 3",
         lambda o: [{"L0.mlp_post": times(3.0, units=[n])} for n in (1, 5, 9)],
         (("neuron", 3),)),
    grid("dimensions in turn", "zero each L*.resid[0:3]",
         lambda o: [{f"L{n}.resid_post": zero(units=[d])} for n in range(2) for d in range(3)],
         (("layer", 2), ("d_model", 3))),
    grid("a list makes one axis", "zero each L1.mlp @last, L0H1 @last, L0.attn @last",
         lambda o: [{"L1.mlp_out": zero(LAST)}, {"L0.result": zero(LAST, heads=[1])}, {"L0.attn_out": zero(LAST)}],
         (("site", 3),)),
    grid("a group makes one axis", "group some = L0H1, L1H[0,3]\nzero each some",
         lambda o: [{"L0.result": zero(heads=[1])}, {"L1.result": zero(heads=[0])}, {"L1.result": zero(heads=[3])}],
         (("site", 3),)),
    grid("Python's places in turn", "zero each {places} @last",
         lambda o: [{"L0.result": zero(LAST, heads=[1])}, {"L1.mlp_out": zero(LAST)}], (("site", 2),)),
    grid("each with an exception", "zero each L*.mlp, L1.attn except L0.mlp",
         lambda o: [{"L1.mlp_out": zero()}, {"L1.attn_out": zero()}], (("site", 2),)),
    grid("positions in turn", "zero L0.mlp @each", lambda o: [{"L0.mlp_out": zero([p])} for p in range(6)], (("pos", 6),)),
    grid("named positions in turn", "mark mid = 2:4\nzero L*.resid @each[mid, last]",
         lambda o: [{f"L{n}.resid_post": zero(at) for n in range(2)} for at in ([2, 3], LAST)], (("pos", 2),), at=((2, 3),)),
    grid("amounts in turn", "scale L0H1 by each [0, 0.5, 2]",
         lambda o: [{"L0.result": times(c, heads=[1])} for c in (0, 0.5, 2)], (("value", 3),)),
    grid("vectors of Python in turn", "steer L0.resid @last by each {vecs}",
         lambda o: [{"L0.resid_post": add(draws(32, seed=s), LAST)} for s in (6, 7, 8)], (("value", 3),)),
    grid("places and amounts", "scale each L*.attn by each [0, -1]",
         lambda o: [{f"L{n}.attn_out": times(c)} for n in range(2) for c in (0, -1)], (("layer", 2), ("value", 2))),
    grid("a sweep over a coefficient", "sweep c in [0, 2, -4]\nsteer L0.resid by c * {vec}",
         lambda o: [{"L0.resid_post": add(c * VEC)} for c in (0, 2, -4)], (("c", 3),)),
    grid("a sweep over layers", "sweep l in 0:2\nzero L[l].mlp @last",
         lambda o: [{f"L{n}.mlp_out": zero(LAST)} for n in range(2)], (("l", 2),)),
    grid("a sweep over positions", "sweep p in [1, 3]\nzero L0.resid @p",
         lambda o: [{"L0.resid_post": zero([p])} for p in (1, 3)],
         (("p", 2),)),
    grid("a sweep over Python's vectors", "sweep v in {vecs}\nsteer L1.mlp by 2 * v",
         lambda o: [{"L1.mlp_out": add(2 * draws(32, seed=s))} for s in (6, 7, 8)], (("v", 3),)),
    grid("a sweep over Python's numbers", "sweep c in {zeros}\nscale L0.mlp by c",
         lambda o: [{"L0.mlp_out": times(c)} for c in (0.0, 0.5, 2.0)], (("c", 3),)),
    grid("two sweeps and each", "sweep c in [1, 2]\nsweep l in 0:2\nsteer L[l].mlp by c\nzero each L0H[1,3]",
         lambda o: [{f"L{n}.mlp_out": add(c), "L0.result": zero(heads=[h])} for c in (1, 2) for n in range(2) for h in (1,
             3)],
         (("c", 2), ("l", 2), ("head", 2))),
    grid("a sweep through a let", "sweep c in [1, 3]\nlet v = c * {vec}\nsteer L0.resid by v",
         lambda o: [{"L0.resid_post": add(c * VEC)} for c in (1, 3)], (("c", 2),)),
    grid("layers with those around them", "scale each L*.mlp by 0.5 window=2",
         lambda o: [{"L0.mlp_out": times(0.5)}, {"L0.mlp_out": times(0.5), "L1.mlp_out": times(0.5)}], (("layer", 2),)),
    grid("edges of layers with those around them", "cut each L* @1 -> @last window=3",
         lambda o: [{f"L{n}.scores": uncut([1], [5]) for n in range(2)}] * 2, (("layer", 2),)),
    grid("edges in turn of layers", "cut each L* @1 -> @last",
         lambda o: [{f"L{n}.scores": uncut([1], [5])} for n in range(2)],
         (("layer", 2),), "L0.scores"),
    grid("edges in turn of heads", "cut each L*H* @[1,2] -> @last",
         lambda o: [{f"L{n}.scores": uncut([1, 2], [5], [h])} for n in range(2) for h in range(4)],
         (("layer", 2), ("head", 4))),
    grid("keys in turn", "cut L0 @each -> @last renorm=false", lambda o: [{"L0.pattern": lose([p], [5])} for p in range(6)],
         (("pos", 6),)),
    grid("queries in turn", "cut L1H2 @0 -> @each[1, 3, last]",
         lambda o: [{"L1.scores": uncut([0], [q], [2])} for q in (1, 3, 5)],
         (("query_pos", 3),)),
    grid("noise of size zero in turn", "noise each L*H* by 0", each_head("result", lambda o, n, h: times(1.0)),
         (("layer", 2), ("head", 4))),
    grid("patch from a table place by place", "patch each L*.resid @last from {cache}",
         lambda o: [{f"L{n}.resid_post": put(draws(1, 6, 32, seed=20 + 10 * n), LAST)} for n in range(2)], (("layer", 2),)),
]


def _stack(o: Oracle) -> dict[str, Any]:
    a, b = {"L0.result": zero(heads=[0])}, {"L1.result": zero(heads=[1])}
    swept = [{**a, f"L{n}.mlp_out": zero()} for n in range(2)]
    return {"a.logits": o.logits(edits=a), "b.logits": o.logits(edits={**a, **b}),
            "c.logits": torch.stack([o.logits(edits=e) for e in swept]),
            "d.logits": torch.stack([o.logits(edits={**e, **b}) for e in swept])}


def _from_run(o: Oracle) -> dict[str, Any]:
    hurt = {"embed": put(VEC, [1])}
    a = o("clean", hurt)
    return {"a.logits": a["logits"],
            "b.logits": torch.stack([o.logits(edits={**hurt, f"L{n}.mlp_out": put(o()[f"L{n}.mlp_out"], [p])})
                                     for n in range(2) for p in range(6)]).reshape(2, 6, 1, 6, -1),
            "c.logits": o.logits(edits={"L1.attn_out": put(a["L1.attn_out"], LAST)})}


def _cells_from_cells(o: Oracle) -> dict[str, Any]:
    found = [o("clean", {"L0.mlp_out": add(c)}) for c in (1, 2)]
    return {"b.logits": torch.stack([o.logits(edits={"L1.mlp_out": put(x["L1.mlp_out"])}) for x in found])}


STACKS: list[Case] = [
    Case("runs stand on runs",
         ONE + "run a on main:\n    zero L0H0\n    save logits\nrun b on a:\n    zero L1H1\n    save logits\n"
         "run c on a:\n    zero each L*.mlp\n    save logits\nrun d on c:\n    zero L1H1\n    save logits\n", _stack,
         ("L0H0.result",),
         run="a", passes=(("main", "a", "b", "c", "d"),)),
    Case("restored after corruption, and taken from a run",
         ONE + "run a on main:\n    set embed @1 to {vec}\n    save logits\n"
         "run b on a:\n    patch each L*.mlp @each from baseline\n    save logits\n"
         "run c on main:\n    patch L1.attn @last from a\n    save logits\n", _from_run, (), run="b",
         axes=(("layer", 2), ("pos", 6)), passes=(("main", "a"), ("b", "c"))),
    Case("every cell takes from its own cell", ONE + "sweep c in [1, 2]\nrun a on main:\n    steer L0.mlp by c\n"
         "run b on main:\n    patch L1.mlp from a\n    scale L0.attn by 1 * c / c\n    save logits\n", _cells_from_cells, (),
         run="b", axes=(("c", 2),)),
    Case("two lines with each make a product", ONE + "zero each L0H[0,1]\nzero each L1H[2,3]\nsave logits\n",
         lambda o: {"hooked.logits": torch.stack([o.logits(edits={"L0.result": zero(heads=[a]),
                                                                  "L1.result": zero(heads=[b])})
                                                  for a in (0, 1) for b in (2, 3)]).reshape(2, 2, 1, 6, -1)}),
    Case("a run takes from a run on another prompt", TWO + "run a on clean:\n    zero L0.mlp\nrun b on dirty:\n"
         "    patch L0.resid @last from a\n    save logits\n",
         lambda o: {"b.logits": o.logits("dirty", {"L0.resid_post": put(
             o("clean", {"L0.mlp_out": zero()})["L0.resid_post"], LAST)})}, ("L0.resid_post",), run="b",
         passes=(("clean", "dirty", "a"), ("b",))),
]


def path(o: Oracle, senders: Iterable[tuple[int, int]], receiver: str, heads: Any = None, held: tuple[str, ...] = ("z",),
         at: Any = None) -> Tensor:
    """Path patching by hand on `clean` from `dirty`: two passes for each sender."""
    cells = []
    for layer, head in senders:
        still = {f"L{n}.{site}": put(o()[f"L{n}.{site}"]) for n in range(o.layers) for site in held}
        first = o("clean", {**still, f"L{layer}.result": put(o("dirty")[f"L{layer}.result"], heads=[head])})
        cells.append(o.logits("clean", {receiver: put(first[receiver], at, heads)}))
    return torch.stack(cells)


ALL = [(n, h) for n in range(2) for h in range(4)]


def _paths(name: str, line: str, receiver: str, heads: Any = None, held: tuple[str, ...] = ("z",), senders: Any = ALL,
           axes: Any = (("layer", 2), ("head", 4)), at: Any = None, families: tuple[str, ...] = FAMILIES) -> Case:
    def expected(o: Oracle) -> dict[str, Tensor]:
        found = path(o, senders, receiver, heads, held, at)
        return {"hooked.logits": found.reshape(*(n for _, n in axes), *found.shape[1:])}

    return Case(name, f"{TWO}run on clean:\n    {line}\n    save logits\n", expected, axes=axes, families=families)


PATHS: list[Case] = [
    _paths("paths from every head to one head's queries", "patch each L*H* -> L1H2.q from dirty", "L1.q", [2]),
    _paths("paths to a key head", "patch each L*H* -> L1H1.k from dirty", "L1.k", [1]),
    _paths("paths to all values", "patch each L0H* -> L1.v from dirty", "L1.v", senders=ALL[:4], axes=(("head", 4),)),
    _paths("direct paths to the logits", "patch each L*H* -> logits from dirty", "logits"),
    _paths("paths with MLPs held", "patch each L*H* -> L1.resid_post from dirty mlps=freeze", "L1.resid_post",
           held=("z", "mlp_out")),
    _paths("paths to one position of a receiver", "patch each L0H* -> L1H2.q @last from dirty", "L1.q", [2], senders=ALL[:4],
           axes=(("head", 4),), at=LAST),
    _paths("one path", "patch L0H1 -> L1.resid_mid from dirty", "L1.resid_mid", senders=[(0, 1)], axes=(), families=MIDS),
]


def _alone(prompts: Any, edits: Any) -> Any:
    """Last logits of ragged prompts, each run by itself, and their logit differences."""
    def expected(o: Oracle) -> dict[str, Any]:
        found = o.one_by_one(prompts, lambda ids: edits(o, ids))
        return {"hooked.logits": found[:, None], "hooked.logit_diff": diff(found[:, None])}

    return expected


def ragged(name: str, line: str, edits: Any, **more: Any) -> Case:
    """Prompts of different lengths in one batch: every row is what it is alone."""
    head = more.pop("head", "prompt ragged = {ragged}\nanswer {right} vs {wrong}\nmetric logit_diff\n")
    return Case(name, f"{head}run on ragged:\n    {line}\n    save logits @last\n", _alone(RAGGED, edits), **more)


def _mean_of_batch(o: Oracle, ids: list[int]) -> Any:
    return {"L0.result": put(torch.cat([o(row)["L0.result"][0] for row in RAGGED]).mean(0), heads=[1])}


BATCHES: list[Case] = [
    Case("several prompts at once", BOTH + "zero L0H1\nsave logits\n",
         lambda o: {"hooked.logits": o.logits("batch", {"L0.result": zero(heads=[1])}),
                    "batch.logit_diff": diff(o.logits("batch"))}),
    Case("several prompts take from as many", "prompt batch = {batch}\nprompt others = {others}\nrun on batch:\n"
         "    patch L0.resid @[1,last] from others\n    save logits\n",
         lambda o: {"hooked.logits": o.logits("batch", {"L0.resid_post": put(o("others")["L0.resid_post"], [1, -1])})}),
    Case("several prompts take from one", "prompt clean = {clean}\nprompt others = {others}\nrun on others:\n"
         "    patch L1H2 from clean\n    save logits\n",
         lambda o: {"hooked.logits": o.logits("others", {"L1.result": put(o()["L1.result"], heads=[2])})}),
    Case("a value for each example", BOTH + "steer L0.resid by {per_example}\nsave logits\n",
         lambda o: {"hooked.logits": o.logits("batch", {"L0.resid_post": add(draws(2, 6, 32, seed=4))})}),
    Case("steer by each example's own activation", BOTH + "steer L1.resid @last by L0.resid @last\nsave logits\n",
         lambda o: {"hooked.logits": o.logits("batch", {"L1.resid_post": change(
             lambda x: x + o("batch")["L0.resid_post"][:, -1:], LAST)})}),
    Case("a grid over a batch", BOTH + "zero each L*.mlp\nsave logits\n",
         lambda o: {"hooked.logits": torch.stack([o.logits("batch", {f"L{n}.mlp_out": zero()}) for n in range(2)])},
         axes=(("layer", 2),)),
    Case("answers from Python", "prompt {batch}\nanswer {answers} vs {reversed_answers}\nmetric logit_diff\nzero L0.mlp\n",
         lambda o: {"hooked.logit_diff": diff(o.logits("batch", {"L0.mlp_out": zero()})) * torch.tensor([1.0, -1.0])}),
    ragged("edit the last token of each", "zero L0.resid @last", lambda o, ids: {"L0.resid_post": zero(LAST)},
           at=((5,), (2,), (3,))),
    ragged("edit a position counted from the start", "steer L0.mlp @1 by {vec}", lambda o,
           ids: {"L0.mlp_out": add(VEC, [1])}),
    ragged("edit all tokens", "scale L0H1 by 2", lambda o, ids: {"L0.result": times(2.0, heads=[1])}),
    ragged("cut a ragged batch", "cut L* @0 -> @last", lambda o,
           ids: {f"L{n}.scores": uncut([0], [len(ids) - 1]) for n in range(2)}),
    ragged("cut after the softmax", "cut L1H2 @[0,1] -> @last renorm=false",
           lambda o, ids: {"L1.pattern": lose([0, 1], [len(ids) - 1], [2])}),
    ragged("patch one prompt's last token into all", "patch L0.resid @last from clean",
           lambda o, ids: {"L0.resid_post": put(o()["L0.resid_post"][:, -1:], LAST)},
           head="prompt clean = {clean}\nprompt ragged = {ragged}\nanswer {right} vs {wrong}\nmetric logit_diff\n"),
    ragged("ablate by the mean over real tokens", "ablate L0H1 with mean over ragged", _mean_of_batch),
    ragged("freeze attention of ragged prompts", "freeze L*.pattern\n    zero L0.resid_pre @1",
           lambda o, ids: {"L0.resid_pre": zero([1]),
                           **{f"L{n}.pattern": put_rows(o(ids)[f"L{n}.pattern"]) for n in range(2)}}),
    ragged("patch from the untouched run", "zero L0.attn\n    patch L1.mlp from baseline",
           lambda o, ids: {"L0.attn_out": zero(), "L1.mlp_out": put(o(ids)["L1.mlp_out"])}),
    ragged("project out of a ragged batch", "project_out L0.resid along L0.resid_pre @last",
           lambda o, ids: {"L0.resid_post": change(lambda x: x - _stat(x, o(ids)["L0.resid_pre"][0, -1]))}),
]

TEXT = [5, 13, 7, 8, 6, 14]  # Mary w1 the store John w2
TEXTS = 'prompt "Mary w1 the store John w2"\nanswer "w3" vs "w4"\nmetric logit_diff\n'


def words(name: str, line: str, edits: Any, **more: Any) -> Case:
    """A prompt of words."""
    def expected(o: Oracle) -> dict[str, Any]:
        found = o.logits(TEXT, edits)
        return {"hooked.logits": found, "hooked.logit_diff": found[:, -1, 15] - found[:, -1, 16]}

    return Case(name, f"{TEXTS}{line}\nsave logits\n", expected, families=WORDS, words=True, **more)


WRITTEN: list[Case] = [
    words("a token's text is a position", 'zero L0.resid @"John"', {"L0.resid_post": zero([4])}, at=((4,),)),
    words("text of several tokens", 'zero L0.mlp @"the store"', {"L0.mlp_out": zero([2, 3])}, at=((2, 3),)),
    words("a mark made of text", 'mark name = "Mary"\ncut L1 @name -> @last', {"L1.scores": uncut([0], [5])}, at=((5,),)),
    words("all but a token", 'zero L0.mlp @(all - "the")', {"L0.mlp_out": zero([0, 1, 3, 4, 5])}, at=((0, 1, 3, 4, 5),)),
    words("the token before another", 'zero L0.attn @"John".prev', {"L0.attn_out": zero([3])}, at=((3,),)),
    words("the union of two positions", 'zero L1.mlp @(first | last)', {"L1.mlp_out": zero([0, 5])}, at=((0, 5),)),
]

CASES = (*PATCHES, *ABLATIONS, *VALUES, *GRIDS, *STACKS, *PATHS, *BATCHES, *WRITTEN)
