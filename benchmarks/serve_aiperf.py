"""aiperf against `lpu serve` of llama-tiny: completions and chats, streamed, 32 at a time.

`python benchmarks/serve_aiperf.py [requests]`; aiperf is taken from the path, or from $AIPERF, as it is
installed in an environment of its own (`python -m venv ai && ai/bin/pip install aiperf`; 1.2 GB).
Source of the recipe: facts/serving.md section 5.1. HF_HUB_OFFLINE must not be set.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

NAME, CONCURRENCY = "llama-tiny", 32
COMMAND = [
    sys.executable,
    "-m",
    "lpu",
    "serve",
    NAME,
    "--rack",
    "quad",
    "--batch",
    str(CONCURRENCY),
    "--context",
    "128",
    "--port",
    "0",
    "--json",
]


def tokenizer_into(folder: Path) -> None:
    """A byte-level tokenizer without merges, as aiperf wants one in a folder."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    symbols = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<s>", "</s>"]
    made = Tokenizer(models.BPE(vocab={one: i for i, one in enumerate(symbols)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(about | {"model_max_length": 128}))


def profiled(program: str, address: str, kind: str, requests: str, folder: Path) -> dict[str, Any]:
    """What aiperf counted of one kind of requests."""
    out = folder / kind
    words = [program, "profile", "--model", NAME, "--url", address, "--endpoint-type", kind, "--streaming"]
    words += ["--request-count", requests, "--concurrency", str(CONCURRENCY), "--isl", "16", "--osl", "16"]
    words += ["--tokenizer", str(folder), "--extra-inputs", "ignore_eos:true", "--ui", "none"]
    words += ["--output-artifact-dir", str(out)]
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    code = subprocess.run(words, check=False, env=environment).returncode
    (path,) = out.rglob("profile_export_aiperf.json")
    return json.loads(path.read_text()) | {"code": code}


def main() -> int:
    program = os.environ.get("AIPERF") or shutil.which("aiperf")
    if program is None:
        print("left out: aiperf is not there (pip install aiperf, then $AIPERF)")
        return 0
    requests, failed = sys.argv[1] if len(sys.argv) > 1 else "1000", 0
    with (
        tempfile.TemporaryDirectory() as name,
        subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdout is not None
        address = json.loads(process.stdout.readline())["address"]
        tokenizer_into(Path(name))
        try:
            for kind in ("completions", "chat"):
                found = profiled(program, address, kind, requests, Path(name))
                told = {one: found.get(one) for one in ("request_count", "error_request_count")}
                errors = found.get("error_summary") or []
                print(f"{kind}: exit code {found['code']}, {told}, errors {errors}")
                failed += bool(found["code"] or errors)
        finally:
            process.send_signal(signal.SIGTERM)
        print(f"exit code of the server after SIGTERM {process.wait(60)}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
