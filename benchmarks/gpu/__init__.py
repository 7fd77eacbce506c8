"""What a GPU makes of the backend: one command runs its tests and measures, `make gpu`."""
