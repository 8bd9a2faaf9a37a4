"""Start servers in the background, truthfully. The public names; each is loaded when it is first used.

pytest would rewrite the assertions of whatever brings it a plugin; there are none in here: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import sys

from daemonize import loading

loading.begin(__spec__)

if not hasattr(sys.modules.get("__main__"), "is_the_command"):
    # A program of somebody's, which may go on as a server: what it was given is looked at before anything is changed.
    from daemonize.posix import arrival  # noqa: F401

TYPE_CHECKING = False
if TYPE_CHECKING:
    from daemonize import notify
    from daemonize.announce import ready
    from daemonize.background import BackgroundServer
    from daemonize.background.case import BackgroundServerMixin
    from daemonize.channel import MessageChannel
    from daemonize.channel.aio import AsyncMessageChannel
    from daemonize.channel_errors import (
        ChannelBroken,
        ChannelClosed,
        ChannelError,
        ChannelTimedOut,
        DescriptorsLost,
        MalformedMessage,
        MessageTooLarge,
        PeerGone,
        RemoteError,
        TruncatedMessage,
        UnexpectedMessage,
        UnknownMessage,
    )
    from daemonize.child_errors import ServerAlreadyStarted, ServerError, ServerNotStarted
    from daemonize.child_server import ChildServer, message_handler
    from daemonize.child_server.collection import ChildServerCollection
    from daemonize.daemon_errors import BadRecord, NoSuchDaemon, NotPossible, NotReloaded, NotYet
    from daemonize.errors import (
        AlreadyRunning,
        DaemonizeError,
        InvalidState,
        LaunchError,
        SetupError,
        StillRunning,
        UsageError,
    )
    from daemonize.executor import ForkExecutor
    from daemonize.executor.future import ExecutorFailed
    from daemonize.executor.progress import progress
    from daemonize.executor.strategies import ByCores, Simple, Throttled
    from daemonize.file_lock import FileLock
    from daemonize.launcher.api import launch
    from daemonize.launcher.context import Context, context
    from daemonize.launcher.daemon import Daemon, daemons
    from daemonize.listen import listen_fds, listen_fds_with_names
    from daemonize.lock_errors import LockTaken
    from daemonize.manager.manager import ProcessManager
    from daemonize.manager.process import Completion, Process
    from daemonize.manager.workers import Workers
    from daemonize.manager_errors import ChildDeath, TaskError, TaskTimedOut
    from daemonize.option.for_argparse import add_daemonize_arguments, daemonize_if_asked
    from daemonize.option.for_click import daemonize_option
    from daemonize.outcomes import (
        Cancelled,
        CrashedOnStartup,
        Exited,
        Lost,
        NotExecuted,
        StrictFailure,
        TimedOut,
        Unsafe,
    )
    from daemonize.posix.identity import Identity

_MODULES = {
    "AlreadyRunning": "errors",
    "AsyncMessageChannel": "channel.aio",
    "BackgroundServer": "background.server",
    "BackgroundServerMixin": "background.case",
    "BadRecord": "daemon_errors",
    "ByCores": "executor.strategies",
    "Cancelled": "outcomes",
    "ChannelBroken": "channel_errors",
    "ChannelClosed": "channel_errors",
    "ChannelError": "channel_errors",
    "ChannelTimedOut": "channel_errors",
    "ChildDeath": "manager_errors",
    "ChildServer": "child_server.server",
    "ChildServerCollection": "child_server.collection",
    "Completion": "manager.process",
    "Context": "launcher.context",
    "CrashedOnStartup": "outcomes",
    "Daemon": "launcher.daemon",
    "DaemonizeError": "errors",
    "DescriptorsLost": "channel_errors",
    "ExecutorFailed": "executor.future",
    "Exited": "outcomes",
    "FileLock": "file_lock",
    "ForkExecutor": "executor.executor",
    "Identity": "posix.identity",
    "InvalidState": "errors",
    "LaunchError": "errors",
    "LockTaken": "lock_errors",
    "Lost": "outcomes",
    "MalformedMessage": "channel_errors",
    "MessageChannel": "channel.blocking",
    "MessageTooLarge": "channel_errors",
    "NoSuchDaemon": "daemon_errors",
    "NotExecuted": "outcomes",
    "NotPossible": "daemon_errors",
    "NotReloaded": "daemon_errors",
    "NotYet": "daemon_errors",
    "PeerGone": "channel_errors",
    "Process": "manager.process",
    "ProcessManager": "manager.manager",
    "RemoteError": "channel_errors",
    "ServerAlreadyStarted": "child_errors",
    "ServerError": "child_errors",
    "ServerNotStarted": "child_errors",
    "SetupError": "errors",
    "Simple": "executor.strategies",
    "StillRunning": "errors",
    "StrictFailure": "outcomes",
    "TaskError": "manager_errors",
    "TaskTimedOut": "manager_errors",
    "Throttled": "executor.strategies",
    "TimedOut": "outcomes",
    "TruncatedMessage": "channel_errors",
    "UnexpectedMessage": "channel_errors",
    "UnknownMessage": "channel_errors",
    "Unsafe": "outcomes",
    "UsageError": "errors",
    "Workers": "manager.workers",
    "add_daemonize_arguments": "option.for_argparse",
    "context": "launcher.context",
    "daemonize_if_asked": "option.for_argparse",
    "daemonize_option": "option.for_click",
    "daemons": "launcher.daemon",
    "launch": "launcher.api",
    "listen_fds": "listen",
    "listen_fds_with_names": "listen",
    "message_handler": "child_server.handlers",
    "notify": "notify",
    "progress": "executor.progress",
    "ready": "announce",
}

__all__ = [
    "AlreadyRunning",
    "AsyncMessageChannel",
    "BackgroundServer",
    "BackgroundServerMixin",
    "BadRecord",
    "ByCores",
    "Cancelled",
    "ChannelBroken",
    "ChannelClosed",
    "ChannelError",
    "ChannelTimedOut",
    "ChildDeath",
    "ChildServer",
    "ChildServerCollection",
    "Completion",
    "Context",
    "CrashedOnStartup",
    "Daemon",
    "DaemonizeError",
    "DescriptorsLost",
    "ExecutorFailed",
    "Exited",
    "FileLock",
    "ForkExecutor",
    "Identity",
    "InvalidState",
    "LaunchError",
    "LockTaken",
    "Lost",
    "MalformedMessage",
    "MessageChannel",
    "MessageTooLarge",
    "NoSuchDaemon",
    "NotExecuted",
    "NotPossible",
    "NotReloaded",
    "NotYet",
    "PeerGone",
    "Process",
    "ProcessManager",
    "RemoteError",
    "ServerAlreadyStarted",
    "ServerError",
    "ServerNotStarted",
    "SetupError",
    "Simple",
    "StillRunning",
    "StrictFailure",
    "TaskError",
    "TaskTimedOut",
    "Throttled",
    "TimedOut",
    "TruncatedMessage",
    "UnexpectedMessage",
    "UnknownMessage",
    "Unsafe",
    "UsageError",
    "Workers",
    "add_daemonize_arguments",
    "context",
    "daemonize_if_asked",
    "daemonize_option",
    "daemons",
    "launch",
    "listen_fds",
    "listen_fds_with_names",
    "message_handler",
    "notify",
    "progress",
    "ready",
]


def __getattr__(name: str) -> object:
    """Load a public name."""
    if name not in _MODULES:
        raise AttributeError(f"module 'daemonize' has no attribute '{name}'")
    module = __import__(f"daemonize.{_MODULES[name]}", fromlist=(name,))
    value: object = module if _MODULES[name] == name else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
