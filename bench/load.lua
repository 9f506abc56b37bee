-- Writes wrk's result as JSON into the file `outcome`; times are in microseconds.
function done(summary, latency)
    local errors, outcome = summary.errors, io.open("outcome", "w")
    outcome:write(string.format(
        '{"requests": %d, "duration": %d, "p50": %d, "p99": %d, "errors": '
            .. '{"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}}\n',
        summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
        errors.connect, errors.read, errors.write, errors.status, errors.timeout
    ))
    outcome:close()
end
