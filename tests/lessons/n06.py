"""Answers to the exercises of tutorial 06."""

from lessons import Lesson

FACTS = """
capitals = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Germany": "Berlin", "Japan": "Tokyo"}
prompts, answers = [f"The capital of {one} is" for one in capitals], [f" {city}" for city in capitals.values()]
noised, clean = hl.causal_trace(model, prompts, "@-2", "L*.resid_pre", answer=answers).ends
"""
SIGHTS = """
sights = {"Silver Tower": "Oslo", "Silver Gate": "Lima", "Golden Tower": "Delhi", "Golden Gate": "Havana"}
where, cities = [f"The {one} is in the city of" for one in sights], [f" {city}" for city in sights.values()]
def share(at, normalise=True):
    return float(hl.causal_trace(model, where, "@[-7, -6]", "L0.resid_pre", at, answer=cities, normalise=normalise))
first, second, both = share("-7"), share("-6"), share("[-7, -6]")
"""
SPEC = FACTS + '''
def spec(site="mlp_out", noise=3, layer=1, last=5, to="noised", at="-2"):
    return f"""prompt clean = {{prompts}}
mark subject = {at}
answer {{answers}}
metric prob
run noised on clean:
    noise embed @subject by {noise} * sigma samples=10
run restored on noised:
    patch L{layer}.resid_pre @last from clean
run severed on restored:
    freeze L{layer}:{last}.{site} @last to {to}
"""
'''
LESSONS = [
    Lesson("total_effect", "clean - noised",
           {"noised - clean": "size is right",
            "noised": "what is left",
            "clean": "nothing has been taken",
            "8 * (clean - noised)": "more than 1",
            "0.5 * (clean - noised)": "another number",
            "'much'": "One number"},
           secrets=("0.7", "0.8"), setup=FACTS, args='model, prompts, answers, "@-2"'),
    Lesson("name_halves", "[first, second, both]",
           {"[first, second, first + second]": "sum of the first two",
            "[0.9, 0.9, 1.0]": "first two are other numbers",
            "[share('-7', False), share('-6', False), share('[-7, -6]', False)]": "third share|other numbers",
            "[first, second]": r"shape should be \(3,\)",
            "first": "shape"},
           secrets=("0.1", "1.0"), setup=SIGHTS, args='model, where, cities, "-7", "-6"'),
    Lesson("severed", "spec()",
           {"spec(site='attn_out')": "attention is held",
            "spec(to='clean')": "wrong run",
            "spec(last=2)": "in severed|In severed",
            "spec() + '    freeze L1:5.attn_out @last to noised\\n'": "hold mlp_out",
            "spec(noise=0.1)": "still gives",
            "spec(at='-1')": "not as noise|still gives|at the last token",
            "spec(layer=0, last=5)": "should give back|noised run",
            "spec().replace('run severed', 'run cut')": "missing: severed",
            "spec() + 'nonsense'": "does not run",
            "3": "text of a spec"},
           secrets=("0.30", "0.3 "), setup=SPEC, args='model, prompts, answers, "@-2", 1'),
]
