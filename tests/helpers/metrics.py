"""Reads the samples of /metrics."""
import re

SAMPLE = re.compile(r'([a-z_]+)(?:\{(.*)\})? ([0-9.e+-]+)')


def figures(client):
    """Every sample by its name and labels."""
    lines = client.get("/metrics").text.splitlines()
    samples = [SAMPLE.fullmatch(line) for line in lines if not line.startswith("#")]
    return {(sample[1], sample[2] or ""): float(sample[3]) for sample in samples}
