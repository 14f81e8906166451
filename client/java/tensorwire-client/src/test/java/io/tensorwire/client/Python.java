package io.tensorwire.client;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/** The project's Python environment. */
public final class Python {
    private static final Path ROOT =
            Path.of(System.getProperty("tensorwire.root", "../../..")).toAbsolutePath();
    private static final String PYTHON =
            System.getProperty("tensorwire.python", ROOT.resolve(".venv/bin/python").toString());

    private Python() {}

    /** What runs a script of the checkout, or a module ({@code -m}). */
    public static List<String> command(String script, String... arguments) {
        if (!Files.isExecutable(Path.of(PYTHON))) {
            throw new IllegalStateException(
                    PYTHON + " is not there: run make setup, or set -Dtensorwire.python=...");
        }
        List<String> command = new ArrayList<>();
        command.add(PYTHON);
        command.add(script.equals("-m") ? script : ROOT.resolve(script).toString());
        command.addAll(List.of(arguments));
        return command;
    }
}
