"""Weights against the modules that hold them: every oracle is the Hugging Face forward pass, watched by plain hooks.

One-token prompts make the whole model computable by hand: attention looks at its only token, and position 0 is not
rotated. Longer prompts are watched inside attention, where `torch` itself is seen multiplying queries and keys.
"""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch
import torch.nn.functional as F
from tiny_models import FAMILIES, HEADLESS, build
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers.activations import ACT2FN

from hooklab.errors import LayerError, SiteError, SiteNameError
from hooklab.model.factored import Factored
from hooklab.model.layout import Layout
from hooklab.model.model import Model
from hooklab.model.weights import ALIASES, ROWS, Weights

EXPERTS = {"mixtral", "gpt_oss"}
POST_NORM = {"bert", "bert_base", "opt_postnorm"}
SINKS = {"gpt_oss"}
QUERY_FACTOR = {"opt": 8**-0.5, "opt_postnorm": 8**-0.5}  # OPT scales queries itself
IDS = torch.arange(20, 36)[:, None]  # sixteen prompts of one token


@pytest.fixture(params=FAMILIES, scope="module")
def opened(request):
    hf = build(request.param)
    return request.param, hf, Layout(hf)


def close(ours, theirs, tolerance=1e-5):
    """Equal to within `tolerance` of the largest entry."""
    assert ours.shape == theirs.shape
    error = (ours - theirs).abs().max() / theirs.abs().max().clamp(min=1)
    assert error < tolerance, f"off by {error:.1e}"


class Watch(TorchFunctionMode):
    """The operands of the products inside one module: queries and keys first, then pattern and values."""

    NAMES = ("matmul", "bmm", "baddbmm", "__matmul__", "scaled_dot_product_attention")

    def __init__(self):
        super().__init__()
        self.inside, self.seen = None, defaultdict(list)

    def around(self, module, key):
        return [module.register_forward_pre_hook(lambda *_: setattr(self, "inside", key)),
                module.register_forward_hook(lambda *_: setattr(self, "inside", None))]

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if self.inside is not None and name in self.NAMES:
            found = [a for a in (*args, *kwargs.values()) if isinstance(a, torch.Tensor)]
            fused = name == "scaled_dot_product_attention"
            if fused or min(a.ndim for a in found) > 2:  # not FalconLinear's x @ weight.T
                self.seen[self.inside] += [found[:3] if fused else [found[-2], found[-1].mT]]
        return func(*args, **kwargs)


def run(hf, layout, ids=IDS):
    """One forward pass: (logits or None, hidden states, {(module name, side): value}, queries keys values)."""
    values, handles, watch = {}, [], Watch()

    def keep(name, args, kwargs, out):
        first = out[0] if isinstance(out, tuple) else out
        values[name, "in"] = args[0] if args else kwargs.get("hidden_states")
        values[name, "out"] = first.clone() if isinstance(first, torch.Tensor) else None  # Falcon adds in place

    for name, module in hf.named_modules():
        handles.append(module.register_forward_hook(
            lambda module, args, kwargs, out, name=name: keep(name, args, kwargs, out), with_kwargs=True))
    for layer in range(layout.facts.n_layers):
        handles += watch.around(layout.role(layer, "attn"), layer)
    with torch.no_grad(), watch:
        out = hf(ids, output_hidden_states=True)
    for handle in handles:
        handle.remove()
    return getattr(out, "logits", None), out.hidden_states, values, watch.seen


def attended(seen, batch):
    """Queries, keys and values [batch head pos d_head] as attention got them; fused kernels show all three."""
    first = seen[0]
    values = first[2] if len(first) == 3 else seen[1][1].mT
    return [x.reshape(batch, -1, *x.shape[-2:]) for x in (*first[:2], values)]


def by_head(x, matrix, bias):
    """x W + b for each head: [batch head pos d_head]."""
    return torch.einsum("bpm,hmd->bhpd", x, matrix) + bias[None, :, None]


def name_of(hf, module):
    return next(name for name, other in hf.named_modules() if other is module)


def attention_input(hf, layout, values, layer):
    return values[name_of(hf, layout.role(layer, "qkv" if layout.family.qkv else "q")), "in"]


def normed(attention, which, x):
    """Through the norm that some attention modules put on queries and keys."""
    norm = getattr(attention, f"{which}_norm", None)
    if norm is None:
        return x
    x = x.transpose(1, 2)  # [batch pos head d_head]
    joint = norm.weight.shape == (x.shape[-2] * x.shape[-1],)  # OLMo 2 normalises all heads together
    return (norm(x.flatten(-2)).reshape(x.shape) if joint else norm(x)).detach().transpose(1, 2)


def like_heads(x, layout):
    """Kv heads repeated for the query heads that share them, as attention kernels do it."""
    return x.repeat_interleave(layout.facts.n_heads // x.shape[1], dim=1)


# Attention ------------------------------------------------------------------------------------------------------


def test_queries_keys_and_values_are_what_attention_gets(opened):
    name, hf, layout = opened
    W, (_, _, values, seen) = Weights(layout), run(hf, layout)
    for layer in range(layout.facts.n_layers):
        x, attention = attention_input(hf, layout, values, layer), layout.role(layer, "attn")
        q, k, v = attended(seen[layer], len(IDS))
        close(normed(attention, "q", by_head(x, W.Q[layer], W.b_Q[layer])) * QUERY_FACTOR.get(name, 1), q)
        close(like_heads(normed(attention, "k", by_head(x, W.K[layer], W.b_K[layer])), layout), like_heads(k, layout))
        close(by_head(x, W.V.for_head(layer), W.b_V.for_head(layer)), like_heads(v, layout))


def test_ov_is_what_attention_writes_when_it_looks_at_its_only_token(opened):
    name, hf, layout = opened
    if name in SINKS:
        pytest.skip("a sink takes part of the attention")
    W, (_, _, values, _) = Weights(layout), run(hf, layout)
    for layer in range(layout.facts.n_layers):
        x, out = attention_input(hf, layout, values, layer), values[name_of(hf, layout.role(layer, "o")), "out"]
        written = sum((x @ W.OV(layer, head)).full() + W.b_V.for_head(layer, head) @ W.O[layer, head]
                      for head in range(layout.facts.n_heads))
        close(written + W.b_O[layer], out.reshape(written.shape))


def test_output_projection_of_any_input(opened):
    _, hf, layout = opened
    W, module = Weights(layout), layout.role(1, "o")
    z = torch.randn(5, layout.facts.n_heads, layout.facts.d_head)
    close(torch.einsum("phd,hdm->pm", z, W.O[1]) + W.b_O[1], module(z.flatten(-2)).detach())


def test_qk_pairs_queries_and_keys_of_one_position(opened):
    name, hf, layout = opened
    W, (_, _, values, seen) = Weights(layout), run(hf, layout)
    if hasattr(layout.role(1, "attn"), "q_norm"):
        pytest.skip("queries and keys are normalised after the projection")
    x, (q, k, _) = attention_input(hf, layout, values, 1)[:, 0], attended(seen[1], len(IDS))
    unbiased_q = q[:, :, 0] / QUERY_FACTOR.get(name, 1) - W.b_Q[1]
    unbiased_k = like_heads(k, layout)[:, :, 0] - W.b_K.for_head(1)
    close(W.QK(1).pair(x[:, None], x[:, None]), (unbiased_q * unbiased_k).sum(-1))


# MLP, embedding, unembedding, norms -----------------------------------------------------------------------------


def test_mlp_matrices_make_the_mlp(opened):
    name, hf, layout = opened
    W, (_, _, values, _) = Weights(layout), run(hf, layout)
    if name in EXPERTS:
        with pytest.raises(SiteError, match="mixture of experts"):
            _ = W.In
        return
    for layer in range(layout.facts.n_layers):
        first = layout.role(layer, "gate_up" if layout.family.gate_up else "gate")
        out = values[name_of(hf, layout.role(layer, "down")), "out"]
        close(mlp(W, layout, layer, values[name_of(hf, first), "in"]), out)


def mlp(W, layout, layer, x):
    """The MLP written by hand, [batch pos d_model]."""
    names = ("hidden_activation", "hidden_act", "activation_function", "activation")
    act = next((getattr(layout.config, name) for name in names if getattr(layout.config, name, None)),
               "gelu_pytorch_tanh")  # Bloom's is fixed
    neurons = x @ W.In[layer] + W.b_In[layer]
    gated = layout.family.gate_up or layout.family.up
    hidden = ACT2FN[act](x @ W.Gate[layer] + W.b_Gate[layer]) * neurons if gated else ACT2FN[act](neurons)
    return hidden @ W.Out[layer] + W.b_Out[layer]


def test_embeddings_are_what_enters_the_stream(opened):
    name, hf, layout = opened
    W = Weights(layout)
    ids = torch.tensor([[3, 20, 8, 21]])
    _, hidden, values, _ = run(hf, layout, ids)
    if name.startswith("bert"):  # token types and a norm come between
        entered = values[name_of(hf, layout.base.embeddings.LayerNorm), "in"]
        types = layout.base.embeddings.token_type_embeddings.weight[0].detach()
        return close(W.E[ids] + W.pos[:4] + types, entered)
    positions = 0 if W.missing("pos") else W.pos[:4]
    close(W.E[ids] + positions, hidden[0])


def test_unembedding_makes_the_logits(opened):
    name, hf, layout = opened
    W = Weights(layout)
    if name in HEADLESS:
        with pytest.raises(SiteError, match="without a language-model head"):
            _ = W.U
        return
    logits, hidden, values, _ = run(hf, layout)
    if layout.family.ln_final:
        stream = values[name_of(hf, layout.module(layout.base, layout.family.ln_final)), "out"]
    elif name == "bert":
        stream = values["cls.predictions.transform", "out"]
    else:
        stream = values[name_of(hf, layout.blocks[-1]), "out"]
    same_logits(capped(layout, stream @ W.U + W.b_U), logits)


def capped(layout, logits):
    cap = getattr(layout.config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


def same_logits(ours, theirs, tolerance=1e-5):
    allowed = theirs > -1e30  # Chameleon forbids image tokens
    close(ours[allowed], theirs[allowed], tolerance)


def normalised(kind, x, eps):
    """x as a norm without gain and bias gives it."""
    x = x - x.mean(-1, keepdim=True) if kind == "layer" else x
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt()


def eps_of(norm):
    return norm.eps if hasattr(norm, "eps") else norm.variance_epsilon


def norms(layout):
    """(name, layer, module) of every norm that a weight is named after."""
    table = layout.family
    return [(name, layer, layout.role(layer, name)) for name in ("ln1", "ln2") if getattr(table, name)
            for layer in range(layout.facts.n_layers)] + (
        [("ln_final", None, layout.module(layout.base, table.ln_final))] if table.ln_final else [])


def test_gains_and_biases_are_the_norms(opened):
    _, _, layout = opened
    W, x = Weights(layout), torch.randn(6, layout.facts.d_model)
    for name, layer, module in norms(layout):
        gain, bias = (getattr(W, stem + name) for stem in ("", "b_"))
        gain, bias = (gain, bias) if layer is None else (gain[layer], bias[layer])
        close(normalised(layout.family.norm, x, eps_of(module)) * gain + bias, module(x).detach())


# Folding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("centre", [False, True])
def test_folded_weights_give_the_same_logits(opened, centre):
    """The whole model by hand on one token, its norms without gain, bias and (when centred) without the mean."""
    name, hf, layout = opened
    if name in EXPERTS | POST_NORM | set(HEADLESS) or layout.family.ln1 is None:
        pytest.skip("no dense model with norms before its components")
    W, (logits, hidden, _, _) = Weights(layout).folded(centre=centre), run(hf, layout)
    kind = layout.family.norm

    def norm(x, module):
        scale = x.std(-1, unbiased=False, keepdim=True).pow(2) + eps_of(module)
        return x / scale.sqrt() if centre and kind == "layer" else normalised(kind, x, eps_of(module))

    stream = hidden[0]
    for layer in range(layout.facts.n_layers):
        def post(which, x, layer=layer):
            module = layout.role(layer, which)
            return x if module is None else module(x).detach()

        x = norm(stream, layout.role(layer, "ln1"))
        z = by_head(x, W.V.for_head(layer), W.b_V.for_head(layer))
        attn = post("post_attn", torch.einsum("bhpd,hdm->bpm", z, W.O[layer]) + W.b_O[layer])
        read = stream if layout.family.residual == "parallel" else stream + attn
        x = norm(read, layout.role(layer, "ln2") or layout.role(layer, "ln1"))
        stream = stream + attn + post("post_mlp", mlp(W, layout, layer, x))
    final = norm(stream, layout.module(layout.base, layout.family.ln_final))
    same_logits(capped(layout, final @ W.U + W.b_U), logits, 2e-5)


def test_folded_queries_and_keys_on_any_stream(opened):
    name, hf, layout = opened
    if layout.family.ln1 is None:
        W, folded = Weights(layout), Weights(layout).folded()
        assert torch.equal(W.Q[:], folded.Q[:]) and torch.equal(W.b_Q[:], folded.b_Q[:])
        return
    W, folded, x = Weights(layout), Weights(layout).folded(), 3 * torch.randn(2, 5, layout.facts.d_model) + 1
    module = layout.role(1, "ln1")
    ln, bare = module(x).detach(), normalised(layout.family.norm, x, eps_of(module))
    for matrix in ("Q", "K", "V"):
        close(by_head(bare, getattr(folded, matrix)[1], getattr(folded, f"b_{matrix}")[1]),
              by_head(ln, getattr(W, matrix)[1], getattr(W, f"b_{matrix}")[1]))
    assert (folded.ln1[:] == 1).all() and (folded.b_ln1[:] == 0).all()


def test_norms_that_stand_in_the_stream_are_not_folded():
    W = Weights(Layout(build("bert")))
    assert torch.equal(W.folded().ln2[:], W.ln2[:]) and torch.equal(W.folded().In[:], W.In[:])
    experts = Weights(Layout(build("mixtral")))
    assert torch.equal(experts.folded().ln2[:], experts.ln2[:]) and (experts.folded().ln1[:] == 1).all()


def test_nothing_changes_the_model(opened):
    _, hf, layout = opened
    before = {name: value.clone() for name, value in hf.state_dict().items()}
    plain = Weights(layout)
    for W in (plain, plain.folded(centre=True)):
        for name in filter(lambda name: plain.missing(name) is None, ROWS):
            value = getattr(W, name)
            if not isinstance(value, torch.Tensor):
                for layer in value:
                    layer.zero_()  # values of a layer are the user's
                value[-1].mul_(2)
        W.OV(0).svd(), W.QK(0).eigenvalues()
    assert all(torch.equal(value, before[name]) for name, value in hf.state_dict().items())


# Indexing, names, printing --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def W():
    return Model(build("llama")).W


def test_indices(W):
    assert W.Q[:].shape == W.Q.shape == (2, 4, 32, 8)
    assert torch.equal(W.Q[-1, -1], W.Q[1, 3]) and torch.equal(W.Q[1], W.Q[:][1])
    assert torch.equal(W.Q[:, 2], W.Q[:][:, 2]) and torch.equal(W.Q[0, 1:3], W.Q[0][1:3])
    assert torch.equal(W.O[[1, 0], [0, 2], :, 5], W.O[:][[1, 0]][:, [0, 2], :, 5])
    assert [layer.shape for layer in W.K] == [(2, 32, 8)] * 2 and len(W.K) == 2
    assert W.In[0].shape == (32, 48) and W.b_O[:].shape == (2, 32)


@pytest.mark.parametrize("index, message", [
    (7, "no layer 7: this model has 2 layers, 0 to 1"), ((0, 4), "no head 4: this model has 4 heads, 0 to 3"),
    ((-3, 0), "no layer -3"), (slice(5, 6), "names none of the 2 layers")])
def test_out_of_range(W, index, message):
    with pytest.raises(LayerError, match=message):
        _ = W.Q[index]


def test_query_heads_find_their_kv_heads(W):
    assert [torch.equal(W.K.for_head(0, head), W.K[0, head // 2]) for head in range(4)] == [True] * 4
    assert torch.equal(W.V.for_head(1, -1), W.V[1, 1]) and W.K.for_head(0).shape == (4, 32, 8)
    with pytest.raises(LayerError, match="no kv_head 2: this model has 2 kv_heads"):
        _ = W.K[0, 2]
    with pytest.raises(LayerError, match="no head 4"):
        W.K.for_head(0, 4)


def test_names(W):
    assert all(getattr(W, alias) is not None for alias in ALIASES if W.missing(ALIASES[alias]) is None)
    assert torch.equal(W.W_in[0], W.In[0]) and torch.equal(W.W_E, W.E)
    with pytest.raises(SiteNameError, match='no weight W.Outt. Did you mean "Out"'):
        _ = W.Outt
    with pytest.raises(SiteError, match="llama has no W.pos: positions enter inside attention"):
        _ = W.W_pos
    with pytest.raises(SiteError, match="one branch only. Use W.In"):
        _ = Weights(Layout(build("gpt2"))).Gate
    assert not hasattr(W, "pos") and "Gate" in dir(W) and "pos" not in dir(W)


def test_printing(W):
    assert "kv_head 2 · d_model 32 · d_head 8" in repr(W) and "(none) positions enter" in repr(W)
    assert repr(W.Q).startswith("W.Q: layer 2 · head 4") and "<code>Gate</code>" in W._repr_html_()


class Packed(nn.Module):
    """A linear map that keeps its weight in eight bits, as quantizing libraries do."""

    def __init__(self, linear):
        super().__init__()
        self.in_features, self.step = linear.in_features, linear.weight.abs().max().item() / 127
        self.weight = nn.Parameter((linear.weight / self.step).round().to(torch.int8), requires_grad=False)

    def forward(self, x):
        return x @ (self.weight.float() * self.step).T


def test_quantized_modules_are_read_through_their_forward():
    hf = build("llama")
    for role in ("q_proj", "o_proj"):
        setattr(hf.model.layers[0].self_attn, role, Packed(getattr(hf.model.layers[0].self_attn, role)))
    W, x = Weights(Layout(hf)), torch.randn(3, 32)
    theirs = hf.model.layers[0].self_attn.q_proj(x).unflatten(-1, (4, 8))
    close(torch.einsum("pm,hmd->phd", x, W.Q[0]), theirs)


def test_half_precision_stays_half():
    W = Weights(Layout(build("gemma", dtype=torch.bfloat16)))
    assert W.folded().Q[0].dtype == W.Q[0].dtype == torch.bfloat16 and W.OV(0, 0).svd()[1].dtype == torch.float32


# Factored products ----------------------------------------------------------------------------------------------


@pytest.fixture(params=[(8, 3), (5, 5), (3, 7)], ids=["rank below size", "rank equal", "rank above size"])
def product(request):
    size, rank = request.param
    made = torch.Generator().manual_seed(0)
    left = torch.randn(2, size, rank, generator=made, dtype=torch.float64)
    factored = Factored(left, torch.randn(2, rank, size, generator=made, dtype=torch.float64))
    return factored, factored.left @ factored.right


def test_factored_equals_dense(product):
    m, dense = product
    torch.testing.assert_close(m.norm(), dense.norm(dim=(-2, -1)))
    torch.testing.assert_close(m.trace(), dense.diagonal(dim1=-2, dim2=-1).sum(-1))
    torch.testing.assert_close(m.T.full(), dense.mT)
    torch.testing.assert_close(m[1].full(), dense[1])
    x, y = torch.randn(2, m.shape[-1], dtype=torch.float64)
    torch.testing.assert_close(m.pair(x, y), torch.einsum("n,bnm,m->b", x, dense, y))
    torch.testing.assert_close(m @ x, dense @ x)
    torch.testing.assert_close(x @ m, x @ dense)


def test_factored_spectra_equal_dense(product):
    m, dense = product
    u, s, vh = m.svd()
    k = min(*m.shape[-2:], m.rank)
    assert u.shape[-1] == s.shape[-1] == vh.shape[-2] == k == m.eigenvalues().shape[-1]
    torch.testing.assert_close(s, torch.linalg.svdvals(dense)[..., :k])
    torch.testing.assert_close(u * s[:, None] @ vh, dense)
    eye = torch.eye(k, dtype=s.dtype).expand(2, k, k)
    torch.testing.assert_close(u.mT @ u, eye)
    torch.testing.assert_close(vh @ vh.mT, eye)
    ours, theirs = m.eigenvalues(), torch.linalg.eigvals(dense)
    for mine, full in zip(ours, theirs, strict=True):  # as sets: conjugates have equal modulus
        distance = (mine[:, None] - full[None]).abs()
        assert distance.min(1).values.max() < 1e-9
    torch.testing.assert_close(ours.abs(), theirs.abs().sort(descending=True).values[..., :k])


def test_products_stay_factored_at_the_smaller_rank(product):
    m, dense = product
    thin = Factored(torch.randn(m.shape[-1], 2, dtype=torch.float64), torch.randn(2, 9, dtype=torch.float64))
    assert (m @ thin).rank == 2 and (thin.T @ m).rank == 2
    torch.testing.assert_close((m @ thin).full(), dense @ thin.full())
    torch.testing.assert_close((thin.T @ m).full(), thin.full().T @ dense)
    x = torch.randn(m.shape[-1], 4, dtype=torch.float64)
    assert isinstance(m @ x, Factored) and isinstance(x.T @ m, Factored)
    torch.testing.assert_close((m @ x).full(), dense @ x)
    torch.testing.assert_close((x.T @ m).full(), x.T @ dense)


def test_factored_refuses():
    m = Factored(torch.randn(4, 2), torch.randn(2, 3))
    assert repr(m) == "Factored(4 × 3, rank 2)"
    assert repr(Factored(torch.ones(5, 4, 2), m.right)) == "Factored(5 of 4 × 3, rank 2)"
    for broken in (lambda: Factored(m.left, m.left), lambda: Factored(torch.ones(2), m.right),
                   lambda: Factored(torch.ones(3, 4, 2), torch.ones(2, 2, 3)), m.trace, m.eigenvalues):
        with pytest.raises(ValueError):
            broken()
    with pytest.raises(IndexError, match="leading axes"):
        _ = m[0]


def test_head_products_equal_dense(opened):
    _, _, layout = opened
    W = Weights(layout)
    group = layout.facts.n_heads // layout.facts.n_kv_heads
    for head in range(layout.facts.n_heads):
        close(W.OV(1, head).full(), W.V[1, head // group] @ W.O[1, head])
        close(W.QK(1, head).full(), W.Q[1, head] @ W.K[1, head // group].T)
    close(W.QK(1).norm(), torch.stack([W.QK(1, head).full().norm() for head in range(layout.facts.n_heads)]))
    assert F.cosine_similarity(W.OV(1)[0].full().flatten(), W.OV(1, 0).full().flatten(), 0) > 0.99999
