"""The backbone on a GPU."""
