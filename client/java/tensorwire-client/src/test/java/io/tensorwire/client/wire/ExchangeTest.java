package io.tensorwire.client.wire;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;

import io.tensorwire.client.Python;

import org.junit.jupiter.api.Test;

import java.io.BufferedReader;
import java.io.BufferedWriter;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.stream.Collectors;

/**
 * Messages that Java writes are read by the library in Python, and what that writes is read by
 * Java.
 */
class ExchangeTest {
    private static final int MESSAGES = 500;

    @Test
    void whatJavaWritesPythonReadsAndTheOtherWayRound() throws Exception {
        Random random = new Random(7);
        Process python =
                new ProcessBuilder(Python.command("tests/java_exchange.py"))
                        .redirectError(ProcessBuilder.Redirect.INHERIT)
                        .start();
        try (BufferedWriter to = python.outputWriter();
                BufferedReader from = python.inputReader()) {
            for (int number = 0; number < MESSAGES; number++) {
                RandomMessages message = RandomMessages.of(random);
                to.write(message.frames().stream().map(Json::hex).collect(Collectors.joining(" ")));
                to.newLine();
                to.flush();
                String answer = from.readLine();
                assertNotNull(answer, "Python ended");
                check(message, answer);
            }
        } finally {
            python.destroy();
            python.waitFor();
        }
    }

    private static void check(RandomMessages message, String answer) {
        List<ByteBuffer> frames =
                Arrays.stream(answer.split(" ", -1))
                        .map(frame -> Vector.buffer(Vector.bytes(frame)))
                        .toList();
        Prefix prefix = Prefix.read(frames.get(0));
        ReplyHeader header = new ReplyHeaders().get(frames.get(0), prefix);
        assertEquals(message.prefix().id(), prefix.id());
        assertEquals(message.layout().rows(), header.outputs().rows());
        MessageReader reader =
                new MessageReader(
                        prefix, frames.get(0), frames.subList(1, frames.size()), header.outputs());
        assertEquals(message.tensors(), reader.tensors());
        for (int request = 0; message.rows() != null && request < prefix.count(); request++) {
            assertEquals(message.rows()[request], reader.rows(request));
        }
    }
}
