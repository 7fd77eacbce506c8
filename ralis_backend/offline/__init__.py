"""Fully labelled datasets; the server never loads this."""
