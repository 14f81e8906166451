package io.tensorwire.client;

import io.tensorwire.client.wire.Layout;

import java.util.AbstractMap;
import java.util.AbstractSet;
import java.util.Iterator;
import java.util.Map;
import java.util.NoSuchElementException;
import java.util.Set;

/**
 * What a call gave, by name and in the reply's order: nothing but the tensors and the names that
 * all replies share.
 */
final class Outputs extends AbstractMap<String, Tensor> {
    private final Layout layout;
    private final Tensor[] tensors;

    Outputs(Layout layout, Tensor[] tensors) {
        this.layout = layout;
        this.tensors = tensors;
    }

    @Override
    public Tensor get(Object name) {
        for (int index = 0; index < tensors.length; index++) {
            if (layout.tensors().get(index).name().equals(name)) {
                return tensors[index];
            }
        }
        return null;
    }

    @Override
    public boolean containsKey(Object name) {
        return get(name) != null;
    }

    @Override
    public int size() {
        return tensors.length;
    }

    @Override
    public Set<Map.Entry<String, Tensor>> entrySet() {
        return new AbstractSet<>() {
            @Override
            public Iterator<Map.Entry<String, Tensor>> iterator() {
                return new Entries();
            }

            @Override
            public int size() {
                return tensors.length;
            }
        };
    }

    private final class Entries implements Iterator<Map.Entry<String, Tensor>> {
        private int at;

        @Override
        public boolean hasNext() {
            return at < tensors.length;
        }

        @Override
        public Map.Entry<String, Tensor> next() {
            if (!hasNext()) {
                throw new NoSuchElementException();
            }
            return Map.entry(layout.tensors().get(at).name(), tensors[at++]);
        }
    }
}
