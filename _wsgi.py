"""For a WSGI server, see the README, "Commands"."""

from ralis_backend.app import create_app

app = create_app()
