"""Label graphs, WordNet's nouns, and choosing examples by their classes. Oracles: a taxonomy on paper, plain recursion, and
sharing out one by one."""

from __future__ import annotations

import json
import random
import zipfile

import networkx
import pytest
import torch

from hooklab.data import Writer, open_store
from hooklab.data.labels import labels as L
from hooklab.data.labels import wordnet
from hooklab.data.labels.sampling import balanced_sample, counterfactual_pairs, depth_weights, draw, sample_beneath
from hooklab.errors import RecordError

TREE = {
    "thing": ["living", "made"],
    "living": ["animal", "plant"],
    "animal": ["mammal", "bird", "fish"],
    "mammal": ["dog", "cat", "whale"],
    "dog": ["poodle", "terrier", "spaniel"],
    "cat": ["tabby", "siamese"],
    "bird": ["robin", "eagle"],
    "fish": ["tench", "shark"],
    "plant": ["oak", "rose"],
    "made": ["vehicle", "tool"],
    "vehicle": ["car", "boat"],
    "car": ["cab", "jeep"],
    "tool": ["hammer", "saw"],
}
PARENT = {child: parent for parent, children in TREE.items() for child in children}
EDGES = [(parent, child) for child, parent in PARENT.items()]


def path(node: str) -> list[str]:
    """From the root down to a class, by hand."""
    return [*(path(PARENT[node]) if node in PARENT else []), node]


@pytest.fixture(scope="module")
def toy() -> L.LabelGraph:
    return L.LabelGraph(EDGES, [L.Label("dog", "Dog", "dog.n.01", "barks", ("dog", "hound"))])


def test_a_taxonomy_of_thirty_classes_has_the_roots_leaves_and_levels_that_it_has_on_paper(toy):
    assert len(toy) == 30 and toy.roots == ("thing",) and toy.depth == 5
    assert set(toy.leaves) == set(PARENT) - set(TREE)
    assert isinstance(toy.graph, networkx.DiGraph) and toy.graph.nodes["dog"]["label"] == "Dog"
    assert set(toy.children("animal")) == {"mammal", "bird", "fish"}
    assert set(toy.children("animal", depth=2)) == {"mammal", "bird", "fish", "dog", "cat", "whale", "robin", "eagle",
                                                    "tench", "shark"}
    assert toy.parents("poodle") == ("dog",) and toy.parents("poodle", 3) == ("dog", "mammal", "animal")
    assert toy.children("oak") == () and toy.parents("thing", None) == ()


def test_descendants_and_ancestors_of_every_class_are_those_whose_paths_run_through_it(toy):
    for node in toy.nodes:
        assert set(toy.children(node, None)) == {one for one in toy.nodes if node in path(one)[:-1]}
        assert toy.parents(node, None) == tuple(reversed(path(node)[:-1]))


def test_roll_up_of_every_class_to_every_level_is_that_place_of_its_path(toy):
    for node in toy.nodes:
        for level in range(7):
            assert toy.rollup(node, level) == (path(node)[level] if level < len(path(node)) else node)
    assert toy.mapping(1) == {leaf: path(leaf)[1] for leaf in toy.leaves}
    assert toy.rollup("poodle", ["animal", "made"]) == "animal"
    assert toy.rollup("poodle", ["animal", "dog", "plant"]) == "dog", "the nearest of those that hold it"
    with pytest.raises(RecordError, match="'oak' lies beneath none of the classes to choose from: animal, made"):
        toy.rollup("oak", ["animal", "made"])


def test_a_subgraph_holds_a_class_with_all_beneath_it_and_what_is_known_of_them(toy):
    below = toy.subgraph("mammal")
    assert set(below.nodes) == {one for one in toy.nodes if "mammal" in path(one)}
    assert below.roots == ("mammal",) and below.definition("Dog") == "barks" and below.lemmas("dog.n.01") == ("dog", "hound")
    assert toy.entry("dog").name == "dog.n.01" and toy.find("HOUND") == ("dog",) and toy.names["dog"] == "Dog"


def test_a_label_graph_is_the_same_after_json(toy, tmp_path):
    file = toy.save(tmp_path / "labels.json")
    assert L.load_labels(file) == toy != toy.subgraph("mammal")
    assert L.load_labels(file).entry("dog") == L.Label("dog", "Dog", "dog.n.01", "barks", ("dog", "hound"))
    assert json.loads(file.read_text())["schema"] == 1
    with pytest.raises(FileExistsError):
        toy.save(file)
    file.write_text(file.read_text().replace('"schema": 1', '"schema": 2'))
    with pytest.raises(RecordError, match="has schema 2; this version of hooklab reads schema 1"):
        L.load_labels(file)


@pytest.mark.parametrize(("text", "said"), [
    ("{", "no JSON"), ("[]", "no label graph"), ('{"kind": "hooklab label graph", "schema": 1}', "damaged"),
    ('{"kind": "hooklab label graph", "schema": 1, "edges": [["a"]], "nodes": []}', "damaged"),
    ('{"kind": "hooklab label graph", "schema": 1, "edges": [], "nodes": [{"node": 3}]}', "damaged"),
])
def test_a_file_that_holds_no_label_graph_is_named(tmp_path, text, said):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(RecordError, match=said):
        L.load_labels(tmp_path / "x.json")


def test_all_paths_upwards_count_and_an_ambiguous_roll_up_is_refused():
    graph = L.LabelGraph([("thing", "hunter"), ("thing", "pet"), ("hunter", "cat"), ("pet", "cat"), ("thing", "cat")])
    assert set(graph.above("cat", 1)) == {"hunter", "pet"}
    assert graph.rollup("cat", ["pet"]) == "pet" and graph.rollup("cat", 0) == "thing"
    assert graph.children("thing") == ("hunter", "pet", "cat") and graph.tree("thing").parents("cat") == ("thing",)
    with pytest.raises(RecordError, match="'cat' belongs to 2 classes of this level: hunter, pet; name the classes"):
        graph.rollup("cat", 1)


def test_what_is_no_taxonomy_or_no_class_of_it_is_refused(toy):
    with pytest.raises(RecordError, match="cannot lie beneath itself: a > b > a"):
        L.LabelGraph([("a", "b"), ("b", "a")])
    with pytest.raises(RecordError, match="no class 'pooodle' among 30. Did you mean \"poodle\""):
        toy.children("pooodle")
    twins = L.LabelGraph([], [L.Label("n1", "crane"), L.Label("n2", "crane")])
    with pytest.raises(RecordError, match=r"2 classes are called 'crane': n1 \(crane\), n2 \(crane\)"):
        twins.node("crane")
    with pytest.raises(RecordError, match="two classes are named 'crane'"):
        L.LabelGraph([], [L.Label("n1", name="crane"), L.Label("n2", name="crane")])


def test_metadata_goes_with_each_example_in_the_order_of_the_examples(toy):
    rows = toy.metadata(["poodle", "jeep", "Dog"], level=["animal", "made"])
    assert [(row["node"], row["root_label"]) for row in rows] == [("poodle", "animal"), ("jeep", "made"), ("dog", "animal")]
    assert rows[2] == {"node": "dog", "label": "Dog", "name": "dog.n.01", "definition": "barks", "lemmas": ["dog", "hound"],
                       "root_label": "animal"}


def test_an_outline_indents_by_level_and_says_what_it_hides(toy):
    assert toy.outline("mammal", depth=1) == "mammal\n  Dog  (+ 3 beneath)\n  cat  (+ 2 beneath)\n  whale"


def random_tree(rng: random.Random) -> list[tuple[str, str]]:
    return [(f"c{rng.randrange(i)}", f"c{i}") for i in range(1, rng.randrange(3, 25))]


def one_by_one(counts: dict[str, int], n: int) -> list[int]:
    """Evenly: each example in turn to a class that has room and least so far."""
    taken = dict.fromkeys(counts, 0)
    for _ in range(n):
        taken[min((one for one in counts if taken[one] < counts[one]), key=taken.__getitem__)] += 1
    return sorted(taken.values())


def test_balanced_samples_of_a_thousand_random_trees_sum_exactly_fit_and_repeat():
    rng = random.Random(0)
    for trial in range(1000):
        graph = L.LabelGraph(random_tree(rng))
        counts = {leaf: rng.choice([0, 1, 5, rng.randrange(60)]) for leaf in graph.leaves}
        n = rng.randrange(sum(counts.values()) + 1)
        for by_depth in (False, True):
            taken = sample_beneath(graph, "c0", counts, n, trial, by_depth=by_depth)
            assert sum(taken.values()) == n and all(0 <= taken[one] <= counts[one] for one in counts)
            backwards = dict(reversed(counts.items()))
            assert taken == sample_beneath(graph, "c0", backwards, n, trial, by_depth=by_depth)
            weights = depth_weights(graph, "c0") if by_depth else dict.fromkeys(counts, 1)
            part = [one for one in counts if taken[one] < counts[one]]
            if part:  # one measure fits all classes that could have given more, to less than one example
                low = max((taken[one] - 1) / weights[one] for one in part)
                assert low < min((taken[one] + 1) / weights[one] for one in part)
            if not by_depth:
                assert sorted(taken.values()) == one_by_one(counts, n)


def test_depth_weights_are_as_written_and_the_sample_follows_them():
    graph = L.LabelGraph([("animal", "fish"), ("animal", "dog"), ("dog", "poodle"), ("dog", "terrier"), ("poodle", "toy")])
    # depth: fish 1, terrier 2, toy 3, so (3 − depth + 1) · 1; dog 1 with four in its subtree
    assert depth_weights(graph, "animal") == {"fish": 3, "terrier": 2, "toy": 1}
    assert depth_weights(graph, "animal", ["dog", "toy"]) == {"dog": 12, "toy": 1}
    counts = {"fish": 100, "terrier": 100, "toy": 100}
    assert sample_beneath(graph, "animal", counts, 60, by_depth=True) == {"fish": 30, "terrier": 20, "toy": 10}
    assert sample_beneath(graph, "animal", counts, 60) == {"fish": 20, "terrier": 20, "toy": 20}
    # 10/6 · (3, 2, 1) = 5, 3 + 1/3, 1 + 2/3: the largest remainder is the last
    assert sample_beneath(graph, "animal", counts, 10, by_depth=True) == {"fish": 5, "terrier": 3, "toy": 2}
    assert sample_beneath(graph, "dog", counts, 4) == {"terrier": 2, "toy": 2}, "fish lies elsewhere"


def test_the_seed_decides_equal_remainders_and_nothing_else():
    many = {str(i): 9 for i in range(10)}
    drawn = {tuple(balanced_sample(many, 15, seed).values()) for seed in range(20)}
    assert len(drawn) > 5 and {tuple(sorted(one)) for one in drawn} == {(1,) * 5 + (2,) * 5}
    assert len({tuple(balanced_sample({"a": 9, "b": 9}, 10, seed).values()) for seed in range(20)}) == 1


@pytest.mark.parametrize(("counts", "n", "weights", "said"), [
    ({"a": 2, "b": 3}, 6, None, "6 examples were asked for; the 2 classes that have a weight have 5"),
    ({"a": 2, "b": 3}, 4, {"a": 0, "b": 1}, "4 examples were asked for; the 1 classes that have a weight have 3"),
    ({"a": 2}, -1, None, "-1 examples"),
    ({"a": -2}, 0, None, "a count is a whole number"),
    ({"a": 2}, 1, {"b": 1}, "the same classes"),
    ({"a": 2}, 1, {"a": float("nan")}, "a finite number"),
])
def test_a_sample_that_cannot_be_is_refused(counts, n, weights, said):
    with pytest.raises(RecordError, match=said):
        balanced_sample(counts, n, 0, weights)


def test_examples_are_drawn_as_many_of_each_class_as_asked():
    labels = ["dog", "cat", "bird"] * 20
    chosen = draw(labels, {"dog": 5, "bird": 20}, seed=3)
    assert [i for i in chosen if labels[i] == "bird"] == list(range(2, 60, 3))
    assert sum(labels[i] == "dog" for i in chosen) == 5
    assert chosen == draw(labels, {"bird": 20, "dog": 5}, seed=3) == sorted(set(chosen))
    assert chosen != draw(labels, {"dog": 5, "bird": 20}, seed=4)
    with pytest.raises(RecordError, match="21 examples of 'cat' were asked for; it has 20"):
        draw(labels, {"cat": 21})


def test_counterfactual_pairs_are_equally_long_and_share_no_class():
    labels = ["ship", "cat", "dog", "ship", "plane", "cat", "dog", "dog"]
    pairs = counterfactual_pairs(labels)
    assert pairs.classes == (("cat", "dog"), ("plane", "ship"))
    assert len(pairs) == len(pairs.base) == len(pairs.other) == 3
    assert [(labels[i], labels[j]) for i, j in zip(pairs.base, pairs.other, strict=True)] == [
        ("cat", "dog"), ("cat", "dog"), ("plane", "ship")]
    assert not {labels[i] for i in pairs.base} & {labels[i] for i in pairs.other}
    assert sorted((*pairs.base, *pairs.other, *pairs.left_out)) == list(range(8))
    assert pairs == counterfactual_pairs(labels, seed=0)
    chosen = counterfactual_pairs(labels, [("ship", "dog")])
    assert {labels[i] for i in chosen.base} == {"ship"} and len(chosen) == 2


@pytest.mark.parametrize(("pairs", "said"), [
    (None, "3 classes cannot all be paired, since their number is odd: 'dog' would stay alone"),
    ([("cat", "dog"), ("dog", "bird")], "'dog' is in 2 pairs"),
    ([("cat", "cat")], "'cat' is in 2 pairs"),
    ([("cat", "dgo")], "no example of 'dgo'. Did you mean \"dog\""),
])
def test_classes_that_cannot_be_paired_are_named(pairs, said):
    with pytest.raises(RecordError, match=said):
        counterfactual_pairs(["cat", "dog", "bird"], pairs)


NOUNS = """  1 This is a licence.
  2 WordNet 3.0 Copyright 2006 by Princeton University.
00000001 03 n 01 entity 0 001 ~ 00000002 n 0000 | what is
00000002 05 n 02 animal 0 brute 1 002 @ 00000001 n 0000 + 00000009 v 0101 | lives and moves; "animals need food"
00000003 05 n 01 domestic_animal 0 001 @ 00000002 n 0000 | lives with people
00000004 05 n 01 canine 0 001 @ 00000002 n 0000 | has teeth
00000005 05 n 03 dog 0 domestic_dog 0 Canis_familiaris 0 003 @ 00000004 n 0000 @ 00000003 n 0000 #m 00000006 n 0000 | barks
00000006 14 n 01 pack 0 000 | several
00000007 18 n 01 Laika 0 001 @i 00000005 n 0000 | the first in orbit
00000008 18 n 0a a 0 b 0 c 0 d 0 e 0 f 0 g 0 h 0 i 0 j 0 001 @ 00000001 n 0000 | ten words, counted in hexadecimal
"""
INDEX = """  1 This is a licence.
dog n 2 1 @ 2 1 00000099 00000005
laika n 1 1 @i 1 0 00000007
animal n 1 2 @ ~ 1 1 00000002
"""


@pytest.fixture
def tiny(tmp_path):
    (tmp_path / "data.noun").write_text(NOUNS)
    (tmp_path / "index.noun").write_text(INDEX)
    return tmp_path


def test_wordnets_lines_give_classes_with_all_that_lies_above_them(tiny):
    graph = wordnet.wordnet_labels(["n00000007"], tiny)
    assert set(graph.graph.edges) == {("n00000001", "n00000002"), ("n00000002", "n00000003"), ("n00000002", "n00000004"),
                                      ("n00000003", "n00000005"), ("n00000004", "n00000005"), ("n00000005", "n00000007")}
    lemmas = ("dog", "domestic dog", "Canis familiaris")
    assert graph.entry("dog") == L.Label("n00000005", "dog", "dog.n.02", "barks", lemmas)
    assert graph.definition("animal") == "lives and moves" and graph.entry("entity").name == ""
    assert graph.entry("laika.n.01").label == "Laika", "an instance"
    whole = wordnet.wordnet_labels(folder=tiny)
    assert len(whole) == 8 and set(whole.roots) == {"n00000001", "n00000006"}
    assert whole.lemmas("n00000008") == tuple("abcdefghij")


def test_classes_come_as_ids_a_file_or_a_folder_of_folders(tiny, tmp_path):
    (tmp_path / "classes.txt").write_text("n00000004 canine, and more\n\nn00000003, domestic\n")
    (tmp_path / "train" / "n00000003").mkdir(parents=True)
    (tmp_path / "train" / "notes").mkdir()
    assert wordnet.wordnet_labels(tmp_path / "classes.txt", tiny).leaves == ("n00000003", "n00000004")
    assert wordnet.wordnet_labels(tmp_path / "train", tiny).leaves == ("n00000003",)
    assert wordnet.wordnet_labels("n00000003", tiny).leaves == ("n00000003",)


def test_wordnet_is_read_from_the_archive_that_nltk_keeps(tiny, tmp_path, monkeypatch):
    archive = tmp_path / "nltk" / "corpora" / "wordnet.zip"
    archive.parent.mkdir(parents=True)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("wordnet/data.noun", NOUNS)
    assert wordnet.wordnet_labels(["n00000005"], archive).label("n00000005") == "dog"
    monkeypatch.setenv("WNSEARCHDIR", str(tiny))
    assert wordnet.wordnet_folder() == tiny


@pytest.mark.parametrize(("text", "classes", "said"), [
    (NOUNS, ["n00000055"], "WordNet 3.0 has no noun n00000055"),
    (NOUNS, "dogs", "'dogs' is neither an id of a noun"),
    (NOUNS.replace("WordNet 3.0", "WordNet 3.1"), ["n00000005"], "is WordNet 3.1; ImageNet's ids are those of WordNet 3.0"),
    ("00000005 05 n 03 dog\n", ["n00000005"], "is damaged"),
    (None, ["n00000005"], "no data.noun"),
])
def test_wordnet_files_that_do_not_fit_are_refused(tmp_path, text, classes, said):
    if text:
        (tmp_path / "data.noun").write_text(text)
    with pytest.raises(RecordError, match=said):
        wordnet.wordnet_labels(classes, tmp_path)


@pytest.mark.skipif(wordnet.wordnet_folder() is None, reason="WordNet's files are not on this computer")
def test_classes_of_imagenet_have_their_published_words_and_both_paths_of_the_dog():
    tench, dog, tabby, tissue = "n01440764", "n02084071", "n02123045", "n15075141"
    graph = wordnet.wordnet_labels([tench, dog, tabby, tissue])
    assert [graph.label(one) for one in (tench, dog, tabby, tissue)] == ["tench", "dog", "tabby", "toilet tissue"]
    assert set(graph.leaves) == {tench, dog, tabby, tissue} and [graph.label(one) for one in graph.roots] == ["entity"]
    assert {graph.label(one) for one in graph.parents(dog)} == {"canine", "domestic animal"}
    wide = ["animal", "carnivore", "domestic animal"]
    assert {graph.label(one) for one in graph.above(dog, wide)} == {"carnivore", "domestic animal"}
    assert graph.entry(dog).name == "dog.n.01" and graph.lemmas(tench) == ("tench", "Tinca tinca")
    assert graph.definition(tabby) == "a cat with a grey or tawny coat mottled with black"


def test_labels_come_back_with_their_activations_after_resuming_and_in_any_order(toy, tmp_path):
    labels = ["poodle", "jeep", "oak", "jeep", "tabby", "saw"]
    rows = toy.metadata(labels, level=["living", "made"])

    def fill(ids: list[int], resume: bool) -> None:
        with Writer(tmp_path / "acts", {"resid": ("d_model",)}, resume=resume, shard_bytes=32) as writer:
            for i in ids:
                writer.add(i, {"resid": torch.full((2,), float(i))}, metadata=rows[i])

    fill([0, 1, 2], resume=False)
    fill([0, 1, 2, 3, 4, 5], resume=True)
    store = open_store(tmp_path / "acts")
    for i in (4, 0, 5, 2, 1, 3):
        assert store["resid"][str(i)].tolist() == [i, i] and store.row(str(i))["label"] == labels[i]
    chosen = store.where(root_label="made")
    assert [chosen["resid"][one][0].item() for one in chosen.ids] == [1, 3, 5]
