package io.tensorwire.client;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/**
 * Results of control calls as values: unknown keys are ignored, missing ones have their default.
 */
final class Results {
    private final Map<?, ?> map;

    private Results(Map<?, ?> map) {
        this.map = map;
    }

    static Results of(Object value) {
        if (value instanceof Map<?, ?> map) {
            return new Results(map);
        }
        throw notUnderstood(value, "a map");
    }

    static List<Results> listOf(Object value) {
        List<Results> results = new ArrayList<>();
        for (Object each : list(value)) {
            results.add(of(each));
        }
        return results;
    }

    static List<?> list(Object value) {
        if (value instanceof List<?> list) {
            return list;
        }
        throw notUnderstood(value, "an array");
    }

    Object get(String key) {
        return map.get(key);
    }

    /** {@code otherwise} where the key is missing or nil; gives its type, too. */
    <T> T get(String key, Class<T> type, T otherwise) {
        Object value = map.get(key);
        return value == null ? otherwise : cast(value, type);
    }

    <T> T required(String key, Class<T> type) {
        Object value = map.get(key);
        if (value == null) {
            throw new RpcException(
                    StatusCode.INTERNAL, "the server's answer has no key '" + key + "'");
        }
        return cast(value, type);
    }

    List<String> strings(String key) {
        List<String> strings = new ArrayList<>();
        for (Object each : list(get(key, List.class, List.of()))) {
            strings.add(cast(each, String.class));
        }
        return List.copyOf(strings);
    }

    static <T> T cast(Object value, Class<T> type) {
        if (!type.isInstance(value)) {
            throw notUnderstood(value, type.getSimpleName());
        }
        return type.cast(value);
    }

    private static RpcException notUnderstood(Object value, String expected) {
        String found = value == null ? "nil" : value.getClass().getSimpleName();
        return new RpcException(
                StatusCode.INTERNAL,
                "the server's answer is not understood: found " + found + ", expected " + expected);
    }
}
