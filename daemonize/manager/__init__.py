"""`ProcessManager`: tasks, each in a process of its own, that are started, listened to and waited for by one thread.

owner ── fork ── task (a function)          messages and its result over a socketpair
   └──── fork ── exec (a list of words)     its exit status

manager.py   the owner: step, wakeup, teardown   process.py   one task, as the owner sees it, and how it ended
tasks.py     what may be asked for               starting.py  it is checked, forked and watched
births.py    the fork, the owner's side           body.py      the function's side
command.py   the fork of a program               endings.py   tasks that are being ended
inbox.py     what a task has said                bell.py      what lets a wait end
workers.py   so many of a task are kept           holdings.py  what a manager has; what a forked child does with that
"""

from daemonize.manager.manager import ProcessManager

__all__ = ["ProcessManager"]
