"""One listener and its backend as a test may set them up, from the configuration's words to policies."""

from __future__ import annotations

from dataclasses import dataclass

from smtpproxy.session.policy import BackendTls, ClientPolicy, Learned, Limits, RelayPolicy
from smtpproxy.smtp.extensions import ExtensionPolicy
from smtpproxy.smtp.lineendings import BarePolicy
from smtpproxy.smtp.xclient import ATTRIBUTES

HOSTNAME = b"proxy.example"
SERVER = b"mail.example"
EXTENSIONS = (
    "SIZE 8BITMIME SMTPUTF8 DSN ENHANCEDSTATUSCODES DELIVERBY LIMITS MT-PRIORITY VRFY EXPN HELP ETRN AUTH BINARYMIME"
)


@dataclass(frozen=True)
class Setup:
    """What a test may set; the defaults are those of the configuration, as far as they bring in nothing else."""

    eager: bool = True
    learned: tuple[str, ...] | None = None
    """The keywords of the backend, for a session that begins without it."""
    learned_tls: tuple[str, ...] | None = None
    """The same for inside TLS."""
    reuse: bool = False
    lockstep: bool = False
    domains: tuple[str, ...] | None = None
    """``recipient_domains``; None is ``any``, none of them is the setting left out."""
    size: int | None = None
    recipients: int = 1000
    errors: int = 20
    line: int = 4096
    auth_line: int = 12288
    burst_commands: int = 1000
    burst_octets: int = 262144
    bare: BarePolicy = BarePolicy.NORMALIZE
    pass_nul: bool = False
    chunking: bool = True
    early: bool = True
    early_tls: bool | None = None
    """Whether it is advertised inside TLS; None: as in clear."""
    refusal: bytes = b""
    extensions: str = EXTENSIONS
    keywords: str = "PIPECONNECT PIPE_CONNECT"

    tls: str = "none"
    """``tls.mode`` of the listener."""
    auth: str = "always"
    trusted: bool = False
    """Whether XCLIENT is believed."""
    trace_header: bool = False
    identity: str = "none"
    """none, auto, xclient, xforward, or bound: one that belongs to the connection, as a PROXY header does."""
    backend_tls: BackendTls = BackendTls.NONE
    clients: tuple[str, ...] = ("192.0.2.7",)
    """The addresses of one client after another; the last one comes again and again."""
    lookup: str = "at once"
    """When the name of a client is known: at once, later; or never."""
    login: bytes = b""
    """The login name that the client's certificate stands for."""
    room: bool = True
    """Whether there is room for a client that XCLIENT names."""

    def policy(self, *, secure: bool = False) -> RelayPolicy:
        """Give how sessions behave, in clear or inside TLS."""
        starttls = self.tls in ("starttls", "starttls-required") and not secure
        starttls_required = self.tls == "starttls-required" and not secure
        auth = secure if self.auth == "tls" else self.auth == "always" and not starttls_required
        extensions = ExtensionPolicy(
            self.extensions.split(),
            self.keywords.split(),
            chunking=self.chunking,
            message_size=self.size,
            recipients=self.recipients,
            auth=auth,
            also=[
                *([b"STARTTLS"] if starttls else []),
                *([b"XCLIENT " + b" ".join(ATTRIBUTES)] if self.trusted else []),
            ],
        )
        listed = None if self.domains is None else frozenset(self.domains)
        learns = self.identity in ("xclient", "bound")
        return RelayPolicy(
            hostname=HOSTNAME,
            limits=Limits(
                self.line,
                self.auth_line,
                self.burst_commands,
                self.burst_octets,
                self.recipients,
                self.size,
                self.errors,
            ),
            extensions=extensions,
            chunking=self.chunking,
            recipient_domains=None if self.identity == "auto" or (learns and not listed) else listed,
            eager=self.eager,
            reuse=self.reuse,
            lockstep=self.lockstep,
            secure=secure,
            starttls=starttls,
            starttls_required=starttls_required,
            auth=auth,
            auth_inside=starttls and self.auth != "never",
            trusts_xclient=self.trusted,
            backend_tls=self.backend_tls,
            introduces=self.identity in ("auto", "xclient"),
            introduction_required=self.identity == "xclient" or (self.identity == "auto" and self.domains == ()),
            fallback_domains=listed if self.identity == "auto" else None,
            forwards=self.identity == "xforward",
        )

    def client(self, *, secure: bool = False) -> ClientPolicy:
        """Give how a client is treated."""
        early = self.early_tls if secure and self.early_tls is not None else self.early
        return ClientPolicy(early, self.refusal, self.bare, self.pass_nul)

    def knowledge(self, policy: RelayPolicy) -> Learned | None:
        """Give what was learned of the backend before the first session."""
        learned = self.learned_tls if policy.secure else self.learned
        if learned is None:
            return None
        lines = [SERVER, *(keyword.encode() for keyword in learned)]
        raw = b"".join(b"250-" + line + b"\r\n" for line in lines[:-1]) + b"250 " + lines[-1] + b"\r\n"
        return Learned(SERVER, policy.extensions.adapt(raw)[1])
