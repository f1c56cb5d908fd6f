"""Specs run through nnsight's remote route: equal to local runs, small on the wire, refused before anything is sent."""

import functools
import json
import subprocess
import sys

import accelerate
import nnsight.modeling.huggingface as hub
import numpy as np
import pytest
import torch
import zstandard
from nnsight.intervention.backends.local import LocalSimulationBackend
from nnsight.intervention.backends.remote import RemoteBackend, RemoteError
from tiny_models import TEXT_ONLY, build, tokenizer

import hooklab as hl
from hooklab.errors import ModelError, TraceError
from hooklab.model.model import Model
from hooklab.problems import SpecError
from hooklab.runtime import remote, steps
from hooklab.spec.verbs import VERBS

INNER = ("rot_q", "rot_k", "scores", "pattern")
VECTOR = torch.linspace(-1, 1, 32)

PAIR = """prompt clean = "w1 w2 w3 w4 w5"
prompt corrupt = "w1 w2 w9 w4 w5"
answer "w7" vs "w8"
metric logit_diff
metric l = loss
metric away = kl(corrupt)
"""
EXPERIMENTS = {
    "a grid of patches": "run on corrupt:\n    patch each L*.resid @each from clean",
    "patches of heads": "run on corrupt:\n    patch each L*H* from clean\n    save L1.result as r",
    "a window of layers": "run on corrupt:\n    patch each L*.mlp @last from clean window=2",
    "path patching": "run on corrupt:\n    patch each L0H* -> L1.q from clean",
    "a patch from another place": "run on corrupt:\n    patch L1.resid_pre @last from clean.L0.resid @first",
    "frozen outputs": "run on corrupt:\n    freeze L*.z to clean\n    zero L0.mlp",
    "ablation by zero, mean and example": """prompt many = ["w1 w2 w3 w4 w5", "w6 w7 w8 w9 w1", "w4 w4 w2 w2 w3"]
run a on clean:
    ablate each L*H* with mean over many
run b on clean:
    ablate L1H[0,2] with zero
run c on clean:
    ablate L*.mlp with resample over many
run d on clean:
    ablate L0.attn with mean over many per=all""",
    "steering by a sweep": """sweep c in [-1, 0, 2]
run on clean:
    steer L0.resid by c * {vec}
    scale L1H2 by 3""",
    "a value computed from a run": """let gap = mean(clean.L1.resid) - mean(corrupt.L1.resid)
run on corrupt:
    steer L1.resid @each[first, last] by gap / norm(gap)""",
    "setting, clamping, projecting": """run on clean:
    set L1N[3,5] @last to 3.5
    clamp L0N* min=-0.1 max=0.2
    project_out L*.resid along {vec}
    set L1.resid[0,1] to 0""",
    "noise with samples": "run on clean:\n    noise embed @2 by 3 * sigma samples=4 seed=3",
    "runs on top of runs": """run broken on clean:
    noise embed @2 by sigma
run on broken:
    patch each L*.resid @2 from clean""",
    "divisors of norms": """run on clean:
    scale L1.ln1_scale by 2
    save L1.ln1_scale
    save ln_final_scale""",
    "logits": "run on clean:\n    steer logits by 1.5\n    save logits @last",
    "a lens": "run on corrupt:\n    zero L0.mlp\n    lens L*.resid @each top=2",
    "saved activations": """run on clean:
    zero L0.attn
    save L*.resid_pre as stream
    save L0.q
    save L1H2.z @last as one
    save L1N[1,4] as two""",
}


def opened(family: str) -> Model:
    return hl.load(build(family), tokenizer=tokenizer())


def equal(there, here, tolerance: float = 1e-5) -> None:
    assert list(there) == list(here) and set(there.scores) == set(here.scores)
    for key in here:
        torch.testing.assert_close(there[key], here[key], atol=tolerance, rtol=tolerance)
    for name, metrics in here.metrics.items():
        assert there.metrics[name] == pytest.approx(metrics, abs=tolerance)
    for key, scores in here.scores.items():
        np.testing.assert_allclose(there.scores[key].values, scores.values, atol=tolerance, rtol=tolerance)
        if scores.labels is not None:
            assert np.array_equal(there.scores[key].labels, scores.labels)


@pytest.fixture(scope="module")
def models():
    return {family: opened(family) for family in ("gpt2", "llama", "gpt_neox")}


# Equal to local runs


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_simulated_remote_run_equals_the_local_one(models, experiment, family):
    text = PAIR + EXPERIMENTS[experiment]
    here = models[family].run(text, vec=VECTOR)
    equal(models[family].run(text, vec=VECTOR, remote="local"), here)
    values = [np.ravel(value) for value in (*here.metrics["clean"].values(), *(s.values for s in here.scores.values()
                                                                              if s.values.dtype != object))]
    assert np.isfinite(np.concatenate(values)).all()


@pytest.mark.parametrize("family", TEXT_ONLY)
def test_every_site_is_changed_and_kept_as_locally(family):
    model = Model(build(family))
    sites = [site for site in model.layout.present if site not in INNER]
    lines = ["prompt {ids}"]
    for site in sites:
        place = site if site in hl.SITES and hl.SITES[site].scope == "model" else f"L1.{site}"
        lines += [f"run r_{site} on main:", f"    scale {place} @last by 0.5", f"    save {place}",
                  "    save L1.resid_post as end"]
    text = "\n".join(lines)
    here = model.run(text, ids=[[5, 9, 3, 7, 20]])
    there = model.run(text, ids=[[5, 9, 3, 7, 20]], remote="local")
    equal(there, here, 1e-5)
    untouched = model.run("prompt {ids}\nsave L1.resid_post as end", ids=[[5, 9, 3, 7, 20]])["end"]
    assert sum(not torch.equal(here[f"r_{site}.end"], untouched) for site in sites) >= 8


def test_ragged_prompts_are_padded_as_locally(models):
    text = """prompt many = ["w1 w2 w3", "w6 w7 w8 w9 w1", "w4"]
answer ["w7", "w8", "w9"]
metric prob
run on many:
    steer L0.resid @last by {vec}
    save L1.resid_post @last as end
"""
    for model in models.values():
        equal(model.run(text, vec=VECTOR, remote="local"), model.run(text, vec=VECTOR))


def test_the_shipped_model_gives_the_same_claims_and_grid():
    text = """prompt clean = "When Mary and John went to the store, John gave a drink to"
prompt corrupt = "When Mary and John went to the store, Mary gave a drink to"
answer " Mary" vs " John"
metric logit_diff
run patched on corrupt:
    patch each L*.resid @each from clean
run broken on clean:
    zero L*.attn @last
expect broken.logit_diff < clean.logit_diff
"""
    model = hl.load("lab")
    here, there = model.run(text), model.run(text, remote="local")
    equal(there, here)
    assert there.expectations == here.expectations and there.expectations[0].holds
    assert there.provenance["remote"] == "local" and "remote" not in here.provenance


def test_chunks_of_few_rows_give_the_same_grid(models):
    model = models["llama"]
    plan = model.plan(PAIR + EXPERIMENTS["a grid of patches"])
    equal(remote.execute_remote(model, plan, "local", rows=3), model.run(plan))


def test_a_picture_goes_along():
    from tiny_models import chameleon_processor, image

    processor = chameleon_processor()
    model = hl.load(build("chameleon"), tokenizer=processor.tokenizer, processor=processor)
    text = 'prompt "<image> this is a" image={picture}\nrun on main:\n    zero L0.mlp @image\n    save L1.resid_post as end'
    equal(model.run(text, picture=image(), remote="local"), model.run(text, picture=image()))


def test_a_run_within_a_trace_or_without_weights_is_refused(models):
    with pytest.raises(ModelError, match="meta"):
        Model(build("gpt2").to("meta"), tokenizer()).run(PAIR, remote="local")
    with pytest.raises(TraceError, match="already running"), models["gpt2"].trace("w1 w2"):
        models["gpt2"].layers[0].resid_post.save()
        models["gpt2"].run(PAIR, remote="local")


# What is left of it


def test_nothing_is_left_on_the_module_the_tokenizer_or_the_process(models):
    import cloudpickle

    model = models["gpt2"]
    before = [set(module.__dict__) for module in model.hf.modules()]
    routes = [len(module.__dict__["__nnsight__"].routes) for module in model.hf.modules()]
    paths, side = list(sys.path), model.tokenizer.padding_side
    model.run(PAIR + EXPERIMENTS["a grid of patches"], remote="local")
    assert [set(module.__dict__) for module in model.hf.modules()] == before
    assert [len(module.__dict__["__nnsight__"].routes) for module in model.hf.modules()] == routes
    assert sys.path == paths and model.tokenizer.padding_side == side
    assert "hooklab" not in cloudpickle.list_registry_pickle_by_value()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.hf.modules())


def test_local_runs_and_traces_go_on_after_a_failed_remote_one(models, monkeypatch):
    model = models["llama"]
    text = PAIR + EXPERIMENTS["a grid of patches"]
    here = model.run(text)

    def fails(*_):
        raise RuntimeError("out of order")

    with monkeypatch.context() as patched:
        patched.setattr(LocalSimulationBackend, "__call__", fails)
        with pytest.raises(RuntimeError, match="out of order"):
            model.run(text, remote="local")
    equal(model.run(text), here)
    equal(model.run(text, remote="local"), here)


# What travels

SERVER = """
import importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "hooklab":
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Absent())
import torch
from nnsight.modeling.transformers import TransformersModel
from nnsight.schema.request import RequestModel
from nnsight.tracing.tracer import dec, inc

torch.set_num_threads(1)
there = TransformersModel(sys.argv[1], task="text-generation", dispatch=True)
for line in sys.stdin:
    request, result = line.split()
    blob = open(request, "rb").read()
    tracer = RequestModel.deserialize(blob, there._remoteable_persistent_objects(), compress=True)
    frame = tracer.info.frame
    known = set(frame.f_locals)
    inc()
    try:
        tracer.execute(tracer.info.code)
    finally:
        dec()
    torch.save({name: value for name, value in frame.f_locals.items() if name not in known}, result)
    print("done", flush=True)
"""


class Far:
    """A server in a process of its own, where hooklab cannot be imported."""

    def __init__(self, folder) -> None:
        self.folder, self.requests, self.blobs = folder, [], []
        self.process = subprocess.Popen([sys.executable, "-c", SERVER, str(folder)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)

    def answer(self, backend: RemoteBackend, request, tracer):
        self.requests.append(request)
        self.blobs.append(backend._serialize(tracer))
        sent, back = self.folder / "request", self.folder / "result"
        sent.write_bytes(self.blobs[-1])
        self.process.stdin.write(f"{sent} {back}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"
        return torch.load(back, weights_only=True)


@pytest.fixture(scope="module")
def far(tmp_path_factory):
    folder = tmp_path_factory.mktemp("far")
    build("llama").save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    server = Far(folder)
    yield server
    server.process.stdin.close()
    server.process.wait(timeout=30)


@pytest.fixture
def on_the_hub(far, monkeypatch):
    """The folder passes for a name on the hub, and requests go to the server instead of NDIF."""
    folder = str(far.folder)
    monkeypatch.setattr(remote, "hub_name", lambda model: folder)
    monkeypatch.setitem(hub._ID_CACHE, folder, "someone/tiny")
    monkeypatch.setattr(remote, "TransformersModel", functools.partial(remote.TransformersModel, task="text-generation"))
    monkeypatch.setattr(RemoteBackend, "request", lambda backend, request, tracer: far.answer(backend, request, tracer))
    return far


@pytest.mark.parametrize("experiment", ["a grid of patches", "patches of heads", "divisors of norms", "path patching",
                                        "ablation by zero, mean and example", "setting, clamping, projecting",
                                        "noise with samples", "saved activations"])
def test_a_server_without_hooklab_gives_the_numbers_of_a_local_run(on_the_hub, experiment):
    model = hl.load(str(on_the_hub.folder))
    text = PAIR + EXPERIMENTS[experiment]
    equal(model.run(text, vec=VECTOR, remote=True), model.run(text, vec=VECTOR))


def test_a_model_without_weights_here_runs_there(on_the_hub):
    whole, empty = hl.load(str(on_the_hub.folder)), hl.load(str(on_the_hub.folder), device="meta")
    text = PAIR + EXPERIMENTS["a grid of patches"]
    equal(empty.run(text, remote=True), whole.run(text))


def test_a_request_names_the_model_and_carries_neither_weights_nor_bytecode(on_the_hub):
    model = hl.load(str(on_the_hub.folder))
    start = len(on_the_hub.blobs)
    run = model.run(PAIR + EXPERIMENTS["a grid of patches"], remote=True)
    for request, blob in zip(on_the_hub.requests[start:], on_the_hub.blobs[start:], strict=True):
        kind, _, key = request.model_key.partition(":")
        assert kind == "nnsight.modeling.transformers.TransformersModel"
        assert json.loads(key) == {"repo_id": "someone/tiny", "revision": None, "task": "text-generation"}
        assert request.env == {"attn_implementation": "sdpa"}
        raw = zstandard.ZstdDecompressor().decompress(blob)
        weights = sum(p.numel() * p.element_size() for p in model.hf.parameters())
        assert len(blob) < 12_000 and len(raw) < 40_000 < weights
        assert b"CodeType" not in raw and b"chooklab" not in raw
    assert run.provenance["remote"].startswith("https://") and len(on_the_hub.blobs) == start + 2


def test_a_row_of_a_large_matrix_travels_alone(on_the_hub):
    model = hl.load(str(on_the_hub.folder))
    large = torch.randn(20_000, 32)
    start = len(on_the_hub.blobs)
    model.run(PAIR + "run on clean:\n    steer L0.resid by {vec}", vec=large[7], remote=True)
    assert max(map(len, on_the_hub.blobs[start:])) < 16_000 < large.nbytes


def test_the_revision_that_was_loaded_is_the_one_asked_for(on_the_hub, monkeypatch):
    model = hl.load(str(on_the_hub.folder))
    model._revision = "step1000"
    model.run(PAIR, remote=True)
    assert json.loads(on_the_hub.requests[-1].model_key.partition(":")[2])["revision"] == "step1000"


def test_another_address_is_where_the_request_goes(on_the_hub, monkeypatch):
    hosts = []
    monkeypatch.setattr(RemoteBackend, "request", lambda backend, request, tracer: hosts.append(backend.host)
                        or on_the_hub.answer(backend, request, tracer))
    run = hl.load(str(on_the_hub.folder)).run(PAIR, remote="https://example.org")
    assert hosts == ["https://example.org"] == [run.provenance["remote"]]


@pytest.mark.parametrize("error", [RemoteError("Traceback\n  line\nValueError: out of memory"),
                                   ConnectionRefusedError("out of memory")])
def test_what_a_server_says_is_one_line(on_the_hub, monkeypatch, error):
    def fails(*_):
        raise error

    monkeypatch.setattr(RemoteBackend, "request", fails)
    with pytest.raises(TraceError, match=r"did not run this: .*out of memory$"):
        hl.load(str(on_the_hub.folder)).run(PAIR, remote=True)


# What is refused


@pytest.mark.parametrize("name, word", [("", "made in memory"), ("./here", "folder"), ("a b", "folder")])
def test_a_model_without_a_name_on_the_hub_cannot_go_there(name, word):
    hf = build("gpt2")
    hf.config._name_or_path = hf.name_or_path = name
    with pytest.raises(ModelError, match=f"{word}.*remote='local'"):
        Model(hf, tokenizer()).run(PAIR, remote=True)


@pytest.fixture
def nothing_is_sent(monkeypatch):
    for place in (steps, remote):
        monkeypatch.setattr(place, "serve", lambda *_: pytest.fail("something was sent"))
    for backend in (LocalSimulationBackend, RemoteBackend):
        monkeypatch.setattr(backend, "__call__", lambda *_: pytest.fail("something was sent"))


REFUSED = {
    "zero L0.pattern": "take z",
    "scale L1.scores by 2": "take z",
    "steer L1.rot_q by 1": "take q",
    "set L1.rot_k @last to 0": "take k",
    "freeze L*.pattern": "take z",
    "cut L1 @first -> @last": "zero the heads' z",
    "steer L1.resid by mean(clean.L0.rot_q[0])": "take q",
    "save L0.pattern": "take z",
    "score each L*H* with induction": "take z",
    "attribute L*.resid": "leave out remote=",
    "generate 3": "next token",
    "zero enc.F1": "change the site itself",
}


class Dictionary:
    n_features = 4

    def encode(self, x):
        return x[..., :4]

    def decode(self, f):
        return torch.nn.functional.pad(f, (0, 28))


@pytest.mark.parametrize("line", REFUSED)
@pytest.mark.parametrize("inside", [True, False])
def test_a_line_that_cannot_run_there_is_named_before_anything_is_sent(models, nothing_is_sent, line, inside):
    text = PAIR.replace('prompt corrupt = "w1 w2 w9 w4 w5"\n', "").replace("metric away = kl(corrupt)\n", "")
    text += "sae enc = {dictionary} at L1.resid_pre\n" + (f"run on clean:\n    {line}" if inside else line)
    with pytest.raises(SpecError) as caught:
        models["llama"].run(text, dictionary=Dictionary(), remote="local")
    (problem,) = caught.value.problems
    assert text.split("\n")[problem.line - 1].strip() == line
    assert REFUSED[line] in problem.hint and "leave out remote=" in problem.hint


def test_all_lines_that_cannot_run_there_are_named_at_once(models, nothing_is_sent):
    text = PAIR + "run a on clean:\n    zero L0.pattern\n    zero L1.z\n"
    text += "run b on corrupt:\n    save L1.scores\n    generate 2"
    with pytest.raises(SpecError) as caught:
        models["gpt2"].run(text, remote="local")
    assert [problem.line for problem in caught.value.problems] == [8, 11, 12]


def test_a_view_of_attention_is_refused_where_it_is_asked_for(models, nothing_is_sent):
    text = PAIR + "run a on clean:\n    zero L1.z\n    save L1.z\nshow attention L1H0"
    with pytest.raises(SpecError) as caught:
        models["gpt2"].run(text, remote="local")
    assert "L1.pattern" in str(caught.value) and caught.value.problems[0].line == 10


def test_a_lens_needs_the_unembedding_here(on_the_hub):
    with pytest.raises(SpecError, match="unembedding"):
        hl.load(str(on_the_hub.folder), device="meta").run(PAIR + "run on clean:\n    lens", remote=True)


def test_the_order_of_a_forward_pass_is_observed_where_the_glossary_is_wrong():
    falcon = Model(build("falcon_new")).layout
    order = steps.visiting_order(falcon)
    assert order["model.transformer.h.0.ln_mlp.output"] < order["model.transformer.h.0.self_attention.dense.output"]
    mixtral = steps.visiting_order(Model(build("mixtral")).layout)  # cannot run without numbers
    assert mixtral["model.model.layers.0.self_attn.o_proj.output"] < mixtral["model.model.layers.0.mlp.output"]


# Models spread by accelerate

VERBATIM = {
    "zero": "run on clean:\n    zero L1H2",
    "ablate": "run on clean:\n    ablate each L*H* with mean over corrupt",
    "patch": "run on corrupt:\n    patch each L*.resid @each from clean",
    "freeze": "run on corrupt:\n    freeze L*.pattern to clean\n    zero L0.mlp",
    "steer": "run on clean:\n    steer L0.resid by {vec}",
    "scale": "run on clean:\n    scale L1.ln1_scale by 2",
    "set": "run on clean:\n    set L1N3 to 2",
    "clamp": "run on clean:\n    clamp L1.mlp_post max=0",
    "project_out": "run on clean:\n    project_out L*.resid along {vec}",
    "noise": "run on clean:\n    noise embed by sigma samples=2",
    "cut": "run on clean:\n    cut L1 @first -> @last",
    "save": "run on clean:\n    zero L0.mlp\n    save L*.pattern as a\n    save L1.resid_mid\n    save L1.result\n"
    "    save logits",
    "attribute": "run on clean:\n    attribute each L*H* with grad\n    attribute L*.resid @each with ig steps=4\n"
    "    attribute each L*.mlp with dla\n    attribute L*.resid with patch from corrupt",
    "score": "prompt rep = repeat_random(6, seed=0)\nrun on rep:\n    score each L*H* with induction",
    "lens": "run on clean:\n    lens L*.resid @each top=2",
    "generate": "run on clean:\n    steer L0.resid @new by {vec}\n    generate 4 temperature=0",
    "show": "run on clean:\n    zero L1.z\nshow attention L1H0\nshow resid",
}


def hooked_by_accelerate(family: str) -> Model:
    hf = build(family)
    accelerate.dispatch_model(hf, {"": "cpu"}, main_device="cpu", force_hooks=True)
    assert hf._hf_hook is not None
    return hl.load(hf, tokenizer=tokenizer())


@pytest.fixture(scope="module")
def spread(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spread")
    build("llama").save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return {"loaded": hl.load(folder, device_map="cpu"), "hooked llama": hooked_by_accelerate("llama"),
            "hooked gpt2": hooked_by_accelerate("gpt2")}


def test_every_verb_that_runs_is_tried():
    assert set(VERBATIM) == {name for name, verb in VERBS.items() if verb.kind in ("edit", "read", "write on")}


@pytest.mark.parametrize("verb", VERBATIM)
@pytest.mark.parametrize("kind", ["loaded", "hooked llama", "hooked gpt2"])
def test_a_model_with_a_device_map_gives_the_numbers_of_a_plain_one(models, spread, kind, verb):
    text = PAIR + VERBATIM[verb]
    plain = models["gpt2" if "gpt2" in kind else "llama"].run(text, vec=VECTOR)
    there = spread[kind].run(text, vec=VECTOR)
    equal(there, plain)
    assert there.texts == plain.texts


@pytest.mark.parametrize("kind", ["loaded", "hooked llama", "hooked gpt2"])
def test_a_model_with_a_device_map_runs_through_the_remote_route(spread, kind):
    text = PAIR + EXPERIMENTS["patches of heads"]
    equal(spread[kind].run(text, remote="local"), spread[kind].run(text))

