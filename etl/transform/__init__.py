"""From the bytes of a response to records and rejections: pure functions, no I/O."""
