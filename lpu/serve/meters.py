"""Prometheus metrics with vLLM's names, and finer buckets below 10 ms. Source: facts/serving.md 5.3."""

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

FINE = (1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3)
COARSE = (
    0.01,
    0.025,
    0.05,
    0.075,
    0.1,
    0.15,
    0.2,
    0.3,
    0.4,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    10.0,
    20.0,
    40.0,
    80.0,
)
SECONDS = FINE + COARSE
COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)
LABELS = ("model_name", "engine")


class Meters:
    """The metrics of one server. Times are modelled ones."""

    def __init__(self, model: str) -> None:
        self.registry = CollectorRegistry()
        self._of = (model, "0")
        gauge = {
            name: Gauge(f"vllm:{name}", text, LABELS, registry=self.registry)
            for name, text in (
                ("num_requests_running", "Sequences in slots."),
                ("num_requests_waiting", "Sequences that wait for a slot."),
                ("kv_cache_usage_perc", "Slots in use, 1 is all."),
            )
        }
        self._gauges = {name: one.labels(*self._of) for name, one in gauge.items()}
        self._counts = {
            name: Counter(f"vllm:{name}", text, LABELS, registry=self.registry).labels(*self._of)
            for name, text in (
                ("prompt_tokens", "Tokens of prompts."),
                ("generation_tokens", "New tokens."),
                ("prefix_cache_queries", "Tokens looked up in the prefix cache."),
                ("prefix_cache_hits", "Tokens found there."),
                ("num_preemptions", "Sequences put out of their slot; never."),
            )
        }
        self._success = Counter(
            "vllm:request_success", "Sequences done.", (*LABELS, "finished_reason"), registry=self.registry
        )
        self._times = {
            name: Histogram(f"vllm:{name}", text, LABELS, registry=self.registry, buckets=SECONDS).labels(
                *self._of
            )
            for name, text in (
                ("time_to_first_token_seconds", "Modelled, from the arrival."),
                ("inter_token_latency_seconds", "Modelled, between tokens."),
                ("request_time_per_output_token_seconds", "Modelled, mean of a sequence."),
                ("e2e_request_latency_seconds", "Modelled, from arrival to last token."),
                ("request_queue_time_seconds", "Modelled, until the prefill or prompt begins."),
                ("request_prefill_time_seconds", "Modelled, from there to the first token."),
                ("request_decode_time_seconds", "Modelled, from the first token to the last."),
                ("request_inference_time_seconds", "Modelled, from the begin to the last token."),
            )
        }
        self._tokens = {
            name: Histogram(f"vllm:{name}", text, LABELS, registry=self.registry, buckets=COUNTS).labels(
                *self._of
            )
            for name, text in (
                ("request_prompt_tokens", "Tokens of a prompt."),
                ("request_generation_tokens", "New tokens of a sequence."),
                ("request_params_n", "n of a request."),
            )
        }

    def watch(
        self, running: Callable[[], float], waiting: Callable[[], float], used: Callable[[], float]
    ) -> None:
        """Where the gauges read their values."""
        names = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
        for name, read in zip(names, (running, waiting, used), strict=True):
            self._gauges[name].set_function(read)

    def request(self, prompt: int, n: int) -> None:
        """A request was taken."""
        self._counts["prompt_tokens"].inc(prompt)
        self._tokens["request_prompt_tokens"].observe(prompt)
        self._tokens["request_params_n"].observe(n)

    def looked_up(self, prompt: int, held: int) -> None:
        """A prompt was looked up in the prefix cache."""
        self._counts["prefix_cache_queries"].inc(prompt)
        self._counts["prefix_cache_hits"].inc(held)

    def sequence(self, tokens: int, reason: str, queue: float, first: float, gaps: Sequence[float]) -> None:
        """A sequence is done: seconds until it began, from there to its first token, and between tokens."""
        self._success.labels(*self._of, reason).inc()
        self._counts["generation_tokens"].inc(tokens)
        self._tokens["request_generation_tokens"].observe(tokens)
        decode = sum(gaps)
        told = {
            "time_to_first_token_seconds": queue + first,
            "e2e_request_latency_seconds": queue + first + decode,
            "request_queue_time_seconds": queue,
            "request_prefill_time_seconds": first,
            "request_decode_time_seconds": decode,
            "request_inference_time_seconds": first + decode,
        }
        for name, seconds in told.items():
            self._times[name].observe(seconds)
        if gaps:
            self._times["request_time_per_output_token_seconds"].observe(decode / len(gaps))
        for gap in gaps:
            self._times["inter_token_latency_seconds"].observe(gap)

    def text(self) -> bytes:
        """All of them, as Prometheus reads it."""
        return generate_latest(self.registry)
