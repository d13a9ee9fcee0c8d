"""Get one complete response body: from the source over HTTP, or from a file."""
