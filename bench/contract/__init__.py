"""The backbone contract, held against a network: the shipped ones in the tests, a user's anywhere.

``checks`` has them all, ``own`` runs the quick ones before a user's network is trained, ``suite``
hands them to pytest and ``plugin`` gives pytest the flag ``--backbone-module``.
"""
