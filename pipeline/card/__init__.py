"""The dataset card of a normalized set: README.md for people and hubs, croissant.json for programs."""
