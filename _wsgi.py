"""For a WSGI server, see docs/running.md."""

from ralis_backend.app import create_app

app = create_app()
