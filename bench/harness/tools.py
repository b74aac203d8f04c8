"""The programs that the benchmark needs: C programs compiled here, peers installed where that is possible."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import BenchError, UnavailableError

SOURCES = Path(__file__).resolve().parent.parent
CFLAGS = ["-std=gnu11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror"]
PROGRAMS = {
    "load": ["load.c", "options.c", "reply.c", "script.c", "wire.c", "common.c"],
    "sink": ["sink.c", "server.c", "data.c", "common.c"],
    "line": ["wan/line.c", "common.c"],
}
TLS_SOURCES = {"load": ["tls.c", "-lssl", "-lcrypto"]}  # where libssl's headers are
# program to look for: Debian packages that bring it
PACKAGES = {
    "gcc": ["gcc", "libc6-dev"],
    "haproxy": ["haproxy"],
    "nginx": ["nginx", "libnginx-mod-mail"],
    "stunnel4": ["stunnel4"],
    "openssl": ["openssl", "libssl-dev"],
}
NGINX_MAIL_MODULES = [
    Path("/usr/lib/nginx/modules/ngx_mail_module.so"),
    Path("/usr/lib64/nginx/modules/ngx_mail_module.so"),
]
SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
POLICY = Path("/usr/sbin/policy-rc.d")
APT_SECONDS = 300
TICKET_SECONDS = 7200
"""How long a TLS session can be resumed: longer than the benchmark runs."""


def find(program: str) -> str | None:
    """The path of a program, also where only administrators have it in their PATH."""
    return shutil.which(program) or shutil.which(program, path=SYSTEM_PATH)


def nginx_mail_module() -> Path | None:
    """The mail module of nginx, which Debian packages on its own."""
    return next((path for path in NGINX_MAIL_MODULES if path.exists()), None)


def missing() -> list[str]:
    """The programs that are not here."""
    names = [name for name in PACKAGES if find(name) is None]
    if "nginx" not in names and nginx_mail_module() is None:
        names.append("nginx")
    if "openssl" not in names and not has_libssl():
        names.append("openssl")
    return names


def install_missing() -> None:
    """Install what is missing, as root on a system with apt-get; elsewhere do nothing. Starts no service."""
    names = missing()
    apt = find("apt-get")
    if not names or apt is None or os.geteuid() != 0:
        return
    packages = [package for name in names for package in PACKAGES[name]]
    print(f"installing {' '.join(packages)} ...", flush=True)
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    with services_kept_off():
        for arguments in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
            done = subprocess.run(
                [apt, "--quiet", *arguments],
                env=environment,
                capture_output=True,
                timeout=APT_SECONDS,
                check=False,
            )
            if done.returncode != 0:
                print(f"apt-get {arguments[0]} failed: {done.stderr.decode(errors='replace').strip()[-500:]}")
                return


@contextlib.contextmanager
def services_kept_off() -> Iterator[None]:
    """While the body runs, packages start no services (Debian's policy-rc.d; one that is there is kept)."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


def build(target: Path) -> dict[str, Path]:
    """Compile the load generator and the sink into a folder; gives their paths.

    Raises UnavailableError without gcc, BenchError if they do not compile. The load generator speaks TLS if it can be
    built with libssl.
    """
    return {name: compile_program(name, target) for name in ("load", "sink")}


def compile_program(name: str, target: Path) -> Path:
    """Compile one of PROGRAMS into a folder; as `build`."""
    gcc = find("gcc")
    if gcc is None:
        raise UnavailableError(f"gcc is not installed: {name}.c cannot be built")
    more = TLS_SOURCES.get(name, []) if has_libssl() else []
    command = [gcc, *CFLAGS, "-o", str(target / name), *PROGRAMS[name], *more]
    done = subprocess.run(command, cwd=SOURCES, capture_output=True, text=True, timeout=APT_SECONDS, check=False)
    if done.returncode != 0:
        raise BenchError(f"{name} does not compile:\n{done.stderr}")
    return target / name


def has_libssl() -> bool:
    """Tell whether programs can be built with libssl 3 or newer."""
    gcc = find("gcc")
    if gcc is None:
        return False
    program = b"#include <openssl/ssl.h>\n#if OPENSSL_VERSION_MAJOR < 3\n#error\n#endif\n"
    probe = [gcc, "-E", "-x", "c", "-o", os.devnull, "-"]
    return subprocess.run(probe, input=program, capture_output=True, timeout=60, check=False).returncode == 0


def check_tls() -> None:
    """Raise UnavailableError if TLS cannot be measured here."""
    if not has_libssl():
        raise UnavailableError("openssl/ssl.h of OpenSSL 3 is missing (Debian's package libssl-dev)")
    if find("openssl") is None:
        raise UnavailableError("the command openssl, which makes the certificate, is missing")


@dataclass(frozen=True)
class Certificate:
    """The PEM files of a certificate and its key."""

    chain: Path
    key: Path


def make_certificate(folder: Path) -> Certificate:
    """Make a self-signed ECDSA P-256 certificate in a folder. Raises BenchError if that fails."""
    pair = Certificate(folder / "certificate.pem", folder / "key.pem")
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"]
    who = ["-subj", "/CN=proxy.example.org", "-addext", "subjectAltName=DNS:proxy.example.org", "-days", "30"]
    files = ["-keyout", str(pair.key), "-out", str(pair.chain)]
    command = [str(find("openssl")), "req", "-x509", *kind, *who, *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise BenchError(f"openssl made no certificate:\n{done.stderr}")
    return pair


def version(program: str, *arguments: str, having: str = "") -> str:
    """The first line of what a program says about its version, on either stream; the first with these words in it."""
    path = find(program)
    if path is None:
        return "not installed"
    done = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=20, check=False)
    return next((line for line in (done.stdout + done.stderr).splitlines() if having in line), "unknown")


def own_libssl() -> str:
    """The version of the OpenSSL that this Python's pyOpenSSL runs on."""
    return version(sys.executable, "-c", "from OpenSSL import SSL; print(SSL.OpenSSL_version(0).decode())")
