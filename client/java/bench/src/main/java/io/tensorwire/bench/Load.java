package io.tensorwire.bench;

import com.sun.management.OperatingSystemMXBean;

import java.lang.management.ManagementFactory;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/**
 * Closed-loop load: so many threads, each with one call in flight, as the benchmark's own load
 * generator.
 */
final class Load {
    private static final int WIDTH = 16;
    private static final float TOLERANCE = 1e-4f;

    /** What to measure; times in seconds. */
    record Job(int callers, double warmup, double duration) {}

    /** What came of it; times in seconds. */
    record Found(
            long calls,
            long allCalls,
            double seconds,
            double cpuSeconds,
            double allCpuSeconds,
            double p50,
            double p90,
            double p99,
            double p999,
            double max,
            Map<String, Long> errors) {}

    private enum Phase {
        WARMUP,
        MEASURED,
        OVER
    }

    private final Peer peer;
    private final Job job;
    private volatile Phase phase = Phase.WARMUP;

    Load(Peer peer, Job job) {
        this.peer = peer;
        this.job = job;
    }

    /** One thread's calls, and what came of them. */
    private final class Worker extends Thread {
        private final float[] input = new float[WIDTH];
        private final Map<String, Long> errors = new TreeMap<>();
        private double[] counted = new double[1 << 12];
        private int count;
        private double late;
        private long all;

        Worker(int number) {
            super("caller-" + number);
            for (int index = 0; index < WIDTH; index++) {
                input[index] = (number * 31 + index * 7) % 101 / 101f;
            }
        }

        @Override
        public void run() {
            Peer.Caller caller = peer.caller(input);
            float[] expected = expected();
            long started = System.nanoTime();
            while (phase != Phase.OVER) {
                boolean right = callOnce(caller, expected);
                long ended = System.nanoTime();
                all++;
                if (right) {
                    record((ended - started) / 1e9);
                }
                started = ended;
            }
        }

        private boolean callOnce(Peer.Caller caller, float[] expected) {
            try {
                float[] found = caller.call();
                for (int index = 0; index < WIDTH; index++) {
                    if (!(Math.abs(found[index] - expected[index]) <= TOLERANCE)) {
                        errors.merge("wrong answer", 1L, Long::sum);
                        return false;
                    }
                }
                return true;
            } catch (Peer.Failed error) {
                errors.merge(error.getMessage(), 1L, Long::sum);
                return false;
            }
        }

        /** The weights of bench/models.py. */
        private float[] expected() {
            float[] output = new float[WIDTH];
            for (int row = 0; row < WIDTH; row++) {
                for (int column = 0; column < WIDTH; column++) {
                    output[column] += input[row] * ((row * WIDTH + column) % 7 - 3) / 8f;
                }
            }
            return output;
        }

        private void record(double seconds) {
            if (phase == Phase.OVER) {
                late = seconds;
            } else if (phase == Phase.MEASURED) {
                if (count == counted.length) {
                    counted = Arrays.copyOf(counted, 2 * count);
                }
                counted[count++] = seconds;
            }
        }
    }

    Found run() throws InterruptedException {
        List<Worker> workers = new ArrayList<>();
        for (int number = 0; number < job.callers(); number++) {
            workers.add(new Worker(number));
        }
        double cpuAtStart = cpu();
        workers.forEach(Thread::start);
        Thread.sleep(milliseconds(job.warmup()));
        double cpuBefore = cpu();
        long started = System.nanoTime();
        phase = Phase.MEASURED;
        Thread.sleep(milliseconds(job.duration()));
        phase = Phase.OVER;
        double seconds = (System.nanoTime() - started) / 1e9;
        double used = cpu() - cpuBefore;
        for (Worker worker : workers) {
            worker.join();
        }
        return found(workers, seconds, used, cpu() - cpuAtStart);
    }

    private static Found found(List<Worker> workers, double seconds, double used, double all) {
        double[] counted =
                workers.stream()
                        .flatMapToDouble(worker -> Arrays.stream(worker.counted, 0, worker.count))
                        .sorted()
                        .toArray();
        Map<String, Long> errors = new TreeMap<>();
        workers.forEach(
                worker ->
                        worker.errors.forEach(
                                (what, count) -> errors.merge(what, count, Long::sum)));
        double late = workers.stream().mapToDouble(worker -> worker.late).max().orElse(0);
        return new Found(
                counted.length,
                workers.stream().mapToLong(worker -> worker.all).sum(),
                seconds,
                used,
                all,
                percentile(counted, 0.5),
                percentile(counted, 0.9),
                percentile(counted, 0.99),
                percentile(counted, 0.999),
                Math.max(late, percentile(counted, 1)),
                errors);
    }

    /** An observed value, never interpolated: the first that is not below the level. */
    private static double percentile(double[] sorted, double level) {
        return sorted.length == 0 ? 0 : sorted[(int) Math.ceil(level * (sorted.length - 1))];
    }

    private static long milliseconds(double seconds) {
        return Math.round(seconds * 1e3);
    }

    private static double cpu() {
        OperatingSystemMXBean system =
                ManagementFactory.getPlatformMXBean(OperatingSystemMXBean.class);
        return system.getProcessCpuTime() / 1e9;
    }
}
