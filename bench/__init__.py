"""The harness: verbs (``bench/*.py``) on top of nouns (``bench/*/``)."""
