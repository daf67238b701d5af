"""`breakwater card`: what a model's defence is, what it was measured against and where it ends.

One content, as Markdown or as a page: `content` says it, `blocks` writes it.
"""
