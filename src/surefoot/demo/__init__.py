"""The demo: a shop that answers badly, a clerk that decides, workers that die, and books that are compared at the end.

The shop (`surefoot.demo.shop`) is another company's service: its own process, database, clock and books. What the rest
of this package knows about it, it knows over HTTP, as an agent's tools would.
"""
