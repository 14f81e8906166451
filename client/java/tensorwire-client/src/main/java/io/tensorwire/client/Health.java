package io.tensorwire.client;

import java.util.List;

/**
 * The state of a server.
 *
 * @param ready every wanted version serves or has failed for good, and the server is not shutting
 *     down
 * @param draining it shuts down and refuses new requests
 * @param models names of those that serve
 * @param inFlight requests that wait or run
 * @param uptime seconds since its start
 * @param server its version and what it runs on
 * @param pump what reads its messages
 */
public record Health(
        boolean ready,
        boolean draining,
        List<String> models,
        long inFlight,
        double uptime,
        String server,
        String pump) {
    static Health of(Object result) {
        Results map = Results.of(result);
        return new Health(
                map.required("ready", Boolean.class),
                map.required("draining", Boolean.class),
                map.strings("models"),
                map.get("in_flight", Long.class, 0L),
                map.get("uptime", Number.class, 0.0).doubleValue(),
                map.get("server", String.class, ""),
                map.get("pump", String.class, ""));
    }
}
