-- One line that tests/bench/run can read: requests, duration in microseconds, errors, 99th percentile in microseconds.
function done(summary, latency)
    local e = summary.errors
    io.write(string.format("RESULT %d %d %d %d\n", summary.requests, summary.duration,
        e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(99)))
end
