"""Readiness specs: `parse(spec)` gives the probe that watches for it. Each probe is one file, and one row here."""

from __future__ import annotations

from daemonize.errors import UsageError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from daemonize.readiness.probe import Probe

#: Form as shown to users, module, class. A form with a colon takes an argument after it.
FORMS = (
    ("streams", "streams", "Streams"),
    ("started", "started", "Started"),
    ("exit", "exit", "Exit"),
    ("alive:DURATION", "alive", "Alive"),
    ("notify", "notify", "Notify"),
    ("fd:N", "fd", "Fd"),
    ("fdvar:NAME", "fdvar", "FdVar"),
    ("port", "port", "Port"),
    ("port:[HOST:]PORT", "port", "Port"),
    ("unix:PATH", "unix", "Unix"),
    ("http://HOST[:PORT][/PATH]", "http", "Http"),
    ("https://HOST[:PORT][/PATH]", "https", "Https"),
    ("log:REGEX", "log", "Log"),
    ("file:PATH", "file", "File"),
    ("exec:COMMAND", "command", "Command"),
)


def parse(spec: str) -> Probe:
    """The probe for a readiness spec. Raises UsageError, with the forms it could have had."""
    word, colon, argument = spec.partition(":")
    for form, module, name in FORMS:
        if form.partition(":")[0] == word and bool(colon) == (":" in form):
            try:
                return _load(module, name)(spec, argument)
            except UsageError as error:
                raise UsageError(
                    f"'{printable(spec)}' is not a readiness spec of the form {form}: {error}"
                ) from None
    forms = ", ".join(form for form, _, _ in FORMS)
    raise UsageError(f"'{printable(spec)}' is not a readiness spec; it can be {forms}")


def _load(module: str, name: str) -> type[Probe]:
    # Only what is asked for is imported: the default launch pays for one probe.
    return getattr(__import__(f"daemonize.readiness.{module}", fromlist=(name,)), name)  # type: ignore[no-any-return]
