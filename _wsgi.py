"""For a WSGI server: `gunicorn --preload _wsgi:app`."""

from ralis_backend.app import create_app

app = create_app()
