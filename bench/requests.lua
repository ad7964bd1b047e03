-- Sends the requests of a file one after the other; each begins with its length in a line of its own. At the end of the
-- file it begins again where it is told "again", and else it stops.
-- One thread only: `wrk -t1 -s requests.lua URL -- FILE [again]`.
local requests, at, again = {}, 0, false

function init(args)
  local file = assert(io.open(args[1], "rb"))
  for line in file:lines() do
    requests[#requests + 1] = file:read(tonumber(line))
  end
  file:close()
  again = args[2] == "again"
end

function request()
  at = at + 1
  if at > #requests then
    if not again then
      wrk.thread:stop()
    end
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
