"""The hook language: text to `Spec` and back, with no model and no torch in sight.

`ast` is what a spec is made of, `verbs` the table of verbs and options, `parser` reads text, `printer` writes it,
`jsonform` is the spec as data, `builder` the fluent way to make one, `completer` what may come next.
"""
