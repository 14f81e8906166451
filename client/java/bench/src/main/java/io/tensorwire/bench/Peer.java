package io.tensorwire.bench;

/** A connected client under test. */
interface Peer extends AutoCloseable {
    /** A call in flight, over and over, by one thread; each has an input of its own. */
    @FunctionalInterface
    interface Caller {
        /**
         * Call once.
         *
         * @return the output's elements
         * @throws Failed it failed
         */
        float[] call() throws Failed;
    }

    /** A failed call, by its status. */
    final class Failed extends Exception {
        private static final long serialVersionUID = 1L;

        Failed(String status) {
            super(status);
        }
    }

    /** A caller for {@code matmul16} with one row of 16 elements. */
    Caller caller(float[] input);

    @Override
    void close();
}
