"""Index, retrieve, and answer with sources."""
