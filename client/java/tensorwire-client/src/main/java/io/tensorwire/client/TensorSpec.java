package io.tensorwire.client;

import java.util.List;
import java.util.OptionalLong;
import java.util.stream.Collectors;

/**
 * An input or output of a model.
 *
 * @param name of the tensor
 * @param dtype of its elements, by its name on the wire
 * @param shape with the batch axis; empty: a dimension of any size
 * @param optional whether a request may leave the input out
 */
public record TensorSpec(String name, String dtype, List<OptionalLong> shape, boolean optional) {
    static TensorSpec of(Object value) {
        List<?> parts = Results.list(value);
        if (parts.size() < 3) {
            throw new RpcException(
                    StatusCode.INTERNAL,
                    "a tensor's description has " + parts.size() + " parts, expected 3 or more");
        }
        return new TensorSpec(
                Results.cast(parts.get(0), String.class),
                Results.cast(parts.get(1), String.class),
                Results.list(parts.get(2)).stream().map(TensorSpec::dimension).toList(),
                parts.size() > 3 && Results.cast(parts.get(3), Boolean.class));
    }

    private static OptionalLong dimension(Object value) {
        return value == null
                ? OptionalLong.empty()
                : OptionalLong.of(Results.cast(value, Long.class));
    }

    @Override
    public String toString() {
        String dimensions =
                shape.stream()
                        .map(each -> each.isPresent() ? Long.toString(each.getAsLong()) : "?")
                        .collect(Collectors.joining(", "));
        return name + ": " + dtype + "[" + dimensions + "]";
    }
}
