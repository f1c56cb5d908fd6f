"""Patterns that are stored by their strongest keys: the top of the dense ones by numpy, and what is made of them again."""

import numpy as np
import pytest
import torch
from tiny_models import build, tokenizer

import hooklab as hl
from hooklab.data.store.sparse import rebuilt, strongest
from hooklab.errors import RecordError

PROMPTS = ["Mary w1 w2 the store w3 w4 w5 w6", "w7", "John w8 w9", "the w1 w1 w1 w1 w1", "w2 w3 Mary w5 w6 w7 w8 w1"]
K = 3


def opened(family="llama"):
    return hl.load(build(family, attn_implementation="eager"), tokenizer=tokenizer())


def patterns(model, text):
    """[layer head query key] by transformers."""
    with torch.no_grad():
        found = model.hf(torch.tensor([tokenizer()(text)["input_ids"]]), output_attentions=True).attentions
    return torch.cat(found).numpy()


def top(pattern, k):
    """Per head and query the k largest numbers that are not 0, with their keys; by loops."""
    return [[[(int(key), row[key]) for key in np.argsort(-row, kind="stable")[:k] if row[key]] for row in head]
            for head in pattern]


def only(pattern, k):
    found = np.zeros_like(pattern)
    for h, head in enumerate(top(pattern, k)):
        for q, pairs in enumerate(head):
            for key, value in pairs:
                found[h, q, key] = value
    return found


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_the_strongest_keys_are_the_top_of_the_dense_pattern(family, tmp_path):
    model = opened(family)
    thin = hl.extract(model, PROMPTS, "L1.z", tmp_path / "thin", strongest={"L*.pattern": K}, shard_bytes=900).store
    full = hl.extract(model, PROMPTS, ["L*.pattern", "L1.z"], tmp_path / "full").store
    assert set(thin.sites) == {"L1.z", *(f"L{n}.pattern.{word}" for n in (0, 1) for word in ("strongest", "keys"))}
    assert len(thin.manifest.shards) > 1 and not thin.verify()
    for i, text in enumerate(PROMPTS):
        alone = patterns(model, text)
        for layer in (0, 1):
            site = f"L{layer}.pattern"
            exact = full[site][i].numpy()
            values, keys = thin[f"{site}.strongest"][i].numpy(), thin[f"{site}.keys"][i].numpy()
            for h, head in enumerate(top(exact, K)):
                for q, pairs in enumerate(head):
                    n = len(pairs)
                    if family != "bert":
                        assert n == min(K, q + 1)  # a causal row has as many keys as it sees
                    assert list(zip(keys[q, h, :n], values[q, h, :n], strict=True)) == pairs
                    assert (keys[q, h, n:] == -1).all() and (values[q, h, n:] == 0).all()
            assert np.array_equal(thin.dense(site, i).numpy(), only(exact, K))
            assert np.allclose(thin.dense(site, i), only(alone[layer], K), atol=1e-6)
            assert np.array_equal(full.dense(site, i), exact)


def test_selected_queries_heads_and_types(tmp_path):
    model = opened()
    found = hl.extract(model, PROMPTS, out=tmp_path / "s", at="last", dtype="float16",
                       strongest={"L1H[0,3].pattern": 2, "L0.pattern": 50}).store
    for i, text in enumerate(PROMPTS):
        alone = patterns(model, text)[:, :, -1:]
        assert found["L1H[0,3].pattern.strongest"].positions(i) == [alone.shape[-1] - 1]
        some = found.dense("L1H[0,3].pattern", i)
        assert some.dtype == torch.float16 and np.allclose(some, only(alone[1, [0, 3]], 2), atol=1e-3)
        assert np.allclose(found.dense("L0.pattern", i), alone[0], atol=1e-3)  # more than there are: all of them
    assert found.manifest.about["options"]["strongest"] == {"L1H[0,3].pattern": 2, "L0.pattern": 50}


def test_patterns_that_are_looked_at_whole_are_stored_at_the_selected_queries(tmp_path):
    model, spans = opened(), {"first": 0, "end": "last"}
    found = hl.extract(model, PROMPTS, out=tmp_path / "s", at="last", strongest={"L1.pattern": 2},
                       reduce={"mean": hl.data.MeanPattern("L1.pattern", spans)})
    every = [patterns(model, text)[1] for text in PROMPTS]
    picked = [one[:, [0, -1]][:, :, [0, -1]] for one in every]
    assert np.allclose(found.reduced["mean"].result().values, np.mean(picked, 0), atol=1e-6)
    for i, one in enumerate(every):
        assert np.allclose(found.store.dense("L1.pattern", i), only(one[:, -1:], 2), atol=1e-6)


@pytest.mark.parametrize("at", [None, "last"])
def test_a_dry_run_counts_the_bytes_of_numbers_and_keys(at, tmp_path):
    model = opened()
    options = {"at": at, "dtype": "float16", "strongest": {"L*.pattern": K}, "metrics": ["entropy"]}
    told = hl.extract(model, PROMPTS, "L0.z", tmp_path / "s", dry_run=True, **options)
    store = hl.extract(model, PROMPTS, "L0.z", tmp_path / "s", **options).store
    assert told.sites == store.stats.sites
    queries = len(PROMPTS) if at else sum(len(text.split()) for text in PROMPTS)
    assert told.sites["L1.pattern.strongest"] == queries * 4 * K * 2 and told.sites["L1.pattern.keys"] == queries * 4 * K * 4
    size = sum(path.stat().st_size for path in (tmp_path / "s").rglob("*") if path.is_file())
    assert told.bytes == pytest.approx(size, rel=0.03) and told.opened == (0, 1)


def test_an_extraction_goes_on_and_stores_are_merged(tmp_path):
    model, options = opened(), {"strongest": {"L1.pattern": K}, "batch_size": 1}
    hl.extract(model, PROMPTS[:2], out=tmp_path / "a", **options)
    found = hl.extract(model, PROMPTS, out=tmp_path / "a", **options)
    with pytest.raises(RecordError, match="was begun otherwise: strongest.L1.pattern was 3 and is 4"):
        hl.extract(model, PROMPTS, out=tmp_path / "a", batch_size=1, strongest={"L1.pattern": 4})
    rows = [{"id": f"more-{i}", "text": text} for i, text in enumerate(PROMPTS)]
    other = hl.extract(model, rows, out=tmp_path / "b", id="id", **options).store
    both = found.store.merge([other], tmp_path / "c").where(lambda row: row["n_tokens"] > 3)
    assert found.report.resumed == 2 and len(both) == 6
    for name in both.ids:
        text = PROMPTS[int(name.removeprefix("more-"))]
        assert np.allclose(both.dense("L1.pattern", name), only(patterns(model, text)[1], K), atol=1e-6)


def test_any_type_and_equal_numbers_come_back():
    tied = torch.tensor([[[0.25, 0.25, 0.25, 0.25], [0.0, 0.5, 0.0, 0.5]]])
    values, keys = strongest(tied, 3)
    assert keys.tolist() == [[[0, 1, 2]], [[1, 3, -1]]] and values.tolist() == [[[0.25] * 3], [[0.5, 0.5, 0.0]]]
    for dtype in (torch.float64, torch.bfloat16, torch.float16, torch.float8_e4m3fn):
        assert torch.equal(rebuilt(values.to(dtype), keys, 4).float(), torch.tensor(
            [[[0.25, 0.25, 0.25, 0.0], [0.0, 0.5, 0.0, 0.5]]]))
    full, all_keys = strongest(torch.rand(2, 5, 5).tril(), 9)
    assert full.shape == all_keys.shape == (5, 2, 9)


@pytest.mark.parametrize("given, said", [
    ({"strongest": {"L0.z": 3}}, "for patterns, and L0.z is none"),
    ({"strongest": {"L0.pattern": 0}}, "is a whole number from 1"),
    ({"strongest": {"L0.pattern": True}}, "is a whole number from 1"),
    ({"strongest": {"L0.pattern": 3, "L*.pattern": 4}}, "names L0.pattern twice"),
    ({"strongest": 8}, "it is {address: how many}"),
    ({"strongest": {"L0.pattern": 3}, "out": None, "metrics": ["entropy"]}, "say where, out="),
])
def test_mistakes_are_errors_before_anything_is_written(given, said, tmp_path):
    with pytest.raises(RecordError, match=said):
        hl.extract(opened(), PROMPTS, **{"out": tmp_path / "s", **given})
    assert not (tmp_path / "s").exists()


def test_what_was_not_stored_is_named(tmp_path):
    store = hl.extract(opened(), PROMPTS, out=tmp_path / "s", strongest={"L1.pattern": 2}).store
    with pytest.raises(RecordError, match="neither L0.pattern nor its strongest keys; it has those of L1.pattern"):
        store.dense("L0.pattern", 0)
    with pytest.raises(RecordError, match="no example 9"):
        store.dense("L1.pattern", 9)
