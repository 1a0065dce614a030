"""The step on paper of docs/afd.md is the schedule."""

from pathlib import Path

from lpu.pingpong.pingpong import exposed_transfer, run, steady_period
from lpu.pingpong.stages import PingPongPlan, Stages

PAGE = (Path(__file__).parents[2] / "docs/afd.md").read_text()
PS_PER_US = 10**6


def on_paper(micro_batches: int) -> PingPongPlan:
    layer = Stages(10 * PS_PER_US, 4 * PS_PER_US, 5 * PS_PER_US, 3 * PS_PER_US)
    return PingPongPlan(layers=(layer, layer), micro_batches=micro_batches)


def test_the_step_on_paper_is_the_schedule() -> None:
    line = run(on_paper(2))
    spans: dict[tuple[int, int], list[str]] = {}
    columns = (line.layer, line.micro_batch, line.start, line.end)
    for layer, micro_batch, start, end in zip(*(c.tolist() for c in columns), strict=True):
        spans.setdefault((layer, micro_batch), []).append(f"{start // PS_PER_US} to {end // PS_PER_US}")
    rows = [f"| {layer} | {'AB'[m]} | {' | '.join(times)} |" for (layer, m), times in spans.items()]
    assert "\n".join(rows) in PAGE
    assert len(rows) == 4
    assert f"The step ends at {line.makespan // PS_PER_US}." in PAGE
    assert f"so {exposed_transfer(on_paper(2)) // PS_PER_US} us are exposed" in PAGE
    for micro_batches in (2, 3):
        assert f"**{steady_period(on_paper(micro_batches)) / PS_PER_US} us**" in PAGE
