"""Fully labelled datasets -> query policies."""
