"""What the scripts in tools/ do: one module or folder for each command."""
