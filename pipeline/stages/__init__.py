"""One module per command: the order of the steps, and the messages that need to know the commands."""
