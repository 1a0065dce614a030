"""How a model is served, and the GPUs beside it as far as its times go."""

import os
import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Annotated

from compiler.options import Option
from lpu.afd.options import GpuKind
from lpu.inputs.document import FileError

TOKENS = ("real", "synthetic")
PACES = ("real", "fast")
KEY = "LPU_API_KEY"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """Where and how. tokens: real ones of the program, or made up; pace: how the answer is held back."""

    host: Annotated[str, Option("--host", "Address to listen at; others than loopback need a key.")] = (
        "127.0.0.1"
    )
    port: Annotated[int, Option("--port", "Port to listen at; 0: any that is free.", least=0)] = 8000
    api_key: Annotated[
        str | None, Option("--api-key", "What clients must send as their key.", shown=f"${KEY}, or no key")
    ] = None
    name: Annotated[
        str | None, Option("--served-name", "What clients call the model.", shown="its own name")
    ] = None
    tokens: Annotated[
        str, Option("--tokens", "Of the program, or synthetic (a hash of prompt and place).", choices=TOKENS)
    ] = "real"
    pace: Annotated[
        str,
        Option(
            "--pace", "real: each token at its modelled time; fast: at once, times reported.", choices=PACES
        ),
    ] = "fast"
    queue: Annotated[
        int, Option("--queue", "Sequences that may wait for a slot; more are refused (429).", least=0)
    ] = 1024
    drain_seconds: Annotated[
        int, Option("--drain-seconds", "How long SIGTERM waits for answers in progress.", least=0)
    ] = 30

    strip_header: Annotated[
        str | None,
        Option("--strip-header", "Left out at the beginning of a prompt, or first message.", metavar="REGEX"),
    ] = None

    def __post_init__(self) -> None:
        try:
            re.compile(self.strip_header or "")
        except re.error as error:
            raise FileError(f"serve: --strip-header {self.strip_header!r}: {error}.") from None
        if not 0 <= self.port < 1 << 16:
            raise FileError(f"serve: --port is {self.port}, must be 0 to 65535.")
        if not is_loopback(self.host) and self.key is None:
            raise FileError(
                f"serve: --host {self.host} is no loopback address, and there is no key. Give --api-key, or "
                f"{KEY} in the environment."
            )
        if self.api_key == "":
            raise FileError("serve: --api-key is empty. Give a key, or leave it out.")

    @property
    def key(self) -> str | None:
        """The key that clients must send, if any."""
        return self.api_key or os.environ.get(KEY) or None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeGpus(GpuKind):
    """GPUs beside the rack: how many, and how they are dealt; what they do is the mode's."""

    gpus: Annotated[int, Option("--gpus", "GPUs; 0: the LPUs take prompts themselves (pd).", least=0)] = 0
    gpu_tp: Annotated[
        int | None, Option("--gpu-tp", "GPUs to a replica.", least=1, shown="the fastest for half a context")
    ] = None


def is_loopback(host: str) -> bool:
    """Whether only this computer can reach the address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
