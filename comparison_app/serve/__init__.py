"""The endpoint of `versus serve`: every arm as a model of an OpenAI-compatible API, and the documents API."""
