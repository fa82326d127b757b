"""The steps of the workflows, one kind a file."""
