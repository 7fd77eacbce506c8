"""`python -m ralis_backend.cli`, as the supervisor starts its children."""

from ralis_backend.cli import main

main()
