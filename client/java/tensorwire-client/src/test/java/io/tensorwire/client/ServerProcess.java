package io.tensorwire.client;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.ServerSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.TimeUnit;

/**
 * A real server from the project's Python environment, with the models of {@code
 * tests/java_models.py}.
 */
final class ServerProcess implements AutoCloseable {
    private static final Duration PATIENCE = Duration.ofSeconds(40);

    final String address;
    private final Path folder;
    private Process process;

    private ServerProcess(Path folder) throws IOException {
        this.folder = folder;
        try (ServerSocket probe = new ServerSocket(0)) {
            address = "tcp://127.0.0.1:" + probe.getLocalPort();
        }
    }

    /** Writes the models below a folder, and serves them. */
    static ServerProcess start(Path folder) throws IOException, InterruptedException {
        run(Python.command("tests/java_models.py", folder.resolve("models").toString()));
        ServerProcess server = new ServerProcess(folder);
        server.start();
        return server;
    }

    /** Runs a command to its end. */
    private static void run(List<String> command) throws IOException, InterruptedException {
        Process process = new ProcessBuilder(command).inheritIO().start();
        if (process.waitFor() != 0) {
            throw new IllegalStateException(command + " ended with " + process.exitValue());
        }
    }

    Path models() {
        return folder.resolve("models");
    }

    /** Starts it, at the same address again if it was killed, and waits until all models serve. */
    void start() throws IOException, InterruptedException {
        Path ready = folder.resolve("ready");
        Files.deleteIfExists(ready);
        process =
                new ProcessBuilder(
                                Python.command(
                                        "-m",
                                        "tensorwire.server.cli",
                                        "serve",
                                        models().toString(),
                                        "--bind",
                                        address,
                                        "--ready-file",
                                        ready.toString(),
                                        "--settle-time",
                                        "0",
                                        "--poll-interval",
                                        "0.05",
                                        "--log-level",
                                        "warning"))
                        .redirectErrorStream(true)
                        .redirectOutput(folder.resolve("server.log").toFile())
                        .start();
        long end = System.nanoTime() + PATIENCE.toNanos();
        while (!Files.exists(ready)) {
            if (process.waitFor(20, TimeUnit.MILLISECONDS) || System.nanoTime() > end) {
                process.destroyForcibly();
                throw new IllegalStateException(
                        "the server did not start:\n"
                                + Files.readString(folder.resolve("server.log")));
            }
        }
    }

    /** Ends it as kill -9 does. */
    void kill() {
        process.destroyForcibly();
        process.onExit().join();
    }

    @Override
    public void close() {
        process.destroy();
        try {
            if (!process.waitFor(15, TimeUnit.SECONDS)) {
                kill();
            }
        } catch (InterruptedException error) {
            kill();
            Thread.currentThread().interrupt();
        }
    }

    /** Puts a new version of a model in place, all at once. */
    void publish(String prepared, String model, int version) {
        try {
            Files.move(
                    models().resolve(prepared),
                    models().resolve(model).resolve(Integer.toString(version)));
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }
}
