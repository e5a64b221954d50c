"""What everything stands on: arrays, checks of arguments, files, and what this machine is."""
