package io.tensorwire.client;

import java.util.List;
import java.util.OptionalLong;

/**
 * What it takes to call one version of a model.
 *
 * @param name of the model
 * @param version its number
 * @param platform what runs it
 * @param inputs in its order
 * @param outputs in its order
 * @param batched whether the first axis of every input and output is the batch
 * @param maxBatchSize rows, where there is a limit
 * @param description for people
 */
public record ModelMetadata(
        String name,
        long version,
        String platform,
        List<TensorSpec> inputs,
        List<TensorSpec> outputs,
        boolean batched,
        OptionalLong maxBatchSize,
        String description) {
    static ModelMetadata of(Object result) {
        Results map = Results.of(result);
        Long largest = map.get("max_batch_size", Long.class, null);
        return new ModelMetadata(
                map.required("name", String.class),
                map.required("version", Long.class),
                map.required("platform", String.class),
                specs(map.get("inputs")),
                specs(map.get("outputs")),
                map.required("batched", Boolean.class),
                largest == null ? OptionalLong.empty() : OptionalLong.of(largest),
                map.get("description", String.class, ""));
    }

    private static List<TensorSpec> specs(Object value) {
        return Results.list(value).stream().map(TensorSpec::of).toList();
    }
}
