"""``twistd smtpproxy -c FILE``: the service as a plugin of Twisted's daemon runner.

This folder and the one above it must not become packages: Twisted looks for plugins in folders without
``__init__.py``.
"""

from typing import Any, ClassVar

from twisted.application.service import IService, IServiceMaker
from twisted.plugin import IPlugin
from twisted.python import usage
from zope.interface import implementer

__all__ = ["smtpproxy"]


class Options(usage.Options):
    """The options behind ``twistd smtpproxy``."""

    optParameters: ClassVar[list[list[Any]]] = [["config", "c", None, "the configuration (required)"]]
    optFlags: ClassVar[list[list[str]]] = [
        ["verbose", "v", "log a transcript of every session, with secrets masked"],
    ]

    def postOptions(self) -> None:
        """Raise UsageError if the configuration is not named."""
        if not self["config"]:
            raise usage.UsageError("a configuration is needed: -c FILE")


@implementer(IPlugin, IServiceMaker)
class ServiceMaker:
    """Makes the service from the options; what it is made of is imported only then."""

    tapname = "smtpproxy"
    description = "SMTP proxy that gives early pipelining to mail servers that do not know it"
    options = Options

    def makeService(self, options: Options) -> IService:
        """Give the service; ends the process, with all mistakes listed, if the configuration has any."""
        from twisted.internet import reactor

        from smtpproxy.config import ConfigError
        from smtpproxy.service import make_service

        try:
            return make_service(options["config"], reactor, verbose=bool(options["verbose"]))
        except ConfigError as error:
            raise SystemExit(str(error)) from error


smtpproxy = ServiceMaker()
