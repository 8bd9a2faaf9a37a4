"""Children that are forked from a caller's own process, and go on with its memory: what all kinds of them have in common.

process.py    a child, as its owner sees it            forking.py    the fork, and the warning of threads
settling.py   a copy is made one that stands for itself   failures.py   an exception, as the other process is told of it
"""
