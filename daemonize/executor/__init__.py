"""`ForkExecutor`: an executor of `concurrent.futures` whose every task is a process of its own, forked when it is its turn.

caller ── submit ── queue ── dispatcher (a thread) ── fork ── task       its progress and its result over a socketpair
   └──── Future ◄───────────────────┘ └── ProcessManager

executor.py    what callers have: submit, map, options, proxies, shutdown   strategies.py   when the next one may start
dispatcher.py  the thread: it forks, steps, resolves futures                future.py       a future that can end its task
settings.py    what may be asked for                                        progress.py     what a task says meanwhile
"""

from daemonize.executor.executor import ForkExecutor

__all__ = ["ForkExecutor"]
