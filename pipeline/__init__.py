"""The program behind `python -m pipeline`: from a published archive to normalized shards and a report.

Folders by concern; imports point downwards only, see docs/architecture.md. Consumers import `shardset` instead.
"""
