-- wrk calls this at the end of a run: one line of JSON, in the form in which load.c prints it.
done = function(summary, latency)
  io.write(string.format(
    '{"operations": %d, "seconds": %.6f, "p50": %.2f, "p99": %.2f, "lost": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write
      + summary.errors.timeout))
end
