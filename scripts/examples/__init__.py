"""Small programs that show the Python client at work."""
