"""The same hosted dialogues held by other frameworks, one script a peer; `benchmarks/frameworks.py`
runs them all.
"""
