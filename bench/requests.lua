-- Sends the requests of a file one after the other; each begins with its length in a line of its own.
-- One thread only: `wrk -t1 -s requests.lua URL -- FILE`.
local requests, at = {}, 0

function init(args)
  local file = assert(io.open(args[1], "rb"))
  for line in file:lines() do
    requests[#requests + 1] = file:read(tonumber(line))
  end
  file:close()
end

function request()
  at = at + 1
  if at > #requests then
    wrk.thread:stop()
    at = 1
  end
  return requests[at]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "microseconds": %d, "bad": %d, "p50": %.3f, "p99": %.3f}\n',
    summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000
  ))
end
