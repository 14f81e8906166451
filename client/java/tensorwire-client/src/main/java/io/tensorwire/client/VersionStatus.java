package io.tensorwire.client;

import java.util.List;

/**
 * The state of one version of a model.
 *
 * @param model its name
 * @param version its number
 * @param state {@code AVAILABLE}, {@code LOADING}, {@code FAILED} and others; there may be more
 *     later
 * @param labels that are bound to it
 * @param isDefault whether requests that name neither version nor label go here
 * @param workers that run it
 * @param ramBytes of memory
 * @param reason why it failed or waits; else empty
 * @param replacement state of what is to take its place; empty if nothing is
 */
public record VersionStatus(
        String model,
        long version,
        String state,
        List<String> labels,
        boolean isDefault,
        long workers,
        long ramBytes,
        String reason,
        String replacement) {
    static VersionStatus of(Results map) {
        return new VersionStatus(
                map.required("model", String.class),
                map.required("version", Long.class),
                map.required("state", String.class),
                map.strings("labels"),
                map.get("default", Boolean.class, false),
                map.get("workers", Long.class, 0L),
                map.get("ram_bytes", Long.class, 0L),
                map.get("reason", String.class, ""),
                map.get("replacement", String.class, ""));
    }
}
