"""Public traces through llama-3.1-70b on lpx with 8 H200s; `python benchmarks/replay_traces.py FOLDER`.

FOLDER holds azure_2023_conv.csv and mooncake_conversation_1000.jsonl; what is missing is left out by name.
Also a million drawn requests, and the hits of an infinite prefix cache.
"""

import sys
import time
from pathlib import Path

from lpu.traffic.options import ReplayOptions, TrafficGpus
from lpu.traffic.readers.drawn import Arrivals, DrawnTraffic, Lengths
from lpu.traffic.readers.read import read_trace
from lpu.traffic.replay import replay
from lpu.traffic.trace import Trace

MODEL = "llama-3.1-70b"
FILES = {"azure_2023_conv.csv": "hbm", "mooncake_conversation_1000.jsonl": "infinite"}


def told(source: Trace | DrawnTraffic, cache: str, gpus: int) -> None:
    begin = time.process_time()
    found = replay(source, MODEL, gpus=TrafficGpus(gpus=gpus), asked=ReplayOptions(cache=cache))
    ttft, tpot = found.spans["TTFT"], found.spans["TPOT"]
    print(f"{found.machine[0][1]}: {found.requests:,} requests, {time.process_time() - begin:.1f} s of CPU")
    print(f"  TTFT p50 {ttft.at(0.5).value:.3f} s, p99 {ttft.at(0.99).value:.3f} s; TPOT {tpot.mean:.6f} s")
    print(f"  prefix blocks {found.hits:,} of {found.blocks:,}; {found.requests_per_second:.3f} requests/s")


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("traces")
    for name, cache in FILES.items():
        if not (folder / name).is_file():
            print(f"left out: {folder / name} is not there")
            continue
        found = read_trace(folder / name)
        told(found, cache, 8)
    arrivals = Arrivals(kind="poisson", rate=10)
    lengths = Lengths(kind="normal", mean=4000, sd=1000, most=8000), Lengths(kind="fixed", mean=300)
    told(DrawnTraffic(requests=1_000_000, arrivals=arrivals, input=lengths[0], output=lengths[1]), "none", 32)


if __name__ == "__main__":
    main()
