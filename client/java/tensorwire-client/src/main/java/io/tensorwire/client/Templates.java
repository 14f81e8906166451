package io.tensorwire.client;

import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.stream.Stream;

/**
 * Bounded cache of templates, for all threads; a call like the last one of its model allocates
 * nothing here.
 */
final class Templates {
    private static final int KEPT = 4096;

    private final Map<Key, Template> known = new ConcurrentHashMap<>();
    private final Map<String, Template> last = new ConcurrentHashMap<>();

    private record Key(
            String model,
            Long version,
            String label,
            List<String> outputs,
            List<String> names,
            List<DType> dtypes,
            List<List<Long>> shapes) {}

    /**
     * The template of a call.
     *
     * @throws RpcException INVALID_ARGUMENT: an input cannot be sent
     */
    Template get(String model, PredictOptions options, String[] names, Tensor[] inputs) {
        Template recent = last.get(model);
        if (recent != null && recent.matches(options, names, inputs)) {
            return recent;
        }
        if (known.size() >= KEPT || last.size() >= KEPT) {
            // Who varies shapes costs encoding, never memory.
            known.clear();
            last.clear();
        }
        Template found =
                known.computeIfAbsent(
                        key(model, options, names, inputs),
                        key -> new Template(model, options, names, inputs));
        last.put(model, found);
        return found;
    }

    private static Key key(String model, PredictOptions options, String[] names, Tensor[] inputs) {
        List<List<Long>> shapes =
                Stream.of(inputs)
                        .map(input -> Arrays.stream(input.shape()).boxed().toList())
                        .toList();
        List<DType> dtypes = Stream.of(inputs).map(Tensor::dtype).toList();
        return new Key(
                model,
                options.version(),
                options.label(),
                options.outputs(),
                List.of(names),
                dtypes,
                shapes);
    }
}
