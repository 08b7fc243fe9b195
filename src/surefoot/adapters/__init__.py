"""Adapters: agent frameworks whose agents run on Surefoot unchanged. Each needs its extra."""
