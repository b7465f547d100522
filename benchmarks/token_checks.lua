-- wrk's load: one TokenReview for each line of the file that is the script's only argument, over and over. The
-- requests are put together beforehand, so that wrk has as little to do as can be. Ends with one line of JSON.
local requests = {}
local number = 0

function init(arguments)
   local headers = { ["Content-Type"] = "application/json" }
   for token in io.lines(arguments[1]) do
      local body = '{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","metadata":{"creationTimestamp":null},'
         .. '"spec":{"token":"' .. token .. '","audiences":["https://kubernetes.default.svc.cluster.local","k3s"]},'
         .. '"status":{"user":{}}}'
      requests[#requests + 1] = wrk.format("POST", "/token-review?timeout=30s", headers, body)
   end
end

function request()
   number = number % #requests + 1
   return requests[number]
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '\n{"requests": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "refused": %d, "failed": %d}\n',
      summary.requests, summary.duration / 1e6, latency:percentile(50) / 1000, latency:percentile(99) / 1000,
      errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
