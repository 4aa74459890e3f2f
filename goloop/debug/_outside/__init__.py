"""Looking into another process: `python -m goloop ps | dump | top | stats | trace`. It runs in a process of its own."""
