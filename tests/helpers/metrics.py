"""Reading of GET /metrics."""
import re

SAMPLE = re.compile(r'([a-z_]+)(?:\{(.*)\})? ([0-9.e+-]+)')


def read_metrics(client):
    """Returns the value of every sample, by (name, labels)."""
    lines = client.get("/metrics").text.splitlines()
    samples = [SAMPLE.fullmatch(line) for line in lines if not line.startswith("#")]
    return {(sample[1], sample[2] or ""): float(sample[3]) for sample in samples}
