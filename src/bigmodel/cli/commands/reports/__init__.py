"""What `bigmodel report` puts on a page."""
